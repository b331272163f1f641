// Every task runs exactly once, on a valid worker; exceptions come back to the
// caller.
#include "runtime/core/ThreadPool.h"
#include "runtime/core/Error.h"
#include "test/runtime/TestPlan.h"
#include <numeric>

using namespace megalodon;

TEST(ThreadPool, EveryTaskOnce) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int64_t count : {0, 1, 2, 3, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
      std::atomic<bool> valid{true};
      pool.run(count, [&](int64_t task, int worker) {
        runs[size_t(task)]++;
        if (worker < 0 || worker >= threads)
          valid = false;
      });
      EXPECT_TRUE(valid);
      for (const auto &run : runs)
        EXPECT_EQ(run, 1);
    }
  }
}

TEST(ThreadPool, ManySmallJobs) {
  ThreadPool pool(3);
  int64_t total = 0;
  for (int job = 0; job < 5000; ++job) {
    int64_t parts[8] = {};
    pool.run(8, [&](int64_t task, int) { parts[task] = task + job; });
    total += std::accumulate(parts, parts + 8, int64_t(0));
  }
  EXPECT_EQ(total, int64_t(5000) * 28 + int64_t(8) * 4999 * 5000 / 2);
}

TEST(ThreadPool, ThrowsTheFirstFailure) {
  ThreadPool pool(2);
  EXPECT_ERROR(pool.run(10,
                        [](int64_t task, int) {
                          if (task == 5)
                            throw Error("task 5 failed");
                        }),
               "task 5 failed");
  int64_t done = 0;
  pool.run(1, [&](int64_t, int) { ++done; });
  EXPECT_EQ(done, 1);
}
