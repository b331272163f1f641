// Gradient accumulation, clipping and AdamW.
#ifndef MEGALODON_OPTIMIZER_OPS_TD
#define MEGALODON_OPTIMIZER_OPS_TD

include "dialect/Megalodon/MegalodonBase.td"

def Megalodon_Optimizer : OpDocGroup {
  let summary = "Optimizer";
  let description = [{ Accumulation of gradients, clipping and AdamW. }];
}

let opDocGroup = Megalodon_Optimizer in {

def Megalodon_AccumulateOp : Megalodon_Op<"accumulate", [SameOperandsAndResultType]> {
  let summary = "gradient, or accumulator + gradient when the call accumulates";
  let description = [{
    ```
    y = gradient                 in a call that starts a step
    y = into + gradient          in a call that continues one
    ```

    Which of the two is a word of the call's parameter block: microbatches after the first add to what the earlier ones left in `into`. In place
    in `into`.

    * C1: operands and result have one type (the trait SameOperandsAndResultType).

    Example:

    ```mlir
    %result = megalodon.accumulate %gradient into %into : tensor<24x16xf32>
    ```
  }];
  let arguments = (ins FAny:$gradient, FAny:$into);
  let results = (outs FAny:$result);
  let assemblyFormat = "$gradient `into` $into attr-dict `:` type($result)";
}

def Megalodon_GlobalNormOp : Megalodon_Op<"global_norm", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "sqrt of the sum of squares over all tensors, summed in f64 in a fixed order";
  let description = [{
    ```
    norm = sqrt(sum over all gradients of sum(g^2))
    ```

    Summed in f64 in a fixed order.

    * C1: at least one gradient; all of the result's element type.

    Example:

    ```mlir
    %norm = megalodon.global_norm %a, %b : (tensor<24x16xf32>, tensor<16xf32>) -> tensor<f32>
    ```
  }];
  let arguments = (ins Variadic<FAny>:$gradients);
  let results = (outs FScalar:$norm);
  let assemblyFormat = "$gradients attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Megalodon_ClipOp : Megalodon_Op<"clip", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "factor that scales gradients to a largest global norm";
  let description = [{
    ```
    c = max_norm / (norm + 1e-6), applied only if < 1
    ```

    As torch.nn.utils.clip_grad_norm_. max_norm <= 0 means no clipping: c = 1.

    * C1: scalars of one type.

    Example:

    ```mlir
    %coefficient = megalodon.clip %norm {max_norm = 1.0 : f64} : (tensor<f32>) -> tensor<f32>
    ```
  }];
  let arguments = (ins FScalar:$norm, F64Attr:$max_norm);
  let results = (outs FScalar:$coefficient);
  let assemblyFormat = "$norm attr-dict `:` functional-type(operands, results)";
  let hasFolder = 1;
  let hasVerifier = 1;
}

def Megalodon_AdamWOp : Megalodon_Op<"adamw", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "one AdamW update of one parameter, in place";
  let description = [{
    ```
    g = clip * gradient
    m' = beta1 m + (1 - beta1) g;  v' = beta2 v + (1 - beta2) g^2
    p' = p (1 - lr weight_decay) - lr (m' / (1 - beta1^step)) / (sqrt(v' / (1 - beta2^step)) + epsilon)
    ```

    As torch.optim.AdamW (Loshchilov & Hutter 2019); `step` counts from 1.

    * C1: parameter, moments and gradient have one type; results too.
    * C2: 0 <= beta < 1, epsilon > 0, weight_decay >= 0.
    * C3: step i64, lr and clip scalars of the element type.

    Example:

    ```mlir
    %new_parameter, %new_first_moment, %new_second_moment = megalodon.adamw %parameter, %first_moment, %second_moment, %gradient step %step lr %lr clip %clip
        {beta1 = 0.9 : f64, beta2 = 0.98 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.1 : f64}
        : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>)
       -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
    ```
  }];
  let arguments = (ins FAny:$parameter, FAny:$first_moment, FAny:$second_moment, FAny:$gradient, I64Scalar:$step, FScalar:$lr, FScalar:$clip,
                       F64Attr:$beta1, F64Attr:$beta2, F64Attr:$epsilon, F64Attr:$weight_decay);
  let results = (outs FAny:$new_parameter, FAny:$new_first_moment, FAny:$new_second_moment);
  let assemblyFormat = "$parameter `,` $first_moment `,` $second_moment `,` $gradient `step` $step `lr` $lr `clip` $clip attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

} // Megalodon_Optimizer

#endif
