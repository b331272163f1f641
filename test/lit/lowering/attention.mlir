// Chunk attention: a workgroup a head and block of 32 or 64 queries; scratch for the scores of one block, never chunk x chunk.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels | FileCheck %s

// CHECK-LABEL: func.func @forward
// CHECK: %[[R:.*]]:2 = plan.dispatch @kernels::@chunk_attention grid<3 * batch * length by 64>
// CHECK-SAME: flops = 2.908800e+06 : f64, tied = array<i64: -1, -1>
func.func @forward(%q: tensor<2x100x48xf32>, %v: tensor<2x100x96xf32>, %cache_k: tensor<2x2048x48xf32>, %cache_v: tensor<2x2048x96xf32>,
                   %count: tensor<2xi64>) -> (tensor<2x100x96xf32>, tensor<2x100x3xf32>) {
  %a, %lse = megalodon.chunk_attention %q, %q, %v cache(%cache_k, %cache_v) at %count {heads = 3 : i64}
      : (tensor<2x100x48xf32>, tensor<2x100x48xf32>, tensor<2x100x96xf32>, tensor<2x2048x48xf32>, tensor<2x2048x96xf32>, tensor<2xi64>)
      -> (tensor<2x100x96xf32>, tensor<2x100x3xf32>)
  return %a, %lse : tensor<2x100x96xf32>, tensor<2x100x3xf32>
}

// One kernel gives dq and the sums of P dP, the other dk and dv: no two workgroups write one element.
// CHECK-LABEL: func.func @backward
// CHECK: %[[Q:.*]]:2 = plan.dispatch @kernels::@chunk_attention_grad_q grid<3 * batch * length by 64>
// CHECK: %[[KV:.*]]:2 = plan.dispatch @kernels::@chunk_attention_grad_kv grid<3 * batch * length by 64>({{.*}}, %[[Q]]#1)
// CHECK: return %[[Q]]#0, %[[KV]]#0, %[[KV]]#1
func.func @backward(%q: tensor<2x100x48xf32>, %v: tensor<2x100x96xf32>, %cache_k: tensor<2x2048x48xf32>, %cache_v: tensor<2x2048x96xf32>,
                    %count: tensor<2xi64>, %lse: tensor<2x100x3xf32>) -> (tensor<2x100x48xf32>, tensor<2x100x48xf32>, tensor<2x100x96xf32>) {
  %dq, %dk, %dv = megalodon.chunk_attention_grad %v, %q, %q, %v cache(%cache_k, %cache_v) at %count saved(%v, %lse) {heads = 3 : i64}
      : (tensor<2x100x96xf32>, tensor<2x100x48xf32>, tensor<2x100x48xf32>, tensor<2x100x96xf32>, tensor<2x2048x48xf32>, tensor<2x2048x96xf32>,
         tensor<2xi64>, tensor<2x100x96xf32>, tensor<2x100x3xf32>) -> (tensor<2x100x48xf32>, tensor<2x100x48xf32>, tensor<2x100x96xf32>)
  return %dq, %dk, %dv : tensor<2x100x48xf32>, tensor<2x100x48xf32>, tensor<2x100x96xf32>
}

// With positions nothing reads count; Laplace weights have no log-sum-exp, and the backward pass no delta.
// CHECK-LABEL: func.func @packed_laplace
// CHECK-SAME: %[[AT:[a-z0-9]+]]: tensor<2x8xi64>)
// CHECK: plan.dispatch @kernels::@chunk_attention_1 grid<2 * batch * length by 32>(%{{[a-z_0-9]+}}, %{{[a-z_0-9]+}}, %{{[a-z_0-9]+}}, %{{[a-z_0-9]+}}, %{{[a-z_0-9]+}}, %[[AT]]) {{.*}}tied = array<i64: -1>
// CHECK: plan.dispatch @kernels::@chunk_attention_grad_q_1 {{.*}}tied = array<i64: -1>
// CHECK: plan.dispatch @kernels::@chunk_attention_grad_kv_1 {{.*}}tied = array<i64: -1, -1>
func.func @packed_laplace(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %ck: tensor<2x4x8xf32>, %cv: tensor<2x4x12xf32>, %count: tensor<2xi64>, %at: tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x8xf32>) {
  %e = megalodon.chunk_attention %q, %q, %v cache(%ck, %cv) at %count positions(%at) function<laplace> {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8xi64>) -> tensor<2x8x12xf32>
  %d:3 = megalodon.chunk_attention_grad %e, %q, %q, %v cache(%ck, %cv) at %count positions(%at) function<laplace> {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return %e, %d#1 : tensor<2x8x12xf32>, tensor<2x8x8xf32>
}

// A small chunk makes the block small; a decode step has no tiles at all.
// CHECK-LABEL: func.func @step
// CHECK: plan.dispatch @kernels::@chunk_attention_2 grid<1 * batch * length by 32>
// CHECK: plan.dispatch @kernels::@cache_append grid<1 * batch * length by 64>({{.*}}tied = array<i64: 2>
func.func @step(%q: tensor<2x1x8xf32>, %cache: tensor<2x16x8xf32>, %count: tensor<2xi64>) -> (tensor<2x1x8xf32>, tensor<2x1x1xf32>, tensor<2x16x8xf32>) {
  %a, %lse = megalodon.chunk_attention %q, %q, %q cache(%cache, %cache) at %count {heads = 1 : i64}
      : (tensor<2x1x8xf32>, tensor<2x1x8xf32>, tensor<2x1x8xf32>, tensor<2x16x8xf32>, tensor<2x16x8xf32>, tensor<2xi64>)
      -> (tensor<2x1x8xf32>, tensor<2x1x1xf32>)
  %next = megalodon.cache_append %cache, %q at %count : (tensor<2x16x8xf32>, tensor<2x1x8xf32>, tensor<2xi64>) -> tensor<2x16x8xf32>
  return %a, %lse, %next : tensor<2x1x8xf32>, tensor<2x1x1xf32>, tensor<2x16x8xf32>
}

// The scores of a block: [panels][keys + one tile][32 queries].
// CHECK-LABEL: module @kernels
// CHECK: func.func @chunk_attention(
// CHECK: memref.view {{.*}} to memref<2x2056x32xf32>
// CHECK: func.func @chunk_attention_2(
// CHECK-NOT: vector<16xi32>
// CHECK: func.func @cache_append(
