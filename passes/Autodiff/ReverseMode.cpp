// Reverse mode over one block.
#include "passes/Autodiff/ReverseMode.h"
#include "dialect/Megalodon/Megalodon.h"

using namespace mlir;
using namespace mlir::megalodon;

void Cotangents::add(Value forward, Value cotangent) {
  assert(forward.getType() == cotangent.getType() &&
         "a cotangent has the type of its forward value");
  terms[forward].push_back(cotangent);
}

Value Cotangents::take(OpBuilder &builder, Value forward) {
  auto found = terms.find(forward);
  if (found == terms.end())
    return {};
  SmallVector<Value, 2> sum = std::move(found->second);
  terms.erase(found);
  if (sum.size() == 1)
    return sum.front();
  return AddOp::create(builder, forward.getLoc(), forward.getType(), sum);
}

bool mlir::megalodon::isDifferentiableType(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && isa<FloatType>(tensor.getElementType());
}

DenseSet<Value> mlir::megalodon::findActiveValues(Block &block,
                                                  ArrayRef<Value> inputs) {
  DenseSet<Value> active(inputs.begin(), inputs.end());
  for (Operation &op : block)
    if (llvm::any_of(op.getOperands(),
                     [&](Value value) { return active.contains(value); }))
      for (Value result : op.getResults())
        if (isDifferentiableType(result.getType()))
          active.insert(result);
  return active;
}

LogicalResult mlir::megalodon::buildBackward(
    OpBuilder &builder, Block &block, const DenseSet<Value> &active,
    llvm::function_ref<Value(Value)> forward,
    DifferentiateCall differentiateCall, Cotangents &cotangents) {
  // A copy: the backward ops may go to this very block.
  SmallVector<Operation *> ops;
  for (Operation &op : block.without_terminator())
    ops.push_back(&op);

  for (Operation *op : llvm::reverse(ops)) {
    llvm::SmallBitVector wanted(op->getNumOperands());
    for (auto [index, operand] : llvm::enumerate(op->getOperands()))
      wanted[index] = active.contains(operand);
    SmallVector<Value> results;
    for (Value result : op->getResults())
      results.push_back(wanted.any() && active.contains(result)
                            ? cotangents.take(builder, result)
                            : Value());
    if (llvm::none_of(results, [](Value value) { return bool(value); }))
      continue;

    SmallVector<Value> operands(op->getNumOperands());
    if (auto call = dyn_cast<func::CallOp>(op)) {
      if (failed(differentiateCall(call, results, wanted, operands)))
        return failure();
    } else if (auto differentiable = dyn_cast<DifferentiableOpInterface>(op)) {
      differentiable.buildVectorJacobianProduct(builder, results, forward,
                                                wanted, operands);
    } else {
      return op->emitOpError("has no gradient, but the loss depends on a "
                             "differentiated value through it");
    }
    for (unsigned index : wanted.set_bits())
      if (Value cotangent = operands[index])
        cotangents.add(op->getOperand(index), cotangent);
  }
  return success();
}
