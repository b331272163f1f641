// Ops that let ranks share one sequence, one vocabulary or one set of parameters.
#ifndef MEGALODON_PARALLEL_OPS_TD
#define MEGALODON_PARALLEL_OPS_TD

include "dialect/Megalodon/MegalodonBase.td"

def Megalodon_Parallel : OpDocGroup {
  let summary = "Parallel";
  let description = [{
    What a rank computes of its own share, and what it makes of the other ranks' shares. The ops send no messages: collectives stand between
    them. B, L and the other extents are those of the rank's own tensors; R is the number of ranks along the axis that is split and
    `rank` this rank's place on it. Along the chunk axis every rank has the same l tokens, rank 0 the first of the sequence. A *summary* is what
    the other ranks need to know of a rank's tokens; the summaries of all ranks are gathered along dimension 1.
  }];
}

let opDocGroup = Megalodon_Parallel in {

//===-- Timestep norm ---------------------------------------------------------------------------------------------------------===//

def Megalodon_TimestepStatisticsOp : Megalodon_ParallelOp<"timestep_statistics", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "mean and variance of the call's own tokens";
  let description = [{
    ```
    summary[b,0,0,g] = mean of x over the call's l tokens and the D/G channels of group g
    summary[b,0,1,g] = population variance of the same entries
    ```

    Sums in f64.

    * C1: x [B,L,D], summary [B,1,2,G] of type F.
    * C2: G, the attribute groups, divides D.

    Example:

    ```mlir
    %summary = megalodon.timestep_statistics %x {groups = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x1x2x4xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, I64Attr:$groups);
  let results = (outs FStatistics:$summary);
  let assemblyFormat = "$x attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TimestepPrefixOp : Megalodon_ParallelOp<"timestep_prefix", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "timestep norm's statistics in front of this rank's tokens and after all ranks'";
  let description = [{
    Statistics (n, m, v) of tokens and of tokens behind them merge as

    ```
    merge((n1, m1, v1), (n2, m2, v2)):
      n = n1 + n2;  d = m2 - m1;  m = m1 + (n2/n) d;  v = (n1 v1 + n2 v2)/n + (n1 n2/n^2) d^2
    ```

    The state starts at (count, mean, var); state_{r+1} = merge(state_r, (l, summaries[:,r])). `local_*` is state_rank, what this rank's
    timestep_norm starts from; `new_*` is state_R, the same on every rank. With a count of 0 mean and var count nothing. Computed in f64.

    * C1: summaries [B,R,2,G] as timestep_statistics gives them.
    * C2: count and its updates [B]; mean, var and their updates [B,G].
    * C3: element types agree.

    Example:

    ```mlir
    %local_count, %local_mean, %local_var, %new_count, %new_mean, %new_var = megalodon.timestep_prefix %summaries
        from(%count, %mean, %var) at %rank
        : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index)
       -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
    ```
  }];
  let arguments = (ins FStatistics:$summaries, I64Rows:$count, FMatrix:$mean, FMatrix:$var, Index:$rank);
  let results = (outs I64Rows:$local_count, FMatrix:$local_mean, FMatrix:$local_var, I64Rows:$new_count, FMatrix:$new_mean, FMatrix:$new_var);
  let assemblyFormat = "$summaries `from` `(` $count `,` $mean `,` $var `)` `at` $rank attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LocalCountOp : Megalodon_ParallelOp<"local_count", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "tokens in front of this rank's tokens";
  let description = [{
    ```
    local_count = count + rank l
    ```

    * C1: count and result [B].

    Example:

    ```mlir
    %local_count = megalodon.local_count %count at %rank : (tensor<2xi64>, index) -> tensor<2xi64>
    ```
  }];
  let arguments = (ins I64Rows:$count, Index:$rank);
  let results = (outs I64Rows:$local_count);
  let assemblyFormat = "$count `at` $rank attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 0;
}

def Megalodon_TimestepMomentsGradOp : Megalodon_ParallelOp<"timestep_moments_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "cotangents of the raw moments in front of this rank's tokens";
  let description = [{
    Statistics (n, mean, var) merge by addition when they are written as raw moments S1 = n mean, S2 = n (var + mean^2). So in backward ranks exchange
    cotangents of raw moments and add up those of the ranks behind them. From the cotangents of the statistics this rank's timestep_norm started from:

    ```
    dS1 = (dmean - 2 mean dvar)/n;  dS2 = dvar/n        (0 where n = 0)
    mean = ((n + 1) running_mean[b,0,g] - m)/n,  m the group's mean of x[b,0,:]
    ```

    `count` is this rank's n. Computed in f64.

    * C1: dmean, dvar [B,G]; share [B,1,2,G].
    * C2: x [B,L,D], G divides D; running_mean [B,L,G]; count [B].
    * C3: x has type A, all others F.

    Example:

    ```mlir
    %share = megalodon.timestep_moments_grad %dmean, %dvar, %x state(%count, %running_mean)
        : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x8x4xf32>)
       -> tensor<2x1x2x4xf32>
    ```
  }];
  let arguments = (ins FMatrix:$dmean, FMatrix:$dvar, ATokens:$x, I64Rows:$count, FTokens:$running_mean);
  let results = (outs FStatistics:$share);
  let assemblyFormat = "$dmean `,` $dvar `,` $x `state` `(` $count `,` $running_mean `)` attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TimestepSuffixGradOp : Megalodon_ParallelOp<"timestep_suffix_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "adds what the ranks behind this one send back to its tokens";
  let description = [{
    `shares` are what timestep_moments_grad gave on every rank. With (A1, A2) the sum of the shares of the ranks behind this one and (T1, T2) the sum of
    all shares, n = count and mean as in timestep_moments_grad:

    ```
    result = dx + (A1[g] + 2 x A2[g]) / (D/G)
    dmean = n (T1 + 2 mean T2);  dvar = n T2     on rank 0;  0 on other ranks
    ```

    The first rank's dmean, dvar are those of the statistics in front of all tokens. Sums in f64.

    * C1: dx, x and result have one type [B,L,D].
    * C2: shares [B,R,2,G], G divides D.
    * C3: running_mean [B,L,G]; count [B]; dmean, dvar [B,G].
    * C4: dx, x and result have type A, all others F.

    Example:

    ```mlir
    %result, %dmean, %dvar = megalodon.timestep_suffix_grad %dx, %x, %shares state(%count, %running_mean) at %rank
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x8x4xf32>, index)
       -> (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
    ```
  }];
  let arguments = (ins ATokens:$dx, ATokens:$x, FStatistics:$shares, I64Rows:$count, FTokens:$running_mean, Index:$rank);
  let results = (outs ATokens:$result, FMatrix:$dmean, FMatrix:$dvar);
  let assemblyFormat = "$dx `,` $x `,` $shares `state` `(` $count `,` $running_mean `)` `at` $rank attr-dict `:` functional-type(operands, results)";
}

//===-- CEMA ------------------------------------------------------------------------------------------------------------------===//

def Megalodon_CemaSummaryOp : Megalodon_ParallelOp<"cema_summary", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "state that the call's own tokens leave behind, from a state of zero";
  let description = [{
    ```
    summary[b,0,d,k] = sum over t of q_k^(l-1-t) p_k x[b,t,d]
    ```

    * C1: x [B,L,D]; p [D,N]; q [D,N,2].
    * C2: summary [B,1,D,N,2] of type F.

    Example:

    ```mlir
    %summary = megalodon.cema_summary %x, %p, %q
        : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>)
       -> tensor<2x1x16x4x2xf32>
    ```
  }];
  let arguments = (ins ATokens:$x, F64Matrix:$p, F64Complex:$q);
  let results = (outs FStates:$summary);
  let assemblyFormat = "$x `,` $p `,` $q attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaGradSummaryOp : Megalodon_ParallelOp<"cema_grad_summary", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "cotangent of the state in front of the call, from none behind it";
  let description = [{
    ```
    summary[b,0,d,k] = sum over t of conj(q_k)^(t+1) conj(g_k) dy[b,t,d]
    ```

    This is what cema_grad gives as dstate when dnew_state is 0.

    * C1: dy [B,L,D]; q, g [D,N,2].
    * C2: summary [B,1,D,N,2] of type F.

    Example:

    ```mlir
    %summary = megalodon.cema_grad_summary %dy, %q, %g
        : (tensor<2x8x16xf32>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
       -> tensor<2x1x16x4x2xf32>
    ```
  }];
  let arguments = (ins ATokens:$dy, F64Complex:$q, F64Complex:$g);
  let results = (outs FStates:$summary);
  let assemblyFormat = "$dy `,` $q `,` $g attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CemaPrefixOp : Megalodon_ParallelOp<"cema_prefix", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "CEMA's state in front of this rank's tokens and after all ranks'";
  let description = [{
    With c_s = summaries[:,s] of cema_summary, h_0 = state and l tokens a rank:

    ```
    h_{s+1} = q^l h_s + c_s;   local_state = h_rank;   new_state = h_R
    ```

    With `reverse` the summaries are those of cema_grad_summary and state is the cotangent behind all ranks, e_R = state:

    ```
    e_s = conj(q)^l e_{s+1} + c_s;   local_state = e_{rank+1};   new_state = e_0
    ```

    `local_state` is what this rank's cema, or its cema_grad, starts from; `new_state` is the same on every rank. Computed in f64.

    * C1: q [D,N,2]; summaries [B,R,D,N,2].
    * C2: state, local_state, new_state [B,D,N,2] of the summaries' element type.

    Example:

    ```mlir
    %local_state, %new_state = megalodon.cema_prefix %summaries, %q state(%state) at %rank reverse
        : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index)
       -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
    ```
  }];
  let arguments = (ins FStates:$summaries, F64Complex:$q, FState:$state, Index:$rank, UnitAttr:$reverse);
  let results = (outs FState:$local_state, FState:$new_state);
  let assemblyFormat = "$summaries `,` $q `state` `(` $state `)` `at` $rank (`reverse` $reverse^)? attr-dict `:` functional-type(operands, results)";
}

//===-- Loss ------------------------------------------------------------------------------------------------------------------===//

def Megalodon_CrossEntropySummaryOp : Megalodon_ParallelOp<"cross_entropy_summary", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "what a rank's columns of the vocabulary add to the cross entropy";
  let description = [{
    Column j of `logits` [B,L,O] is column c = rank * O + j of the vocabulary; columns from `vocabulary` on are padding.

    ```
    summary[b,l,0] = log sum of exp(logits[b,l,j]) over the columns c < vocabulary
    summary[b,l,1] = logits[b,l,j] of the column c = targets[b,l], 0 if it is another rank's
    ```

    A rank that holds nothing but padding gives the lowest finite number for the first. The ranks' summaries are gathered along dimension 2.

    * C1: logits [B,L,O]; targets [B,L].
    * C2: summary [B,L,2] of the logits' element type.
    * C3: vocabulary > 0.

    Example:

    ```mlir
    %summary = megalodon.cross_entropy_summary %logits, %targets at %rank {vocabulary = 30 : i64}
        : (tensor<2x8x16xf32>, tensor<2x8xi32>, index)
       -> tensor<2x8x2xf32>
    ```
  }];
  let arguments = (ins FTokens:$logits, I32Tokens:$targets, Index:$rank, I64Attr:$vocabulary);
  let results = (outs FTokens:$summary);
  let assemblyFormat = "$logits `,` $targets `at` $rank attr-dict `:` functional-type(operands, results)";
}

def Megalodon_CrossEntropyCombineOp : Megalodon_ParallelOp<"cross_entropy_combine", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "cross entropy from the summaries of all ranks";
  let description = [{
    With (s_r, t_r) = summaries[b,l,2r], summaries[b,l,2r+1] as cross_entropy_summary gives them:

    ```
    lse[b,l] = log sum over r of exp(s_r);   nll[b,l] = lse[b,l] - sum over r of t_r
    ```

    A target of -100 is ignored: its nll is 0. Computed in f64.

    * C1: summaries [B,L,2R] with R > 0; targets, nll, lse [B,L].
    * C2: element types agree.

    Example:

    ```mlir
    %nll, %lse = megalodon.cross_entropy_combine %summaries, %targets
        : (tensor<2x8x6xf32>, tensor<2x8xi32>)
       -> (tensor<2x8xf32>, tensor<2x8xf32>)
    ```
  }];
  let arguments = (ins FTokens:$summaries, I32Tokens:$targets);
  let results = (outs FMatrix:$nll, FMatrix:$lse);
  let assemblyFormat = "$summaries `,` $targets attr-dict `:` functional-type(operands, results)";
}

//===-- Row norms -------------------------------------------------------------------------------------------------------------===//

def Megalodon_RmsNormGradSumsOp : Megalodon_ParallelOp<"rms_norm_grad_sums", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "what rms_norm_grad needs of whole rows, from a slice of the channels";
  let description = [{
    With u = dy (1 + weight), or dy weight if `plain`, summed over the slice in f64:

    ```
    sums[b,l] = (sum x^2, sum u x)
    ```

    * C1: dy, x one type [B,L,D].
    * C2: weight, if given, [D] of type F; plain needs it.
    * C3: sums [B,L,2] of f64.

    Example:

    ```mlir
    %sums = megalodon.rms_norm_grad_sums %dy, %x, %weight
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>)
       -> tensor<2x8x2xf64>
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$x, Optional<FVector>:$weight, UnitAttr:$plain);
  let results = (outs F64Tokens:$sums);
  let assemblyFormat = "$dy `,` $x (`,` $weight^)? (`plain` $plain^)? attr-dict `:` functional-type(operands, results)";
}

