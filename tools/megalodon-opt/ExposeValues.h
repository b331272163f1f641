// A variant of a module whose entries also return what they compute on the way,
// so that a plan made of it can be compared op by op.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include <string>

namespace mlir::megalodon {

/// Whether a value is exposed: a tensor that an op computes and something
/// reads.
bool isExposed(Value value);

/// The name of the exposed value numbered `number`. Values count in the order
/// of execution, calls expanded.
std::string exposedName(int64_t number);

/// Adds all exposed values to the results of every function.
void exposeValues(ModuleOp module);

} // namespace mlir::megalodon
