// Derivative of a called function: its forward part with residuals and its
// backward part in two functions, input gradients and weight gradients.
#pragma once
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/IR/SymbolTable.h"
#include "passes/Autodiff/Recompute.h"
#include "llvm/ADT/SmallBitVector.h"

namespace mlir::megalodon {

/// What of a function is differentiated. Calls that agree in it share the
/// derivative.
struct DerivativeRequest {
  func::FuncOp function;
  llvm::SmallBitVector results; ///< those that have a cotangent
  llvm::SmallBitVector wanted;  ///< operands whose cotangents are wanted
  llvm::SmallBitVector weights; ///< of those, the parameters
};

class FunctionDerivative {
public:
  /// Builds the functions of the derivative behind `request.function`.
  static FailureOr<FunctionDerivative> build(const DerivativeRequest &request,
                                             Recompute recompute,
                                             SymbolTable &symbols);

  /// Replaces `call` by a call of the forward function and builds the calls of
  /// the backward functions. Arguments as in
  /// DifferentiableOpInterface::buildVectorJacobianProduct. The call itself is
  /// left, unused, to the caller.
  void differentiateCall(OpBuilder &builder, func::CallOp call,
                         ValueRange results,
                         MutableArrayRef<Value> operands) const;

  unsigned getNumResiduals() const { return residuals.size(); }
  uint64_t getResidualBytes() const;

private:
  /// A part of the backward body that became a function. Arguments and results
  /// are the values of the body they stand for.
  struct Part {
    func::FuncOp function;
    SmallVector<Value> arguments, results;
  };

  func::FuncOp forward;
  /// The whole backward before it was cut in parts. It is in no module; its
  /// values tell which value goes where at a call.
  OwningOpRef<func::FuncOp> body;
  SmallVector<Value> arguments;  ///< in the body: the function's arguments
  SmallVector<Value> cotangents; ///< in the body: those of `request.results`
  SmallVector<Value> residuals;  ///< in the body: further results of `forward`
  SmallVector<Value> gradients;  ///< in the body: one an operand, or null
  SmallVector<Part, 2> parts;    ///< in the order in which they are called
};

} // namespace mlir::megalodon
