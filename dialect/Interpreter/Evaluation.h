// One evaluation function for every op, found by the op's name. Each file of a
// family adds its own; none knows how values are kept or how calls work.
#pragma once
#include "dialect/Interpreter/Tensor.h"
#include "dialect/Megalodon/Megalodon.h"
#include "llvm/ADT/StringMap.h"
#include <functional>

namespace mlir::megalodon::interpreter {

/// What a call tells its ops besides operands.
struct CallOptions {
  bool accumulate = false; ///< a microbatch after the first
  int64_t length = 0;      ///< tokens of a row that a rank has
};

/// One execution of an op: tensors by the op's own accessors.
class Execution {
public:
  Execution(Operation *op, ArrayRef<TensorRef> operands,
            MutableArrayRef<Tensor> results, const CallOptions &options)
      : options(options), op(op), operands(operands), results(results) {}

  /// The tensor of an operand; of an absent one null.
  const Tensor *find(Value operand) const {
    for (auto [number, value] : llvm::enumerate(op->getOperands()))
      if (operand && value == operand)
        return operands[number].get();
    return nullptr;
  }
  const Tensor &operator[](Value operand) const { return *find(operand); }
  ArrayRef<TensorRef> all() const { return operands; }
  /// A result, zero so far; null for an absent one.
  Tensor *result(Value value) const {
    return value ? &results[cast<OpResult>(value).getResultNumber()] : nullptr;
  }
  Tensor &operator()(Value value) const { return *result(value); }

  const CallOptions &options;

private:
  Operation *op;
  ArrayRef<TensorRef> operands;
  MutableArrayRef<Tensor> results;
};

/// The evaluation functions of all ops.
class Evaluations {
public:
  static const Evaluations &get();

  bool has(StringRef op) const { return table.contains(op); }
  /// False if the op has none.
  bool evaluate(Operation *op, Execution &execution) const;

  template <typename Op> void add(void (*function)(Op, Execution &)) {
    table[Op::getOperationName()] = [function](Operation *op, Execution &e) {
      function(cast<Op>(op), e);
    };
  }

private:
  Evaluations();
  llvm::StringMap<std::function<void(Operation *, Execution &)>> table;
};

void addElementwise(Evaluations &evaluations);
void addProducts(Evaluations &evaluations);
void addNorms(Evaluations &evaluations);
void addTimestepNorm(Evaluations &evaluations);
void addCema(Evaluations &evaluations);
void addAttention(Evaluations &evaluations);
void addLoss(Evaluations &evaluations);
void addOptimizer(Evaluations &evaluations);
void addLayouts(Evaluations &evaluations);

inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

} // namespace mlir::megalodon::interpreter
