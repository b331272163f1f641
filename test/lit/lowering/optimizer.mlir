// The optimizer's half begins at the global norm, which leaves one sum a workgroup in a shared buffer; tensors of one shape share a kernel whatever their place in it.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=64 | FileCheck %s

// CHECK-LABEL: func.func @update
// CHECK: %[[S0:.*]] = plan.undefined : tensor<5xf64>
// CHECK: %[[S1:.*]] = plan.dispatch @kernels::@sum_of_squares grid<2 * one * one by 1>(%arg3, %[[S0]]) {{.*}}immediates = array<i64: 0>, plan.update, tied = array<i64: 1>
// CHECK: %[[S2:.*]] = plan.dispatch @kernels::@sum_of_squares grid<2 * one * one by 1>(%arg4, %[[S1]]) {{.*}}immediates = array<i64: 2>
// CHECK: %[[S3:.*]] = plan.dispatch @kernels::@sum_of_squares_1 grid<1 * one * one by 1>(%arg5, %[[S2]]) {{.*}}immediates = array<i64: 4>
// CHECK: %[[NORM:.*]] = plan.dispatch @kernels::@norm_of_sums grid<1 * one * one by 1>(%[[S3]]) {{.*}}immediates = array<i64: 5>
// CHECK: %[[CLIP:.*]] = plan.dispatch @kernels::@clip grid<1 * one * one by 1>(%[[NORM]])
// CHECK: %{{.*}}:3 = plan.dispatch @kernels::@adamw grid<2 * one * one by 1>(%arg3, %arg6, %arg7, %[[CLIP]], %arg0, %arg1, %arg2)
// CHECK-SAME: tied = array<i64: 4, 5, 6>
func.func @update(%p: tensor<100x200xf32>, %m: tensor<100x200xf32>, %v: tensor<100x200xf32>, %g: tensor<100x200xf32>, %g2: tensor<100x200xf32>,
                  %g3: tensor<7xf32>, %step: tensor<i64>, %lr: tensor<f32>) -> (tensor<100x200xf32>, tensor<100x200xf32>, tensor<100x200xf32>) {
  %norm = megalodon.global_norm %g, %g2, %g3 {plan.update} : (tensor<100x200xf32>, tensor<100x200xf32>, tensor<7xf32>) -> tensor<f32>
  %clip = megalodon.clip %norm {max_norm = 1.0 : f64} : (tensor<f32>) -> tensor<f32>
  %p1, %m1, %v1 = megalodon.adamw %p, %m, %v, %g step %step lr %lr clip %clip {beta1 = 0.9 : f64, beta2 = 0.98 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.1 : f64}
      : (tensor<100x200xf32>, tensor<100x200xf32>, tensor<100x200xf32>, tensor<100x200xf32>, tensor<i64>, tensor<f32>, tensor<f32>)
      -> (tensor<100x200xf32>, tensor<100x200xf32>, tensor<100x200xf32>)
  return %p1, %m1, %v1 : tensor<100x200xf32>, tensor<100x200xf32>, tensor<100x200xf32>
}

// Squares are added in f64.
// CHECK-LABEL: func.func @sum_of_squares(
// CHECK: arith.extf {{.*}} to vector<16xf64>
// CHECK: math.fma {{.*}} : vector<16xf64>

// Bias corrections are powers in f64, once a workgroup.
// CHECK-LABEL: func.func @adamw(
// CHECK-COUNT-2: math.exp {{.*}} : f64
// CHECK: scf.for
// CHECK-NOT: math.exp
// CHECK: math.sqrt {{.*}} : vector<16xf32>
