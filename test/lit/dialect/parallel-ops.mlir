// Round trip of the parallel ops and of the forms that other ops have on a rank.
// RUN: megalodon-opt %s -o %t.1 && megalodon-opt %t.1 -o %t.2 && diff %t.1 %t.2
// RUN: FileCheck %s < %t.1

// CHECK-LABEL: func.func @embedding(
// CHECK: megalodon.embedding %{{.*}}, %{{.*}} at %{{.*}} {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<16x16xf32>, index) -> tensor<2x8x16xf32>
func.func @embedding(%a: tensor<2x8xi32>, %b: tensor<16x16xf32>, %c: index) -> tensor<2x8x16xf32> {
  %r = megalodon.embedding %a, %b at %c {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<16x16xf32>, index) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @embedding_grad(
// CHECK: megalodon.embedding_grad %{{.*}}, %{{.*}} at %{{.*}} {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<2x8x16xf32>, index) -> tensor<16x16xf32>
func.func @embedding_grad(%a: tensor<2x8xi32>, %b: tensor<2x8x16xf32>, %c: index) -> tensor<16x16xf32> {
  %r = megalodon.embedding_grad %a, %b at %c {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<2x8x16xf32>, index) -> tensor<16x16xf32>
  return %r : tensor<16x16xf32>
}

// CHECK-LABEL: func.func @cross_entropy_grad(
// CHECK: megalodon.cross_entropy_grad %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} {vocabulary = 30 : i64} : (tensor<2x8xf32>, tensor<2x8x16xf32>, tensor<2x8xi32>, tensor<2x8xf32>, index) -> tensor<2x8x16xf32>
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8xi32>, %d: tensor<2x8xf32>, %e: index) -> tensor<2x8x16xf32> {
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d at %e {vocabulary = 30 : i64} : (tensor<2x8xf32>, tensor<2x8x16xf32>, tensor<2x8xi32>, tensor<2x8xf32>, index) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @mean(
// CHECK: megalodon.mean %{{.*}} {parts = 4 : i64} : (tensor<2x8xf32>) -> tensor<f32>
func.func @mean(%a: tensor<2x8xf32>) -> tensor<f32> {
  %r = megalodon.mean %a {parts = 4 : i64} : (tensor<2x8xf32>) -> tensor<f32>
  return %r : tensor<f32>
}

// CHECK-LABEL: func.func @mean_grad(
// CHECK: megalodon.mean_grad %{{.*}} {parts = 4 : i64} : (tensor<f32>) -> tensor<2x8xf32>
func.func @mean_grad(%a: tensor<f32>) -> tensor<2x8xf32> {
  %r = megalodon.mean_grad %a {parts = 4 : i64} : (tensor<f32>) -> tensor<2x8xf32>
  return %r : tensor<2x8xf32>
}

// CHECK-LABEL: func.func @timestep_statistics(
// CHECK: megalodon.timestep_statistics %{{.*}} {groups = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x1x2x4xf32>
func.func @timestep_statistics(%a: tensor<2x8x16xf32>) -> tensor<2x1x2x4xf32> {
  %r = megalodon.timestep_statistics %a {groups = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x1x2x4xf32>
  return %r : tensor<2x1x2x4xf32>
}

// CHECK-LABEL: func.func @timestep_prefix(
// CHECK: megalodon.timestep_prefix %{{.*}} from(%{{.*}}, %{{.*}}, %{{.*}}) at %{{.*}} : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf32>, %e: index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return %r#0, %r#1, %r#2, %r#3, %r#4, %r#5 : tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>
}

// CHECK-LABEL: func.func @local_count(
// CHECK: megalodon.local_count %{{.*}} at %{{.*}} : (tensor<2xi64>, index) -> tensor<2xi64>
func.func @local_count(%n: tensor<2xi64>, %k: index) -> tensor<2xi64> {
  %r = megalodon.local_count %n at %k : (tensor<2xi64>, index) -> tensor<2xi64>
  return %r : tensor<2xi64>
}

// CHECK-LABEL: func.func @timestep_moments_grad(
// CHECK: megalodon.timestep_moments_grad %{{.*}}, %{{.*}}, %{{.*}} state(%{{.*}}, %{{.*}}) : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x8x4xf32>) -> tensor<2x1x2x4xf32>
func.func @timestep_moments_grad(%a: tensor<2x4xf32>, %b: tensor<2x4xf32>, %x: tensor<2x8x16xf32>, %n: tensor<2xi64>, %m: tensor<2x8x4xf32>) -> tensor<2x1x2x4xf32> {
  %r = megalodon.timestep_moments_grad %a, %b, %x state(%n, %m) : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x8x4xf32>) -> tensor<2x1x2x4xf32>
  return %r : tensor<2x1x2x4xf32>
}

// CHECK-LABEL: func.func @timestep_suffix_grad(
// CHECK: megalodon.timestep_suffix_grad %{{.*}}, %{{.*}}, %{{.*}} state(%{{.*}}, %{{.*}}) at %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x8x4xf32>, index) -> (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
func.func @timestep_suffix_grad(%dx: tensor<2x8x16xf32>, %x: tensor<2x8x16xf32>, %s: tensor<2x3x2x4xf32>, %n: tensor<2xi64>, %m: tensor<2x8x4xf32>, %k: index) -> (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %r:3 = megalodon.timestep_suffix_grad %dx, %x, %s state(%n, %m) at %k : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x8x4xf32>, index) -> (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>
}

// CHECK-LABEL: func.func @cema_summary(
// CHECK: megalodon.cema_summary %{{.*}}, %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32>
func.func @cema_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32> {
  %r = megalodon.cema_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32>
  return %r : tensor<2x1x16x4x2xf32>
}

// CHECK-LABEL: func.func @cema_grad_summary(
// CHECK: megalodon.cema_grad_summary %{{.*}}, %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<16x4x2xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32>
func.func @cema_grad_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32> {
  %r = megalodon.cema_grad_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4x2xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32>
  return %r : tensor<2x1x16x4x2xf32>
}

// CHECK-LABEL: func.func @cema_prefix(
// CHECK: megalodon.cema_prefix %{{.*}}, %{{.*}} state(%{{.*}}) at %{{.*}} : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
func.func @cema_prefix(%a: tensor<2x3x16x4x2xf32>, %b: tensor<16x4x2xf64>, %c: tensor<2x16x4x2xf32>, %d: index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>) {
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return %r#0, %r#1 : tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>
}

// CHECK-LABEL: func.func @cema_prefix_reverse(
// CHECK: megalodon.cema_prefix %{{.*}}, %{{.*}} state(%{{.*}}) at %{{.*}} reverse : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
func.func @cema_prefix_reverse(%a: tensor<2x3x16x4x2xf32>, %b: tensor<16x4x2xf64>, %c: tensor<2x16x4x2xf32>, %d: index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>) {
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return %r#0, %r#1 : tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>
}

// CHECK-LABEL: func.func @cross_entropy_summary(
// CHECK: megalodon.cross_entropy_summary %{{.*}}, %{{.*}} at %{{.*}} {vocabulary = 30 : i64} : (tensor<2x8x16xf32>, tensor<2x8xi32>, index) -> tensor<2x8x2xf32>
func.func @cross_entropy_summary(%a: tensor<2x8x16xf32>, %b: tensor<2x8xi32>, %c: index) -> tensor<2x8x2xf32> {
  %r = megalodon.cross_entropy_summary %a, %b at %c {vocabulary = 30 : i64} : (tensor<2x8x16xf32>, tensor<2x8xi32>, index) -> tensor<2x8x2xf32>
  return %r : tensor<2x8x2xf32>
}

// CHECK-LABEL: func.func @cross_entropy_combine(
// CHECK: megalodon.cross_entropy_combine %{{.*}}, %{{.*}} : (tensor<2x8x6xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
func.func @cross_entropy_combine(%a: tensor<2x8x6xf32>, %b: tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %r:2 = megalodon.cross_entropy_combine %a, %b : (tensor<2x8x6xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  return %r#0, %r#1 : tensor<2x8xf32>, tensor<2x8xf32>
}

// CHECK-LABEL: func.func @rms_norm_grad_sums(
// CHECK: megalodon.rms_norm_grad_sums %{{.*}}, %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x2xf64>
func.func @rms_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) -> tensor<2x8x2xf64> {
  %r = megalodon.rms_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x2xf64>
  return %r : tensor<2x8x2xf64>
}

// CHECK-LABEL: func.func @rms_norm_grad_sums_plain(
// CHECK: megalodon.rms_norm_grad_sums %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x2xf64>
func.func @rms_norm_grad_sums_plain(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>) -> tensor<2x8x2xf64> {
  %r = megalodon.rms_norm_grad_sums %a, %b : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x2xf64>
  return %r : tensor<2x8x2xf64>
}

// CHECK-LABEL: func.func @rms_norm_grad(
// CHECK: megalodon.rms_norm_grad %{{.*}}, %{{.*}}, %{{.*}} sums(%{{.*}}) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x2xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x2xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>) {
  %r:2 = megalodon.rms_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x2xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return %r#0, %r#1 : tensor<2x8x16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @rms_norm_grad_plain(
// CHECK: megalodon.rms_norm_grad %{{.*}}, %{{.*}} sums(%{{.*}}) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x2xf64>) -> tensor<2x8x16xf32>
func.func @rms_norm_grad_plain(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x2xf64>) -> tensor<2x8x16xf32> {
  %r = megalodon.rms_norm_grad %a, %b sums(%c) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x2xf64>) -> tensor<2x8x16xf32>
  return %r : tensor<2x8x16xf32>
}

// CHECK-LABEL: func.func @layer_norm_grad_sums(
// CHECK: megalodon.layer_norm_grad_sums %{{.*}}, %{{.*}}, %{{.*}} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x4xf64>
func.func @layer_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) -> tensor<2x8x4xf64> {
  %r = megalodon.layer_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x4xf64>
  return %r : tensor<2x8x4xf64>
}

