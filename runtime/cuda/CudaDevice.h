// The cuda device: one GPU that runs a plan's segments. All of a segment goes
// to the GPU as one graph once a call of the same shape has been seen; messages
// between ranks that go through the host happen between graphs.
#pragma once
#include "runtime/cuda/Collectives.h"
#include "runtime/cuda/CublasLt.h"
#include "runtime/cuda/Images.h"
#include <map>
#include <optional>

namespace megalodon::cuda {

class CudaDevice : public Device {
public:
  /// Throws Error with a next step when the plan cannot run on this GPU.
  CudaDevice(std::shared_ptr<const plan::LoadedPlan> plan, const Gpu &gpu,
             bool nccl, int threads);
  ~CudaDevice() override;

  bool isHost() const override { return false; }
  Block allocate(size_t bytes, const std::string &purpose) override;
  Block allocateHost(size_t bytes, const std::string &purpose) override;
  void fill(std::byte *at, uint8_t value, size_t bytes) override;
  Ticket upload(std::byte *to, const std::byte *from, size_t bytes) override;
  Ticket uploadBeside(std::byte *to, const std::byte *from, size_t bytes,
                      const Ticket &after) override;
  Ticket copyAfter(std::byte *to, const std::byte *from, size_t bytes,
                   const Ticket &after) override;
  void download(std::byte *to, const std::byte *from, size_t bytes) override;
  void await(const Ticket &ticket) override;
  void connect(std::vector<Communicator *> communicators,
               std::chrono::milliseconds timeout) override;
  void run(const plan::Segment &segment,
           const std::vector<std::byte *> &buffers, const SegmentCall &call,
           std::vector<double> *seconds) override;
  void finish() override;
  void record(plan::Trace *to) override { trace = to; }
  size_t stagingBytes() const override { return collectives.stagingBytes(); }
  int threads() const override { return workers; }
  DeviceLimits measure() override;
  std::string name() const override;

private:
  /// What happens on the GPU without the host in between: commands begin..end
  /// of a segment. Or one command of the host's.
  struct Part {
    size_t begin, end;
    bool onHost;
    std::vector<uint32_t> communicators = {}; ///< of messages in it, on the GPU
  };
  struct GraphKey {
    const plan::Segment *segment;
    size_t part;
    int64_t batch, length;
    bool accumulate, last;
    uint32_t microbatch, slot;
    bool operator<(const GraphKey &other) const;
  };
  struct Graph {
    GraphExecHandle exec = nullptr; ///< null: seen once
    uint64_t lastUse = 0;
  };
  /// What the commands of a run share.
  struct Run {
    const std::vector<std::byte *> &buffers;
    const SegmentCall &call;
    Collectives::Pending pending;
    bool captured = false; ///< commands go into a graph
  };

  const std::vector<Part> &partsOf(const plan::Segment &segment);
  void runPart(const plan::Segment &segment, size_t index, Run &run);
  void runMeasured(const plan::Segment &segment, Run &run,
                   std::vector<double> *seconds);
  void issue(const plan::Segment &segment, const Part &part, Run &run);
  void dropOldestGraph();

  void execute(const plan::Dispatch &dispatch, const plan::Command &, Run &run);
  void execute(const plan::Product &product, const plan::Command &, Run &run);
  void execute(const plan::CopyStart &copy, const plan::Command &, Run &run);
  void execute(const plan::CollectiveStart &start, const plan::Command &command,
               Run &run);
  void execute(const plan::Wait &wait, const plan::Command &, Run &run);

  const Driver &driver() const { return context->driver; }
  std::shared_ptr<Event> mark(const Stream &on);
  Stream &streamOf(uint32_t queue);

  const std::shared_ptr<const plan::LoadedPlan> plan;
  const std::shared_ptr<Context> context;
  const int workers;
  Module kernels;
  Stream stream;                     ///< queue 0, in order
  Stream beside;                     ///< uploads for the next call
  std::map<uint32_t, Stream> queues; ///< what the other queues start
  /// Copies of other queues under way in the part that is issued, by event.
  std::map<uint32_t, std::shared_ptr<Event>> copies;
  std::optional<Products> products;
  Collectives collectives;
  std::map<const plan::Segment *, std::vector<Part>> parts;
  std::map<GraphKey, Graph> graphs;
  uint64_t uses = 0;
  plan::Trace *trace = nullptr;
};

/// The GPU of this rank, chosen by all ranks of the world together: the one
/// that the options name, or the ranks of a machine take its GPUs in turn.
/// Throws Error with a next step when the plan cannot run there.
std::unique_ptr<Device> openCuda(std::shared_ptr<const plan::LoadedPlan> plan,
                                 const SessionOptions &options, World &world);

} // namespace megalodon::cuda
