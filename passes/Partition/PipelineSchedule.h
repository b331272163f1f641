// Schedules of a pipeline as data: in which order a rank runs forward and
// backward of its microbatches, and what it sends and receives in between.
#pragma once
#include "runtime/plan/PipelineTimeline.h"
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace megalodon {

/// `ranks` x `chunks` stages; stage = chunk * ranks + rank, so that with
/// several chunks a microbatch goes round the ranks several times.
struct PipelineShape {
  unsigned ranks = 1, microbatches = 1, chunks = 1;

  unsigned stages() const { return ranks * chunks; }
  unsigned stage(unsigned rank, unsigned chunk) const {
    return chunk * ranks + rank;
  }
};

enum class ScheduleKind {
  GPipe,       ///< all forward, then all backward
  OneFOneB,    ///< one forward, one backward: few microbatches in flight
  Interleaved, ///< the same with several chunks a rank: shorter bubbles
  ZeroBubble,  ///< weight gradients run where a rank would idle (ZB-H1)
  Forward,     ///< forward only: entries without gradients
};

/// "gpipe", "1f1b", "interleaved", "zero-bubble", "forward".
std::string_view scheduleName(ScheduleKind kind);
std::optional<ScheduleKind> parseScheduleKind(std::string_view name);

enum class Work : uint8_t {
  Forward,
  Backward, ///< with Weight steps: input gradients only
  Weight    ///< weight gradients
};

struct PipelineWork {
  Work work;
  unsigned microbatch, chunk;

  bool operator==(const PipelineWork &other) const {
    return work == other.work && microbatch == other.microbatch &&
           chunk == other.chunk;
  }
};

/// The work of each rank in order.
using PipelineSchedule = std::vector<std::vector<PipelineWork>>;

/// A schedule of `kind`. Only Interleaved and Forward take several chunks.
PipelineSchedule buildSchedule(ScheduleKind kind, PipelineShape shape);

/// "F0 F1 B0": one word a step, with several chunks "F0.1" (microbatch 0 of
/// chunk 1).
std::string printWork(const std::vector<PipelineWork> &work,
                      PipelineShape shape);
/// Nothing if `text` is not such a list.
std::optional<std::vector<PipelineWork>> parseWork(std::string_view text);

/// One thing a rank does.
struct PipelineAction {
  plan::PipelineStep::Kind kind;
  /// Of a run: what runs. Of a message: that Forward sends its output and
  /// receives its input, Backward likewise their cotangents.
  Work work;
  unsigned microbatch, chunk;
  unsigned slot;    ///< where the microbatch keeps what backward needs
  unsigned peer;    ///< rank, of a message
  unsigned channel; ///< the same for a send and its receive
};

/// Adds messages and slots to a schedule. A microbatch takes the lowest free
/// slot of its chunk when it arrives and leaves it after its last work.
std::vector<std::vector<PipelineAction>>
expandSchedule(const PipelineSchedule &schedule, PipelineShape shape);

/// Number of slots that a chunk of a rank needs.
unsigned countSlots(const std::vector<PipelineAction> &actions, unsigned chunk);

/// How long the work of one microbatch takes in one chunk. Backward is the
/// whole of it, input and weight gradients.
struct WorkCosts {
  double forward = 1, backward = 2, weight = 1, transfer = 0;
};

std::vector<plan::PipelineProgram>
makePrograms(const std::vector<std::vector<PipelineAction>> &actions,
             PipelineShape shape, WorkCosts costs);

/// What is wrong with a schedule: work that is missing, done twice or before
/// what it depends on, or messages that deadlock if sends need a rendezvous.
/// Empty: nothing.
std::string checkSchedule(const PipelineSchedule &schedule,
                          PipelineShape shape);

/// How many layers each stage gets, at least one, so that the slowest stage is
/// as fast as possible. `layers` is the work of each layer, `first` and `last`
/// what the first and the last stage do besides.
std::vector<unsigned> balanceStages(const std::vector<double> &layers,
                                    double first, double last, unsigned stages);

/// Idle time of a rank, where there is a closed formula: `interleaved` for
/// multiples of `ranks` microbatches, `zero-bubble` for at least `ranks`.
std::optional<double> bubbleOf(ScheduleKind kind, PipelineShape shape,
                               WorkCosts costs);
/// Most microbatches a rank holds, summed over its chunks.
unsigned inFlightOf(ScheduleKind kind, PipelineShape shape, unsigned rank);

} // namespace megalodon
