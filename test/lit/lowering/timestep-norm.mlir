// Timestep norm: statistics and application are parallel over tokens, only the scan between them runs through time.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels | FileCheck %s

// CHECK-LABEL: func.func @forward
// CHECK: %[[S:.*]]:2 = plan.dispatch @kernels::@timestep_norm_statistics grid<1 * one * tokens by 32>(%arg0)
// CHECK-SAME: (tensor<2x100x12xf64>, tensor<2x100x12xf64>)
// The token means become running means, and the carried statistics advance, in place.
// CHECK: %[[C:.*]]:6 = plan.dispatch @kernels::@timestep_norm_scan grid<2 * batch * one by 1>(%arg2, %[[S]]#1, %[[S]]#0, %arg3, %arg3)
// CHECK-SAME: tied = array<i64: 2, 3, 4, -1, -1, -1>
// CHECK: %[[Y:.*]] = plan.dispatch @kernels::@timestep_norm grid<1 * one * tokens by 32>(%arg0, %arg1, %arg1, %[[C]]#0, %[[C]]#5)
// CHECK: return %[[Y]], %[[C]]#3, %[[C]]#1, %[[C]]#2
func.func @forward(%x: tensor<2x100x48xf32>, %w: tensor<48xf32>, %n: tensor<2xi64>, %m: tensor<2x12xf32>)
    -> (tensor<2x100x48xf32>, tensor<2xi64>, tensor<2x12xf32>, tensor<2x12xf32>) {
  %y, %count, %mean, %var, %means, %rstds = megalodon.timestep_norm %x, %w, %w state(%n, %m, %m) {eps = 1.0e-5 : f64}
      : (tensor<2x100x48xf32>, tensor<48xf32>, tensor<48xf32>, tensor<2xi64>, tensor<2x12xf32>, tensor<2x12xf32>)
      -> (tensor<2x100x48xf32>, tensor<2xi64>, tensor<2x12xf32>, tensor<2x12xf32>, tensor<2x100x12xf32>, tensor<2x100x12xf32>)
  return %y, %count, %mean, %var : tensor<2x100x48xf32>, tensor<2xi64>, tensor<2x12xf32>, tensor<2x12xf32>
}

// CHECK-LABEL: func.func @backward
// CHECK: %[[S:.*]]:5 = plan.dispatch @kernels::@timestep_norm_grad_statistics grid<1 * one * tokens by 32>
// CHECK: %[[C:.*]]:4 = plan.dispatch @kernels::@timestep_norm_grad_scan grid<2 * batch * one by 1>(%arg2, %arg3, %[[S]]#2, %[[S]]#0, %[[S]]#1)
// CHECK: %[[X:.*]] = plan.dispatch @kernels::@timestep_norm_grad grid<1 * one * tokens by 32>({{.*}}, %[[C]]#0, %[[C]]#1)
// A row of partial sums a workgroup: ceil(200 / 32).
// CHECK: %[[W:.*]] = plan.dispatch @kernels::@reduce_rows {{.*}}(%[[S]]#3) {{.*}} : (tensor<7x48xf32>) -> tensor<48xf32>
// CHECK: %[[B:.*]] = plan.dispatch @kernels::@reduce_rows {{.*}}(%[[S]]#4)
// CHECK: return %[[X]], %[[W]], %[[B]], %[[C]]#2, %[[C]]#3
func.func @backward(%x: tensor<2x100x48xf32>, %w: tensor<48xf32>, %n: tensor<2xi64>, %r: tensor<2x100x12xf32>)
    -> (tensor<2x100x48xf32>, tensor<48xf32>, tensor<48xf32>, tensor<2x12xf32>, tensor<2x12xf32>) {
  %dx, %dw, %db, %dm, %dv = megalodon.timestep_norm_grad %x, %x, %w state(%n, %r, %r)
      : (tensor<2x100x48xf32>, tensor<2x100x48xf32>, tensor<48xf32>, tensor<2xi64>, tensor<2x100x12xf32>, tensor<2x100x12xf32>)
      -> (tensor<2x100x48xf32>, tensor<48xf32>, tensor<48xf32>, tensor<2x12xf32>, tensor<2x12xf32>)
  return %dx, %dw, %db, %dm, %dv : tensor<2x100x48xf32>, tensor<48xf32>, tensor<48xf32>, tensor<2x12xf32>, tensor<2x12xf32>
}
