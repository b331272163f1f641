// Round trips of the ops that only MEGA has.
// RUN: megalodon-opt %s | megalodon-opt | FileCheck %s

// CHECK-LABEL: func.func @ema_coefficients(
// CHECK: megalodon.ema_coefficients %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4x1xf32>, %d: tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>) {
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return %r#0, %r#1, %r#2 : tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>
}

// CHECK-LABEL: func.func @mega_qk(
// CHECK: megalodon.mega_qk %{{.*}}, %{{.*}}, %{{.*}} relative %{{.*}} at %{{.*}} {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>) {
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return %r#0, %r#1 : tensor<2x8x12xf32>, tensor<2x8x12xf32>
}

// CHECK-LABEL: func.func @mega_qk_packed(
// CHECK: megalodon.mega_qk %{{.*}}, %{{.*}}, %{{.*}} relative %{{.*}} at %{{.*}} positions(%{{.*}}) per_key {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
func.func @mega_qk_packed(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>, %f: tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>) {
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e positions(%f) per_key {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return %r#0, %r#1 : tensor<2x8x12xf32>, tensor<2x8x12xf32>
}

// CHECK-LABEL: func.func @ema_coefficients_grad(
// CHECK: megalodon.ema_coefficients_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>)
func.func @ema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x4x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>) {
  %r:4 = megalodon.ema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>)
  return %r#0, %r#1, %r#2, %r#3 : tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>
}

// CHECK-LABEL: func.func @mega_qk_grad(
// CHECK: megalodon.mega_qk_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
func.func @mega_qk_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x12xf32>, %c: tensor<2x8x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>) {
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return %r#0, %r#1, %r#2, %r#3 : tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>
}

// CHECK-LABEL: func.func @mega_qk_grad_packed(
// CHECK: megalodon.mega_qk_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} positions(%{{.*}}) per_key {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
func.func @mega_qk_grad_packed(%a: tensor<2x8x12xf32>, %b: tensor<2x8x12xf32>, %c: tensor<2x8x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>, %f: tensor<2x8xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>) {
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e positions(%f) per_key {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>, tensor<2x8xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return %r#0, %r#1, %r#2, %r#3 : tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>
}

// CHECK-LABEL: func.func @update_gate_grad(
// CHECK: megalodon.update_gate_grad %{{.*}}, %{{.*}}, %{{.*}} by %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>)
func.func @update_gate_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>, %d: tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) {
  %r:3 = megalodon.update_gate_grad %a, %b, %c by %d : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @update_gate(
// CHECK: megalodon.update_gate %{{.*}}, %{{.*}} by %{{.*}} : tensor<2x8x16xf32>
func.func @update_gate(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>) -> tensor<2x8x16xf32> {
  %r = megalodon.update_gate %a, %b by %c : tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}
