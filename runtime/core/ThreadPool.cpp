#include "runtime/core/ThreadPool.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <sched.h>
#include <utility>

namespace megalodon {

// Long enough to bridge the gap between two commands of a plan, short enough
// not to burn a shared processor.
static constexpr int kSpins = 2000;

static void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int usableProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0)
    return std::max(1, CPU_COUNT(&set));
  return std::max(1, int(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int threads) {
  if (threads < 0 || threads > 1024)
    throw Error(str("expected between 0 and 1024 threads, got ", threads));
  if (threads == 0)
    threads = usableProcessors();
  for (int worker = 1; worker < threads; ++worker)
    workers.emplace_back([this, worker] { work(worker); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex);
    stopping = true;
  }
  wake.notify_all();
  for (std::thread &worker : workers)
    worker.join();
}

bool ThreadPool::runOne(int worker) {
  uint64_t seen = ticket.load(std::memory_order_acquire);
  do {
    if (uint32_t(seen) == 0)
      return false;
  } while (!ticket.compare_exchange_weak(
      seen, seen - 1, std::memory_order_acq_rel, std::memory_order_acquire));
  try {
    call(object, int64_t(count - uint32_t(seen)), worker);
  } catch (...) {
    std::lock_guard lock(mutex);
    if (!failure)
      failure = std::current_exception();
  }
  done.fetch_add(1, std::memory_order_release);
  return true;
}

void ThreadPool::work(int worker) {
  while (true) {
    for (int spin = 0; spin < kSpins; ++spin) {
      if (runOne(worker))
        spin = 0;
      pause();
    }
    std::unique_lock lock(mutex);
    sleepers.fetch_add(1);
    wake.wait(lock, [&] { return stopping || uint32_t(ticket.load()) != 0; });
    sleepers.fetch_sub(1);
    if (stopping)
      return;
  }
}

void ThreadPool::runErased(int64_t tasks, void *newObject, Call newCall) {
  if (tasks <= 0)
    return;
  if (workers.empty() || tasks == 1) {
    for (int64_t task = 0; task < tasks; ++task)
      newCall(newObject, task, 0);
    return;
  }
  if (tasks > UINT32_MAX)
    throw Error(str("expected at most ", UINT32_MAX, " tasks, got ", tasks));
  object = newObject;
  call = newCall;
  count = uint32_t(tasks);
  done.store(0, std::memory_order_relaxed);
  uint64_t job = (ticket.load(std::memory_order_relaxed) >> 32) + 1;
  ticket.store(job << 32 | count); // sequentially consistent with `sleepers`: a
                                   // worker sees the job or is seen asleep
  if (sleepers.load() > 0) {
    {
      std::lock_guard lock(mutex);
    }
    wake.notify_all();
  }
  while (runOne(0)) {
  }
  for (int spin = 0; done.load(std::memory_order_acquire) != count; ++spin) {
    if (spin < kSpins)
      pause();
    else
      sched_yield();
  }
  if (failure) // no task is running any more
    std::rethrow_exception(std::exchange(failure, nullptr));
}

} // namespace megalodon
