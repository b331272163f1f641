// Runs a function's command list on the pool of workers. Work is cut by the
// plan, never by the number of workers, so results do not depend on it.
#pragma once
#include "runtime/core/ThreadPool.h"
#include "runtime/cpu/KernelLibrary.h"
#include "runtime/cpu/Memory.h"
#include <memory>

namespace megalodon::cpu {

class OneDnn;

struct Call {
  int64_t batch, length;
  bool accumulate;
  size_t begin, end; ///< commands to run
};

class Executor {
public:
  Executor(std::shared_ptr<const plan::LoadedPlan> plan, int threads);

  /// `buffers` holds the address of each of the function's buffers. `seconds`,
  /// if not null, receives each command's time.
  void run(const plan::Function &function,
           const std::vector<std::byte *> &buffers, const Call &call,
           std::vector<double> *seconds);

  ThreadPool &threads() { return pool; }

private:
  void run(const plan::Dispatch &dispatch,
           const std::vector<std::byte *> &buffers, const Call &call);
  void run(const plan::Product &product,
           const std::vector<std::byte *> &buffers, const Call &call);
  void run(const plan::CopyStart &copy, const std::vector<std::byte *> &buffers,
           const Call &call);
  void run(const plan::Wait &, const std::vector<std::byte *> &, const Call &) {
  } // copies are complete when they return

  std::shared_ptr<const plan::LoadedPlan> plan;
  KernelLibrary kernels;
  const OneDnn *oneDnn = nullptr;
  ThreadPool pool;
  Memory scratch;
  size_t scratchStride = 0;
};

} // namespace megalodon::cpu
