// The two-level scans of the timestep norm: segments side by side, what stands
// in front of each, then the tokens of each.
// RUN: megalodon-opt %s --pass-pipeline='builtin.module(megalodon-lower-to-kernels{timestep-norm=two-level})' | FileCheck %s

// CHECK-LABEL: func.func @forward
// CHECK: plan.dispatch @kernels::@timestep_norm_statistics
// CHECK: %[[SEGMENTS:.*]]:2 = plan.dispatch @kernels::@timestep_norm_segments grid<1 * batch * length by 64>
// CHECK-SAME: tensor<6x4xf64>
// CHECK: %[[STARTS:.*]]:5 = plan.dispatch @kernels::@timestep_norm_prefix grid<1 * batch * one by 1>(%{{.*}}, %[[SEGMENTS]]#0, %[[SEGMENTS]]#1
// CHECK: plan.dispatch @kernels::@timestep_norm_scan grid<1 * batch * length by 64>(%{{.*}}, %[[STARTS]]#0, %[[STARTS]]#1)
// CHECK: plan.dispatch @kernels::@timestep_norm grid
func.func @forward(%x: tensor<2x150x16xf32>, %weight: tensor<16xf32>, %bias: tensor<16xf32>, %count: tensor<2xi64>, %mean: tensor<2x4xf32>,
                   %var: tensor<2x4xf32>) -> (tensor<2x150x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %y, %new_count, %new_mean, %new_var, %running_mean, %running_rstd = megalodon.timestep_norm %x, %weight, %bias
      state(%count, %mean, %var) {eps = 1.0e-5 : f64}
      : (tensor<2x150x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
     -> (tensor<2x150x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x150x4xf32>, tensor<2x150x4xf32>)
  return %y, %new_count, %new_mean, %new_var : tensor<2x150x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>
}
