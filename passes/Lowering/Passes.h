// Passes of the lower phase.
#pragma once
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::megalodon {
#define GEN_PASS_DECL
#include "passes/Lowering/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "passes/Lowering/Passes.h.inc"
} // namespace mlir::megalodon
