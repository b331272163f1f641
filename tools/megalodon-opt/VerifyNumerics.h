// --verify-numerics and --verify-each-phase: entries of a module through the
// reference interpreter and through the compiled plan.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "passes/Pipeline/Phases.h"
#include <functional>
#include <string>
#include <vector>

namespace mlir::megalodon {

struct VerifyOptions {
  bool eachPhase = false;
  uint64_t seed = 1;
  std::string inputs;    ///< safetensors file; empty: random
  std::string precision; ///< which tolerances
  double slack = 1;      ///< factor of all tolerances
  bool ops = true;       ///< compare op by op, too
};

/// What the driver does with a module.
struct Compilation {
  std::function<LogicalResult(ModuleOp, Phase)> runPhase;
  std::function<FailureOr<std::vector<uint8_t>>(ModuleOp)> writePlan;
};

/// Takes a module as it is after `from` through the phases and compares. Prints
/// a table; fails if something diverges, with an error that names it.
/// `reference` says what entries should give: `module` itself, or, where that
/// is made for the microbatches of a pipeline, one of whole calls.
LogicalResult verifyNumerics(ModuleOp reference, ModuleOp module, Phase from,
                             const VerifyOptions &options,
                             const Compilation &compilation);

} // namespace mlir::megalodon
