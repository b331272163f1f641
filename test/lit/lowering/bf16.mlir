// Activations in bf16: loads widen, stores round, arithmetic and scratch are f32; products of two bf16 operands.
// RUN: megalodon-opt %s -canonicalize -megalodon-lower-to-kernels="vector-bytes=64" -cse | FileCheck %s
// RUN: megalodon-opt %s -megalodon-lower-to-kernels="vector-bytes=64 gemm=generated" -cse | FileCheck %s --check-prefix=GENERATED

// CHECK-LABEL: func @row
// CHECK: plan.dispatch @kernels::@silu
// CHECK-SAME: (tensor<2x8x40xbf16>) -> tensor<2x8x40xbf16>
func.func @row(%x: tensor<2x8x40xbf16>) -> tensor<2x8x40xbf16> {
  %y = megalodon.silu %x : tensor<2x8x40xbf16>
  return %y : tensor<2x8x40xbf16>
}

// The weight's rounding is shared by both products; logits stay f32; the bias is added to what the product gave.
// CHECK-LABEL: func @products
// CHECK: %[[W:.*]] = plan.dispatch @kernels::@round{{.*}} : (tensor<24x16xf32>) -> tensor<24x16xbf16>
// CHECK: %[[Y:.*]] = plan.product %{{.*}}, %[[W]] transposed {{.*}} : (tensor<2x8x16xbf16>, tensor<24x16xbf16>) -> tensor<2x8x24xbf16>
// CHECK: plan.dispatch @kernels::@add_bias{{.*}}(%{{.*}}, %[[Y]]) {{.*}} -> tensor<2x8x24xbf16>
// CHECK-NOT: @kernels::@round
// CHECK: plan.product %{{.*}}, %[[W]] transposed {{.*}} : (tensor<2x8x16xbf16>, tensor<24x16xbf16>) -> tensor<2x8x24xf32>
// GENERATED-LABEL: func @products
// GENERATED: plan.dispatch @kernels::@linear{{.*}} -> tensor<2x8x24xbf16>
// GENERATED: plan.dispatch @kernels::@linear{{.*}} -> tensor<2x8x24xf32>
func.func @products(%x: tensor<2x8x16xbf16>, %w: tensor<24x16xf32>, %b: tensor<24xf32>) -> (tensor<2x8x24xbf16>, tensor<2x8x24xf32>) {
  %y = megalodon.linear %x, %w bias %b : (tensor<2x8x16xbf16>, tensor<24x16xf32>, tensor<24xf32>) -> tensor<2x8x24xbf16>
  %z = megalodon.linear %x, %w : (tensor<2x8x16xbf16>, tensor<24x16xf32>) -> tensor<2x8x24xf32>
  return %y, %z : tensor<2x8x24xbf16>, tensor<2x8x24xf32>
}

// A gradient of logits that only products read is stored in bf16. Gradients of weights are f32.
// CHECK-LABEL: func @gradients
// CHECK: plan.dispatch @kernels::@cross_entropy_grad{{.*}} -> tensor<2x8x24xbf16>
// CHECK: plan.product {{.*}} -> tensor<2x8x16xbf16>
// CHECK: plan.product {{.*}} : (tensor<2x8x24xbf16>, tensor<2x8x16xbf16>) -> tensor<24x16xf32>
func.func @gradients(%d: tensor<2x8xf32>, %logits: tensor<2x8x24xf32>, %t: tensor<2x8xi32>, %lse: tensor<2x8xf32>, %x: tensor<2x8x16xbf16>, %w: tensor<24x16xf32>) -> (tensor<2x8x16xbf16>, tensor<24x16xf32>) {
  %dl = megalodon.cross_entropy_grad %d, %logits, %t, %lse : (tensor<2x8xf32>, tensor<2x8x24xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x24xf32>
  %dx = megalodon.linear_grad_input %dl, %w : (tensor<2x8x24xf32>, tensor<24x16xf32>) -> tensor<2x8x16xbf16>
  %dw = megalodon.linear_grad_weight %dl, %x : (tensor<2x8x24xf32>, tensor<2x8x16xbf16>) -> tensor<24x16xf32>
  return %dx, %dw : tensor<2x8x16xbf16>, tensor<24x16xf32>
}

// CHECK: module @kernels
// CHECK-LABEL: func.func @silu(
// CHECK: %[[LOADED:.*]] = vector.load %{{.*}} : memref<16x40xbf16>, vector<16xbf16>
// CHECK: arith.extf %[[LOADED]] : vector<16xbf16> to vector<16xf32>
// CHECK: %[[ROUNDED:.*]] = arith.truncf %{{.*}} : vector<16xf32> to vector<16xbf16>
// CHECK: vector.store %[[ROUNDED]], %{{.*}} : memref<16x40xbf16>, vector<16xbf16>
// CHECK: vector.maskedload {{.*}} into vector<16xbf16>
