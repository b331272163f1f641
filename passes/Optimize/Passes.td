// Passes of the optimize phase.
#ifndef MEGALODON_OPTIMIZE_PASSES_TD
#define MEGALODON_OPTIMIZE_PASSES_TD

include "mlir/Pass/PassBase.td"

def AppendOptimizer : Pass<"megalodon-append-optimizer", "::mlir::ModuleOp"> {
  let summary = "append gradient accumulation, clipping and AdamW to train entries";
  let description = [{
    Before: entries with the attribute `megalodon.entry = "train"` take parameters `<p>`, moments `exp_avg.<p>` and `exp_avg_sq.<p>`, `step` and `lr`, and
    return `grad.<p>`, as megalodon-differentiate leaves them. The module's attribute `megalodon.optimizer` holds beta1, beta2, epsilon, weight_decay and clip.

    After: such an entry has two halves. The first ends with the gradients added to the accumulators, new arguments `grad.<p>` which the results `grad.<p>`
    update. The second begins at the op with the attribute `plan.update`, reads the accumulated gradients and nothing else of the first half, and updates
    parameters and moments; it also returns `grad_norm`, the norm before clipping. So the first half can run several times, once a microbatch, before the second.

    ```mlir
    module attributes {megalodon.optimizer = {beta1 = 0.9, beta2 = 0.98, clip = 1.0, epsilon = 1.0e-8, weight_decay = 0.1}} {
      func.func @train_step(%step: .., %lr: .., %p: .., %m: .., %v: ..) -> (.. {megalodon.name = "loss"}, .. {megalodon.name = "grad.p"})
        ...
        return %loss, %dp
    // becomes
      func.func @train_step(%step: .., %lr: .., %p: .., %m: .., %v: .., %accumulator: .. {megalodon.name = "grad.p"})
          -> (.. {megalodon.name = "loss"}, .. {megalodon.name = "grad.p"}, .. {megalodon.name = "grad_norm"}, .. {megalodon.name = "p"},
              .. {megalodon.name = "exp_avg.p"}, .. {megalodon.name = "exp_avg_sq.p"})
        ...
        %g = megalodon.accumulate %dp into %accumulator : tensor<4x4xf32>
        %norm = megalodon.global_norm %g {plan.update} : (tensor<4x4xf32>) -> tensor<f32>
        %clip = megalodon.clip %norm {max_norm = 1.0 : f64} : (tensor<f32>) -> tensor<f32>
        %p1, %m1, %v1 = megalodon.adamw %p, %m, %v, %g step %step lr %lr clip %clip {beta1 = 0.9 : f64, ...} : ...
        return %loss, %g, %norm, %p1, %m1, %v1
    ```
  }];
  let statistics = [Statistic<"numParameters", "parameters", "parameters that are updated">];
  let dependentDialects = ["::mlir::megalodon::MegalodonDialect"];
}

#endif
