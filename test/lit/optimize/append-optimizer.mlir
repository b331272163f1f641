// A train entry accumulates its gradients, then clips and updates.
// RUN: megalodon-opt %s --megalodon-append-optimizer --split-input-file --verify-diagnostics | FileCheck %s

// CHECK-LABEL: func.func @train_step
// CHECK-SAME: %[[P:[^:]*]]: tensor<2x2xf32> {megalodon.name = "p"{{[^%]*}}%[[M:[^:]*]]: tensor<2x2xf32> {{[^%]*}}%[[V:[^:]*]]: tensor<2x2xf32> {{[^%]*}}%[[STEP:[^:]*]]: tensor<i64>
// CHECK-SAME: %[[LR:[^:]*]]: tensor<f32> {megalodon.name = "lr"
// CHECK-SAME: %[[ACCUMULATOR:[^:]*]]: tensor<2x2xf32> {megalodon.name = "grad.p", megalodon.role = #megalodon.role<gradient>}
// CHECK-SAME: -> ({{.*}}"loss"{{.*}}"grad.p", megalodon.role = #megalodon.role<gradient>{{.*}}"grad_norm", megalodon.role = #megalodon.role<output>{{.*}}"p", megalodon.role = #megalodon.role<parameter>{{.*}}"exp_avg.p", megalodon.role = #megalodon.role<first_moment>{{.*}}"exp_avg_sq.p", megalodon.role = #megalodon.role<second_moment>
// CHECK: %[[D:.*]] = megalodon.mean_grad
// CHECK-NEXT: %[[G:.*]] = megalodon.accumulate %[[D]] into %[[ACCUMULATOR]]
// CHECK-NEXT: %[[NORM:.*]] = megalodon.global_norm %[[G]] {plan.update}
// CHECK-NEXT: %[[CLIP:.*]] = megalodon.clip %[[NORM]] {max_norm = 1.000000e+00 : f64}
// CHECK-NEXT: %[[P1:.*]], %[[M1:.*]], %[[V1:.*]] = megalodon.adamw %[[P]], %[[M]], %[[V]], %[[G]] step %[[STEP]] lr %[[LR]] clip %[[CLIP]]
// CHECK-SAME: beta1 = 9.000000e-01 : f64, beta2 = {{0.98|0.97999999999999998}} : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64
// CHECK-NEXT: return %{{.*}}, %[[G]], %[[NORM]], %[[P1]], %[[M1]], %[[V1]]
module attributes {megalodon.optimizer = {beta1 = 0.9, beta2 = 0.98, clip = 1.0, epsilon = 1.0e-8, weight_decay = 0.1}} {
func.func @train_step(%p: tensor<2x2xf32> {megalodon.name = "p", megalodon.role = #megalodon.role<parameter>},
                      %m: tensor<2x2xf32> {megalodon.name = "exp_avg.p", megalodon.role = #megalodon.role<first_moment>},
                      %v: tensor<2x2xf32> {megalodon.name = "exp_avg_sq.p", megalodon.role = #megalodon.role<second_moment>},
                      %step: tensor<i64> {megalodon.name = "step"}, %lr: tensor<f32> {megalodon.name = "lr"}, %scale: tensor<f32> {megalodon.name = "loss_scale"})
    -> (tensor<f32> {megalodon.name = "loss"}, tensor<2x2xf32> {megalodon.name = "grad.p", megalodon.role = #megalodon.role<gradient>})
    attributes {megalodon.entry = "train"} {
  %loss = megalodon.mean %p : (tensor<2x2xf32>) -> tensor<f32>
  %d = megalodon.mean_grad %scale : (tensor<f32>) -> tensor<2x2xf32>
  return %loss, %d : tensor<f32>, tensor<2x2xf32>
}
}

// -----

// Entries that do not train stay as they are.
// CHECK-LABEL: func.func @grad
// CHECK-NOT: accumulate
func.func @grad(%p: tensor<2x2xf32> {megalodon.name = "p", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<2x2xf32> {megalodon.name = "grad.p", megalodon.role = #megalodon.role<gradient>}) attributes {megalodon.entry = "grad"} {
  return %p : tensor<2x2xf32>
}

// -----

// expected-error@+1 {{expected a number 'beta2' in 'megalodon.optimizer', got none}}
module attributes {megalodon.optimizer = {beta1 = 0.9}} {
func.func @no_beta() attributes {megalodon.entry = "train"} {
  return
}
}

// -----

module attributes {megalodon.optimizer = {beta1 = 0.9, beta2 = 0.98, clip = 1.0, epsilon = 1.0e-8, weight_decay = 0.1}} {
// expected-error@+1 {{expected an argument 'exp_avg.p', got none}}
func.func @no_moments(%p: tensor<2x2xf32> {megalodon.name = "p", megalodon.role = #megalodon.role<parameter>}) attributes {megalodon.entry = "train"} {
  return
}
}

// -----

module attributes {megalodon.optimizer = {beta1 = 0.9, beta2 = 0.98, clip = 1.0, epsilon = 1.0e-8, weight_decay = 0.1}} {
// expected-error@+1 {{expected a result 'grad.p', got none: run megalodon-differentiate first}}
func.func @no_gradients(%p: tensor<2x2xf32> {megalodon.name = "p", megalodon.role = #megalodon.role<parameter>}, %m: tensor<2x2xf32> {megalodon.name = "exp_avg.p"},
                        %v: tensor<2x2xf32> {megalodon.name = "exp_avg_sq.p"}) attributes {megalodon.entry = "train"} {
  return
}
}

// -----

module attributes {megalodon.optimizer = {beta1 = 0.9, beta2 = 0.98, clip = 1.0, epsilon = 1.0e-8, weight_decay = 0.1}} {
// expected-error@+1 {{expected an argument 'step', got none}}
func.func @no_step(%p: tensor<2x2xf32> {megalodon.name = "p", megalodon.role = #megalodon.role<parameter>}, %m: tensor<2x2xf32> {megalodon.name = "exp_avg.p"},
                   %v: tensor<2x2xf32> {megalodon.name = "exp_avg_sq.p"}) -> (tensor<2x2xf32> {megalodon.name = "grad.p"}) attributes {megalodon.entry = "train"} {
  return %p : tensor<2x2xf32>
}
}

// -----

module attributes {megalodon.optimizer = {beta1 = 0.9, beta2 = 0.98, clip = 1.0, epsilon = 1.0e-8, weight_decay = 0.1}} {
// expected-error@+1 {{has an optimizer already: argument 'grad.p' accumulates a gradient}}
func.func @twice(%g: tensor<2x2xf32> {megalodon.name = "grad.p", megalodon.role = #megalodon.role<gradient>}) attributes {megalodon.entry = "train"} {
  return
}
}