def Megalodon_LayerNormGradSumsOp : Megalodon_ParallelOp<"layer_norm_grad_sums", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "what layer_norm_grad needs of whole rows, from a slice of the channels";
  let description = [{
    With u = dy (1 + weight), summed over the slice in f64:

    ```
    sums[b,l] = (sum x, sum x^2, sum u, sum u x)
    ```

    * C1: dy, x one type [B,L,D].
    * C2: weight, if given, [D] of type F.
    * C3: sums [B,L,4] of f64.

    Example:

    ```mlir
    %sums = megalodon.layer_norm_grad_sums %dy, %x, %weight
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>)
       -> tensor<2x8x4xf64>
    ```
  }];
  let arguments = (ins ATokens:$dy, ATokens:$x, Optional<FVector>:$weight);
  let results = (outs F64Tokens:$sums);
  let assemblyFormat = "$dy `,` $x (`,` $weight^)? attr-dict `:` functional-type(operands, results)";
}

//===-- Optimizer -------------------------------------------------------------------------------------------------------------===//

def Megalodon_SumOfSquaresOp : Megalodon_ParallelOp<"sum_of_squares", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "sum of squares over all tensors, in f64 in a fixed order";
  let description = [{
    ```
    sum = sum over all gradients of sum(g^2)
    ```

    * C1: at least one gradient; all of one element type; sum is a scalar of f64.

    Example:

    ```mlir
    %sum = megalodon.sum_of_squares %a, %b : (tensor<24x16xf32>, tensor<16xf32>) -> tensor<f64>
    ```
  }];
  let arguments = (ins Variadic<FAny>:$gradients);
  let results = (outs F64Scalar:$sum);
  let assemblyFormat = "$gradients attr-dict `:` functional-type(operands, results)";
}

def Megalodon_NormOfSquaresOp : Megalodon_ParallelOp<"norm_of_squares"> {
  let summary = "global norm from sums of squares";
  let description = [{
    ```
    norm = sqrt(sums_0 + sums_1 + ...)
    ```

    Added in f64 from left to right. With sum_of_squares this is global_norm of gradients that are spread over ranks, once every sum is
    reduced over the ranks that hold parts of its gradients.

    * C1: at least one sum.

    Example:

    ```mlir
    %norm = megalodon.norm_of_squares %shared, %split : (tensor<f64>, tensor<f64>) -> tensor<f32>
    ```
  }];
  let arguments = (ins Variadic<F64Scalar>:$sums);
  let results = (outs FScalar:$norm);
  let assemblyFormat = "$sums attr-dict `:` functional-type(operands, results)";
}

} // Megalodon_Parallel

#endif
