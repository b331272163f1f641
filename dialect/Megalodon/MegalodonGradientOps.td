// Ops of the backward pass. d<x> is the cotangent of x. Each corresponds to one forward op.
#ifndef MEGALODON_GRADIENT_OPS_TD
#define MEGALODON_GRADIENT_OPS_TD

include "dialect/Megalodon/MegalodonBase.td"

def Megalodon_Backward : OpDocGroup {
  let summary = "Gradients of the forward pass";
  let description = [{ d<x> is the cotangent of x. Each op corresponds to one op of the forward pass. }];
}

let opDocGroup = Megalodon_Backward in {

def Megalodon_EmbeddingGradOp : Megalodon_GradientOp<"embedding_grad"> {
  let summary = "gradient of embedding";
  let description = [{
    ```
    dweight[v,:] = scale * sum of dy[b,l,:] over the tokens equal to v
    ```

    Summed in token order. With a `rank`, row v of dweight is the vocabulary's row rank * rows + v.

    * C1: tokens [B,L], dy [B,L,D], dweight [vocabulary,D].

    Example:

    ```mlir
    %dweight = megalodon.embedding_grad %tokens, %dy {scale = 4.0 : f64}
        : (tensor<2x8xi32>, tensor<2x8x16xf32>)
       -> tensor<32x16xf32>
    ```
  }];
  let arguments = (ins I32Tokens:$tokens, ATokens:$dy, Optional<Index>:$rank, DefaultValuedAttr<F64Attr, "1.0">:$scale);
  let results = (outs FMatrix:$dweight);
  let assemblyFormat = "$tokens `,` $dy (`at` $rank^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearGradInputOp : Megalodon_GradientOp<"linear_grad_input", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of linear with respect to its input";
  let description = [{
    ```
    dx = dy W
    ```

    `dy` [.., M], `weight` [M, K], `dx` [.., K], each of type A or F. The product is formed as linear forms it.

    * C1: shapes as given.

    Example:

    ```mlir
    %dx = megalodon.linear_grad_input %dy, %weight : (tensor<2x8x24xf32>, tensor<24x16xf32>) -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokensOrRows:$dy, AMatrix:$weight);
  let results = (outs ATokensOrRows:$dx);
  let assemblyFormat = "$dy `,` $weight attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearGradWeightOp : Megalodon_GradientOp<"linear_grad_weight", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of linear with respect to its weight";
  let description = [{
    ```
    dW = dy^T x
    ```

    `dy` [.., M], `x` [.., K], each of type A or F, `dweight` [M, K] of type F; summed over tokens. The product is formed as linear forms it.

    * C1: shapes as given.

    Example:

    ```mlir
    %dweight = megalodon.linear_grad_weight %dy, %x : (tensor<2x8x24xf32>, tensor<2x8x16xf32>) -> tensor<24x16xf32>
    ```
  }];
  let arguments = (ins ATokensOrRows:$dy, ATokensOrRows:$x);
  let results = (outs FMatrix:$dweight);
  let assemblyFormat = "$dy `,` $x attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearGradBiasOp : Megalodon_GradientOp<"linear_grad_bias", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of linear with respect to its bias";
  let description = [{
    ```
    db = sum of dy over tokens
    ```

    `dy` [.., M], `dbias` [M].

    * C1: shapes as given.

    Example:

    ```mlir
    %dbias = megalodon.linear_grad_bias %dy : (tensor<2x8x24xf32>) -> tensor<24xf32>
    ```
  }];
  let arguments = (ins ATokensOrRows:$dy);
  let results = (outs FVector:$dbias);
  let assemblyFormat = "$dy attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TimestepNormGradOp : Megalodon_GradientOp<"timestep_norm_grad", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of timestep_norm";
  let description = [{
    In reverse time, with c1 = n/n', c2 = 1/n', r = running_rstd, w = 1 + weight, sums over a group, du and dv starting at dnew_mean and
    dnew_var (absent = 0):

    ```
    du <- du - r sum(dy w);   dv <- dv - r^3/2 sum(dy w (x - mean'))
    dx = dy w r + [c2 du + 2 c1 c2 dv (m - mean)]/(D/G) + 2 c2 dv (x - m)/(D/G)
    du <- c1 du - 2 c1 c2 dv (m - mean);   dv <- c1 dv
    ```

    What remains is dmean, dvar. dweight = sum dy (x - mean') r, dbias = sum dy. Note c1 (m - mean) = m - mean'. With `positions` n is a token's
    position: where it is 0, c1 is 0, and no cotangent leaves the document.

    * C1: dy, x, dx one type [B,L,D].
    * C2: weight, dweight, dbias [D].
    * C3: running_* [B,L,G].
    * C4: dnew_mean, dnew_var (both or none), dmean, dvar [B,G].
    * C5: positions are [B,L].

    Example:

    ```mlir
    %dx, %dweight, %dbias, %dmean, %dvar = megalodon.timestep_norm_grad %dy, %x, %weight state(%count, %running_mean, %running_rstd)
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
       -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, Optional<FMatrix>:$dnew_mean, Optional<FMatrix>:$dnew_var, ATokens:$x, FVector:$weight, I64Rows:$count,
                       FTokens:$running_mean, FTokens:$running_rstd, Optional<I64Tokens>:$positions);
  let results = (outs ATokens:$dx, FVector:$dweight, FVector:$dbias, FMatrix:$dmean, FMatrix:$dvar);
  let assemblyFormat = "$dy (`end` `(` $dnew_mean^ `,` $dnew_var `)`)? `,` $x `,` $weight `state` `(` $count `,` $running_mean `,` $running_rstd `)` (`positions` `(` $positions^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaCoefficientsGradOp : Megalodon_GradientOp<"cema_coefficients_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of cema_coefficients";
  let description = [{
    With s = sigma(delta), t = sigma(theta), m = 1 - p s = |q|, e = exp(i phi), and dq as (d/dRe, d/dIm):

    ```
    dm = Re(conj(dq) e);  dphi = Re(conj(dq) i q);  dp_total = dp - s dm
    dalpha = dp_total p (1-p);  ddelta = -p s (1-s) dm;  dtheta = t (1-t) sum_k k (2 pi / N) dphi_k;  dgamma = dg / sqrt(N)
    ```

    * C1: shapes as in cema_coefficients.

    Example:

    ```mlir
    %dalpha, %ddelta, %dtheta, %dgamma = megalodon.cema_coefficients_grad %dp, %dq, %dg, %alpha, %delta, %theta
        : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>)
       -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
    ```
  }];
  let arguments = (ins F64Matrix:$dp, F64Complex:$dq, F64Complex:$dg, FAny:$alpha, FAny:$delta, FAny:$theta);
  let results = (outs FAny:$dalpha, FAny:$ddelta, FAny:$dtheta, FAny:$dgamma);
  let assemblyFormat = "$dp `,` $dq `,` $dg `,` $alpha `,` $delta `,` $theta attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaGradOp : Megalodon_GradientOp<"cema_grad", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of cema";
  let description = [{
    Reverse time, complex cotangents written as (d/dRe) + i (d/dIm), l starting at dnew_state (absent = 0):

    ```
    l_t = conj(g) dy_t + conj(q) l_{t+1};   dx_t = sum_k p_k Re(l_{t,k}) + omega dy_t
    dp = sum x_t Re(l_t);  dq = sum l_t conj(h_{t-1});  dg = sum dy_t conj(h_t);  domega = sum dy_t x_t;  dstate = conj(q) l_0
    ```

    h is recomputed inside blocks of `block` tokens from block_states, which `cema` of the same module made. With `positions`, h_{t-1} of a token of position 0 is 0 and so is what
    it gives back to the tokens in front of it.

    * C1: dy, x, dx [B,L,D].
    * C2: p, dp [D,N]; q, g, dq, dg [D,N,2].
    * C3: omega, domega [D,1].
    * C4: dnew_state, dstate [B,D,N,2].
    * C5: block_states [ceil(L/block),B,D,N,2].
    * C6: positions are [B,L].

    Example:

    ```mlir
    %dx, %dp, %dq, %dg, %domega, %dstate = megalodon.cema_grad %dy, %x, %p, %q, %g, %omega states(%block_states) {block = 4 : i64}
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>)
       -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, Optional<FState>:$dnew_state, ATokens:$x, F64Matrix:$p, F64Complex:$q, F64Complex:$g, FMatrix:$omega, FAny:$block_states,
                       Optional<I64Tokens>:$positions, I64Attr:$block);
  let results = (outs ATokens:$dx, F64Matrix:$dp, F64Complex:$dq, F64Complex:$dg, FMatrix:$domega, FState:$dstate);
  let assemblyFormat = "$dy (`end` `(` $dnew_state^ `)`)? `,` $x `,` $p `,` $q `,` $g `,` $omega `states` `(` $block_states `)` (`positions` `(` $positions^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_RmsNormGradOp : Megalodon_GradientOp<"rms_norm_grad", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of rms_norm";
  let description = [{
    ```
    r = 1 / sqrt(mean(x^2) + eps);  u = dy (1 + weight)
    dx = r u - r^3 x mean(u x);  dweight = sum dy x r
    ```

    With `plain` u = dy weight. With `sums` the channels are a slice of `width`, and the means are those of whole rows: `sums` holds what
    rms_norm_grad_sums gives of the slices, added up.

    * C1: dy, x, dx one type.
    * C2: weight, dweight both given, [D], or both absent.
    * C3: sums [B,L,2] of f64 and width are both given or both absent; width >= D.
    * C4: plain needs a weight.

    Example:

    ```mlir
    %dx, %dweight = megalodon.rms_norm_grad %dy, %x, %weight {eps = 1.0e-5 : f64}
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>)
       -> (tensor<2x8x16xf32>, tensor<16xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$x, Optional<FVector>:$weight, Optional<F64Tokens>:$sums, F64Attr:$eps, OptionalAttr<I64Attr>:$width, UnitAttr:$plain);
  let results = (outs ATokens:$dx, Optional<FVector>:$dweight);
  let assemblyFormat = "$dy `,` $x (`,` $weight^)? (`plain` $plain^)? (`sums` `(` $sums^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LayerNormGradOp : Megalodon_GradientOp<"layer_norm_grad", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of layer_norm";
  let description = [{
    ```
    n = (x - mean) r;  u = dy (1 + weight)
    dx = r (u - mean(u) - n mean(u n));  dweight = sum dy n;  dbias = sum dy
    ```

    With `sums` the channels are a slice of `width`, and the means are those of whole rows: `sums` holds what layer_norm_grad_sums gives of
    the slices, added up.

    * C1: dy, x, dx one type.
    * C2: weight and the results dweight, dbias are all given, [D], or all absent.
    * C3: sums [B,L,4] of f64 and width are both given or both absent; width >= D.

    Example:

    ```mlir
    %dx, %dweight, %dbias = megalodon.layer_norm_grad %dy, %x, %weight {eps = 1.0e-5 : f64}
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>)
       -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$x, Optional<FVector>:$weight, Optional<F64Tokens>:$sums, F64Attr:$eps, OptionalAttr<I64Attr>:$width);
  let results = (outs ATokens:$dx, Variadic<FVector>:$dparameters);
  let extraClassDeclaration = [{
    /// Null without parameters.
    ::mlir::Value getDweight() { return getDparameters().empty() ? ::mlir::Value() : getDparameters()[0]; }
    ::mlir::Value getDbias() { return getDparameters().empty() ? ::mlir::Value() : getDparameters()[1]; }
  }];
  let assemblyFormat = "$dy `,` $x (`,` $weight^)? (`sums` `(` $sums^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_NormalizedQKGradOp : Megalodon_GradientOp<"normalized_qk_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of normalized_qk";
  let description = [{
    ```
    u = (dq (1 + gamma[0]) + dk (1 + gamma[1])) / sqrt(dz);  r = 1 / sqrt(mean(z^2) + eps) per head
    dz = r u - r^3 z mean(u z)
    dgamma[0] = sum dq z r / sqrt(dz);  dgamma[1] = sum dk z r / sqrt(dz);  dbeta[0] = sum dq;  dbeta[1] = sum dk
    ```

    * C1: dq, dk, z, dz one type.
    * C2: gamma, dgamma, dbeta [2,Z].
    * C3: heads divides Z.

    Example:

    ```mlir
    %dz, %dgamma, %dbeta = megalodon.normalized_qk_grad %dq, %dk, %z, %gamma {eps = 1.0e-5 : f64, heads = 2 : i64}
        : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>)
       -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dq, ATokens:$dk, ATokens:$z, FMatrix:$gamma, I64Attr:$heads, F64Attr:$eps);
  let results = (outs ATokens:$dz, FMatrix:$dgamma, FMatrix:$dbeta);
  let assemblyFormat = "$dq `,` $dk `,` $z `,` $gamma attr-dict `:` functional-type(operands, results)";
}

def Megalodon_ChunkAttentionGradOp : Megalodon_GradientOp<"chunk_attention_grad", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of chunk_attention with respect to the call's own q, k, v";
  let description = [{
    ```
    P = exp(q k^T - lse), causal inside the chunk
    dv = P^T dout;  dP = dout v^T;  delta = sum over keys of P dP, a query and head
    dS = P (dP - delta);  dq = dS k;  dk = dS^T q
    ```

    delta is the sum over a head's columns of dout * out as well, but for the rounding of `out`, which a lowering that takes it from there has
    to correct: what is left of it does not cancel in dS. With `function<laplace>`, mu and sigma as in chunk_attention and nothing saved:

    ```
    P = w(q k^T);  dS = dP w'(q k^T);  w'(s) = exp(-(s - mu)^2 / (2 sigma^2)) / (sigma sqrt(2 pi))
    ```

    The cache is detached: its keys and values enter dq but have no gradient. Where keys and values are grouped, dk and dv still have a part
    of each query head, which sum_head_groups adds up.

    * C1: q, k, v as in chunk_attention; q, dq, dk one type [B,L,H dz]; out, dout, dv one type [B,L,H dv].
    * C2: lse [B,L,H]; out and lse are given with softmax and absent with laplace.
    * C3: caches, count and positions as in chunk_attention.

    Example:

    ```mlir
    %dq, %dk, %dv = megalodon.chunk_attention_grad %dout, %q, %k, %v cache(%cache_k, %cache_v) at %count saved(%out, %lse) {heads = 2 : i64}
        : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>)
       -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dout, ATokens:$q, ATokens:$k, ATokens:$v, ATokens:$cache_k, ATokens:$cache_v, I64Rows:$count, Optional<ATokens>:$out, Optional<FTokens>:$lse,
                       Optional<I64Tokens>:$positions, I64Attr:$heads, DefaultValuedAttr<Megalodon_AttentionFunctionAttr, "::mlir::megalodon::AttentionFunction::Softmax">:$function);
  let results = (outs ATokens:$dq, ATokens:$dk, ATokens:$dv);
  let assemblyFormat = "$dout `,` $q `,` $k `,` $v `cache` `(` $cache_k `,` $cache_v `)` `at` $count (`positions` `(` $positions^ `)`)? (`saved` `(` $out^ `,` $lse `)`)? (`function` `` $function^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_SumHeadGroupsOp : Megalodon_GradientOp<"sum_head_groups", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "sum over the heads that share a head of grouped keys or values";
  let description = [{
    ```
    y[b,l,j d + i] = sum over r < H/K of x[b,l,(j H/K + r) d + i]
    ```

    x [B,L,H d] with H = heads, y [B,L,K d] with K = groups.

    * C1: heads divides the width of x.
    * C2: groups divides heads.

    Example:

    ```mlir
    %result = megalodon.sum_head_groups %x {groups = 2 : i64, heads = 4 : i64}
        : (tensor<2x8x16xf32>)
       -> tensor<2x8x8xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, I64Attr:$heads, I64Attr:$groups);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x attr-dict `:` functional-type(operands, results)";
}

def Megalodon_SiluGradOp : Megalodon_GradientOp<"silu_grad", [SameOperandsAndResultType]> {
  let summary = "gradient of silu";
  let description = [{
    ```
    s = sigma(x);  dx = dy s (1 + x (1 - s))
    ```

    * C1: operands and result have one type (the trait SameOperandsAndResultType).

    Example:

    ```mlir
    %dx = megalodon.silu_grad %dy, %x : tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$x);
  let results = (outs ATokens:$dx);
  let assemblyFormat = "$dy `,` $x attr-dict `:` type($x)";
  let hasVerifier = 0;
}

def Megalodon_GateGradOp : Megalodon_GradientOp<"gate_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of gate";
  let description = [{
    ```
    s = sigma(gate);  dvalue = dy gate s;  dgate = dy value s (1 + gate (1 - s))
    ```

    * C1: all operands and results have one type.

    Example:

    ```mlir
    %dvalue, %dgate = megalodon.gate_grad %dy, %value by %gate
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>)
       -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$value, ATokens:$gate);
  let results = (outs ATokens:$dvalue, ATokens:$dgate);
  let assemblyFormat = "$dy `,` $value `by` $gate attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TwoHopResidualGradOp : Megalodon_GradientOp<"two_hop_residual_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of two_hop_residual with rescaling";
  let description = [{
    ```
    dbranch = alpha dy;  dalpha = sum dy branch
    ```

    Only with rescaling; else the branch's gradient is dy itself. The gradient of `x` is dy.

    * C1: dy, branch, dbranch one type [B,L,D].
    * C2: alpha, dalpha [D].

    Example:

    ```mlir
    %dbranch, %dalpha = megalodon.two_hop_residual_grad %dy, %branch rescale %alpha
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>)
       -> (tensor<2x8x16xf32>, tensor<16xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$branch, FVector:$alpha);
  let results = (outs ATokens:$dbranch, FVector:$dalpha);
  let assemblyFormat = "$dy `,` $branch `rescale` $alpha attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CrossEntropyGradOp : Megalodon_GradientOp<"cross_entropy_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of cross_entropy";
  let description = [{
    ```
    dlogits = dnll (exp(logits - lse) - onehot(targets))
    ```

    0 for ignored targets.

    With a `rank` the logits are one rank's columns of the vocabulary, as in cross_entropy_summary; dlogits of padding is 0.

    * C1: logits, dlogits one type [B,L,O]; dnll, lse, targets [B,L].
    * C2: rank and vocabulary are both given or both absent; vocabulary > 0.

    Example:

    ```mlir
    %dlogits = megalodon.cross_entropy_grad %dnll, %logits, %targets, %lse
        : (tensor<2x8xf32>, tensor<2x8x32xf32>, tensor<2x8xi32>, tensor<2x8xf32>)
       -> tensor<2x8x32xf32>
    ```
  }];
  let arguments = (ins FMatrix:$dnll, FTokens:$logits, I32Tokens:$targets, FMatrix:$lse, Optional<Index>:$rank,
                       OptionalAttr<I64Attr>:$vocabulary);
  let results = (outs ATokens:$dlogits);
  let hasCanonicalizer = 1;
  let assemblyFormat = "$dnll `,` $logits `,` $targets `,` $lse (`at` $rank^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_MeanGradOp : Megalodon_GradientOp<"mean_grad"> {
  let summary = "gradient of mean";
  let description = [{
    ```
    dx = dy / (parts * number of positions of the call), at every position
    ```

    * C1: dy is a scalar, dx [B,L], of one element type.
    * C2: parts > 0.

    Example:

    ```mlir
    %dx = megalodon.mean_grad %dy : (tensor<f32>) -> tensor<2x8xf32>
    ```
  }];
  let arguments = (ins FScalar:$dy, DefaultValuedAttr<I64Attr, "1">:$parts);
  let results = (outs FMatrix:$dx);
  let assemblyFormat = "$dy attr-dict `:` functional-type(operands, results)";
}

} // Megalodon_Backward

#endif
