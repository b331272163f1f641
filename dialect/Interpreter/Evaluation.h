// One evaluation function for every op, found by the op's name. Each file of a
// family adds its own; none knows how values are kept or how calls work.
#pragma once
#include "dialect/Interpreter/Tensor.h"
#include "dialect/Megalodon/Megalodon.h"
#include "llvm/ADT/StringMap.h"
#include <functional>
#include <random>

namespace mlir::megalodon::interpreter {

/// Monte Carlo arithmetic (Parker 1997): moves numbers at random by up to one
/// rounding of their type. What that does to a result is what rounding may do.
class RandomRounding {
public:
  explicit RandomRounding(uint64_t seed) : random(seed) {}
  /// `value`, moved by a rounding of a number of that magnitude.
  double operator()(double value, double magnitude, Type type);

private:
  std::mt19937_64 random;
};

/// What a call tells its ops besides operands.
struct CallOptions {
  RandomRounding *rounding = nullptr; ///< null: nothing is rounded
  bool accumulate = false;            ///< a microbatch after the first
  int64_t length = 0;                 ///< tokens of a row that a rank has
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

  /// A number that no kernel has exactly and from which the op subtracts
  /// another, rounded as the first result is, where results are. A sum is as
  /// inexact as the `magnitude` of its terms makes it.
  double rounded(double value) const { return rounded(value, value); }
  double rounded(double value, double magnitude) const;
  void roundResults() const;

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
