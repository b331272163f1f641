// Round trip of every op, in every form of its syntax.
// RUN: megalodon-opt %s -o %t.1 && megalodon-opt %t.1 -o %t.2 && diff %t.1 %t.2
// RUN: FileCheck %s < %t.1

// CHECK-LABEL: func.func @embedding(
// CHECK: megalodon.embedding %{{.*}}, %{{.*}} {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<32x16xf32>) -> tensor<2x8x16xf32>
func.func @embedding(%a: tensor<2x8xi32>, %b: tensor<32x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.embedding %a, %b {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<32x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @linear(
// CHECK: megalodon.linear %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<24x16xf32>) -> tensor<2x8x24xf32>
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf32>) -> tensor<2x8x24xf32> {
  %r = megalodon.linear %a, %b : (tensor<2x8x16xf32>, tensor<24x16xf32>) -> tensor<2x8x24xf32>
  return %r : tensor<2x8x24xf32>
}

// CHECK-LABEL: func.func @linear_bias(
// CHECK: megalodon.linear %{{.*}}, %{{.*}} bias %{{.*}} : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<24xf32>) -> tensor<2x8x24xf32>
func.func @linear_bias(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf32>, %c: tensor<24xf32>) -> tensor<2x8x24xf32> {
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<24xf32>) -> tensor<2x8x24xf32>
  return %r : tensor<2x8x24xf32>
}

// CHECK-LABEL: func.func @linear_rows(
// CHECK: megalodon.linear %{{.*}}, %{{.*}} : (tensor<2x16xf32>, tensor<32x16xf32>) -> tensor<2x32xf32>
func.func @linear_rows(%a: tensor<2x16xf32>, %b: tensor<32x16xf32>) -> tensor<2x32xf32> {
  %r = megalodon.linear %a, %b : (tensor<2x16xf32>, tensor<32x16xf32>) -> tensor<2x32xf32>
  return %r : tensor<2x32xf32>
}

// CHECK-LABEL: func.func @timestep_norm(
// CHECK: megalodon.timestep_norm %{{.*}}, %{{.*}}, %{{.*}} state(%{{.*}}, %{{.*}}, %{{.*}}) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) {
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return %r#0, %r#1, %r#2, %r#3, %r#4, %r#5 : tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>
}

// CHECK-LABEL: func.func @cema_coefficients(
// CHECK: megalodon.cema_coefficients %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x1x1xf32>, %d: tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>) {
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return %r#0, %r#1, %r#2 : tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>
}

// CHECK-LABEL: func.func @cema(
// CHECK: megalodon.cema %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} state(%{{.*}}) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>) {
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>
}

