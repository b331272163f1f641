// Ops of the backward pass. d<x> is the cotangent of x. Each corresponds to one forward op.
#ifndef MEGALODON_GRADIENT_OPS_TD
#define MEGALODON_GRADIENT_OPS_TD

include "dialect/Megalodon/MegalodonBase.td"

def Megalodon_EmbeddingGradOp : Megalodon_GradientOp<"embedding_grad"> {
  let summary = "dweight[v,:] = scale * sum of dy over the tokens equal to v";
  let description = [{ Summed in token order. C1: tokens [B,L], dy [B,L,D], dweight [vocabulary,D]. }];
  let arguments = (ins I32Tokens:$tokens, FTokens:$dy, DefaultValuedAttr<F64Attr, "1.0">:$scale);
  let results = (outs FMatrix:$dweight);
  let assemblyFormat = "$tokens `,` $dy attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearGradInputOp : Megalodon_GradientOp<"linear_grad_input", [InferTypeOpAdaptor]> {
  let summary = "dx = dy W";
  let description = [{ dy [..,M], weight [M,K], dx [..,K]. C1: shapes as given. }];
  let arguments = (ins FTokensOrRows:$dy, FMatrix:$weight);
  let results = (outs FTokensOrRows:$dx);
  let assemblyFormat = "$dy `,` $weight attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearGradWeightOp : Megalodon_GradientOp<"linear_grad_weight", [InferTypeOpAdaptor]> {
  let summary = "dW = dy^T x, summed over tokens";
  let description = [{ dy [..,M], x [..,K], dweight [M,K]. C1: shapes as given. }];
  let arguments = (ins FTokensOrRows:$dy, FTokensOrRows:$x);
  let results = (outs FMatrix:$dweight);
  let assemblyFormat = "$dy `,` $x attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LinearGradBiasOp : Megalodon_GradientOp<"linear_grad_bias", [InferTypeOpAdaptor]> {
  let summary = "db = dy summed over tokens";
  let description = [{ dy [..,M], dbias [M]. C1: shapes as given. }];
  let arguments = (ins FTokensOrRows:$dy);
  let results = (outs FVector:$dbias);
  let assemblyFormat = "$dy attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TimestepNormGradOp : Megalodon_GradientOp<"timestep_norm_grad", [AttrSizedOperandSegments, InferTypeOpAdaptor]> {
  let summary = "gradient of timestep_norm";
  let description = [{
    In reverse time, with c1 = n/n', c2 = 1/n', r = running_rstd, w = 1 + weight, sums over a group, du and dv starting at dnew_mean and dnew_var (absent = 0):
      du <- du - r sum(dy w);   dv <- dv - r^3/2 sum(dy w (x - mean'))
      dx = dy w r + [c2 du + 2 c1 c2 dv (m - mean)]/(D/G) + 2 c2 dv (x - m)/(D/G)
      du <- c1 du - 2 c1 c2 dv (m - mean);   dv <- c1 dv
    What remains is dmean, dvar. dweight = sum dy (x - mean') r, dbias = sum dy. Note c1 (m - mean) = m - mean'.
    C1: dy, x, dx one type [B,L,D]. C2: weight, dweight, dbias [D]. C3: running_* [B,L,G]. C4: dnew_mean, dnew_var (both or none), dmean, dvar [B,G]. }];
  let arguments = (ins FTokens:$dy, Optional<FMatrix>:$dnew_mean, Optional<FMatrix>:$dnew_var, FTokens:$x, FVector:$weight, I64Rows:$count,
                       FTokens:$running_mean, FTokens:$running_rstd);
  let results = (outs FTokens:$dx, FVector:$dweight, FVector:$dbias, FMatrix:$dmean, FMatrix:$dvar);
  let assemblyFormat = "$dy (`end` `(` $dnew_mean^ `,` $dnew_var `)`)? `,` $x `,` $weight `state` `(` $count `,` $running_mean `,` $running_rstd `)` attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaCoefficientsGradOp : Megalodon_GradientOp<"cema_coefficients_grad", [InferTypeOpAdaptor]> {
  let summary = "gradient of cema_coefficients";
  let description = [{
    With s = sigma(delta), t = sigma(theta), m = 1 - p s = |q|, e = exp(i phi), and dq as (d/dRe, d/dIm):
      dm = Re(conj(dq) e);  dphi = Re(conj(dq) i q);  dp_total = dp - s dm
      dalpha = dp_total p (1-p);  ddelta = -p s (1-s) dm;  dtheta = t (1-t) sum_k k (2 pi / N) dphi_k;  dgamma = dg / sqrt(N)
    C1: shapes as in cema_coefficients. }];
  let arguments = (ins F64Matrix:$dp, F64Complex:$dq, F64Complex:$dg, FAny:$alpha, FAny:$delta, FAny:$theta);
  let results = (outs FAny:$dalpha, FAny:$ddelta, FAny:$dtheta, FAny:$dgamma);
  let assemblyFormat = "$dp `,` $dq `,` $dg `,` $alpha `,` $delta `,` $theta attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaGradOp : Megalodon_GradientOp<"cema_grad", [InferTypeOpAdaptor]> {
  let summary = "gradient of cema";
  let description = [{
    Reverse time, complex cotangents written as (d/dRe) + i (d/dIm), l starting at dnew_state (absent = 0):
      l_t = conj(g) dy_t + conj(q) l_{t+1};   dx_t = sum_k p_k Re(l_{t,k}) + omega dy_t
      dp = sum x_t Re(l_t);  dq = sum l_t conj(h_{t-1});  dg = sum dy_t conj(h_t);  domega = sum dy_t x_t;  dstate = conj(q) l_0
    h is recomputed inside blocks of `block` tokens from block_states.
    C1: dy, x, dx [B,L,D]. C2: p, dp [D,N]; q, g, dq, dg [D,N,2]. C3: omega, domega [D,1]. C4: dnew_state, dstate [B,D,N,2]. C5: block_states [ceil(L/block),B,D,N,2]. }];
  let arguments = (ins FTokens:$dy, Optional<FState>:$dnew_state, FTokens:$x, F64Matrix:$p, F64Complex:$q, F64Complex:$g, FMatrix:$omega, FAny:$block_states, I64Attr:$block);
  let results = (outs FTokens:$dx, F64Matrix:$dp, F64Complex:$dq, F64Complex:$dg, FMatrix:$domega, FState:$dstate);
  let assemblyFormat = "$dy (`end` `(` $dnew_state^ `)`)? `,` $x `,` $p `,` $q `,` $g `,` $omega `states` `(` $block_states `)` attr-dict `:` functional-type(operands, results)";
}

def Megalodon_RmsNormGradOp : Megalodon_GradientOp<"rms_norm_grad", [InferTypeOpAdaptor]> {
  let summary = "gradient of rms_norm";
  let description = [{ r = 1/sqrt(mean(x^2)+eps), u = dy (1+weight):  dx = r u - r^3 x mean(u x);  dweight = sum dy x r. C1: dy, x, dx one type. C2: weight, dweight both given, [D], or both absent. }];
  let arguments = (ins FTokens:$dy, FTokens:$x, Optional<FVector>:$weight, F64Attr:$eps);
  let results = (outs FTokens:$dx, Optional<FVector>:$dweight);
  let assemblyFormat = "$dy `,` $x (`,` $weight^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LayerNormGradOp : Megalodon_GradientOp<"layer_norm_grad", [InferTypeOpAdaptor]> {
  let summary = "gradient of layer_norm";
  let description = [{ n = (x-mean) r, u = dy (1+weight):  dx = r (u - mean(u) - n mean(u n));  dweight = sum dy n;  dbias = sum dy. C1: dy, x, dx one type.
    C2: weight and the results dweight, dbias are all given, [D], or all absent. }];
  let arguments = (ins FTokens:$dy, FTokens:$x, Optional<FVector>:$weight, F64Attr:$eps);
  let results = (outs FTokens:$dx, Variadic<FVector>:$dparameters);
  let extraClassDeclaration = [{
    /// Null without parameters.
    ::mlir::Value getDweight() { return getDparameters().empty() ? ::mlir::Value() : getDparameters()[0]; }
    ::mlir::Value getDbias() { return getDparameters().empty() ? ::mlir::Value() : getDparameters()[1]; }
  }];
  let assemblyFormat = "$dy `,` $x (`,` $weight^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_NormalizedQKGradOp : Megalodon_GradientOp<"normalized_qk_grad", [InferTypeOpAdaptor]> {
  let summary = "gradient of normalized_qk";
  let description = [{ u = (dq (1+gamma[0]) + dk (1+gamma[1]))/sqrt(dz), r = 1/sqrt(mean(z^2)+eps) per head:  dz = r u - r^3 z mean(u z);
    dgamma[0] = sum dq z r / sqrt(dz), dgamma[1] likewise with dk; dbeta[0] = sum dq, dbeta[1] = sum dk. C1: dq, dk, z, dz one type. C2: gamma, dgamma, dbeta [2,Z]. C3: heads divides Z. }];
  let arguments = (ins FTokens:$dq, FTokens:$dk, FTokens:$z, FMatrix:$gamma, I64Attr:$heads, F64Attr:$eps);
  let results = (outs FTokens:$dz, FMatrix:$dgamma, FMatrix:$dbeta);
  let assemblyFormat = "$dq `,` $dk `,` $z `,` $gamma attr-dict `:` functional-type(operands, results)";
}

def Megalodon_ChunkAttentionGradOp : Megalodon_GradientOp<"chunk_attention_grad", [InferTypeOpAdaptor]> {
  let summary = "gradient of chunk_attention with respect to the call's own q, k, v";
  let description = [{ P = exp(q k^T - lse), causal inside the chunk:  dv = P^T dout;  dP = dout v^T;  delta = sum(dout * out) a row and head;  dS = P (dP - delta);  dq = dS k;  dk = dS^T q.
    The cache is detached: its keys and values enter dq but have no gradient. C1: q, k, dq, dk one type; v, out, dout, dv one type. C2: lse [B,L,H]. C3: caches as in chunk_attention. }];
  let arguments = (ins FTokens:$dout, FTokens:$q, FTokens:$k, FTokens:$v, FTokens:$cache_k, FTokens:$cache_v, I64Rows:$count, FTokens:$out, FTokens:$lse, I64Attr:$heads);
  let results = (outs FTokens:$dq, FTokens:$dk, FTokens:$dv);
  let assemblyFormat = "$dout `,` $q `,` $k `,` $v `cache` `(` $cache_k `,` $cache_v `)` `at` $count `saved` `(` $out `,` $lse `)` attr-dict `:` functional-type(operands, results)";
}

def Megalodon_SiluGradOp : Megalodon_GradientOp<"silu_grad", [SameOperandsAndResultType]> {
  let summary = "dx = dy s (1 + x (1 - s)), s = sigma(x)";
  let arguments = (ins FTokens:$dy, FTokens:$x);
  let results = (outs FTokens:$dx);
  let assemblyFormat = "$dy `,` $x attr-dict `:` type($x)";
  let hasVerifier = 0;
}

def Megalodon_GateGradOp : Megalodon_GradientOp<"gate_grad", [InferTypeOpAdaptor]> {
  let summary = "dvalue = dy silu(gate), dgate = dy value silu'(gate)";
  let description = [{ C1: all operands and results have one type. }];
  let arguments = (ins FTokens:$dy, FTokens:$value, FTokens:$gate);
  let results = (outs FTokens:$dvalue, FTokens:$dgate);
  let assemblyFormat = "$dy `,` $value `by` $gate attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TwoHopResidualGradOp : Megalodon_GradientOp<"two_hop_residual_grad", [InferTypeOpAdaptor]> {
  let summary = "dbranch = alpha dy, dalpha = sum dy branch (only with rescaling; else the branch's gradient is dy itself)";
  let description = [{ C1: dy, branch, dbranch one type [B,L,D]. C2: alpha, dalpha [D]. }];
  let arguments = (ins FTokens:$dy, FTokens:$branch, FVector:$alpha);
  let results = (outs FTokens:$dbranch, FVector:$dalpha);
  let assemblyFormat = "$dy `,` $branch `rescale` $alpha attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CrossEntropyGradOp : Megalodon_GradientOp<"cross_entropy_grad", [InferTypeOpAdaptor]> {
  let summary = "dlogits = dnll (exp(logits - lse) - onehot(target)), 0 for ignored targets";
  let description = [{ C1: logits, dlogits one type [B,L,O]; dnll, lse, targets [B,L]. }];
  let arguments = (ins FMatrix:$dnll, FTokens:$logits, I32Tokens:$targets, FMatrix:$lse);
  let results = (outs FTokens:$dlogits);
  let assemblyFormat = "$dnll `,` $logits `,` $targets `,` $lse attr-dict `:` functional-type(operands, results)";
}

def Megalodon_MeanGradOp : Megalodon_GradientOp<"mean_grad"> {
  let summary = "dx = dy / (number of positions of the call), at every position";
  let description = [{ C1: dy is a scalar, dx [B,L], of one element type. }];
  let arguments = (ins FScalar:$dy);
  let results = (outs FMatrix:$dx);
  let assemblyFormat = "$dy attr-dict `:` functional-type(operands, results)";
}

#endif
