// Ops that only MEGA has (arXiv 2209.10655), the predecessor of MEGALODON: its coefficients of a damped moving average, its queries and keys, its
// update gate, each with its gradient.
#ifndef MEGALODON_MEGA_OPS_TD
#define MEGALODON_MEGA_OPS_TD

include "dialect/Megalodon/MegalodonBase.td"

def Megalodon_Mega : OpDocGroup {
  let summary = "MEGA";
  let description = [{ What MEGA (arXiv 2209.10655) has beside the ops of the forward pass, and the gradients of it. }];
}

let opDocGroup = Megalodon_Mega in {

def Megalodon_EmaCoefficientsOp : Megalodon_ForwardOp<"ema_coefficients", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "decay and gains of the damped exponential moving average from its logits, in f64, as coefficients of cema";
  let description = [{
    ```
    p = sigma(delta) beta
    q = 1 - sigma(delta) sigma(alpha)
    g = gamma / sqrt(N)
    ```

    alpha, delta, beta [D,N,1], gamma [D,N]; p [D,N], q and g [D,N,2] with (re, im) last: the imaginary parts are 0, so the state that cema
    carries stays real.

    * C1: shapes as given.
    * C2: alpha, delta, beta, gamma have one element type.

    Example:

    ```mlir
    %p, %q, %g = megalodon.ema_coefficients %alpha, %delta, %beta, %gamma
        : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>)
       -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
    ```
  }];
  let arguments = (ins FAny:$alpha, FAny:$delta, FAny:$beta, FMatrix:$gamma);
  let results = (outs F64Matrix:$p, F64Complex:$q, F64Complex:$g);
  let assemblyFormat = "$alpha `,` $delta `,` $beta `,` $gamma attr-dict `:` functional-type(operands, results)";
}

