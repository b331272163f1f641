// The embedding gathers rows; its gradient gives each workgroup a block of columns of the whole table, so tokens are added in order.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=64 | FileCheck %s

// CHECK-LABEL: func.func @small
// CHECK: plan.dispatch @kernels::@embedding grid<1 * one * tokens by 64>(%arg0, %arg1)
// CHECK: plan.dispatch @kernels::@embedding_grad grid<2 * one * one by 1>(%arg0, %arg2)
func.func @small(%tokens: tensor<2x8xi32>, %w: tensor<256x100xf32>, %dy: tensor<2x8x100xf32>) -> (tensor<2x8x100xf32>, tensor<256x100xf32>) {
  %y = megalodon.embedding %tokens, %w {scale = 10.0 : f64} : (tensor<2x8xi32>, tensor<256x100xf32>) -> tensor<2x8x100xf32>
  %dw = megalodon.embedding_grad %tokens, %dy {scale = 10.0 : f64} : (tensor<2x8xi32>, tensor<2x8x100xf32>) -> tensor<256x100xf32>
  return %y, %dw : tensor<2x8x100xf32>, tensor<256x100xf32>
}

// CHECK-LABEL: func.func @large
// CHECK: plan.dispatch @kernels::@embedding_grad_1 grid<16 * one * one by 1>(%arg0, %arg1)
func.func @large(%tokens: tensor<1x8xi32>, %dy: tensor<1x8x1024xf32>) -> tensor<32000x1024xf32> {
  %dw = megalodon.embedding_grad %tokens, %dy : (tensor<1x8xi32>, tensor<1x8x1024xf32>) -> tensor<32000x1024xf32>
  return %dw : tensor<32000x1024xf32>
}

// CHECK-LABEL: func.func @last
// CHECK: plan.dispatch @kernels::@last_token grid<1 * batch * one by 1>(%arg0)
func.func @last(%x: tensor<2x8x100xf32>) -> tensor<2x100xf32> {
  %y = megalodon.last_token %x : (tensor<2x8x100xf32>) -> tensor<2x100xf32>
  return %y : tensor<2x100xf32>
}

// A small table is summed in f64 scratch, a large one in place.
// CHECK-LABEL: func.func @embedding_grad(
// CHECK-SAME: plan.scratch = 131072
// CHECK: memref.view {{.*}} memref<256x64xf64>
// CHECK-LABEL: func.func @embedding_grad_1(
// CHECK-SAME: plan.scratch = 0
