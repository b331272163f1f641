// Passes of the differentiate phase.
#ifndef MEGALODON_AUTODIFF_PASSES_TD
#define MEGALODON_AUTODIFF_PASSES_TD

include "mlir/Pass/PassBase.td"

def Differentiate : Pass<"megalodon-differentiate", "::mlir::ModuleOp"> {
  let summary = "append the backward pass to the entries that need gradients";
  let description = [{
    Reverse mode over straight-line functions of ops with the `DifferentiableOpInterface` and calls of such functions.

    Before: functions with the attribute `megalodon.entry = "grad"` or `"train"` compute a result named `loss`. After: they also return `grad.<p>`
    for every parameter `<p>` and, for `grad`, `grad.<s>` for every state `<s>` that is not detached; these results have the role `gradient`. The
    cotangent of the loss is 1 in `grad` and the argument named `loss_scale` in `train`, where the incoming state is detached.

    A called function is differentiated once, however often it is called, into functions of three names:
      * `@f_forward`: `@f`, returning also its residuals, the forward values that backward reads and does not recompute;
      * `@f_backward_input`: the gradients of activations and state, and what the other function needs from here. Gradients of parameters that
        fall out of the same op (those of norms) are results of this function too;
      * `@f_backward_weight`: the gradients of parameters, by the ops that nothing else depends on. A schedule may run it later.
    The arguments of `@f` are passed to the backward functions directly. Which forward values are residuals is the option `recompute`:
      * `none`: every value that backward reads;
      * `selective`: those, except results of cheap ops (`isCheapToRecompute`) whose operands are kept anyway;
      * `full`: no values; backward recomputes them from the arguments of `@f`;
    A value is recomputed at most once, right before its first use.

    ```mlir
    func.func private @layer(%x: tensor<2x8x4xf32>, %w: tensor<4x4xf32>) -> tensor<2x8x4xf32> {
      %z = megalodon.linear %x, %w : (tensor<2x8x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
      %y = megalodon.silu %z : tensor<2x8x4xf32>
      return %y : tensor<2x8x4xf32>
    }
    // becomes
    func.func private @layer_forward(%x: tensor<2x8x4xf32>, %w: tensor<4x4xf32>) -> (tensor<2x8x4xf32>, tensor<2x8x4xf32>) {
      %z = megalodon.linear %x, %w : (tensor<2x8x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
      %y = megalodon.silu %z : tensor<2x8x4xf32>
      return %y, %z : tensor<2x8x4xf32>, tensor<2x8x4xf32>
    }
    func.func private @layer_backward_input(%dy: tensor<2x8x4xf32>, %z: tensor<2x8x4xf32>, %w: tensor<4x4xf32>) -> (tensor<2x8x4xf32>, tensor<2x8x4xf32>) {
      %dz = megalodon.silu_grad %dy, %z : tensor<2x8x4xf32>
      %dx = megalodon.linear_grad_input %dz, %w : (tensor<2x8x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
      return %dx, %dz : tensor<2x8x4xf32>, tensor<2x8x4xf32>
    }
    func.func private @layer_backward_weight(%dz: tensor<2x8x4xf32>, %x: tensor<2x8x4xf32>) -> tensor<4x4xf32> {
      %dw = megalodon.linear_grad_weight %dz, %x : (tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> tensor<4x4xf32>
      return %dw : tensor<4x4xf32>
    }
    ```

    An optimization remark of the category `differentiate` tells what a call of a differentiated function keeps.
  }];
  let options = [
    Option<"recompute", "recompute", "::mlir::megalodon::Recompute", "::mlir::megalodon::Recompute::Selective", "what backward recomputes instead of keeping it",
           [{::llvm::cl::values(
               clEnumValN(::mlir::megalodon::Recompute::None, "none", "nothing"),
               clEnumValN(::mlir::megalodon::Recompute::Selective, "selective", "results of cheap ops"),
               clEnumValN(::mlir::megalodon::Recompute::Full, "full", "everything, from the arguments of a called function"))}]>];
  let statistics = [
    Statistic<"numFunctions", "functions", "functions differentiated (entries not counted)">,
    Statistic<"numCalls", "calls", "calls differentiated">,
    Statistic<"numResiduals", "residuals", "values all calls together keep for backward">,
    Statistic<"residualBytes", "residual-bytes", "bytes of those values">];
  let dependentDialects = ["::mlir::megalodon::MegalodonDialect", "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect"];
}

#endif
