// A pool of workers for data-parallel loops. Tasks are claimed one at a time;
// which worker runs a task must not matter.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace megalodon {

/// Processors that this process may use.
int usableProcessors();

class ThreadPool {
public:
  /// Workers including the calling thread; 0 = usableProcessors().
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int size() const { return int(workers.size()) + 1; }

  /// Calls body(task, worker) for every task in [0, count) and returns when all
  /// are done. The caller is worker 0 and takes part. The first exception of a
  /// task is thrown again here. Not reentrant.
  template <typename Body> void run(int64_t count, Body &&body) {
    runErased(count, const_cast<void *>(static_cast<const void *>(&body)),
              [](void *object, int64_t task, int worker) {
                (*static_cast<std::remove_reference_t<Body> *>(object))(task,
                                                                        worker);
              });
  }

private:
  using Call = void (*)(void *object, int64_t task, int worker);

  void runErased(int64_t count, void *object, Call call);
  bool runOne(int worker);
  void work(int worker);

  // The job being run. Written only while no task of the former job is left,
  // read only after claiming a task.
  void *object = nullptr;
  Call call = nullptr;
  uint32_t count = 0;
  std::exception_ptr failure; // guarded by mutex

  // High half: number of the job, low half: tasks not yet claimed. A successful
  // exchange therefore claims a task of a live job.
  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<uint32_t> done{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;
};

} // namespace megalodon
