// Passes of the codegen phase.
#pragma once
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::megalodon {
#define GEN_PASS_DECL
#include "passes/Codegen/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "passes/Codegen/Passes.h.inc"

/// On the main module after code generation.
inline constexpr llvm::StringLiteral kCpuAttr = "plan.cpu"; // StringAttr
inline constexpr llvm::StringLiteral kCpuFeaturesAttr =
    "plan.cpu_features"; // ArrayAttr of StringAttr
} // namespace mlir::megalodon
