// Runs a program's segments on the pool of workers. Work is cut by the plan,
// never by the number of workers, so results do not depend on it.
#pragma once
#include "runtime/core/ThreadPool.h"
#include "runtime/cpu/KernelLibrary.h"
#include "runtime/cpu/Memory.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/plan/Trace.h"
#include <map>
#include <memory>

namespace megalodon::cpu {

class OneDnn;

/// One run of a segment.
struct Call {
  int64_t batch, length; ///< of this rank and microbatch
  bool accumulate;       ///< gradients are added to what is there
  bool last;             ///< nothing more will be added
  Coordinates place;
  int64_t step; ///< of training, for messages about waits; negative: none
  uint32_t microbatch = 0;
};

class Executor {
public:
  Executor(std::shared_ptr<const plan::LoadedPlan> plan, int threads);

  /// What the plan's communicators are here, in the plan's order; null where
  /// this rank is no member. They must outlive the executor's runs.
  void connect(std::vector<Communicator *> communicators,
               std::chrono::milliseconds timeout);

  /// `buffers` holds the address of each of the program's buffers. To
  /// `seconds`, if not null, each command's time is added.
  void run(const plan::Segment &segment,
           const std::vector<std::byte *> &buffers, const Call &call,
           std::vector<double> *seconds);

  ThreadPool &threads() { return pool; }

  /// From now on every command is added to `to`; null: no longer.
  void record(plan::Trace *to) { trace = to; }

  /// Memory that messages took on their way, between runs.
  size_t stagingBytes() const;

private:
  /// A collective that was started.
  struct Pending {
    Memory staging; ///< empty: the message lies in the buffers themselves
    std::unique_ptr<Request> request;
    const plan::CollectiveStart *start;
    const std::string *location;
    bool done = false;
  };

  /// What the commands of a run share. Kept out of the executor so that an
  /// error leaves nothing behind.
  struct Run {
    const std::vector<std::byte *> &buffers;
    const Call &call;
    std::map<uint32_t, Pending> pending; ///< by event
  };

  void execute(const plan::Dispatch &dispatch, const plan::Command &, Run &run);
  void execute(const plan::Product &product, const plan::Command &, Run &run);
  void execute(const plan::CopyStart &copy, const plan::Command &, Run &run);
  void execute(const plan::CollectiveStart &start, const plan::Command &command,
               Run &run);
  void execute(const plan::Wait &wait, const plan::Command &, Run &run);

  /// Runs a command and adds it to the trace.
  void executeRecorded(const plan::Command &command, Run &run);

  void pack(const plan::CollectiveStart &start, std::byte *into,
            const Run &run);
  void unpack(const plan::CollectiveStart &start, const std::byte *from,
              const Run &run);
  void copy(std::byte *to, uint64_t toStride, const std::byte *from,
            uint64_t fromStride, uint64_t rows, uint64_t rowBytes);
  static void advance(Run &run);
  Memory takeStaging(uint64_t bytes);

  std::shared_ptr<const plan::LoadedPlan> plan;
  KernelLibrary kernels;
  const OneDnn *oneDnn = nullptr;
  ThreadPool pool;
  Memory scratch;
  size_t scratchStride = 0;
  std::vector<Communicator *> communicators;
  std::chrono::milliseconds timeout{};
  plan::Trace *trace = nullptr;
  std::vector<Memory> spare; ///< staging memory that nobody uses now
};

} // namespace megalodon::cpu
