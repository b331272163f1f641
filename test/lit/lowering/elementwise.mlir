// Ops without a reduction over a row; layers of one shape share a kernel.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=32 | FileCheck %s

// CHECK-LABEL: func.func @gates
// CHECK: plan.dispatch @kernels::@silu grid<1 * one * tokens by 64>(%arg0)
// CHECK: plan.dispatch @kernels::@silu grid<1 * one * tokens by 64>(%arg1)
// CHECK: plan.dispatch @kernels::@gate grid
// CHECK: plan.dispatch @kernels::@silu_grad grid
// CHECK: %{{.*}}:2 = plan.dispatch @kernels::@gate_grad grid
func.func @gates(%x: tensor<2x8x24xf32>, %y: tensor<2x8x24xf32>) -> (tensor<2x8x24xf32>, tensor<2x8x24xf32>, tensor<2x8x24xf32>) {
  %0 = megalodon.silu %x : tensor<2x8x24xf32>
  %1 = megalodon.silu %y : tensor<2x8x24xf32>
  %2 = megalodon.gate %0 by %1 : tensor<2x8x24xf32>
  %3 = megalodon.silu_grad %2, %x : tensor<2x8x24xf32>
  %4, %5 = megalodon.gate_grad %3, %x by %y : (tensor<2x8x24xf32>, tensor<2x8x24xf32>, tensor<2x8x24xf32>) -> (tensor<2x8x24xf32>, tensor<2x8x24xf32>)
  return %3, %4, %5 : tensor<2x8x24xf32>, tensor<2x8x24xf32>, tensor<2x8x24xf32>
}

// Activations are added up to the call's tokens, parameters whole.
// CHECK-LABEL: func.func @sums
// CHECK: plan.dispatch @kernels::@add grid<1 * one * tokens by 64>(%arg0, %arg0, %arg0)
// CHECK: plan.dispatch @kernels::@add_1 grid<2 * one * one by 1>(%arg1, %arg1)
// CHECK: plan.dispatch @kernels::@two_hop_residual grid<1 * one * tokens by 64>(%arg0, %{{.*}}, %arg2)
// CHECK: %{{.*}}:2 = plan.dispatch @kernels::@two_hop_residual_grad {{.*}} -> (tensor<2x8x24xf32>, tensor<1x24xf32>)
// CHECK: plan.dispatch @kernels::@reduce_rows
// CHECK: plan.dispatch @kernels::@linear_grad_bias {{.*}} -> tensor<1x24xf32>
// CHECK: plan.dispatch @kernels::@reduce_rows
func.func @sums(%x: tensor<2x8x24xf32>, %w: tensor<100x200xf32>, %a: tensor<24xf32>)
    -> (tensor<100x200xf32>, tensor<2x8x24xf32>, tensor<24xf32>, tensor<24xf32>) {
  %0 = megalodon.add %x, %x, %x : tensor<2x8x24xf32>
  %1 = megalodon.add %w, %w : tensor<100x200xf32>
  %2 = megalodon.two_hop_residual %x, %0 rescale %a : (tensor<2x8x24xf32>, tensor<2x8x24xf32>, tensor<24xf32>) -> tensor<2x8x24xf32>
  %3, %4 = megalodon.two_hop_residual_grad %2, %0 rescale %a : (tensor<2x8x24xf32>, tensor<2x8x24xf32>, tensor<24xf32>) -> (tensor<2x8x24xf32>, tensor<24xf32>)
  %5 = megalodon.linear_grad_bias %2 : (tensor<2x8x24xf32>) -> tensor<24xf32>
  return %1, %3, %4, %5 : tensor<100x200xf32>, tensor<2x8x24xf32>, tensor<24xf32>, tensor<24xf32>
}

// CHECK-LABEL: func.func @rotary
// CHECK: plan.dispatch @kernels::@rotary grid<1 * one * tokens by 64>(%arg0, %arg1)
func.func @rotary(%x: tensor<2x8x24xf32>, %count: tensor<2xi64>) -> tensor<2x8x24xf32> {
  %0 = megalodon.rotary %x at %count {heads = 3, base = 1.0e4 : f64, chunk = 16} : (tensor<2x8x24xf32>, tensor<2xi64>) -> tensor<2x8x24xf32>
  return %0 : tensor<2x8x24xf32>
}

// In place: the result is tied to the accumulator.
// CHECK-LABEL: func.func @accumulate
// CHECK: plan.dispatch @kernels::@accumulate grid<2 * one * one by 1>(%arg0, %arg1) {{.*}}tied = array<i64: 1>
func.func @accumulate(%g: tensor<100x200xf32>, %into: tensor<100x200xf32>) -> tensor<100x200xf32> {
  %0 = megalodon.accumulate %g into %into : tensor<100x200xf32>
  return %0 : tensor<100x200xf32>
}

// Angles stay in f64; a token whose position follows the last one's turns the table on without cos and sin.
// CHECK-LABEL: func.func @rotary(
// CHECK: math.cos {{.*}} : vector<4xf64>
// CHECK: arith.remui
// CHECK: %[[FOLLOWS:.*]] = arith.cmpi eq
// CHECK: scf.if %[[FOLLOWS]]
// CHECK-NOT: math.cos
// CHECK: } else {
// CHECK: math.cos
// CHECK: vector.shuffle {{.*}} [1, 0, 3, 2, 5, 4, 7, 6]

// CHECK-LABEL: func.func @accumulate(
// CHECK: memref.load %arg0[%c3]
// CHECK: scf.if
