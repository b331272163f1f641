// From lowered functions to command lists: expands calls, decides what is
// updated in place, inserts copies, and plans memory.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "passes/Schedule/MemoryPlanner.h"
#include <string>
#include <vector>

namespace mlir::megalodon {

/// A named tensor of an entry's signature.
struct Variable {
  std::string name;
  RankedTensorType type;
  Role role;
  SmallVector<int64_t> shape; ///< as the outside sees it
  InitAttr init;              ///< parameters only
  std::optional<double> defaultValue;
  std::string function; ///< owner; empty for parameters and moments, which all
                        ///< functions share
};

/// Where a tensor lives: a variable, or a temporary of the arena (index into
/// Schedule::temporaries).
struct Storage {
  int variable = -1;
  int temporary = -1;
  std::string name;
};

struct Step {
  enum class Kind { Dispatch, Product, Copy } kind;
  Operation *op = nullptr; ///< the plan.dispatch or plan.product
  SmallVector<unsigned>
      buffers;        ///< storages: dispatch arguments; a, b, c; or from, to
  uint64_t bytes = 0; ///< copies
  std::string location;
};

/// One entry, ready to be written.
struct Schedule {
  std::string name, entry;
  int64_t batch = 1, length = 1;
  std::vector<unsigned> inputs, outputs; ///< variables
  std::vector<Storage> storages;
  std::vector<Lifetime> temporaries;
  uint64_t arenaBytes = 0;
  std::vector<Step> steps;
  unsigned updateBegin =
      0; ///< first step of the optimizer half, or steps.size()
};

/// Schedules every entry of the module; `variables` collects the signature
/// tensors of all of them.
LogicalResult scheduleEntries(ModuleOp module, std::vector<Variable> &variables,
                              std::vector<Schedule> &schedules);

/// The plan phase: schedules the module's entries and serialises them with the
/// compiled kernels.
FailureOr<std::vector<uint8_t>> writePlan(ModuleOp module);

} // namespace mlir::megalodon
