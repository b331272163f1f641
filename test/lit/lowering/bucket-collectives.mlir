// Gradients that are reduced over the same ranks share a message up to a size; activations of the tensor axis only with what starts in the same place.
// RUN: megalodon-opt %s --pass-pipeline='builtin.module(func.func(megalodon-bucket-collectives{bytes=200}))' | FileCheck %s

// CHECK-LABEL: func.func @gradients
// CHECK-NEXT: %[[U:.*]] = plan.undefined
// CHECK-NEXT: %[[AB:.*]]:2 = plan.collective all_reduce(%arg0, %arg1) over [0] {last} : (tensor<16xf32>, tensor<4x4xf32>) -> (tensor<16xf32>, tensor<4x4xf32>)
// The third would make 128 + 128 bytes: more than 200.
// CHECK-NEXT: %[[C:.*]] = plan.collective all_reduce(%arg2) over [0] {last} : (tensor<32xf32>) -> tensor<32xf32>
// CHECK-NEXT: return %[[AB]]#0, %[[AB]]#1, %[[C]], %[[U]]
func.func @gradients(%a: tensor<16xf32>, %b: tensor<4x4xf32>, %c: tensor<32xf32>) -> (tensor<16xf32>, tensor<4x4xf32>, tensor<32xf32>, tensor<2xf32>) {
  %0 = plan.collective all_reduce(%a) over [0] {last} : (tensor<16xf32>) -> tensor<16xf32>
  %u = plan.undefined : tensor<2xf32>
  %1 = plan.collective all_reduce(%b) over [0] {last} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = plan.collective all_reduce(%c) over [0] {last} : (tensor<32xf32>) -> tensor<32xf32>
  return %0, %1, %2, %u : tensor<16xf32>, tensor<4x4xf32>, tensor<32xf32>, tensor<2xf32>
}

// Another kind, other axes, another element type, a reader: each is a message of its own.
// CHECK-LABEL: func.func @apart
// CHECK-COUNT-4: plan.collective {{[a-z_]+}}(%{{[a-z0-9_]+}})
func.func @apart(%a: tensor<16xf32>, %b: tensor<16xf64>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf64>, tensor<32xf32>) {
  %0 = plan.collective all_reduce(%a) over [0] : (tensor<16xf32>) -> tensor<16xf32>
  %1 = plan.collective all_reduce(%a) over [0, 2] : (tensor<16xf32>) -> tensor<16xf32>
  %2 = plan.collective all_reduce(%b) over [0] : (tensor<16xf64>) -> tensor<16xf64>
  %3 = plan.collective all_gather(%0) over [0] : (tensor<16xf32>) -> tensor<32xf32>
  return %0, %1, %2, %3 : tensor<16xf32>, tensor<16xf32>, tensor<16xf64>, tensor<32xf32>
}

// CHECK-LABEL: func.func @activations
// CHECK-NEXT: plan.collective all_gather(%arg0, %arg1) over [3]
// CHECK-NEXT: plan.undefined
// CHECK-NEXT: plan.collective all_gather(%arg2) over [3]
func.func @activations(%a: tensor<4xf32>, %b: tensor<4xf32>, %c: tensor<4xf32>) -> (tensor<8xf32>, tensor<8xf32>, tensor<8xf32>, tensor<2xf32>) {
  %0 = plan.collective all_gather(%a) over [3] : (tensor<4xf32>) -> tensor<8xf32>
  %1 = plan.collective all_gather(%b) over [3] : (tensor<4xf32>) -> tensor<8xf32>
  %u = plan.undefined : tensor<2xf32>
  %2 = plan.collective all_gather(%c) over [3] : (tensor<4xf32>) -> tensor<8xf32>
  return %0, %1, %2, %u : tensor<8xf32>, tensor<8xf32>, tensor<8xf32>, tensor<2xf32>
}

// Stages run different programs: what they say to each other is never joined.
// CHECK-LABEL: func.func @stages
// CHECK-COUNT-2: plan.collective all_reduce(%arg{{[01]}}) over [1]
func.func @stages(%a: tensor<4xf32>, %b: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = plan.collective all_reduce(%a) over [1] : (tensor<4xf32>) -> tensor<4xf32>
  %1 = plan.collective all_reduce(%b) over [1] : (tensor<4xf32>) -> tensor<4xf32>
  return %0, %1 : tensor<4xf32>, tensor<4xf32>
}
