// Reverse mode over one block: the walk from results to operands that sums
// cotangents, whatever the block belongs to.
#pragma once
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/SmallBitVector.h"

namespace mlir::megalodon {

/// The cotangents of forward values, as the terms they are a sum of.
class Cotangents {
public:
  void add(Value forward, Value cotangent);

  /// The sum of the terms, null when there are none. Every term must have been
  /// added before.
  Value take(OpBuilder &builder, Value forward);

private:
  DenseMap<Value, SmallVector<Value, 2>> terms;
};

/// Whether values of this type have cotangents at all.
bool isDifferentiableType(Type type);

/// The values of `block` that can have a cotangent and depend on `inputs`, the
/// inputs included.
DenseSet<Value> findActiveValues(Block &block, ArrayRef<Value> inputs);

/// As DifferentiableOpInterface::buildVectorJacobianProduct, for a call.
using DifferentiateCall = llvm::function_ref<LogicalResult(
    func::CallOp call, ValueRange results, const llvm::SmallBitVector &wanted,
    MutableArrayRef<Value> operands)>;

/// Walks `block` backward from the values that have `cotangents` and adds those
/// of all active values. `forward` maps a forward value to the value that the
/// ops built here are to use for it.
LogicalResult buildBackward(OpBuilder &builder, Block &block,
                            const DenseSet<Value> &active,
                            llvm::function_ref<Value(Value)> forward,
                            DifferentiateCall differentiateCall,
                            Cotangents &cotangents);

} // namespace mlir::megalodon
