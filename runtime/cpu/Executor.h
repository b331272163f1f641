// Runs a program's segments on the pool of workers. Work is cut by the plan,
// never by the number of workers, so results do not depend on it.
#pragma once
#include "runtime/core/ThreadPool.h"
#include "runtime/cpu/KernelLibrary.h"
#include "runtime/cpu/Memory.h"
#include "runtime/device.h"
#include "runtime/parallel/Communicator.h"
#include <map>
#include <memory>

namespace megalodon::cpu {

class OneDnn;

/// The cpu device. Everything has happened when a call returns.
class Executor : public Device {
public:
  /// Throws Error naming what this machine lacks.
  Executor(std::shared_ptr<const plan::LoadedPlan> plan, int threads);

  bool isHost() const override { return true; }
  Block allocate(size_t bytes, const std::string &purpose) override;
  Block allocateHost(size_t bytes, const std::string &purpose) override;
  void fill(std::byte *at, uint8_t value, size_t bytes) override;
  Ticket upload(std::byte *to, const std::byte *from, size_t bytes) override;
  Ticket uploadBeside(std::byte *to, const std::byte *from, size_t bytes,
                      const Ticket &after) override;
  Ticket copyAfter(std::byte *to, const std::byte *from, size_t bytes,
                   const Ticket &after) override;
  void download(std::byte *to, const std::byte *from, size_t bytes) override;
  void await(const Ticket &) override {}
  void connect(std::vector<Communicator *> communicators,
               std::chrono::milliseconds timeout) override;
  void run(const plan::Segment &segment,
           const std::vector<std::byte *> &buffers, const SegmentCall &call,
           std::vector<double> *seconds) override;
  void finish() override {}
  void record(plan::Trace *to) override { trace = to; }
  size_t stagingBytes() const override;
  int threads() const override { return pool.size(); }
  DeviceLimits measure() override;
  std::string name() const override { return "cpu"; }

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
    const SegmentCall &call;
    std::map<uint32_t, Pending> pending; ///< by event
  };

  void execute(const plan::Dispatch &dispatch, const plan::Command &, Run &run);
  void execute(const plan::Product &product, const plan::Command &, Run &run);
  template <typename Operand, typename Result>
  void multiply(const plan::Product &product, Run &run);
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
