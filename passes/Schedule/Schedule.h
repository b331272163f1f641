// From lowered functions to command lists: expands calls, decides what is
// updated in place, inserts copies, and plans memory.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "passes/Schedule/MemoryPlanner.h"
#include "runtime/plan/PipelineTimeline.h"
#include <array>
#include <string>
#include <vector>

namespace mlir::megalodon {

/// A named tensor of an entry's signature.
struct Variable {
  std::string name;
  RankedTensorType type; ///< of a rank's part
  Role role;
  SmallVector<int64_t> shape; ///< of the whole, as the outside sees it
  ArrayAttr splits;           ///< kSplitsAttr; null: every rank has all of it
  InitAttr init;              ///< parameters only
  std::optional<double> defaultValue;
  std::string function; ///< owner; empty for parameters and moments, which all
                        ///< functions share
};

/// Which of several copies of a variable is meant (Plan.fbs, Indexed).
enum class Indexed { None, Microbatch, Slot };

/// Where a tensor lives: a variable, or a temporary of the arena (index into
/// ProgramSchedule::temporaries).
struct Storage {
  int variable = -1;
  int temporary = -1;
  std::string name;
  Indexed index = Indexed::None;
  int64_t copy = 0; ///< without an index: of a variable of several copies
};

/// One tensor of a collective (Plan.fbs, CollectiveItem).
struct ItemShape {
  int64_t rows;
  unsigned dynamic; ///< leading dimensions of the call in front of the rows
  uint64_t rowBytes;
};

struct Step {
  enum class Kind { Dispatch, Product, Copy, Collective, Wait } kind;
  Operation *op = nullptr; ///< the plan op; null for copies
  /// Storages: dispatch arguments; a, b, c; from, to; or for a collective and
  /// its wait from, to of each item.
  SmallVector<unsigned> buffers;
  uint64_t bytes = 0; ///< copies
  std::string location;
  unsigned event = 0;           ///< copies, collectives and waits
  SmallVector<ItemShape> items; ///< collectives
};

struct SegmentSchedule {
  std::string name;
  std::vector<Step> steps;
};

/// Runs a segment, or exchanges a buffer with another pipeline rank.
struct ActionSchedule {
  ::megalodon::plan::PipelineStep::Kind kind;
  unsigned segment = 0;
  unsigned buffer = 0;
  unsigned peer = 0, channel = 0;
  unsigned microbatch = 0, slot = 0;
};

/// What the ranks of one pipeline coordinate do.
struct ProgramSchedule {
  std::vector<Storage> storages;
  std::vector<Lifetime> temporaries;
  uint64_t arenaBytes = 0;
  std::vector<SegmentSchedule> segments;
  int64_t microbatches = 1, slots = 1;
  std::vector<ActionSchedule> actions, updateActions;
};

/// One entry, ready to be written.
struct Schedule {
  std::string name, entry;
  int64_t batch = 1, length = 1;           ///< of all ranks together
  int64_t localBatch = 1, localLength = 1; ///< of one
  std::vector<unsigned> inputs, outputs;   ///< variables
  std::vector<ProgramSchedule> programs;

  /// grad and train_step run the compiled shape only.
  bool isExact() const { return entry == "grad" || entry == "train"; }
};

/// Ranks along each axis of the module's mesh, data, pipeline, chunk, tensor;
/// all 1 without one.
std::array<int64_t, 4> meshSizes(ModuleOp module);

/// Schedules `function` as one more segment of `program`. Its arguments and
/// results become variables of `schedule`.
LogicalResult scheduleSegment(func::FuncOp function, StringRef name,
                              std::vector<Variable> &variables,
                              Schedule &schedule, ProgramSchedule &program);

/// Schedules an entry that is cut into the stages of a pipeline.
LogicalResult schedulePipeline(plan::PipelineOp pipeline,
                               std::vector<Variable> &variables,
                               Schedule &schedule);

/// Schedules every entry of the module; `variables` collects the signature
/// tensors of all of them.
LogicalResult scheduleEntries(ModuleOp module, std::vector<Variable> &variables,
                              std::vector<Schedule> &schedules);

/// The plan phase: schedules the module's entries and serialises them with the
/// compiled kernels.
FailureOr<std::vector<uint8_t>> writePlan(ModuleOp module);

} // namespace mlir::megalodon
