// On a GPU packed documents and Laplace weights have kernels that make their tiles as they go, whatever --attention says. Positions take
// the place of the count; Laplace weights need no log-sum-exp.
// RUN: megalodon-opt %s --split-input-file --pass-pipeline='builtin.module(megalodon-lower-to-kernels{target=cuda attention=stored})' | FileCheck %s

// CHECK-LABEL: func.func @packed(
// CHECK: plan.dispatch @kernels::@attention_lse {{.*}}(%arg0, %arg0, %arg2, %arg5)
// CHECK: plan.dispatch @kernels::@attention_values {{.*}}(%arg1, %arg3, %arg0, %arg0, %arg2, %arg5, %{{[0-9]}})
func.func @packed(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %ck: tensor<2x4x8xf32>, %cv: tensor<2x4x12xf32>, %count: tensor<2xi64>, %at: tensor<2x8xi64>) -> tensor<2x8x12xf32> {
  %e:2 = megalodon.chunk_attention %q, %q, %v cache(%ck, %cv) at %count positions(%at) {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return %e#0 : tensor<2x8x12xf32>
}

// -----

// CHECK-LABEL: func.func @laplace(
// CHECK-NEXT: plan.dispatch @kernels::@attention_values {{.*}}(%arg1, %arg3, %arg0, %arg0, %arg2, %arg4)
// CHECK-NEXT: return
// CHECK: math.erfc
func.func @laplace(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %ck: tensor<2x4x8xf32>, %cv: tensor<2x4x12xf32>, %count: tensor<2xi64>) -> tensor<2x8x12xf32> {
  %e = megalodon.chunk_attention %q, %q, %v cache(%ck, %cv) at %count function<laplace> {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> tensor<2x8x12xf32>
  return %e : tensor<2x8x12xf32>
}
