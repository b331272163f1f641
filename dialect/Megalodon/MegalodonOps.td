// Ops of the forward pass. Formulas: arXiv 2404.08801 as the original implementation computes them.
#ifndef MEGALODON_OPS_TD
#define MEGALODON_OPS_TD

include "dialect/Megalodon/MegalodonBase.td"

def Megalodon_Forward : OpDocGroup {
  let summary = "Forward pass";
  let description = [{ The blocks of the model as they stand in the figures of the paper. }];
}

let opDocGroup = Megalodon_Forward in {

def Megalodon_EmbeddingOp : Megalodon_ForwardOp<"embedding", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "rows of a table, scaled";
  let description = [{
    ```
    y[b,l,:] = scale * weight[tokens[b,l], :]
    ```

    `tokens` [B, L], `weight` [vocabulary, D]. Token ids must be in range; the runtime checks them.

    With a `rank` the table is one rank's part of the vocabulary: its row i is the vocabulary's row rank * rows + i, and the tokens of
    other ranks give 0.

    * C1: result is [B, L, D] with [B, L] of tokens and D of weight.
    * C2: the element type of result is that of weight, or bf16 where weight has f32.

    Example:

    ```mlir
    %result = megalodon.embedding %tokens, %weight {scale = 4.0 : f64}
        : (tensor<2x8xi32>, tensor<32x16xf32>)
       -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins I32Tokens:$tokens, AMatrix:$weight, Optional<Index>:$rank, DefaultValuedAttr<F64Attr, "1.0">:$scale);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$tokens `,` $weight (`at` $rank^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearOp : Megalodon_ForwardOp<"linear", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "affine map of every token";
  let description = [{
    ```
    y = x W^T + b
    ```

    `x` [.., K], `weight` [M, K], `bias` [M], result [.., M]; every leading index is a token.

    * C1: last dimension of x equals K.
    * C2: result has x's leading dimensions and M.
    * C3: bias is [M].
    * C4: x and weight have type A or F, bias F; result A or F.

    The product is formed of numbers of one type: where one of x, weight and result has bf16, x and weight are rounded to it. Sums are in F.
    bias is added to the rounded product.

    Example:

    ```mlir
    %result = megalodon.linear %x, %weight bias %bias
        : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<24xf32>)
       -> tensor<2x8x24xf32>
    ```
  }];
  let arguments = (ins ATokensOrRows:$x, AMatrix:$weight, Optional<FVector>:$bias);
  let results = (outs ATokensOrRows:$result);
  let assemblyFormat = "$x `,` $weight (`bias` $bias^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TimestepNormOp : Megalodon_ForwardOp<"timestep_norm", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "group norm over all tokens up to the current one, with carried statistics";
  let description = [{
    Channels form G groups of D/G. With m, s the mean and population variance of a token's group entries, n the tokens seen before:

    ```
    n' = n + 1;  mean' = mean + (m - mean)/n';  var' = (n/n') var + s/n' + (n/n'^2) (m - mean)^2
    y = (x - mean') / sqrt(var' + eps) * (1 + weight) + bias            (statistics include the current token)
    ```

    `count`, `mean`, `var` are the statistics before the call, `new_*` those after its last token. `running_mean`, `running_rstd` [B, L, G] hold
    mean' and 1/sqrt(var' + eps) of every token: the residuals of the backward pass.

    n is count[b] + l, or with `positions` positions[b,l]: at 0 a document begins, and nothing in front of it counts. Then new_count is
    positions + 1 of the call's last token.

    * C1: x and result have one shape [B, L, D].
    * C2: weight, bias are [D].
    * C3: count is [B]; mean, var and their updates are [B, G].
    * C4: G divides D and G < D.
    * C5: running_* are [B, L, G].
    * C6: eps > 0.
    * C7: x and result have type A, all others F.
    * C8: positions are [B, L].

    Example:

    ```mlir
    %result, %new_count, %new_mean, %new_var, %running_mean, %running_rstd = megalodon.timestep_norm %x, %weight, %bias
        state(%count, %mean, %var) {eps = 1.0e-5 : f64}
        : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
       -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
    ```
  }];
  let arguments = (ins ATokens:$x, FVector:$weight, FVector:$bias, I64Rows:$count, FMatrix:$mean, FMatrix:$var, Optional<I64Tokens>:$positions,
                       F64Attr:$eps);
  let results = (outs ATokens:$result, I64Rows:$new_count, FMatrix:$new_mean, FMatrix:$new_var, FTokens:$running_mean, FTokens:$running_rstd);
  let assemblyFormat = "$x `,` $weight `,` $bias `state` `(` $count `,` $mean `,` $var `)` (`positions` `(` $positions^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaCoefficientsOp : Megalodon_ForwardOp<"cema_coefficients", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "decay and gains of the complex exponential moving average from its logits, in f64";
  let description = [{
    ```
    p = sigma(alpha)
    phi[d,k] = k * sigma(theta[d]) * 2 pi / N,  k = 1..N
    q = (1 - p sigma(delta)) exp(i phi)
    g = gamma / sqrt(N)
    ```

    alpha, delta [D,N,1], theta [D,1,1], gamma [D,N,2]; p [D,N], q and g [D,N,2] with (re, im) last.

    * C1: shapes as given.
    * C2: alpha, delta, theta, gamma have one element type.

    Example:

    ```mlir
    %p, %q, %g = megalodon.cema_coefficients %alpha, %delta, %theta, %gamma
        : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
       -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
    ```
  }];
  let arguments = (ins FAny:$alpha, FAny:$delta, FAny:$theta, FAny:$gamma);
  let results = (outs F64Matrix:$p, F64Complex:$q, F64Complex:$g);
  let assemblyFormat = "$alpha `,` $delta `,` $theta `,` $gamma attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaOp : Megalodon_ForwardOp<"cema", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "complex exponential moving average over tokens, with carried state";
  let description = [{
    ```
    h_t = q h_{t-1} + p x_t                  (complex, [B,D,N])
    y_t = Re(sum_k g_k h_{t,k}) + omega x_t
    ```

    `state` [B,D,N,2] is h before the call, `new_state` h after its last token. `block_states` [S,B,D,N,2] is the residual: h before every block
    of `block` tokens (S = ceil(L/block)); backward recomputes the states inside a block. Once lowered, the numbers of a block and row stand in the order that suits
    the target, in which its `cema_grad` reads them: [N,2,D] on a GPU, on a cpu the same for each vector of channels. Nothing else may read them.

    With `positions` h before a token of position 0 is 0: the token begins a document, which sees nothing in front of it.

    * C1: x and result [B,L,D].
    * C2: p [D,N]; q, g [D,N,2].
    * C3: omega [D,1].
    * C4: states [B,D,N,2].
    * C5: block_states [ceil(L/block),B,D,N,2], block > 0.
    * C6: x and result have type A; omega and states F.
    * C7: positions are [B,L].

    Example:

    ```mlir
    %result, %new_state, %block_states = megalodon.cema %x, %p, %q, %g, %omega state(%state) {block = 4 : i64}
        : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
       -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
    ```
  }];
  let arguments = (ins ATokens:$x, F64Matrix:$p, F64Complex:$q, F64Complex:$g, FMatrix:$omega, FState:$state, Optional<I64Tokens>:$positions, I64Attr:$block);
  let results = (outs ATokens:$result, FState:$new_state, FAny:$block_states);
  let assemblyFormat = "$x `,` $p `,` $q `,` $g `,` $omega `state` `(` $state `)` (`positions` `(` $positions^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_RmsNormOp : Megalodon_CheapForwardOp<"rms_norm", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "root mean square norm over the last dimension";
  let description = [{
    ```
    y = x / sqrt(mean(x^2) + eps) * (1 + weight)
    ```

    `x` [B, L, D]; the mean is over the last dimension. Without a weight the gain is 1. With `plain` the gain is `weight`, not 1 + weight,
    as LLaMA stores it.

    * C1: x and result have one type.
    * C2: weight is [D].
    * C3: eps > 0.
    * C4: plain needs a weight.

    Example:

    ```mlir
    %result = megalodon.rms_norm %x, %weight {eps = 1.0e-5 : f64}
        : (tensor<2x8x16xf32>, tensor<16xf32>)
       -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, Optional<FVector>:$weight, F64Attr:$eps, UnitAttr:$plain);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x (`,` $weight^)? (`plain` $plain^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LayerNormOp : Megalodon_CheapForwardOp<"layer_norm", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "layer norm over the last dimension";
  let description = [{
    ```
    y = (x - mean) / sqrt(var + eps) * (1 + weight) + bias
    ```

    `x` [B, L, D]; mean and population variance are over the last dimension. Without parameters the gain is 1 and the bias 0.

    * C1: x and result have one type.
    * C2: weight and bias are both given, [D], or both absent.
    * C3: eps > 0.

    Example:

    ```mlir
    %result = megalodon.layer_norm %x affine(%weight, %bias) {eps = 1.0e-5 : f64}
        : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
       -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, Optional<FVector>:$weight, Optional<FVector>:$bias, F64Attr:$eps);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x (`affine` `(` $weight^ `,` $bias `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_NormalizedQKOp : Megalodon_ForwardOp<"normalized_qk", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "queries and keys from the shared, per-head normalised projection";
  let description = [{
    ```
    zn = z / sqrt(mean(z^2) + eps) per head of dz columns
    q = zn (1 + gamma[0])/sqrt(dz) + beta[0];  k = zn (1 + gamma[1])/sqrt(dz) + beta[1]
    ```

    z, q, k [B,L,Z], column h*dz + j. gamma, beta [2,Z].

    * C1: z, q, k have one type.
    * C2: heads divides Z.
    * C3: gamma, beta are [2,Z].
    * C4: eps > 0.

    Example:

    ```mlir
    %q, %k = megalodon.normalized_qk %z, %gamma, %beta {eps = 1.0e-5 : f64, heads = 2 : i64}
        : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
       -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
    ```
  }];
  let arguments = (ins ATokens:$z, FMatrix:$gamma, FMatrix:$beta, I64Attr:$heads, F64Attr:$eps);
  let results = (outs ATokens:$q, ATokens:$k);
  let assemblyFormat = "$z `,` $gamma `,` $beta attr-dict `:` functional-type(operands, results)";
}

def Megalodon_RotaryOp : Megalodon_CheapForwardOp<"rotary", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "rotary position embedding on adjacent pairs; positions restart at every chunk";
  let description = [{
    ```
    pos = (count[b] + l) mod chunk;  angle_j = pos * base^(-2j/dz)
    (y_2j, y_2j+1) = scale R(angle_j) (x_2j, x_2j+1) in every head
    ```

    With `inverse` the rotation is by -angle (the transpose, which is the gradient). Angles are computed in f64. `scale` is 1 where it is
    not given; queries of LLaMA take 1/sqrt(dz) from it. With `positions` pos is positions[b,l] mod chunk.

    * C1: x and result have one type [B,L,Z].
    * C2: heads divides Z and dz is even.
    * C3: count is [B].
    * C4: base > 0, chunk > 0, scale > 0.
    * C5: positions are [B,L].

    Example:

    ```mlir
    %result = megalodon.rotary %x at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64}
        : (tensor<2x8x8xf32>, tensor<2xi64>)
       -> tensor<2x8x8xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, I64Rows:$count, Optional<I64Tokens>:$positions, I64Attr:$heads, F64Attr:$base, I64Attr:$chunk, UnitAttr:$inverse,
                       DefaultValuedAttr<F64Attr, "1.0">:$scale);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x `at` $count (`positions` `(` $positions^ `)`)? (`inverse` $inverse^)? attr-dict `:` functional-type(operands, results)";
  let hasFolder = 1;
}

def Megalodon_ChunkAttentionOp : Megalodon_ForwardOp<"chunk_attention", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "causal attention inside each chunk, over the cache of the open chunk and the call's own tokens";
  let description = [{
    Token l of row b stands at position (count[b] + l) mod C of its chunk and attends to the tokens of the same chunk at positions <= its own,
    and to nothing else:

    ```
    a = softmax(q k^T) v      (no further scale)
    ```

    With `function<laplace>` the weights are those of MEGA (arXiv 2209.10655) instead:

    ```
    a = w(q k^T) v;  w(s) = (1 + erf((s - mu) / (sigma sqrt(2)))) / 2;  mu = sqrt(1/2), sigma = sqrt(1/(4 pi))
    ```

    They are not divided by their sum. What MEGA divides scores by and adds to them is for q and k to bring.

    q, k [B,L,Z], already rotated; v, result [B,L,V]; cache_k [B,C,Z], cache_v [B,C,V]: rows 0 .. count mod C - 1 are the open chunk's earlier
    tokens, the others unspecified. `lse` [B,L,H] (log-sum-exp of the scores) is the residual of the backward pass. Laplace weights follow from
    the scores alone: they have no residual.

    Keys and values may be grouped: k [B,L,K dz], v [B,L,K dv] and the caches have K heads where q and result have H, and head j of them
    serves the query heads j H/K .. (j+1) H/K - 1.

    As long as every token stands below C the chunk never closes, and this is full causal attention with a cache of capacity C.

    A row may hold several documents, each cut into chunks of its own. Then `positions` [B,L] says how many tokens of its document a token has
    before it: token t stands at positions[b,t] mod C of its chunk, so it sees the tokens t - (positions[b,t] mod C) .. t. A token j < 0 is row
    (count[b] mod C) + j of the cache. Of positions, the first of a row is 0 or count[b], and each other one is 0 or follows the one before.

    * C1: q is [B,L,H dz]; k is [B,L,K dz] of the same element type, and K divides H.
    * C2: v is [B,L,K dv], result [B,L,H dv], of the same element type.
    * C3: heads is H: it divides q's width; K divides v's.
    * C4: caches are [B,C,K dz], [B,C,K dv] of one C > 0.
    * C5: lse is [B,L,H] with softmax and absent with laplace.
    * C6: count is [B], positions are [B,L].

    Example:

    ```mlir
    %result, %lse = megalodon.chunk_attention %q, %k, %v cache(%cache_k, %cache_v) at %count {heads = 2 : i64}
        : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>)
       -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
    ```
  }];
  let arguments = (ins ATokens:$q, ATokens:$k, ATokens:$v, ATokens:$cache_k, ATokens:$cache_v, I64Rows:$count, Optional<I64Tokens>:$positions,
                       I64Attr:$heads, DefaultValuedAttr<Megalodon_AttentionFunctionAttr, "::mlir::megalodon::AttentionFunction::Softmax">:$function);
  let results = (outs ATokens:$result, Optional<FTokens>:$lse);
  let assemblyFormat = "$q `,` $k `,` $v `cache` `(` $cache_k `,` $cache_v `)` `at` $count (`positions` `(` $positions^ `)`)? (`function` `` $function^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CacheAppendOp : Megalodon_ForwardOp<"cache_append", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "the open chunk's cache after a call";
  let description = [{
    Rows 0 .. (count + l) mod C - 1 of the result hold the tokens of the chunk that is open after the call's l tokens: earlier ones from
    `cache`, the call's own from `rows`. The other rows are unspecified. Not differentiated: the cache is detached.

    With `positions` [B,L], as in chunk_attention, the open chunk is that of the call's last token, and count + l is its position + 1.

    * C1: cache and result have one type [B,C,W].
    * C2: rows is [B,L,W].
    * C3: count is [B], positions are [B,L].

    Example:

    ```mlir
    %result = megalodon.cache_append %cache, %rows at %count
        : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<2xi64>)
       -> tensor<2x4x8xf32>
    ```
  }];
  let arguments = (ins ATokens:$cache, ATokens:$rows, I64Rows:$count, Optional<I64Tokens>:$positions);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$cache `,` $rows `at` $count (`positions` `(` $positions^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_AdvanceCountOp : Megalodon_ForwardOp<"advance_count", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "the number of tokens consumed after a call";
  let description = [{
    ```
    new_count[b] = count[b] + l
    ```

    l is the number of tokens the call has, of which `x` [B,L,D] are activations; only x's shape counts. With `positions` [B,L] the result is
    positions + 1 of the call's last token. Where a timestep norm counts, this op is not needed. Not differentiated.

    * C1: count and result are [B].
    * C2: positions are [B,L].

    Example:

    ```mlir
    %result = megalodon.advance_count %count by %x
        : (tensor<2xi64>, tensor<2x8x16xf32>)
       -> tensor<2xi64>
    ```
  }];
  let arguments = (ins I64Rows:$count, ATokens:$x, Optional<I64Tokens>:$positions);
  let results = (outs I64Rows:$result);
  let assemblyFormat = "$count `by` $x (`positions` `(` $positions^ `)`)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_DocumentPositionsOp : Megalodon_ForwardOp<"document_positions", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "how many tokens of its own document stand in front of every token";
  let description = [{
    ```
    positions[b,l] = 0                         where resets[b,l] is not 0: a document begins
                     count[b]                  else, where l = 0
                     positions[b,l-1] + 1      else
    ```

    A row of a call may hold several documents, of which the first may go on from the call before. Every op that asks where a token stands takes
    this result as its `positions`, and none then lets a document see another. Not differentiated.

    * C1: resets and result are [B,L].
    * C2: count is [B].

    Example:

    ```mlir
    %positions = megalodon.document_positions %resets at %count
        : (tensor<2x8xi32>, tensor<2xi64>)
       -> tensor<2x8xi64>
    ```
  }];
  let arguments = (ins I32Tokens:$resets, I64Rows:$count);
  let results = (outs I64Tokens:$positions);
  let assemblyFormat = "$resets `at` $count attr-dict `:` functional-type(operands, results)";
}

def Megalodon_SiluOp : Megalodon_CheapForwardOp<"silu", [SameOperandsAndResultType]> {
  let summary = "sigmoid linear unit";
  let description = [{
    ```
    y = x * sigma(x)
    ```

    * C1: operands and result have one type (the trait SameOperandsAndResultType).

    Example:

    ```mlir
    %result = megalodon.silu %x : tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$x);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x attr-dict `:` type($x)";
  let hasVerifier = 0;
}

def Megalodon_GateOp : Megalodon_CheapForwardOp<"gate", [SameOperandsAndResultType]> {
  let summary = "values gated by the sigmoid linear unit of a gate";
  let description = [{
    ```
    y = value * silu(gate)
    ```

    The output gate of attention (`value` is what attention gives) and the gate of SwiGLU.

    * C1: operands and result have one type (the trait SameOperandsAndResultType).

    Example:

    ```mlir
    %result = megalodon.gate %value by %gate : tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$value, ATokens:$gate);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$value `by` $gate attr-dict `:` type($value)";
  let hasVerifier = 0;
}

def Megalodon_AddOp : Megalodon_ForwardOp<"add", [SameOperandsAndResultType]> {
  let summary = "sum of its operands, from left to right";
  let description = [{
    ```
    y = x_0 + x_1 + ...
    ```

    Terms are added from left to right.

    * C1: at least one operand (the trait SameOperandsAndResultType checks it).

    Example:

    ```mlir
    %result = megalodon.add %a, %b, %c : tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins Variadic<AAny>:$inputs);
  let results = (outs AAny:$result);
  let assemblyFormat = "$inputs attr-dict `:` type($result)";
  let hasFolder = 1;
  let hasCanonicalizer = 1;
  let hasVerifier = 0;
}

def Megalodon_TwoHopResidualOp : Megalodon_ForwardOp<"two_hop_residual", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "residual that skips the whole layer";
  let description = [{
    ```
    y = x + alpha * branch
    ```

    `x` is the input of the layer: the second residual starts there and not at the output of attention. `alpha` [D] rescales each channel;
    absent means 1.

    * C1: x, branch and result have one type [B,L,D].
    * C2: alpha is [D].

    Example:

    ```mlir
    %result = megalodon.two_hop_residual %x, %branch rescale %alpha
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>)
       -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, ATokens:$branch, Optional<FVector>:$alpha);
  let results = (outs ATokens:$result);
  let assemblyFormat = "$x `,` $branch (`rescale` $alpha^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LastTokenOp : Megalodon_Op<"last_token", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "last token of every row";
  let description = [{
    ```
    y[b,:] = x[b, l-1, :]
    ```

    For a call of l <= L tokens.

    * C1: result is [B,D] for x [B,L,D], of one element type.

    Example:

    ```mlir
    %result = megalodon.last_token %x : (tensor<2x8x16xf32>) -> tensor<2x16xf32>
    ```
  }];
  let arguments = (ins ATokens:$x);
  let results = (outs AMatrix:$result);
  let assemblyFormat = "$x attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Megalodon_CrossEntropyOp : Megalodon_ForwardOp<"cross_entropy", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "negative log-likelihood of every target, natural logarithm";
  let description = [{
    ```
    lse[b,l] = log sum_o exp(logits[b,l,o])
    nll[b,l] = lse[b,l] - logits[b,l, targets[b,l]]
    ```

    A target of -100 is ignored: its nll is 0. `lse` is the residual of the backward pass.

    * C1: logits [B,L,O]; targets, nll, lse [B,L].
    * C2: element types agree: F.

    Example:

    ```mlir
    %nll, %lse = megalodon.cross_entropy %logits, %targets
        : (tensor<2x8x32xf32>, tensor<2x8xi32>)
       -> (tensor<2x8xf32>, tensor<2x8xf32>)
    ```
  }];
  let arguments = (ins FTokens:$logits, I32Tokens:$targets);
  let results = (outs FMatrix:$nll, FMatrix:$lse);
  let assemblyFormat = "$logits `,` $targets attr-dict `:` functional-type(operands, results)";
}

def Megalodon_MeanOp : Megalodon_ForwardOp<"mean", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "mean over all positions of the call";
  let description = [{
    ```
    y = sum(x) / (parts * number of positions of the call)
    ```

    Sums in f64. Ignored positions count in the denominator (the original's rule). With parts > 1 the result is this rank's share of a mean
    over as many ranks, and the ranks' results add up to it.

    * C1: result is a scalar of x's element type.
    * C2: parts > 0.

    Example:

    ```mlir
    %result = megalodon.mean %x : (tensor<2x8xf32>) -> tensor<f32>
    ```
  }];
  let arguments = (ins FMatrix:$x, DefaultValuedAttr<I64Attr, "1">:$parts);
  let results = (outs FScalar:$result);
  let assemblyFormat = "$x attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LossSumOp : Megalodon_Op<"loss_sum", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "sum of the losses, and how many targets were not ignored";
  let description = [{
    ```
    sum = sum(nll);  count = number of targets that are not -100
    ```

    Sums in f64.

    * C1: nll and targets [B,L].

    Example:

    ```mlir
    %sum, %count = megalodon.loss_sum %nll, %targets
        : (tensor<2x8xf32>, tensor<2x8xi32>)
       -> (tensor<f32>, tensor<i64>)
    ```
  }];
  let arguments = (ins FMatrix:$nll, I32Tokens:$targets);
  let results = (outs FScalar:$sum, I64Scalar:$count);
  let assemblyFormat = "$nll `,` $targets attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

} // Megalodon_Forward

#endif
