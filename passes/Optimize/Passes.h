// Passes of the optimize phase.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::megalodon {
#define GEN_PASS_DECL
#include "passes/Optimize/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "passes/Optimize/Passes.h.inc"
} // namespace mlir::megalodon
