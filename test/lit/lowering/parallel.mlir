// A rank is a word of the parameter block, 6 along the chunk axis and 7 along the tensor axis; a constant is an immediate, the block's
// words from 8.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=64 | FileCheck %s

// CHECK-LABEL: func.func @chunk
// CHECK: plan.dispatch @kernels::@timestep_prefix grid<1 * batch * one by 1>
// CHECK-NOT: immediates
// CHECK: plan.dispatch @kernels::@cema_prefix grid<1 * batch * one by 1>
// CHECK-NOT: immediates
func.func @chunk(%s: tensor<2x3x2x4xf32>, %count: tensor<2xi64>, %mean: tensor<2x4xf32>, %c: tensor<2x3x16x4x2xf32>,
    %q: tensor<16x4x2xf64>, %h: tensor<2x16x4x2xf32>, %rank: index) -> (tensor<2x4xf32>, tensor<2x16x4x2xf32>) {
  %r:6 = megalodon.timestep_prefix %s from(%count, %mean, %mean) at %rank
      : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index)
     -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  %local, %new = megalodon.cema_prefix %c, %q state(%h) at %rank
      : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return %r#1, %local : tensor<2x4xf32>, tensor<2x16x4x2xf32>
}

// CHECK-LABEL: func.func @tensor
// CHECK: plan.dispatch @kernels::@embedding grid<1 * one * tokens by 64>
// CHECK-NOT: immediates
func.func @tensor(%tokens: tensor<2x8xi32>, %w: tensor<16x16xf32>, %rank: index) -> tensor<2x8x16xf32> {
  %y = megalodon.embedding %tokens, %w at %rank : (tensor<2x8xi32>, tensor<16x16xf32>, index) -> tensor<2x8x16xf32>
  return %y : tensor<2x8x16xf32>
}

// One kernel for all constants.
// CHECK-LABEL: func.func @constants
// CHECK: plan.dispatch @kernels::@embedding_1 {{.*}}immediates = array<i64: 1>
// CHECK: plan.dispatch @kernels::@embedding_1 {{.*}}immediates = array<i64: 2>
func.func @constants(%tokens: tensor<2x8xi32>, %w: tensor<16x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>) {
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %y = megalodon.embedding %tokens, %w at %one : (tensor<2x8xi32>, tensor<16x16xf32>, index) -> tensor<2x8x16xf32>
  %z = megalodon.embedding %tokens, %w at %two : (tensor<2x8xi32>, tensor<16x16xf32>, index) -> tensor<2x8x16xf32>
  return %y, %z : tensor<2x8x16xf32>, tensor<2x8x16xf32>
}

// CHECK: func.func @timestep_prefix(
// CHECK: %[[WORD:.*]] = arith.constant 6 : index
// CHECK: memref.load %arg0[%[[WORD]]]
// CHECK: func.func @cema_prefix(
// CHECK: %[[WORD:.*]] = arith.constant 6 : index
// CHECK: memref.load %arg0[%[[WORD]]]
// CHECK: func.func @embedding(
// CHECK: %[[WORD:.*]] = arith.constant 7 : index
// CHECK: memref.load %arg0[%[[WORD]]]
// CHECK: func.func @embedding_1(
// CHECK: %[[WORD:.*]] = arith.constant 8 : index
// CHECK: memref.load %arg0[%[[WORD]]]