// CHECK-LABEL: func.func @layer_norm_grad(
// CHECK: megalodon.layer_norm_grad %{{.*}}, %{{.*}}, %{{.*}} sums(%{{.*}}) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x4xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x4xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) {
  %r:3 = megalodon.layer_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x4xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return %r#0, %r#1, %r#2 : tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @sum_of_squares(
// CHECK: megalodon.sum_of_squares %{{.*}}, %{{.*}} : (tensor<24x16xf32>, tensor<16xf32>) -> tensor<f64>
func.func @sum_of_squares(%a: tensor<24x16xf32>, %b: tensor<16xf32>) -> tensor<f64> {
  %r = megalodon.sum_of_squares %a, %b : (tensor<24x16xf32>, tensor<16xf32>) -> tensor<f64>
  return %r : tensor<f64>
}

// CHECK-LABEL: func.func @norm_of_squares(
// CHECK: megalodon.norm_of_squares %{{.*}}, %{{.*}} : (tensor<f64>, tensor<f64>) -> tensor<f32>
func.func @norm_of_squares(%a: tensor<f64>, %b: tensor<f64>) -> tensor<f32> {
  %r = megalodon.norm_of_squares %a, %b : (tensor<f64>, tensor<f64>) -> tensor<f32>
  return %r : tensor<f32>
}

// The encoding of a result's type need not follow from the operands.
// CHECK-LABEL: func.func @encoding(
// CHECK: megalodon.linear %{{.*}}, %{{.*}} : (tensor<2x8x16xf32, "whole">, tensor<24x16xf32>) -> tensor<2x8x24xf32, "split">
func.func @encoding(%a: tensor<2x8x16xf32, "whole">, %b: tensor<24x16xf32>) -> tensor<2x8x24xf32, "split"> {
  %r = megalodon.linear %a, %b : (tensor<2x8x16xf32, "whole">, tensor<24x16xf32>) -> tensor<2x8x24xf32, "split">
  return %r : tensor<2x8x24xf32, "split">
}
