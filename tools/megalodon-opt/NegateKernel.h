// Breaks a lowering on purpose, for tests of --verify-numerics.
#pragma once
#include "mlir/IR/BuiltinOps.h"

namespace mlir::megalodon {

/// Flips the sign of everything real that kernels called `name` store. False if
/// there is no such kernel.
bool negateKernel(ModuleOp module, StringRef name);

} // namespace mlir::megalodon