// CHECK-LABEL: func.func @rms_norm(
// CHECK: megalodon.rms_norm %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
func.func @rms_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.rms_norm %a, %b {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @rms_norm_plain(
// CHECK: megalodon.rms_norm %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
func.func @rms_norm_plain(%a: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.rms_norm %a {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @layer_norm(
// CHECK: megalodon.layer_norm %{{.*}} affine(%{{.*}}, %{{.*}}) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
func.func @layer_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.layer_norm %a affine(%b, %c) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @layer_norm_plain(
// CHECK: megalodon.layer_norm %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
func.func @layer_norm_plain(%a: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.layer_norm %a {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @normalized_qk(
// CHECK: megalodon.normalized_qk %{{.*}}, %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<2x8xf32>, %c: tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>) {
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
  return %r#0, %r#1 : tensor<2x8x8xf32>, tensor<2x8x8xf32>
}

// CHECK-LABEL: func.func @rotary(
// CHECK: megalodon.rotary %{{.*}} at %{{.*}} {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) -> tensor<2x8x8xf32> {
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return %r : tensor<2x8x8xf32>
}

// CHECK-LABEL: func.func @rotary_inverse(
// CHECK: megalodon.rotary %{{.*}} at %{{.*}} inverse {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
func.func @rotary_inverse(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) -> tensor<2x8x8xf32> {
  %r = megalodon.rotary %a at %b inverse {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return %r : tensor<2x8x8xf32>
}

// CHECK-LABEL: func.func @chunk_attention(
// CHECK: megalodon.chunk_attention %{{.*}}, %{{.*}}, %{{.*}} cache(%{{.*}}, %{{.*}}) at %{{.*}} {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>) {
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return %r#0, %r#1 : tensor<2x8x12xf32>, tensor<2x8x2xf32>
}

// CHECK-LABEL: func.func @cache_append(
// CHECK: megalodon.cache_append %{{.*}}, %{{.*}} at %{{.*}} : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x4x8xf32>
func.func @cache_append(%a: tensor<2x4x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2xi64>) -> tensor<2x4x8xf32> {
  %r = megalodon.cache_append %a, %b at %c : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x4x8xf32>
  return %r : tensor<2x4x8xf32>
}

// CHECK-LABEL: func.func @packed_documents(
// CHECK: megalodon.rotary %{{.*}} at %{{.*}} positions(%{{.*}}) inverse {
// CHECK: megalodon.chunk_attention %{{.*}}, %{{.*}}, %{{.*}} cache(%{{.*}}, %{{.*}}) at %{{.*}} positions(%{{.*}}) {heads = 2 : i64} :
// CHECK: megalodon.chunk_attention_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} cache(%{{.*}}, %{{.*}}) at %{{.*}} positions(%{{.*}}) saved(%{{.*}}, %{{.*}}) {heads = 2 : i64} :
// CHECK: megalodon.cache_append %{{.*}}, %{{.*}} at %{{.*}} positions(%{{.*}}) :
func.func @packed_documents(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %cache_k: tensor<2x4x8xf32>, %cache_v: tensor<2x4x12xf32>, %count: tensor<2xi64>, %positions: tensor<2x8xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x4x8xf32>) {
  %k = megalodon.rotary %q at %count positions(%positions) inverse {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>, tensor<2x8xi64>) -> tensor<2x8x8xf32>
  %a, %lse = megalodon.chunk_attention %q, %k, %v cache(%cache_k, %cache_v) at %count positions(%positions) {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  %dq, %dk, %dv = megalodon.chunk_attention_grad %v, %q, %k, %v cache(%cache_k, %cache_v) at %count positions(%positions) saved(%a, %lse) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>, tensor<2x8xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  %r = megalodon.cache_append %cache_k, %k at %count positions(%positions) : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<2xi64>, tensor<2x8xi64>) -> tensor<2x4x8xf32>
  return %dq, %dk, %r : tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x4x8xf32>
}

// CHECK-LABEL: func.func @laplace_attention(
// CHECK: %[[A:.*]] = megalodon.chunk_attention %{{.*}}, %{{.*}}, %{{.*}} cache(%{{.*}}, %{{.*}}) at %{{.*}} function<laplace> {heads = 2 : i64} :
// CHECK: megalodon.chunk_attention_grad %[[A]], %{{.*}}, %{{.*}}, %{{.*}} cache(%{{.*}}, %{{.*}}) at %{{.*}} function<laplace> {heads = 2 : i64} :
func.func @laplace_attention(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %cache_k: tensor<2x4x8xf32>, %cache_v: tensor<2x4x12xf32>, %count: tensor<2xi64>) -> tensor<2x8x8xf32> {
  %a = megalodon.chunk_attention %q, %q, %v cache(%cache_k, %cache_v) at %count function<laplace> {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> tensor<2x8x12xf32>
  %dq, %dk, %dv = megalodon.chunk_attention_grad %a, %q, %q, %v cache(%cache_k, %cache_v) at %count function<laplace> {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return %dq : tensor<2x8x8xf32>
}

// CHECK-LABEL: func.func @silu(
// CHECK: megalodon.silu %{{.*}} : tensor<2x8x16xf32>
func.func @silu(%a: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.silu %a : tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @gate(
// CHECK: megalodon.gate %{{.*}} by %{{.*}} : tensor<2x8x16xf32>
func.func @gate(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.gate %a by %b : tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @add(
// CHECK: megalodon.add %{{.*}}, %{{.*}}, %{{.*}} : tensor<2x8x16xf32>
func.func @add(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.add %a, %b, %c : tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @two_hop_residual(
// CHECK: megalodon.two_hop_residual %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
func.func @two_hop_residual(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.two_hop_residual %a, %b : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @two_hop_residual_rescale(
// CHECK: megalodon.two_hop_residual %{{.*}}, %{{.*}} rescale %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
func.func @two_hop_residual_rescale(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.two_hop_residual %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @last_token(
// CHECK: megalodon.last_token %{{.*}} : (tensor<2x8x16xf32>) -> tensor<2x16xf32>
func.func @last_token(%a: tensor<2x8x16xf32>) -> tensor<2x16xf32> {
  %r = megalodon.last_token %a : (tensor<2x8x16xf32>) -> tensor<2x16xf32>
  return %r : tensor<2x16xf32>
}

// CHECK-LABEL: func.func @cross_entropy(
// CHECK: megalodon.cross_entropy %{{.*}}, %{{.*}} : (tensor<2x8x32xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
func.func @cross_entropy(%a: tensor<2x8x32xf32>, %b: tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %r:2 = megalodon.cross_entropy %a, %b : (tensor<2x8x32xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  return %r#0, %r#1 : tensor<2x8xf32>, tensor<2x8xf32>
}

// CHECK-LABEL: func.func @mean(
// CHECK: megalodon.mean %{{.*}} : (tensor<2x8xf32>) -> tensor<f32>
func.func @mean(%a: tensor<2x8xf32>) -> tensor<f32> {
  %r = megalodon.mean %a : (tensor<2x8xf32>) -> tensor<f32>
  return %r : tensor<f32>
}

// CHECK-LABEL: func.func @loss_sum(
// CHECK: megalodon.loss_sum %{{.*}}, %{{.*}} : (tensor<2x8xf32>, tensor<2x8xi32>) -> (tensor<f32>, tensor<i64>)
func.func @loss_sum(%a: tensor<2x8xf32>, %b: tensor<2x8xi32>) -> (tensor<f32>, tensor<i64>) {
  %r:2 = megalodon.loss_sum %a, %b : (tensor<2x8xf32>, tensor<2x8xi32>) -> (tensor<f32>, tensor<i64>)
  return %r#0, %r#1 : tensor<f32>, tensor<i64>
}

// CHECK-LABEL: func.func @embedding_grad(
// CHECK: megalodon.embedding_grad %{{.*}}, %{{.*}} {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<2x8x16xf32>) -> tensor<32x16xf32>
func.func @embedding_grad(%a: tensor<2x8xi32>, %b: tensor<2x8x16xf32>) -> tensor<32x16xf32> {
  %r = megalodon.embedding_grad %a, %b {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<2x8x16xf32>) -> tensor<32x16xf32>
  return %r : tensor<32x16xf32>
}

// CHECK-LABEL: func.func @linear_grad_input(
// CHECK: megalodon.linear_grad_input %{{.*}}, %{{.*}} : (tensor<2x8x24xf32>, tensor<24x16xf32>) -> tensor<2x8x16xf32>
func.func @linear_grad_input(%a: tensor<2x8x24xf32>, %b: tensor<24x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.linear_grad_input %a, %b : (tensor<2x8x24xf32>, tensor<24x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @linear_grad_weight(
// CHECK: megalodon.linear_grad_weight %{{.*}}, %{{.*}} : (tensor<2x8x24xf32>, tensor<2x8x16xf32>) -> tensor<24x16xf32>
func.func @linear_grad_weight(%a: tensor<2x8x24xf32>, %b: tensor<2x8x16xf32>) -> tensor<24x16xf32> {
  %r = megalodon.linear_grad_weight %a, %b : (tensor<2x8x24xf32>, tensor<2x8x16xf32>) -> tensor<24x16xf32>
  return %r : tensor<24x16xf32>
}

// CHECK-LABEL: func.func @linear_grad_bias(
// CHECK: megalodon.linear_grad_bias %{{.*}} : (tensor<2x8x24xf32>) -> tensor<24xf32>
func.func @linear_grad_bias(%a: tensor<2x8x24xf32>) -> tensor<24xf32> {
  %r = megalodon.linear_grad_bias %a : (tensor<2x8x24xf32>) -> tensor<24xf32>
  return %r : tensor<24xf32>
}

// CHECK-LABEL: func.func @timestep_norm_grad(
// CHECK: megalodon.timestep_norm_grad %{{.*}}, %{{.*}}, %{{.*}} state(%{{.*}}, %{{.*}}, %{{.*}}) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x8x4xf32>, %f: tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %r:5 = megalodon.timestep_norm_grad %a, %b, %c state(%d, %e, %f) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return %r#0, %r#1, %r#2, %r#3, %r#4 : tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>
}

// CHECK-LABEL: func.func @timestep_norm_grad_end(
// CHECK: megalodon.timestep_norm_grad %{{.*}} end(%{{.*}}, %{{.*}}), %{{.*}}, %{{.*}} state(%{{.*}}, %{{.*}}, %{{.*}}) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
func.func @timestep_norm_grad_end(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return %r#0, %r#1, %r#2, %r#3, %r#4 : tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>
}

// CHECK-LABEL: func.func @cema_coefficients_grad(
// CHECK: megalodon.cema_coefficients_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
func.func @cema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>) {
  %r:4 = megalodon.cema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
  return %r#0, %r#1, %r#2, %r#3 : tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>
}

// CHECK-LABEL: func.func @cema_grad(
// CHECK: megalodon.cema_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} states(%{{.*}}) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16x4xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x1xf32>, %g: tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) {
  %r:6 = megalodon.cema_grad %a, %b, %c, %d, %e, %f states(%g) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return %r#0, %r#1, %r#2, %r#3, %r#4, %r#5 : tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>
}

// CHECK-LABEL: func.func @cema_grad_end(
// CHECK: megalodon.cema_grad %{{.*}} end(%{{.*}}), %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} states(%{{.*}}) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
func.func @cema_grad_end(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) {
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return %r#0, %r#1, %r#2, %r#3, %r#4, %r#5 : tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>
}

// CHECK-LABEL: func.func @rms_norm_grad(
// CHECK: megalodon.rms_norm_grad %{{.*}}, %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>) {
  %r:2 = megalodon.rms_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return %r#0, %r#1 : tensor<2x8x16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @rms_norm_grad_plain(
// CHECK: megalodon.rms_norm_grad %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
func.func @rms_norm_grad_plain(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.rms_norm_grad %a, %b {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @layer_norm_grad(
// CHECK: megalodon.layer_norm_grad %{{.*}}, %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) {
  %r:3 = megalodon.layer_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @layer_norm_grad_plain(
// CHECK: megalodon.layer_norm_grad %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
func.func @layer_norm_grad_plain(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.layer_norm_grad %a, %b {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @normalized_qk_grad(
// CHECK: megalodon.normalized_qk_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
func.func @normalized_qk_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) {
  %r:3 = megalodon.normalized_qk_grad %a, %b, %c, %d {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>
}

// CHECK-LABEL: func.func @chunk_attention_grad(
// CHECK: megalodon.chunk_attention_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} cache(%{{.*}}, %{{.*}}) at %{{.*}} saved(%{{.*}}, %{{.*}}) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
func.func @chunk_attention_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8x12xf32>, %e: tensor<2x4x8xf32>, %f: tensor<2x4x12xf32>, %g: tensor<2xi64>, %h: tensor<2x8x12xf32>, %i: tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>) {
  %r:3 = megalodon.chunk_attention_grad %a, %b, %c, %d cache(%e, %f) at %g saved(%h, %i) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>
}

// CHECK-LABEL: func.func @silu_grad(
// CHECK: megalodon.silu_grad %{{.*}}, %{{.*}} : tensor<2x8x16xf32>
func.func @silu_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.silu_grad %a, %b : tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @gate_grad(
// CHECK: megalodon.gate_grad %{{.*}}, %{{.*}} by %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>)
func.func @gate_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>) {
  %r:2 = megalodon.gate_grad %a, %b by %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>)
  return %r#0, %r#1 : tensor<2x8x16xf32>, tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @two_hop_residual_grad(
// CHECK: megalodon.two_hop_residual_grad %{{.*}}, %{{.*}} rescale %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
func.func @two_hop_residual_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>) {
  %r:2 = megalodon.two_hop_residual_grad %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return %r#0, %r#1 : tensor<2x8x16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @cross_entropy_grad(
// CHECK: megalodon.cross_entropy_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<2x8xf32>, tensor<2x8x32xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x32xf32>
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x32xf32>, %c: tensor<2x8xi32>, %d: tensor<2x8xf32>) -> tensor<2x8x32xf32> {
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d : (tensor<2x8xf32>, tensor<2x8x32xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x32xf32>
  return %r : tensor<2x8x32xf32>
}

// CHECK-LABEL: func.func @mean_grad(
// CHECK: megalodon.mean_grad %{{.*}} : (tensor<f32>) -> tensor<2x8xf32>
func.func @mean_grad(%a: tensor<f32>) -> tensor<2x8xf32> {
  %r = megalodon.mean_grad %a : (tensor<f32>) -> tensor<2x8xf32>
  return %r : tensor<2x8xf32>
}

// CHECK-LABEL: func.func @accumulate(
// CHECK: megalodon.accumulate %{{.*}} into %{{.*}} : tensor<24x16xf32>
func.func @accumulate(%a: tensor<24x16xf32>, %b: tensor<24x16xf32>) -> tensor<24x16xf32> {
  %r = megalodon.accumulate %a into %b : tensor<24x16xf32>
  return %r : tensor<24x16xf32>
}

// CHECK-LABEL: func.func @global_norm(
// CHECK: megalodon.global_norm %{{.*}}, %{{.*}} : (tensor<24x16xf32>, tensor<16xf32>) -> tensor<f32>
func.func @global_norm(%a: tensor<24x16xf32>, %b: tensor<16xf32>) -> tensor<f32> {
  %r = megalodon.global_norm %a, %b : (tensor<24x16xf32>, tensor<16xf32>) -> tensor<f32>
  return %r : tensor<f32>
}

// CHECK-LABEL: func.func @clip(
// CHECK: megalodon.clip %{{.*}} {max_norm = 1.000000e+00 : f64} : (tensor<f32>) -> tensor<f32>
func.func @clip(%a: tensor<f32>) -> tensor<f32> {
  %r = megalodon.clip %a {max_norm = 1.000000e+00 : f64} : (tensor<f32>) -> tensor<f32>
  return %r : tensor<f32>
}

// CHECK-LABEL: func.func @adamw(
// CHECK: megalodon.adamw %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} step %{{.*}} lr %{{.*}} clip %{{.*}} {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>) {
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return %r#0, %r#1, %r#2 : tensor<16xf32>, tensor<16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @rms_norm_plain_gain(
// CHECK: megalodon.rms_norm %{{.*}}, %{{.*}} plain {eps = 1.000000e-05 : f64} :
// CHECK: megalodon.rms_norm_grad %{{.*}}, %{{.*}}, %{{.*}} plain {eps = 1.000000e-05 : f64} :
func.func @rms_norm_plain_gain(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) {
  %r = megalodon.rms_norm %a, %b plain {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  %d:2 = megalodon.rms_norm_grad %r, %a, %b plain {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return %r, %d#0, %d#1 : tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @rotary_scaled(
// CHECK: megalodon.rotary %{{.*}} at %{{.*}} {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64, scale = 2.500000e-01 : f64} :
func.func @rotary_scaled(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) -> tensor<2x8x8xf32> {
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64, scale = 0.25 : f64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return %r : tensor<2x8x8xf32>
}

// CHECK-LABEL: func.func @chunk_attention_grouped(
// CHECK: megalodon.chunk_attention {{.*}} {heads = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x24xf32>, tensor<2x8x4xf32>)
// CHECK: megalodon.chunk_attention_grad {{.*}} -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x24xf32>)
// CHECK: megalodon.sum_head_groups %{{.*}} {groups = 2 : i64, heads = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x8x8xf32>
func.func @chunk_attention_grouped(%q: tensor<2x8x16xf32>, %k: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %ck: tensor<2x4x8xf32>, %cv: tensor<2x4x12xf32>, %count: tensor<2xi64>) -> tensor<2x8x8xf32> {
  %r:2 = megalodon.chunk_attention %q, %k, %v cache(%ck, %cv) at %count {heads = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x24xf32>, tensor<2x8x4xf32>)
  %d:3 = megalodon.chunk_attention_grad %r#0, %q, %k, %v cache(%ck, %cv) at %count saved(%r#0, %r#1) {heads = 4 : i64} : (tensor<2x8x24xf32>, tensor<2x8x16xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x24xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x24xf32>)
  %s = megalodon.sum_head_groups %d#1 {groups = 2 : i64, heads = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x8x8xf32>
  return %s : tensor<2x8x8xf32>
}

// CHECK-LABEL: func.func @packed(
// CHECK: %[[P:.*]] = megalodon.document_positions %{{.*}} at %{{.*}} : (tensor<2x8xi32>, tensor<2xi64>) -> tensor<2x8xi64>
// CHECK: megalodon.advance_count %{{.*}} by %{{.*}} positions(%[[P]]) : (tensor<2xi64>, tensor<2x8x16xf32>, tensor<2x8xi64>) -> tensor<2xi64>
// CHECK: megalodon.timestep_norm %{{.*}} state({{.*}}) positions(%[[P]]) {eps
// CHECK: megalodon.cema %{{.*}} state({{.*}}) positions(%[[P]]) {block
// CHECK: megalodon.timestep_norm_grad %{{.*}} state({{.*}}) positions(%[[P]]) :
// CHECK: megalodon.cema_grad %{{.*}} end({{.*}}), {{.*}} states({{.*}}) positions(%[[P]]) {block
func.func @packed(%resets: tensor<2x8xi32>, %count: tensor<2xi64>, %x: tensor<2x8x16xf32>, %w: tensor<16xf32>, %s: tensor<2x4xf32>, %p: tensor<16x4xf64>, %q: tensor<16x4x2xf64>, %o: tensor<16x1xf32>, %h: tensor<2x16x4x2xf32>) {
  %at = megalodon.document_positions %resets at %count : (tensor<2x8xi32>, tensor<2xi64>) -> tensor<2x8xi64>
  %c = megalodon.advance_count %count by %x positions(%at) : (tensor<2xi64>, tensor<2x8x16xf32>, tensor<2x8xi64>) -> tensor<2xi64>
  %n:6 = megalodon.timestep_norm %x, %w, %w state(%count, %s, %s) positions(%at) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8xi64>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  %e:3 = megalodon.cema %x, %p, %q, %q, %o state(%h) positions(%at) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>, tensor<2x8xi64>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  %dn:5 = megalodon.timestep_norm_grad %x, %x, %w state(%count, %n#4, %n#5) positions(%at) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>, tensor<2x8xi64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  %de:6 = megalodon.cema_grad %x end(%h), %x, %p, %q, %q, %o states(%e#2) positions(%at) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>, tensor<2x8xi64>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// CHECK-LABEL: func.func @advance_count(
// CHECK: megalodon.advance_count %{{.*}} by %{{.*}} : (tensor<2xi64>, tensor<2x8x16xf32>) -> tensor<2xi64>
func.func @advance_count(%a: tensor<2xi64>, %b: tensor<2x8x16xf32>) -> tensor<2xi64> {
  %r = megalodon.advance_count %a by %b : (tensor<2xi64>, tensor<2x8x16xf32>) -> tensor<2xi64>
  return %r : tensor<2xi64>
}
