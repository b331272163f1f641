// Executes the ops of a function one after the other.
#include "dialect/Interpreter/Frame.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

Interpreter::Frame::Frame(Interpreter &interpreter, func::FuncOp function,
                          ArrayRef<int64_t> ranks,
                          ArrayRef<RankValues> arguments)
    : interpreter(interpreter), function(function), members(ranks),
      next(function.front().begin()) {
  for (auto [argument, value] :
       llvm::zip_equal(function.getArguments(), arguments))
    values[argument] = value;
}

static Tensor constant(arith::ConstantOp op) {
  Tensor result(op.getType());
  if (auto integer = dyn_cast<IntegerAttr>(op.getValue())) {
    result.integer(0) = integer.getInt();
  } else if (auto elements = dyn_cast<DenseElementsAttr>(op.getValue())) {
    int64_t number = 0;
    if (result.isReal())
      for (const APFloat &value : elements.getValues<APFloat>()) {
        APFloat exact = value;
        bool inexact;
        exact.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven,
                      &inexact);
        result[number++] = exact.convertToDouble();
      }
    else
      for (const APInt &value : elements.getValues<APInt>())
        result.integer(number++) = value.getSExtValue();
  }
  return result;
}

/// A collective along the pipeline, whose stages run different functions.
bool Interpreter::Frame::leavesMembers(Operation &op) const {
  const int64_t pipeline = static_cast<int64_t>(Axis::Pipeline);
  return isShardOp(&op) && llvm::is_contained(axesOf(&op), pipeline) &&
         interpreter.grid.sizes[pipeline] > 1 && op.getNumOperands() > 0;
}

LogicalResult Interpreter::Frame::advance() {
  for (; next != function.front().end(); ++next) {
    if (leavesMembers(*next)) {
      waiting = &*next;
      return success();
    }
    if (failed(execute(*next)))
      return failure();
  }
  return success();
}

void Interpreter::Frame::deliver(RankValues result) {
  values[waiting->getResult(0)] = std::move(result);
  waiting = nullptr;
  ++next;
}

LogicalResult Interpreter::Frame::execute(Operation &op) {
  SmallVector<RankValues> operands;
  for (Value operand : op.getOperands())
    operands.push_back(values.at(operand));
  if (isa<func::ReturnOp>(op)) {
    results = std::move(operands);
    return success();
  }
  SmallVector<RankValues> made;
  if (auto callOp = dyn_cast<func::CallOp>(op)) {
    if (failed(call(callOp, operands, made)))
      return failure();
  } else {
    if (failed(evaluate(op, operands, made)))
      return failure();
    if (interpreter.observer &&
        failed(interpreter.observer(&op, interpreter.calls, operands, made)))
      return failure();
  }
  for (auto [result, value] : llvm::zip_equal(op.getResults(), made))
    values[result] = std::move(value);
  return success();
}

LogicalResult
Interpreter::Frame::evaluate(Operation &op, ArrayRef<RankValues> operands,
                             SmallVectorImpl<RankValues> &results) {
  results.resize(op.getNumResults());
  if (isShardOp(&op)) {
    auto made = evaluateShardOp(&op, interpreter.grid, members,
                                operands.empty() ? nullptr : &operands[0]);
    if (failed(made))
      return failure();
    results[0] = std::move(*made);
    return success();
  }
  if (auto constantOp = dyn_cast<arith::ConstantOp>(op)) {
    results[0].assign(members.size(),
                      std::make_shared<const Tensor>(constant(constantOp)));
    return success();
  }
  for (size_t member = 0; member < members.size(); ++member) {
    SmallVector<TensorRef> own;
    for (const RankValues &operand : operands)
      own.push_back(operand[member]);
    SmallVector<Tensor> tensors;
    for (Type type : op.getResultTypes())
      tensors.emplace_back(type);
    Execution execution(&op, own, tensors, interpreter.options);
    if (!Evaluations::get().evaluate(&op, execution))
      return op.emitOpError("has no evaluation in the reference interpreter; "
                            "docs/verification.md says how to add one");
    for (auto [result, tensor] : llvm::zip_equal(results, tensors))
      result.push_back(std::make_shared<const Tensor>(std::move(tensor)));
  }
  return success();
}

LogicalResult Interpreter::Frame::call(func::CallOp op,
                                       ArrayRef<RankValues> operands,
                                       SmallVectorImpl<RankValues> &results) {
  auto callee = interpreter.module.lookupSymbol<func::FuncOp>(op.getCallee());
  if (!callee || callee.isExternal())
    return op.emitOpError("calls '")
           << op.getCallee() << "', expected a function with a body";
  interpreter.calls.push_back(op);
  Frame frame(interpreter, callee, members, operands);
  if (failed(frame.advance()))
    return failure();
  if (frame.waitsAt())
    return frame.waitsAt()->emitOpError(
        "sends along the pipeline, expected that only in an entry's own body");
  interpreter.calls.pop_back();
  results.assign(frame.returned().begin(), frame.returned().end());
  return success();
}