def Megalodon_MegaQKOp : Megalodon_ForwardOp<"mega_qk", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "queries and keys of MEGA from the shared representation, with the rotary relative bias in columns of their own";
  let description = [{
    ```
    pos = (count[b] + l) mod chunk;  angle_j = pos * base^(-2j/Z);  s = 1/sqrt(Z), with `per_key` 1/(pos + 1)
    q = [s (z gamma[0] + beta[0]), R(angle) relative[0]]
    k = [   z gamma[1] + beta[1],  R(angle) relative[1]]
    ```

    so that q . k = s (z gamma[0] + beta[0]) . (z gamma[1] + beta[1]) + bias, where the bias depends on the distance of the two tokens alone.
    R turns adjacent pairs, as rotary does. z [B,L,Z]; q, k [B,L,2Z]; gamma, beta, relative [2,Z]. `per_key` divides by the number of keys
    that the token sees: the Laplace attention function wants means of products, not sums. With `positions` pos is positions[b,l] mod chunk.
    Angles are computed in f64.

    * C1: q, k are [B,L,2Z] of z's element type, Z even.
    * C2: gamma, beta, relative are [2,Z].
    * C3: count is [B], positions are [B,L].
    * C4: base > 0, chunk > 0.

    Example:

    ```mlir
    %q, %k = megalodon.mega_qk %z, %gamma, %beta relative %relative at %count {base = 1.0e4 : f64, chunk = 4 : i64}
        : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>)
       -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
    ```
  }];
  let arguments = (ins ATokens:$z, FMatrix:$gamma, FMatrix:$beta, FMatrix:$relative, I64Rows:$count, Optional<I64Tokens>:$positions, F64Attr:$base, I64Attr:$chunk, UnitAttr:$per_key);
  let results = (outs ATokens:$q, ATokens:$k);
  let assemblyFormat = "$z `,` $gamma `,` $beta `relative` $relative `at` $count (`positions` `(` $positions^ `)`)? (`per_key` $per_key^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_UpdateGateOp : Megalodon_CheapForwardOp<"update_gate", [SameOperandsAndResultType]> {
  let summary = "residual that a gate mixes with a candidate";
  let description = [{
    ```
    y = x + sigma(gate) (candidate - x)
    ```

    * C1: operands and result have one type (the trait SameOperandsAndResultType).

    Example:

    ```mlir
    %result = megalodon.update_gate %x, %candidate by %gate : tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, ATokens:$candidate, ATokens:$gate);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x `,` $candidate `by` $gate attr-dict `:` type($x)";
  let hasVerifier = 0;
}

def Megalodon_EmaCoefficientsGradOp : Megalodon_GradientOp<"ema_coefficients_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of ema_coefficients";
  let description = [{
    With a = sigma(alpha), s = sigma(delta); imaginary parts of dq and dg have no part in it:

    ```
    dalpha = -s a (1-a) Re(dq);  ddelta = s (1-s) (beta dp - a Re(dq));  dbeta = s dp;  dgamma = Re(dg) / sqrt(N)
    ```

    * C1: shapes as in ema_coefficients.

    Example:

    ```mlir
    %dalpha, %ddelta, %dbeta, %dgamma = megalodon.ema_coefficients_grad %dp, %dq, %dg, %alpha, %delta, %beta
        : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>)
       -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>)
    ```
  }];
  let arguments = (ins F64Matrix:$dp, F64Complex:$dq, F64Complex:$dg, FAny:$alpha, FAny:$delta, FAny:$beta);
  let results = (outs FAny:$dalpha, FAny:$ddelta, FAny:$dbeta, FMatrix:$dgamma);
  let assemblyFormat = "$dp `,` $dq `,` $dg `,` $alpha `,` $delta `,` $beta attr-dict `:` functional-type(operands, results)";
}

def Megalodon_MegaQKGradOp : Megalodon_GradientOp<"mega_qk_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of mega_qk";
  let description = [{
    With u = s dq[:Z], v = dk[:Z], and R, s as in mega_qk:

    ```
    dz = u gamma[0] + v gamma[1]
    dgamma[0] = sum u z;  dgamma[1] = sum v z;  dbeta[0] = sum u;  dbeta[1] = sum v
    drelative[0] = sum R(-angle) dq[Z:];  drelative[1] = sum R(-angle) dk[Z:]
    ```

    * C1: dq, dk are [B,L,2Z] and dz [B,L,Z] of z's element type, Z even.
    * C2: gamma, dgamma, dbeta, drelative are [2,Z].
    * C3: count is [B], positions are [B,L].
    * C4: base > 0, chunk > 0.

    Example:

    ```mlir
    %dz, %dgamma, %dbeta, %drelative = megalodon.mega_qk_grad %dq, %dk, %z, %gamma at %count {base = 1.0e4 : f64, chunk = 4 : i64}
        : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>)
       -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dq, ATokens:$dk, ATokens:$z, FMatrix:$gamma, I64Rows:$count, Optional<I64Tokens>:$positions, F64Attr:$base, I64Attr:$chunk, UnitAttr:$per_key);
  let results = (outs ATokens:$dz, FMatrix:$dgamma, FMatrix:$dbeta, FMatrix:$drelative);
  let assemblyFormat = "$dq `,` $dk `,` $z `,` $gamma `at` $count (`positions` `(` $positions^ `)`)? (`per_key` $per_key^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_UpdateGateGradOp : Megalodon_GradientOp<"update_gate_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of update_gate";
  let description = [{
    ```
    s = sigma(gate);  dx = dy (1 - s);  dcandidate = dy s;  dgate = dy (candidate - x) s (1 - s)
    ```

    * C1: all operands and results have one type.

    Example:

    ```mlir
    %dx, %dcandidate, %dgate = megalodon.update_gate_grad %dy, %x, %candidate by %gate
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>)
       -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$x, ATokens:$candidate, ATokens:$gate);
  let results = (outs ATokens:$dx, ATokens:$dcandidate, ATokens:$dgate);
  let assemblyFormat = "$dy `,` $x `,` $candidate `by` $gate attr-dict `:` functional-type(operands, results)";
}

} // Megalodon_Mega

#endif
