// Linear layers and their gradients become library products in f32 and generated kernels in f64 or when asked for.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels | FileCheck %s
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=gemm=generated | FileCheck %s --check-prefix=GENERATED

// Tokens are an extent of the call (-1); eight tiles for two cores, columns cut first; the bias is added in place.
// CHECK-LABEL: func.func @linear
// CHECK: %[[Y:.*]] = plan.product %{{.*}}, %{{.*}} transposed
// CHECK-SAME: flops = 3.932160e+07 : f64, k = 100 : i64, library = "onednn", m = -1 : i64, n = 384 : i64, tile_m = 256 : i64, tile_n = 96 : i64
// CHECK: plan.dispatch @kernels::@add_bias grid<1 * one * tokens by 64>(%{{.*}}, %[[Y]]) {{.*}}tied = array<i64: 1>
// GENERATED-LABEL: func.func @linear
// GENERATED: plan.dispatch @kernels::@linear grid<2 * one * tokens by 128>(%{{.*}}, %{{.*}}, %{{.*}}) {{.*}}tied = array<i64: -1>
func.func @linear(%x: tensor<2x256x100xf32>, %w: tensor<384x100xf32>, %b: tensor<384xf32>) -> tensor<2x256x384xf32> {
  %y = megalodon.linear %x, %w bias %b : (tensor<2x256x100xf32>, tensor<384x100xf32>, tensor<384xf32>) -> tensor<2x256x384xf32>
  return %y : tensor<2x256x384xf32>
}

// Rows that are not tokens are all computed.
// CHECK-LABEL: func.func @last_token
// CHECK: plan.product {{.*}}m = 2 : i64, n = 48 : i64
// GENERATED-LABEL: func.func @last_token
// GENERATED: plan.dispatch @kernels::@linear_1 grid<1 * one * one by 1>
func.func @last_token(%x: tensor<2x32xf32>, %w: tensor<48x32xf32>) -> tensor<2x48xf32> {
  %y = megalodon.linear %x, %w : (tensor<2x32xf32>, tensor<48x32xf32>) -> tensor<2x48xf32>
  return %y : tensor<2x48xf32>
}

// CHECK-LABEL: func.func @gradients
// CHECK: plan.product %{{[^ ]*}}, %{{[^ ]*}} {{{.*}}k = 48 : i64, {{.*}}m = -1 : i64, n = 32 : i64
// CHECK: plan.product %{{[^ ]*}} transposed, %{{[^ ]*}} {{{.*}}k = -1 : i64, {{.*}}m = 48 : i64, n = 32 : i64
// GENERATED-LABEL: func.func @gradients
// GENERATED: plan.dispatch @kernels::@linear_grad_input grid<1 * one * tokens by 48>
// GENERATED: plan.dispatch @kernels::@linear_grad_weight grid<1 * one * one by 1>
func.func @gradients(%dy: tensor<2x24x48xf32>, %x: tensor<2x24x32xf32>, %w: tensor<48x32xf32>) -> (tensor<2x24x32xf32>, tensor<48x32xf32>) {
  %dx = megalodon.linear_grad_input %dy, %w : (tensor<2x24x48xf32>, tensor<48x32xf32>) -> tensor<2x24x32xf32>
  %dw = megalodon.linear_grad_weight %dy, %x : (tensor<2x24x48xf32>, tensor<2x24x32xf32>) -> tensor<48x32xf32>
  return %dx, %dw : tensor<2x24x32xf32>, tensor<48x32xf32>
}

// CHECK-LABEL: func.func @double
// CHECK: plan.dispatch @kernels::@linear grid<1 * one * tokens by 48>
func.func @double(%x: tensor<2x24x32xf64>, %w: tensor<48x32xf64>) -> tensor<2x24x48xf64> {
  %y = megalodon.linear %x, %w : (tensor<2x24x32xf64>, tensor<48x32xf64>) -> tensor<2x24x48xf64>
  return %y : tensor<2x24x48xf64>
}

// The register tile: one broadcast a row, one vector a column, and no other work in the innermost loop.
// CHECK-LABEL: module @kernels
// CHECK: func.func @linear(
// CHECK: scf.for {{.*}} iter_args
// CHECK-COUNT-2: vector.load {{.*}} : memref<256x16xf64>, vector<8xf64>
// CHECK-NOT: vector.store
// CHECK-COUNT-16: math.fma
// CHECK-NEXT: scf.yield
