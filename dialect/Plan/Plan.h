// The plan dialect: a compiled function before its values have addresses.
#pragma once
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "dialect/Plan/PlanDialect.h.inc"
#include "dialect/Plan/PlanEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dialect/Plan/PlanAttributes.h.inc"

#define GET_OP_CLASSES
#include "dialect/Plan/PlanOps.h.inc"

namespace mlir::plan {
inline constexpr llvm::StringLiteral kKernelsModule = "kernels";
/// On a kernel function: bytes of scratch a worker needs (I64Attr).
inline constexpr llvm::StringLiteral kScratchAttr = "plan.scratch";
/// On a kernel function: the op it was made from (StrAttr).
inline constexpr llvm::StringLiteral kSourceAttr = "plan.source";
/// On a kernel function: its workgroups own the rows of their block of tokens
/// (UnitAttr).
inline constexpr llvm::StringLiteral kRowsAttr = "plan.rows";
/// On a kernel function in thread form, and on all once they are outlined for a
/// GPU: threads a workgroup (I64Attr).
inline constexpr llvm::StringLiteral kThreadsAttr = "plan.threads";
/// On a kernel outlined for a GPU: how many words of the parameter block are
/// its first arguments (I64Attr).
inline constexpr llvm::StringLiteral kWordsAttr = "plan.words";
/// On the @kernels module after code generation: the ELF shared object
/// (DenseElementsAttr of i8).
inline constexpr llvm::StringLiteral kObjectAttr = "plan.object";
/// On a kernel's declaration after code generation for GPUs: its name in the
/// images (StrAttr).
inline constexpr llvm::StringLiteral kSymbolAttr = "plan.symbol";
/// On the @kernels module after code generation for GPUs: an array of
/// {arch = "sm_90a", data = dense<...> : tensor<?xi8>, ptx}, with `ptx` where
/// the data are zero-terminated PTX text and not a cubin.
inline constexpr llvm::StringLiteral kImagesAttr = "plan.images";
/// On arguments and results of a pipeline's functions: which of several copies
/// of a variable is meant, that of the microbatch or that of the slot it has
/// (StrAttr "microbatch" or "slot"), or of one microbatch always (I64Attr).
inline constexpr llvm::StringLiteral kIndexAttr = "plan.index";
/// On arguments and results of a pipeline's functions: the stage that a value
/// comes from or goes to (I64Attr).
inline constexpr llvm::StringLiteral kFromAttr = "plan.from";
inline constexpr llvm::StringLiteral kToAttr = "plan.to";
/// On a collective over the pipeline axis: the only ranks of that axis that
/// take part (DenseI64ArrayAttr).
inline constexpr llvm::StringLiteral kStagesAttr = "plan.stages";
/// On the first op of the optimizer half of train_step.
inline constexpr llvm::StringLiteral kUpdateAttr = "plan.update";
/// On collectives of the compute half of train_step that run only in the call
/// that ends a step's accumulation, UnitAttr.
inline constexpr llvm::StringLiteral kLastAttr = "plan.last";
} // namespace mlir::plan
