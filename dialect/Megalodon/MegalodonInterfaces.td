// Interfaces of the megalodon dialect's ops.
#ifndef MEGALODON_INTERFACES_TD
#define MEGALODON_INTERFACES_TD

include "mlir/IR/OpBase.td"

def DifferentiableOpInterface : OpInterface<"DifferentiableOpInterface"> {
  let cppNamespace = "::mlir::megalodon";
  let description = [{ An op that can build its vector-Jacobian product out of dialect ops. }];
  let methods = [
    InterfaceMethod<[{
      Builds ops that compute the cotangents of the operands from the cotangents of the results.

      `results` holds one cotangent a result, null where it is zero; `forward` maps a value of the forward pass (an operand or a result of this op) to
      the value to use in the backward pass and must be called for every forward value used. `operands` has one slot an operand; slots left null
      have no gradient (integers, caches). Slots whose bit in `wanted` is clear need not be filled.
    }], "void", "buildVectorJacobianProduct",
      (ins "::mlir::OpBuilder &":$builder, "::mlir::ValueRange":$results, "::llvm::function_ref<::mlir::Value(::mlir::Value)>":$forward,
           "const ::llvm::SmallBitVector &":$wanted, "::llvm::MutableArrayRef<::mlir::Value>":$operands)>,
    InterfaceMethod<[{ True for ops so cheap that backward recomputes them under the `selective` policy instead of keeping their results. }],
      "bool", "isCheapToRecompute", (ins), [{}], [{ return false; }]>
  ];
}

#endif
