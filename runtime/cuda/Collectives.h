// Messages between ranks about memory of GPUs: over NCCL where every rank has a
// GPU of its own, otherwise through memory of the host, which lets several
// ranks share a GPU.
#pragma once
#include "runtime/cuda/Driver.h"
#include "runtime/parallel/Nccl.h"
#include <deque>
#include <functional>
#include <map>

namespace megalodon::cuda {

class Collectives {
public:
  /// One that was started.
  struct Started {
    const plan::CollectiveStart *start;
    const std::string *location;
    Block staging;           ///< through the host: what travels
    std::byte *at = nullptr; ///< the same; null: it lies in the buffers
    std::unique_ptr<Request> request; ///< null: a graph's
    std::shared_ptr<Event> ready;     ///< NCCL: where the result is there
  };
  using Pending = std::map<uint32_t, Started>; ///< by event

  Collectives(std::shared_ptr<Context> context, const plan::LoadedPlan &plan,
              bool nccl)
      : context(std::move(context)), plan(plan), nccl(nccl) {}

  /// `streamOf` gives the stream of one of the plan's queues.
  void connect(std::vector<Communicator *> communicators,
               std::chrono::milliseconds timeout,
               const std::function<const Stream &(uint32_t)> &streamOf);

  /// Whether messages are work of the GPU, which graphs may hold.
  bool areOnGpu() const { return nccl; }

  /// Begins on `on` after all work on `main`. `captured`: into a graph, whose
  /// launches watch() the message.
  void begin(const plan::CollectiveStart &start, const std::string &location,
             const std::vector<std::byte *> &buffers, const SegmentCall &call,
             const Stream &main, const Stream &on, bool captured,
             Pending &pending);
  /// What is put on `main` afterwards sees the result.
  void end(uint32_t event, const std::vector<std::byte *> &buffers,
           const SegmentCall &call, const Stream &main, Pending &pending);

  /// A graph with messages of these communicators was launched on `main`.
  void watch(const std::vector<uint32_t> &communicators,
             const std::string &segment, int64_t step, const Stream &main);

  /// Gives up what is on its way: its ranks may never come.
  void abandon() { groups.clear(); }

  /// Throws Error when a message that NCCL has on its way fails, or takes
  /// longer than it may. Work on a GPU is waited for afterwards, since that
  /// wait has no end.
  void settle();

  size_t stagingBytes() const;

private:
  struct Free {
    Block memory;
    std::shared_ptr<Event> until; ///< the GPU still reads it
  };
  struct Outstanding {
    std::unique_ptr<Request> request;
    WaitContext context;
  };

  void beginNccl(Started &started, const std::vector<std::byte *> &buffers,
                 const SegmentCall &call, const Stream &main, const Stream &on,
                 bool captured);
  void beginStaged(Started &started, const std::vector<std::byte *> &buffers,
                   const SegmentCall &call, const Stream &main);
  Block take(uint64_t bytes);
  void layOutStaging();
  void pack(const plan::CollectiveStart &start, std::byte *into,
            const std::vector<std::byte *> &buffers, const SegmentCall &call,
            const Stream &on);
  void unpack(const plan::CollectiveStart &start, const std::byte *from,
              const std::vector<std::byte *> &buffers, const SegmentCall &call,
              const Stream &on);
  void copyRows(std::byte *to, int toType, uint64_t toPitch,
                const std::byte *from, int fromType, uint64_t fromPitch,
                uint64_t rows, uint64_t rowBytes, const Stream &on);
  uint64_t ranksOf(const plan::CollectiveStart &start) const;
  WaitContext contextOf(const Started &started, const SegmentCall &call) const;

  const std::shared_ptr<Context> context;
  const plan::LoadedPlan &plan;
  const bool nccl;
  std::vector<Communicator *> hosts;
  std::vector<std::unique_ptr<NcclCommunicator>> groups; ///< NCCL's
  std::chrono::milliseconds timeout{};
  std::vector<Free> spare; ///< memory of the host
  /// NCCL: memory of the GPU, and where in it each message's share is. It stays
  /// where it is, since graphs know its address.
  Block staging;
  std::map<const plan::CollectiveStart *, uint64_t> offsets;
  std::deque<Outstanding> outstanding;
};

} // namespace megalodon::cuda
