// Norms over a row become one kernel; gradients of their parameters go through partial rows, one a workgroup, and a second kernel.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=64 | FileCheck %s

// 40 columns are two whole vectors and one masked one; 64 tokens are a workgroup.
// CHECK-LABEL: func.func @rms_norm
// CHECK: %[[Y:.*]] = plan.dispatch @kernels::@rms_norm grid<1 * one * tokens by 64>(%arg1, %arg2)
// CHECK: %[[G:.*]]:2 = plan.dispatch @kernels::@rms_norm_grad grid<1 * one * tokens by 64>(%arg0, %arg1, %arg2)
// CHECK-SAME: -> (tensor<2x100x40xf32>, tensor<4x40xf32>)
// CHECK: %[[DW:.*]] = plan.dispatch @kernels::@reduce_rows grid<1 * one * one by 1>(%[[G]]#1) {{.*}} : (tensor<4x40xf32>) -> tensor<40xf32>
// CHECK: return %[[Y]], %[[G]]#0, %[[DW]]
func.func @rms_norm(%dy: tensor<2x100x40xf32>, %x: tensor<2x100x40xf32>, %w: tensor<40xf32>) -> (tensor<2x100x40xf32>, tensor<2x100x40xf32>, tensor<40xf32>) {
  %y = megalodon.rms_norm %x, %w {eps = 1.0e-5 : f64} : (tensor<2x100x40xf32>, tensor<40xf32>) -> tensor<2x100x40xf32>
  %dx, %dw = megalodon.rms_norm_grad %dy, %x, %w {eps = 1.0e-5 : f64}
      : (tensor<2x100x40xf32>, tensor<2x100x40xf32>, tensor<40xf32>) -> (tensor<2x100x40xf32>, tensor<40xf32>)
  return %y, %dx, %dw : tensor<2x100x40xf32>, tensor<2x100x40xf32>, tensor<40xf32>
}

// Without parameters there is nothing to reduce.
// CHECK-LABEL: func.func @layer_norm
// CHECK: plan.dispatch @kernels::@layer_norm grid<1 * one * tokens by 32>(%arg1)
// CHECK: plan.dispatch @kernels::@layer_norm_grad grid<1 * one * tokens by 32>(%arg0, %arg1) {{.*}} -> tensor<2x100x1024xf64>
// CHECK-NOT: reduce_rows
func.func @layer_norm(%dy: tensor<2x100x1024xf64>, %x: tensor<2x100x1024xf64>) -> (tensor<2x100x1024xf64>, tensor<2x100x1024xf64>) {
  %y = megalodon.layer_norm %x {eps = 1.0e-5 : f64} : (tensor<2x100x1024xf64>) -> tensor<2x100x1024xf64>
  %dx = megalodon.layer_norm_grad %dy, %x {eps = 1.0e-5 : f64} : (tensor<2x100x1024xf64>, tensor<2x100x1024xf64>) -> tensor<2x100x1024xf64>
  return %y, %dx : tensor<2x100x1024xf64>, tensor<2x100x1024xf64>
}

// CHECK-LABEL: func.func @normalized_qk
// CHECK: %{{.*}}:2 = plan.dispatch @kernels::@normalized_qk grid<1 * one * tokens by 64>
// CHECK: %[[G:.*]]:3 = plan.dispatch @kernels::@normalized_qk_grad {{.*}} -> (tensor<1x8x24xf32>, tensor<1x48xf32>, tensor<1x48xf32>)
// CHECK-COUNT-2: plan.dispatch @kernels::@reduce_rows{{.*}} (tensor<1x48xf32>) -> tensor<2x24xf32>
func.func @normalized_qk(%z: tensor<1x8x24xf32>, %g: tensor<2x24xf32>, %b: tensor<2x24xf32>)
    -> (tensor<1x8x24xf32>, tensor<1x8x24xf32>, tensor<1x8x24xf32>, tensor<2x24xf32>, tensor<2x24xf32>) {
  %q, %k = megalodon.normalized_qk %z, %g, %b {heads = 3, eps = 1.0e-5 : f64}
      : (tensor<1x8x24xf32>, tensor<2x24xf32>, tensor<2x24xf32>) -> (tensor<1x8x24xf32>, tensor<1x8x24xf32>)
  %dz, %dg, %db = megalodon.normalized_qk_grad %q, %k, %z, %g {heads = 3, eps = 1.0e-5 : f64}
      : (tensor<1x8x24xf32>, tensor<1x8x24xf32>, tensor<1x8x24xf32>, tensor<2x24xf32>) -> (tensor<1x8x24xf32>, tensor<2x24xf32>, tensor<2x24xf32>)
  return %q, %k, %dz, %dg, %db : tensor<1x8x24xf32>, tensor<1x8x24xf32>, tensor<1x8x24xf32>, tensor<2x24xf32>, tensor<2x24xf32>
}

// The tokens of the call, not those compiled for, bound the rows; columns past the last whole vector are masked.
// CHECK-LABEL: func.func @rms_norm(
// CHECK-SAME: memref<200x40xf32>, %{{.*}}: memref<40xf32>, %{{.*}}: memref<200x40xf32>)
// CHECK: %[[WORD:.*]] = memref.load %arg0[%c2]
// CHECK: %[[TOKENS:.*]] = arith.index_cast %[[WORD]] : i64 to index
// CHECK: %[[TO:.*]] = arith.minui %{{.*}}, %[[TOKENS]]
// CHECK: scf.for %{{.*}} = %{{.*}} to %[[TO]]
// CHECK: vector.constant_mask [8] : vector<16xi1>
// CHECK: vector.maskedstore

// Rows of partial sums are added in f64.
// CHECK-LABEL: func.func @reduce_rows(
// CHECK: scf.for {{.*}} -> (vector<16xf64>, vector<16xf64>, vector<16xf64>, vector<16xf64>)
// CHECK: arith.extf {{.*}} : vector<16xf32> to vector<16xf64>
// CHECK: arith.truncf
