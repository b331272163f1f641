// The execution of one function on some ranks, in lock-step.
#pragma once
#include "dialect/Interpreter/Interpreter.h"
#include "llvm/ADT/DenseMap.h"

namespace mlir::megalodon::interpreter {

class Interpreter::Frame {
public:
  /// `ranks` are those that run the function.
  Frame(Interpreter &interpreter, func::FuncOp function,
        ArrayRef<int64_t> ranks, ArrayRef<RankValues> arguments);

  /// Runs on until the function returns or until it stands in front of a
  /// collective that other ranks, running other functions, take part in.
  LogicalResult advance();
  /// That collective; null after the return.
  Operation *waitsAt() const { return waiting; }
  /// What its ranks bring along, and, once it is made, what they get.
  const RankValues &brought() const {
    return values.at(waiting->getOperand(0));
  }
  void deliver(RankValues result);

  ArrayRef<int64_t> ranks() const { return members; }
  ArrayRef<RankValues> returned() const { return results; }

private:
  LogicalResult execute(Operation &op);
  LogicalResult evaluate(Operation &op, ArrayRef<RankValues> operands,
                         SmallVectorImpl<RankValues> &results);
  LogicalResult call(func::CallOp op, ArrayRef<RankValues> operands,
                     SmallVectorImpl<RankValues> &results);
  bool leavesMembers(Operation &op) const;

  Interpreter &interpreter;
  func::FuncOp function;
  SmallVector<int64_t> members;
  llvm::DenseMap<Value, RankValues> values;
  Block::iterator next;
  Operation *waiting = nullptr;
  SmallVector<RankValues> results;
};

/// The axes a collective goes over.
SmallVector<int64_t> axesOf(Operation *op);
/// Whether the op is a collective, a slice or the number of a rank.
bool isShardOp(Operation *op);
/// Executes one for `ranks`, which together are whole groups.
FailureOr<RankValues> evaluateShardOp(Operation *op, const Grid &grid,
                                      ArrayRef<int64_t> ranks,
                                      const RankValues *operand);

} // namespace mlir::megalodon::interpreter
