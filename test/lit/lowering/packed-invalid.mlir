// Packed documents and Laplace attention have no form on a GPU, and say so.
// RUN: not megalodon-opt %s --split-input-file --pass-pipeline='builtin.module(megalodon-lower-to-kernels{target=cuda})' 2>&1 | FileCheck %s

// CHECK: 'megalodon.cema' op packed documents are lowered for the cpu only: expected --target=cpu, or entries without --packed
func.func @cema(%x: tensor<2x8x16xf32>, %p: tensor<16x4xf64>, %q: tensor<16x4x2xf64>, %o: tensor<16x1xf32>, %h: tensor<2x16x4x2xf32>, %at: tensor<2x8xi64>) -> tensor<2x8x16xf32> {
  %e:3 = megalodon.cema %x, %p, %q, %q, %o state(%h) positions(%at) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>, tensor<2x8xi64>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return %e#0 : tensor<2x8x16xf32>
}

// -----

// CHECK: 'megalodon.document_positions' op packed documents are lowered for the cpu only
func.func @document_positions(%resets: tensor<2x8xi32>, %count: tensor<2xi64>) -> tensor<2x8xi64> {
  %at = megalodon.document_positions %resets at %count : (tensor<2x8xi32>, tensor<2xi64>) -> tensor<2x8xi64>
  return %at : tensor<2x8xi64>
}

// -----

// CHECK: 'megalodon.chunk_attention' op packed documents are lowered for the cpu only
func.func @chunk_attention(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %ck: tensor<2x4x8xf32>, %cv: tensor<2x4x12xf32>, %count: tensor<2xi64>, %at: tensor<2x8xi64>) -> tensor<2x8x12xf32> {
  %e:2 = megalodon.chunk_attention %q, %q, %v cache(%ck, %cv) at %count positions(%at) {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return %e#0 : tensor<2x8x12xf32>
}

// -----

// CHECK: 'megalodon.chunk_attention' op laplace attention is lowered for the cpu only: expected --target=cpu, or softmax
func.func @laplace(%q: tensor<2x8x8xf32>, %v: tensor<2x8x12xf32>, %ck: tensor<2x4x8xf32>, %cv: tensor<2x4x12xf32>, %count: tensor<2xi64>) -> tensor<2x8x12xf32> {
  %e = megalodon.chunk_attention %q, %q, %v cache(%ck, %cv) at %count function<laplace> {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> tensor<2x8x12xf32>
  return %e : tensor<2x8x12xf32>
}
