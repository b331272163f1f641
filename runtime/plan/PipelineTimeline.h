// What the ranks of a pipeline do, in order, played through: when each step
// runs, how long ranks idle, how many microbatches they hold at a time. The
// compiler refuses lists that deadlock, `inspect` draws them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace megalodon::plan {

/// One step of a rank.
struct PipelineStep {
  enum class Kind : uint8_t { Run, Send, Receive };
  Kind kind;
  /// The microbatch and the stage it is in. A negative stage: a run that is of
  /// no microbatch.
  int stage = -1;
  uint32_t microbatch = 0;
  double duration = 0; ///< of a run
  /// A send and its receive have one channel and one microbatch.
  uint32_t channel = 0;
  uint32_t peer = 0; ///< the other rank of a send or receive
};

using PipelineProgram = std::vector<PipelineStep>;

/// Sends and receives between two runs begin together, and the next run waits
/// for the receives and, if sends need a rendezvous, for the sends too.
enum class SendMode { Buffered, Rendezvous };

struct PipelineTimeline {
  struct Span {
    double begin = 0, end = 0;
  };
  std::vector<std::vector<Span>> spans; ///< [rank][step]
  /// Most microbatches of a rank between the first and the last run that works
  /// on them; in several stages of a rank a microbatch counts several times.
  std::vector<unsigned> inFlight;
  double makespan = 0;
  double bubbleShare = 0;         ///< idle share of all ranks' time
  std::vector<unsigned> finished; ///< steps of each rank that could run
  std::string deadlock;           ///< who waits for what; empty: all ended
};

/// Plays the ranks' programs through; a message takes `transfer`.
PipelineTimeline simulatePipeline(const std::vector<PipelineProgram> &programs,
                                  SendMode mode, double transfer);

} // namespace megalodon::plan
