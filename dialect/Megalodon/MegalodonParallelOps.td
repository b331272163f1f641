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

    * C1: x [B,L,D], summary [B,1,2,G] of one element type.
    * C2: G, the attribute groups, divides D.

    Example:

    ```mlir
    %summary = megalodon.timestep_statistics %x {groups = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x1x2x4xf32>
    ```
  }];
  let arguments = (ins FTokens:$x, I64Attr:$groups);
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

def Megalodon_TimestepPrefixGradOp : Megalodon_ParallelOp<"timestep_prefix_grad", [AttrSizedOperandSegments, InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of timestep_prefix over all ranks";
  let description = [{
    `dlocal[:,r]` holds the cotangents of mean and var that rank r's timestep_norm_grad gave for the state it started from. With the states
    and l of timestep_prefix, d = m2 - m1 and (n1, n2, n) of each merge, (a, c) starting at (dnew_mean, dnew_var) (absent = 0), for
    r = R-1, ..., 0:

    ```
    dsummary_r = (n2/n a + 2 n1 n2/n^2 d c,  n2/n c)
    a <- dlocal[:,r,0] + n1/n a - 2 n1 n2/n^2 d c;   c <- dlocal[:,r,1] + n1/n c
    ```

    `dsummary` is that of this rank; what remains of a, c is dmean, dvar, the same on every rank. Computed in f64.

    * C1: summaries, dlocal one type [B,R,2,G]; dsummary [B,1,2,G].
    * C2: count [B]; mean, var, dmean, dvar [B,G].
    * C3: dnew_mean, dnew_var (both or none) [B,G].
    * C4: element types agree.

    Example:

    ```mlir
    %dsummary, %dmean, %dvar = megalodon.timestep_prefix_grad %dlocal end(%dnew_mean, %dnew_var), %summaries
        from(%count, %mean, %var) at %rank
        : (tensor<2x3x2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index)
       -> (tensor<2x1x2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
    ```
  }];
  let arguments = (ins FStatistics:$dlocal, Optional<FMatrix>:$dnew_mean, Optional<FMatrix>:$dnew_var, FStatistics:$summaries, I64Rows:$count,
                       FMatrix:$mean, FMatrix:$var, Index:$rank);
  let results = (outs FStatistics:$dsummary, FMatrix:$dmean, FMatrix:$dvar);
  let assemblyFormat = "$dlocal (`end` `(` $dnew_mean^ `,` $dnew_var `)`)? `,` $summaries `from` `(` $count `,` $mean `,` $var `)` `at` $rank attr-dict `:` functional-type(operands, results)";
}

def Megalodon_TimestepStatisticsGradOp : Megalodon_ParallelOp<"timestep_statistics_grad", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "gradient of timestep_statistics, added to another of the same input";
  let description = [{
    With N = l D/G entries in a group, m its mean in `summary` and (dm, dv) its cotangents in `dsummary`:

    ```
    result = dx + dm/N + 2 dv (x - m)/N
    ```

    * C1: dx, x, result one type [B,L,D].
    * C2: summary, dsummary [B,1,2,G] of x's element type, both this rank's own; G divides D.

    Example:

    ```mlir
    %result = megalodon.timestep_statistics_grad %dx, %x summary(%summary, %dsummary)
        : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x1x2x4xf32>, tensor<2x1x2x4xf32>)
       -> tensor<2x8x16xf32>
    ```
  }];
  let arguments = (ins FTokens:$dx, FTokens:$x, FStatistics:$summary, FStatistics:$dsummary);
  let results = (outs FTokens:$result);
  let assemblyFormat = "$dx `,` $x `summary` `(` $summary `,` $dsummary `)` attr-dict `:` functional-type(operands, results)";
}

def Megalodon_PackStatisticsOp : Megalodon_ParallelOp<"pack_statistics", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "mean and variance side by side, to be gathered in one message";
  let description = [{
    ```
    summary[b,0,0,g] = mean[b,g];  summary[b,0,1,g] = var[b,g]
    ```

    * C1: mean, var one type [B,G]; summary [B,1,2,G].

    Example:

    ```mlir
    %summary = megalodon.pack_statistics %mean, %var : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x1x2x4xf32>
    ```
  }];
  let arguments = (ins FMatrix:$mean, FMatrix:$var);
  let results = (outs FStatistics:$summary);
  let assemblyFormat = "$mean `,` $var attr-dict `:` functional-type(operands, results)";
}

//===-- CEMA ------------------------------------------------------------------------------------------------------------------===//

def Megalodon_CemaSummaryOp : Megalodon_ParallelOp<"cema_summary", [InferTypeOpAdaptorWithIsCompatible]> {
  let summary = "state that the call's own tokens leave behind, from a state of zero";
  let description = [{
    ```
    summary[b,0,d,k] = sum over t of q_k^(l-1-t) p_k x[b,t,d]
    ```

    * C1: x [B,L,D]; p [D,N]; q [D,N,2].
    * C2: summary [B,1,D,N,2] of x's element type.

    Example:

    ```mlir
    %summary = megalodon.cema_summary %x, %p, %q
        : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>)
       -> tensor<2x1x16x4x2xf32>
    ```
  }];
  let arguments = (ins FTokens:$x, F64Matrix:$p, F64Complex:$q);
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
    * C2: summary [B,1,D,N,2] of dy's element type.

    Example:

    ```mlir
    %summary = megalodon.cema_grad_summary %dy, %q, %g
        : (tensor<2x8x16xf32>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
       -> tensor<2x1x16x4x2xf32>
    ```
  }];
  let arguments = (ins FTokens:$dy, F64Complex:$q, F64Complex:$g);
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
