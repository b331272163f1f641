// The plan dialect: round trip, and one test a constraint.
// RUN: megalodon-opt %s -split-input-file -verify-diagnostics | FileCheck %s

module @kernels {
  func.func private @silu(memref<4xi64>, index, memref<0xi8>, memref<16x16xf32>, memref<16x16xf32>)
  func.func private @update(memref<4xi64>, index, memref<0xi8>, memref<16xf32>)
}

// CHECK-LABEL: func.func @forms
// CHECK-NEXT: plan.dispatch @kernels::@silu grid<1 * one * tokens by 16>(%{{.*}}) {bytes = 2.048000e+03 : f64, flops = 1.024000e+03 : f64, tied = array<i64: -1>} : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
// CHECK-NEXT: plan.undefined : tensor<16xf32>
// CHECK-NEXT: plan.dispatch @kernels::@update grid<1 * batch * length by 4>(%{{.*}}) {{{.*}}immediates = array<i64: 7>, tied = array<i64: 0>} : (tensor<16xf32>) -> tensor<16xf32>
// CHECK-NEXT: plan.product %{{.*}}, %{{.*}} transposed {bytes = {{.*}}, flops = {{.*}}, k = 16 : i64, library = "onednn", m = -1 : i64, n = 24 : i64, tile_m = 64 : i64, tile_n = 24 : i64}
func.func @forms(%x: tensor<2x8x16xf32>, %w: tensor<24x16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x24xf32>) {
  %0 = plan.dispatch @kernels::@silu grid<1 * one * tokens by 16>(%x) {tied = array<i64: -1>, flops = 1024.0 : f64, bytes = 2048.0 : f64}
      : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  %1 = plan.undefined : tensor<16xf32>
  %2 = plan.dispatch @kernels::@update grid<1 * batch * length by 4>(%1)
      {tied = array<i64: 0>, immediates = array<i64: 7>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> tensor<16xf32>
  %3 = plan.product %x, %w transposed
      {m = -1 : i64, n = 24 : i64, k = 16 : i64, tile_m = 64 : i64, tile_n = 24 : i64, library = "onednn", flops = 1.0 : f64, bytes = 1.0 : f64}
      : (tensor<2x8x16xf32>, tensor<24x16xf32>) -> tensor<2x8x24xf32>
  return %0, %2, %3 : tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x24xf32>
}

// CHECK-LABEL: func.func @collectives
// CHECK-NEXT: plan.collective all_gather(%{{.*}}) over [3] {dimension = 2 : i64} : (tensor<2x8x16xf32>) -> tensor<2x8x64xf32>
// CHECK-NEXT: plan.collective reduce_scatter(%{{.*}}) over [3] {dimension = 2 : i64} : (tensor<2x8x64xf32>) -> tensor<2x8x16xf32>
// CHECK-NEXT: plan.collective all_reduce(%{{.*}}, %{{.*}}) over [0, 2] {last, stages = array<i64: 0, 3>} : (tensor<16xf32>, tensor<4xf32>) -> (tensor<16xf32>, tensor<4xf32>)
func.func @collectives(%x: tensor<2x8x16xf32>, %a: tensor<16xf32>, %b: tensor<4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<4xf32>) {
  %0 = plan.collective all_gather(%x) over [3] {dimension = 2 : i64} : (tensor<2x8x16xf32>) -> tensor<2x8x64xf32>
  %1 = plan.collective reduce_scatter(%0) over [3] {dimension = 2 : i64} : (tensor<2x8x64xf32>) -> tensor<2x8x16xf32>
  %2:2 = plan.collective all_reduce(%a, %b) over [0, 2] {last, stages = array<i64: 0, 3>} : (tensor<16xf32>, tensor<4xf32>) -> (tensor<16xf32>, tensor<4xf32>)
  return %1, %2#0, %2#1 : tensor<2x8x16xf32>, tensor<16xf32>, tensor<4xf32>
}

// -----

// dispatch C1
func.func @dispatch(%x: tensor<16xf32>) {
  // expected-error@+1 {{expected 1 entries in tied, got 2}}
  %0 = plan.dispatch @kernels::@k grid<1 * one * one by 1>(%x) {tied = array<i64: -1, -1>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// dispatch C1
func.func @dispatch(%x: tensor<16xf32>) {
  // expected-error@+1 {{result 0 is tied to input 1, but there are 1}}
  %0 = plan.dispatch @kernels::@k grid<1 * one * one by 1>(%x) {tied = array<i64: 1>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// dispatch C1
func.func @dispatch(%x: tensor<16xf32>) {
  // expected-error@+1 {{result 0 of type 'tensor<8xf32>' is tied to an input of type 'tensor<16xf32>'}}
  %0 = plan.dispatch @kernels::@k grid<1 * one * one by 1>(%x) {tied = array<i64: 0>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> tensor<8xf32>
  return
}

// -----

// dispatch C2
func.func @dispatch(%x: tensor<16xf32>) {
  // expected-error@+1 {{input 0 is tied twice}}
  %0:2 = plan.dispatch @kernels::@k grid<1 * one * one by 1>(%x) {tied = array<i64: 0, 0>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> (tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// dispatch C3
func.func @dispatch(%x: tensor<16xf32>) {
  // expected-error@+1 {{expected a kernel function, got @kernels::@missing}}
  %0 = plan.dispatch @kernels::@missing grid<1 * one * one by 1>(%x) {tied = array<i64: -1>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// dispatch C3
module @kernels {
  // expected-note@+1 {{kernel is here}}
  func.func private @k(memref<4xi64>, index, memref<0xi8>, memref<16xf32>)
}
func.func @dispatch(%x: tensor<16xf32>) {
  // expected-error@+1 {{expected a kernel of 5 arguments, got 4}}
  %0 = plan.dispatch @kernels::@k grid<1 * one * one by 1>(%x) {tied = array<i64: -1>, flops = 0.0 : f64, bytes = 0.0 : f64} : (tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// product C1
func.func @product(%a: tensor<8x16xf32>, %b: tensor<16x4xf32>) {
  // expected-error@+1 {{expected at most one extent of -1, got m=-1 n=-1 k=16}}
  %0 = plan.product %a, %b {m = -1 : i64, n = -1 : i64, k = 16 : i64, tile_m = 4 : i64, tile_n = 4 : i64, library = "onednn", flops = 0.0 : f64, bytes = 0.0 : f64}
      : (tensor<8x16xf32>, tensor<16x4xf32>) -> tensor<8x4xf32>
  return
}

// -----

// product C2
func.func @product(%a: tensor<8x16xf32>, %b: tensor<16x4xf32>) {
  // expected-error@+1 {{expected positive tiles, got 4 x 0}}
  %0 = plan.product %a, %b {m = 8 : i64, n = 4 : i64, k = 16 : i64, tile_m = 4 : i64, tile_n = 0 : i64, library = "onednn", flops = 0.0 : f64, bytes = 0.0 : f64}
      : (tensor<8x16xf32>, tensor<16x4xf32>) -> tensor<8x4xf32>
  return
}

// -----

// product C3
func.func @product(%a: tensor<8x16xf32>, %b: tensor<16x4xf64>) {
  // expected-error@+1 {{expected one element type, got 'f32', 'f64' and 'f32'}}
  %0 = plan.product %a, %b {m = 8 : i64, n = 4 : i64, k = 16 : i64, tile_m = 4 : i64, tile_n = 4 : i64, library = "onednn", flops = 0.0 : f64, bytes = 0.0 : f64}
      : (tensor<8x16xf32>, tensor<16x4xf64>) -> tensor<8x4xf32>
  return
}

// -----

// collective C1
func.func @collective(%x: tensor<16xf32>) {
  // expected-error@+1 {{expected as many results as inputs and at least one, got 1 for 2}}
  %0 = plan.collective all_reduce(%x, %x) over [0] : (tensor<16xf32>, tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// collective C2
func.func @collective(%x: tensor<16xf32>, %y: tensor<16xf64>) {
  // expected-error@+1 {{expected one element type, got 'f32' and 'f64'}}
  %0:2 = plan.collective all_reduce(%x, %y) over [0] : (tensor<16xf32>, tensor<16xf64>) -> (tensor<16xf32>, tensor<16xf64>)
  return
}

// -----

// collective C3
func.func @collective(%x: tensor<16xf32>) {
  // expected-error@+1 {{expected distinct axes from 0 to 3, got [0, 0]}}
  %0 = plan.collective all_reduce(%x) over [0, 0] : (tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// collective C3
func.func @collective(%x: tensor<16xf32>) {
  // expected-error@+1 {{expected at least one axis, got none}}
  %0 = plan.collective all_reduce(%x) over [] : (tensor<16xf32>) -> tensor<16xf32>
  return
}

// -----

// collective C4
func.func @collective(%x: tensor<16xf32>) {
  // expected-error@+1 {{result 0 of type 'tensor<32xf32>' is the sum of an input of type 'tensor<16xf32>'}}
  %0 = plan.collective all_reduce(%x) over [0] : (tensor<16xf32>) -> tensor<32xf32>
  return
}

// -----

// collective C5
func.func @collective(%x: tensor<4x16xf32>) {
  // expected-error@+1 {{expected result 0 to differ from its input by a factor in dimension 1, got 'tensor<4x16xf32>' and 'tensor<4x24xf32>'}}
  %0 = plan.collective all_gather(%x) over [0] {dimension = 1 : i64} : (tensor<4x16xf32>) -> tensor<4x24xf32>
  return
}

// -----

// collective C5
func.func @collective(%x: tensor<4x16xf32>, %y: tensor<4x16xf32>) {
  // expected-error@+1 {{expected a factor of 2 for result 1, got 4}}
  %0:2 = plan.collective reduce_scatter(%x, %y) over [0] {dimension = 1 : i64} : (tensor<4x16xf32>, tensor<4x16xf32>) -> (tensor<4x8xf32>, tensor<4x4xf32>)
  return
}
