// The megalodon dialect: ops, attributes and the differentiation interface.
#pragma once
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/SmallBitVector.h"

#include "dialect/Megalodon/MegalodonDialect.h.inc"
#include "dialect/Megalodon/MegalodonEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dialect/Megalodon/MegalodonAttributes.h.inc"

#include "dialect/Megalodon/MegalodonInterfaces.h.inc"

#define GET_OP_CLASSES
#include "dialect/Megalodon/MegalodonOps.h.inc"

namespace mlir::megalodon {

/// Attributes on arguments and results of entry functions.
inline constexpr llvm::StringLiteral kNameAttr =
    "megalodon.name"; ///< StringAttr: checkpoint or invoke name
inline constexpr llvm::StringLiteral kRoleAttr = "megalodon.role"; ///< RoleAttr
inline constexpr llvm::StringLiteral kInitAttr =
    "megalodon.init"; ///< InitAttr, parameters only
inline constexpr llvm::StringLiteral kDefaultAttr =
    "megalodon.default"; ///< FloatAttr/IntegerAttr: value of an optional input
                         ///< when absent
inline constexpr llvm::StringLiteral kShapeAttr =
    "megalodon.shape"; ///< DenseI64ArrayAttr: outside shape where it differs
                       ///< (state k, v)
/// Arguments and results of partitioned entries, in terms of the outside shape:
/// ArrayAttr of DenseI64ArrayAttr [dimension, axis, ...], major axis first.
inline constexpr llvm::StringLiteral kSplitsAttr = "megalodon.splits";
/// On partitioned entries, I64Attr: rows and tokens of the whole call.
inline constexpr llvm::StringLiteral kBatchAttr = "megalodon.batch";
inline constexpr llvm::StringLiteral kLengthAttr = "megalodon.length";
/// On entries that a pipeline runs in microbatches, I64Attr: how many make a
/// call. Arguments and results with rows hold those of one.
inline constexpr llvm::StringLiteral kMicrobatchesAttr =
    "megalodon.microbatches";
/// On functions.
inline constexpr llvm::StringLiteral kEntryAttr =
    "megalodon.entry"; ///< StringAttr: "forward", "score", "grad", "train",
                       ///< "generate"
/// The shard.grid of a partitioned module: ranks along data, pipeline, chunk
/// and tensor axis.
inline constexpr llvm::StringLiteral kMeshSymbol = "mesh";
/// On modules: the canonical JSON of the config.
inline constexpr llvm::StringLiteral kConfigAttr = "megalodon.config";
inline constexpr llvm::StringLiteral kPrecisionAttr =
    "megalodon.precision"; ///< StringAttr "f32" | "f64" | "bf16"

/// DictionaryAttr of F64Attr: beta1, beta2, epsilon, weight_decay, clip.
inline constexpr llvm::StringLiteral kOptimizerAttr = "megalodon.optimizer";
/// I64Attr: how many trainable numbers the model has.
inline constexpr llvm::StringLiteral kParametersAttr = "megalodon.parameters";

/// The type in which numbers that are stored as `element` are computed: F of
/// the dialect's description.
inline Type computeType(Type element) {
  return element.isBF16() ? Type(Float32Type::get(element.getContext()))
                          : element;
}

} // namespace mlir::megalodon
