// Every forward op is differentiated by the ops that its gradient is made of.
// RUN: megalodon-opt %s --megalodon-differentiate | FileCheck %s

// CHECK-LABEL: func.func @loss
// CHECK-SAME: %[[LOGITS:.*]]: tensor<2x8x4xf32> {{.*}}, %[[TARGETS:.*]]: tensor<2x8xi32>
// CHECK: %[[NLL:.*]], %[[LSE:.*]] = megalodon.cross_entropy
// CHECK: %[[LOSS:.*]] = megalodon.mean
// CHECK: %[[ONE:.*]] = arith.constant dense<1.000000e+00> : tensor<f32>
// CHECK: %[[DNLL:.*]] = megalodon.mean_grad %[[ONE]]
// CHECK: %[[DLOGITS:.*]] = megalodon.cross_entropy_grad %[[DNLL]], %[[LOGITS]], %[[TARGETS]], %[[LSE]]
// CHECK: return %[[LOSS]], %[[DLOGITS]]
func.func @loss(%logits: tensor<2x8x4xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %nll, %lse = megalodon.cross_entropy %logits, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// The cotangent of a train entry's loss is its argument `loss_scale`.
// CHECK-LABEL: func.func @loss_scale
// CHECK-SAME: %[[SCALE:[^:]*]]: tensor<f32>
// CHECK: megalodon.mean_grad %[[SCALE]]
func.func @loss_scale(%logits: tensor<2x8x4xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>,
                      %scale: tensor<f32> {megalodon.name = "loss_scale"}) -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "train"} {
  %nll, %lse = megalodon.cross_entropy %logits, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// A parameter used twice gets the sum.
// CHECK-LABEL: func.func @shared_embedding
// CHECK-SAME: %[[TOKENS:[^:]*]]: tensor<2x8xi32>, %[[WEIGHT:[^:]*]]: tensor<16x4xf32>
// CHECK: %[[X:.*]] = megalodon.embedding
// CHECK: %[[DLOGITS:.*]] = megalodon.cross_entropy_grad
// CHECK: %[[DX:.*]] = megalodon.linear_grad_input %[[DLOGITS]], %[[WEIGHT]]
// CHECK: %[[D0:.*]] = megalodon.linear_grad_weight %[[DLOGITS]], %[[X]]
// CHECK: %[[D1:.*]] = megalodon.embedding_grad %[[TOKENS]], %[[DX]] {scale = 2.000000e+00 : f64}
// CHECK: %[[D:.*]] = megalodon.add %[[D0]], %[[D1]]
// CHECK: return %{{.*}}, %[[D]]
func.func @shared_embedding(%tokens: tensor<2x8xi32>, %weight: tensor<16x4xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %x = megalodon.embedding %tokens, %weight {scale = 2.0 : f64} : (tensor<2x8xi32>, tensor<16x4xf32>) -> tensor<2x8x4xf32>
  %logits = megalodon.linear %x, %weight : (tensor<2x8x4xf32>, tensor<16x4xf32>) -> tensor<2x8x16xf32>
  %nll, %lse = megalodon.cross_entropy %logits, %tokens : (tensor<2x8x16xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// The input of the first linear is no parameter: its gradient is not built.
// CHECK-LABEL: func.func @linear
// CHECK-NOT: megalodon.linear_grad_input
// CHECK: %[[DW:.*]] = megalodon.linear_grad_weight
// CHECK: %[[DB:.*]] = megalodon.linear_grad_bias
// CHECK-NOT: megalodon.linear_grad_input
// CHECK: return %{{.*}}, %[[DW]], %[[DB]]
func.func @linear(%x: tensor<2x8x4xf32>, %w: tensor<4x4xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>},
                  %b: tensor<4xf32> {megalodon.name = "b", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %y = megalodon.linear %x, %w bias %b : (tensor<2x8x4xf32>, tensor<4x4xf32>, tensor<4xf32>) -> tensor<2x8x4xf32>
  %nll, %lse = megalodon.cross_entropy %y, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// State that is not detached has gradients too, named after it.
// CHECK-LABEL: func.func @timestep_norm
// CHECK-SAME: -> ({{.*}} "loss"{{.*}} "grad.w"{{.*}} "grad.b"{{.*}} "grad.state.mean"{{.*}} "grad.state.var", {{.*}}role<gradient>
// CHECK: %[[Y:.*]], %{{.*}}, %{{.*}}, %{{.*}}, %[[MEAN:.*]], %[[RSTD:.*]] = megalodon.timestep_norm %[[X:.*]], %[[W:.*]], %[[B:.*]] state(%[[COUNT:.*]], %{{.*}}, %{{.*}})
// CHECK: %[[DY:.*]] = megalodon.cross_entropy_grad
// CHECK: %{{.*}}, %[[DW:.*]], %[[DB:.*]], %[[DMEAN:.*]], %[[DVAR:.*]] = megalodon.timestep_norm_grad %[[DY]], %[[X]], %[[W]] state(%[[COUNT]], %[[MEAN]], %[[RSTD]])
// CHECK: return %{{.*}}, %[[DW]], %[[DB]], %[[DMEAN]], %[[DVAR]]
func.func @timestep_norm(%x: tensor<2x8x4xf32>, %w: tensor<4xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>},
                         %b: tensor<4xf32> {megalodon.name = "b", megalodon.role = #megalodon.role<parameter>},
                         %count: tensor<2xi64> {megalodon.name = "state.count", megalodon.role = #megalodon.role<state>},
                         %mean: tensor<2x2xf32> {megalodon.name = "state.mean", megalodon.role = #megalodon.role<state>},
                         %var: tensor<2x2xf32> {megalodon.name = "state.var", megalodon.role = #megalodon.role<state>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %y, %new_count, %new_mean, %new_var, %running_mean, %running_rstd = megalodon.timestep_norm %x, %w, %b state(%count, %mean, %var) {eps = 1.0e-5 : f64}
      : (tensor<2x8x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<2xi64>, tensor<2x2xf32>, tensor<2x2xf32>)
      -> (tensor<2x8x4xf32>, tensor<2xi64>, tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x8x2xf32>, tensor<2x8x2xf32>)
  %nll, %lse = megalodon.cross_entropy %y, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// A second call reads the first one's end state: its cotangent enters as `end`.
// CHECK-LABEL: func.func @carried_norm
// CHECK: %[[DX1:.*]], %{{.*}}, %{{.*}}, %[[DMEAN:.*]], %[[DVAR:.*]] = megalodon.timestep_norm_grad
// CHECK: megalodon.timestep_norm_grad %[[DX1]] end(%[[DMEAN]], %[[DVAR]])
func.func @carried_norm(%x: tensor<2x8x4xf32>, %w: tensor<4xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>}, %b: tensor<4xf32>,
                        %count: tensor<2xi64>, %mean: tensor<2x2xf32>, %var: tensor<2x2xf32>, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %y:6 = megalodon.timestep_norm %x, %w, %b state(%count, %mean, %var) {eps = 1.0e-5 : f64}
      : (tensor<2x8x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<2xi64>, tensor<2x2xf32>, tensor<2x2xf32>)
      -> (tensor<2x8x4xf32>, tensor<2xi64>, tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x8x2xf32>, tensor<2x8x2xf32>)
  %z:6 = megalodon.timestep_norm %y#0, %w, %b state(%y#1, %y#2, %y#3) {eps = 1.0e-5 : f64}
      : (tensor<2x8x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<2xi64>, tensor<2x2xf32>, tensor<2x2xf32>)
      -> (tensor<2x8x4xf32>, tensor<2xi64>, tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x8x2xf32>, tensor<2x8x2xf32>)
  %nll, %lse = megalodon.cross_entropy %z#0, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// CHECK-LABEL: func.func @cema
// CHECK: %[[P:.*]], %[[Q:.*]], %[[G:.*]] = megalodon.cema_coefficients
// CHECK: %{{.*}}, %{{.*}}, %[[STATES:.*]] = megalodon.cema %[[X:.*]], %[[P]], %[[Q]], %[[G]], %[[OMEGA:.*]] state(
// CHECK: %[[DY:.*]] = megalodon.cross_entropy_grad
// CHECK: %{{.*}}, %[[DP:.*]], %[[DQ:.*]], %[[DG:.*]], %[[DOMEGA:.*]], %[[DH:.*]] = megalodon.cema_grad %[[DY]], %[[X]], %[[P]], %[[Q]], %[[G]], %[[OMEGA]] states(%[[STATES]]) {block = 4 : i64}
// CHECK: %[[DALPHA:.*]], %[[DDELTA:.*]], %[[DTHETA:.*]], %[[DGAMMA:.*]] = megalodon.cema_coefficients_grad %[[DP]], %[[DQ]], %[[DG]]
// CHECK: return %{{.*}}, %[[DALPHA]], %[[DDELTA]], %[[DTHETA]], %[[DGAMMA]], %[[DOMEGA]], %[[DH]]
func.func @cema(%x: tensor<2x8x4xf32>, %alpha: tensor<4x3x1xf32> {megalodon.name = "alpha", megalodon.role = #megalodon.role<parameter>},
                %delta: tensor<4x3x1xf32> {megalodon.name = "delta", megalodon.role = #megalodon.role<parameter>},
                %theta: tensor<4x1x1xf32> {megalodon.name = "theta", megalodon.role = #megalodon.role<parameter>},
                %gamma: tensor<4x3x2xf32> {megalodon.name = "gamma", megalodon.role = #megalodon.role<parameter>},
                %omega: tensor<4x1xf32> {megalodon.name = "omega", megalodon.role = #megalodon.role<parameter>},
                %h: tensor<2x4x3x2xf32> {megalodon.name = "state.h", megalodon.role = #megalodon.role<state>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %p, %q, %g = megalodon.cema_coefficients %alpha, %delta, %theta, %gamma
      : (tensor<4x3x1xf32>, tensor<4x3x1xf32>, tensor<4x1x1xf32>, tensor<4x3x2xf32>) -> (tensor<4x3xf64>, tensor<4x3x2xf64>, tensor<4x3x2xf64>)
  %y, %end, %states = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 4 : i64}
      : (tensor<2x8x4xf32>, tensor<4x3xf64>, tensor<4x3x2xf64>, tensor<4x3x2xf64>, tensor<4x1xf32>, tensor<2x4x3x2xf32>)
      -> (tensor<2x8x4xf32>, tensor<2x4x3x2xf32>, tensor<2x2x4x3x2xf32>)
  %nll, %lse = megalodon.cross_entropy %y, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// CHECK-LABEL: func.func @norms
// CHECK: %[[Y:.*]] = megalodon.rms_norm %[[X:.*]], %[[W:.*]] {
// CHECK: megalodon.layer_norm %[[Y]] affine(%[[LW:.*]], %{{.*}})
// CHECK: %[[DY:.*]], %[[DL:.*]]:2 = megalodon.layer_norm_grad %{{.*}}, %[[Y]], %[[LW]] {eps = 1.000000e-05 : f64}
// CHECK: %[[DX:.*]], %[[DW:.*]] = megalodon.rms_norm_grad %[[DY]], %[[X]], %[[W]] {eps = 1.000000e-05 : f64}
// CHECK: return %{{.*}}, %[[DX]], %[[DW]], %[[DL]]#0, %[[DL]]#1
func.func @norms(%x: tensor<2x8x4xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<parameter>},
                 %w: tensor<4xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>},
                 %lw: tensor<4xf32> {megalodon.name = "lw", megalodon.role = #megalodon.role<parameter>},
                 %lb: tensor<4xf32> {megalodon.name = "lb", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %y = megalodon.rms_norm %x, %w {eps = 1.0e-5 : f64} : (tensor<2x8x4xf32>, tensor<4xf32>) -> tensor<2x8x4xf32>
  %z = megalodon.layer_norm %y affine(%lw, %lb) {eps = 1.0e-5 : f64} : (tensor<2x8x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x8x4xf32>
  %nll, %lse = megalodon.cross_entropy %z, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// Without gain and bias the gradient ops have none either.
// CHECK-LABEL: func.func @plain_norms
// CHECK: %[[DY:.*]] = megalodon.layer_norm_grad {{.*}} -> tensor<2x8x4xf32>
// CHECK: megalodon.rms_norm_grad %[[DY]], {{.*}} -> tensor<2x8x4xf32>
func.func @plain_norms(%x: tensor<2x8x4xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %y = megalodon.rms_norm %x {eps = 1.0e-5 : f64} : (tensor<2x8x4xf32>) -> tensor<2x8x4xf32>
  %z = megalodon.layer_norm %y {eps = 1.0e-5 : f64} : (tensor<2x8x4xf32>) -> tensor<2x8x4xf32>
  %nll, %lse = megalodon.cross_entropy %z, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// The cache is detached: it has no gradient although it is state.
// CHECK-LABEL: func.func @attention
// CHECK-SAME: -> ({{.*}} "loss"{{.*}} "grad.z"{{.*}} "grad.gamma"{{.*}} "grad.beta"{{.*}} "grad.v", megalodon.role = #megalodon.role<gradient>}) attributes
// CHECK: megalodon.normalized_qk %[[Z:.*]], %[[GAMMA:.*]], %{{.*}} {
// CHECK: %[[OUT:.*]], %[[LSE:.*]] = megalodon.chunk_attention %[[Q:.*]], %[[K:.*]], %[[V:.*]] cache(%[[CK:.*]], %[[CV:.*]]) at %[[COUNT:.*]] {
// CHECK: %[[DQ:.*]], %[[DK:.*]], %[[DV:.*]] = megalodon.chunk_attention_grad %{{.*}}, %[[Q]], %[[K]], %[[V]] cache(%[[CK]], %[[CV]]) at %[[COUNT]] saved(%[[OUT]], %[[LSE]]) {heads = 2 : i64}
// CHECK-DAG: %[[RDK:.*]] = megalodon.rotary %[[DK]] at %[[COUNT]] inverse {
// CHECK-DAG: %[[RDQ:.*]] = megalodon.rotary %[[DQ]] at %[[COUNT]] inverse {
// CHECK: %[[DZ:.*]], %[[DGAMMA:.*]], %[[DBETA:.*]] = megalodon.normalized_qk_grad %[[RDQ]], %[[RDK]], %[[Z]], %[[GAMMA]]
// CHECK: return %{{.*}}, %[[DZ]], %[[DGAMMA]], %[[DBETA]], %[[DV]]
func.func @attention(%z: tensor<2x8x4xf32> {megalodon.name = "z", megalodon.role = #megalodon.role<parameter>},
                     %gamma: tensor<2x4xf32> {megalodon.name = "gamma", megalodon.role = #megalodon.role<parameter>},
                     %beta: tensor<2x4xf32> {megalodon.name = "beta", megalodon.role = #megalodon.role<parameter>},
                     %v: tensor<2x8x6xf32> {megalodon.name = "v", megalodon.role = #megalodon.role<parameter>},
                     %count: tensor<2xi64> {megalodon.name = "state.count", megalodon.role = #megalodon.role<state>},
                     %cache_k: tensor<2x4x4xf32> {megalodon.name = "state.k", megalodon.role = #megalodon.role<state>},
                     %cache_v: tensor<2x4x6xf32> {megalodon.name = "state.v", megalodon.role = #megalodon.role<state>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}, tensor<2x4x4xf32> {megalodon.name = "state.k", megalodon.role = #megalodon.role<state>})
    attributes {megalodon.entry = "grad"} {
  %q0, %k0 = megalodon.normalized_qk %z, %gamma, %beta {heads = 2 : i64, eps = 1.0e-5 : f64}
      : (tensor<2x8x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  %q = megalodon.rotary %q0 at %count {heads = 2 : i64, base = 1.0e4 : f64, chunk = 4 : i64} : (tensor<2x8x4xf32>, tensor<2xi64>) -> tensor<2x8x4xf32>
  %k = megalodon.rotary %k0 at %count {heads = 2 : i64, base = 1.0e4 : f64, chunk = 4 : i64} : (tensor<2x8x4xf32>, tensor<2xi64>) -> tensor<2x8x4xf32>
  %a, %alse = megalodon.chunk_attention %q, %k, %v cache(%cache_k, %cache_v) at %count {heads = 2 : i64}
      : (tensor<2x8x4xf32>, tensor<2x8x4xf32>, tensor<2x8x6xf32>, tensor<2x4x4xf32>, tensor<2x4x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x8x2xf32>)
  %new_k = megalodon.cache_append %cache_k, %k at %count : (tensor<2x4x4xf32>, tensor<2x8x4xf32>, tensor<2xi64>) -> tensor<2x4x4xf32>
  %nll, %lse = megalodon.cross_entropy %a, %targets : (tensor<2x8x6xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss, %new_k : tensor<f32>, tensor<2x4x4xf32>
}

// CHECK-LABEL: func.func @pointwise
// CHECK-SAME: %[[A:[^:]*]]: tensor<2x8x4xf32> {{[^%]*}}%[[B:[^:]*]]: tensor<2x8x4xf32> {{[^%]*}}%[[ALPHA:[^:]*]]: tensor<4xf32>
// CHECK: %[[S:.*]] = megalodon.silu %[[A]]
// CHECK: %[[G:.*]] = megalodon.gate %[[S]] by %[[B]]
// CHECK: %[[DR:.*]] = megalodon.cross_entropy_grad
// CHECK: %[[DBRANCH:.*]], %[[DALPHA:.*]] = megalodon.two_hop_residual_grad %[[DR]], %[[G]] rescale %[[ALPHA]]
// CHECK: %[[DS:.*]], %[[DB:.*]] = megalodon.gate_grad %[[DBRANCH]], %[[S]] by %[[B]]
// CHECK: %[[DA0:.*]] = megalodon.silu_grad %[[DS]], %[[A]]
// CHECK: %[[DA:.*]] = megalodon.add %[[DR]], %[[DR]], %[[DA0]]
// CHECK: return %{{.*}}, %[[DA]], %[[DB]], %[[DALPHA]]
func.func @pointwise(%a: tensor<2x8x4xf32> {megalodon.name = "a", megalodon.role = #megalodon.role<parameter>},
                     %b: tensor<2x8x4xf32> {megalodon.name = "b", megalodon.role = #megalodon.role<parameter>},
                     %alpha: tensor<4xf32> {megalodon.name = "alpha", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %s = megalodon.silu %a : tensor<2x8x4xf32>
  %g = megalodon.gate %s by %b : tensor<2x8x4xf32>
  %x = megalodon.add %a, %a : tensor<2x8x4xf32>
  %r = megalodon.two_hop_residual %x, %g rescale %alpha : (tensor<2x8x4xf32>, tensor<2x8x4xf32>, tensor<4xf32>) -> tensor<2x8x4xf32>
  %nll, %lse = megalodon.cross_entropy %r, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// Without rescaling both gradients are the cotangent itself.
// CHECK-LABEL: func.func @plain_residual
// CHECK: %[[D:.*]] = megalodon.cross_entropy_grad
// CHECK-NEXT: return %{{.*}}, %[[D]], %[[D]]
func.func @plain_residual(%a: tensor<2x8x4xf32> {megalodon.name = "a", megalodon.role = #megalodon.role<parameter>},
                          %b: tensor<2x8x4xf32> {megalodon.name = "b", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x8xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %r = megalodon.two_hop_residual %a, %b : (tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> tensor<2x8x4xf32>
  %nll, %lse = megalodon.cross_entropy %r, %targets : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}
