// Folders and canonicalization patterns, and what they must leave alone.
// RUN: megalodon-opt %s -canonicalize | FileCheck %s

// CHECK-LABEL: func.func @sum_of_one
// CHECK-SAME: (%[[X:.*]]: tensor<4xf32>)
// CHECK-NEXT: return %[[X]]
func.func @sum_of_one(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = megalodon.add %x : tensor<4xf32>
  return %0 : tensor<4xf32>
}

// CHECK-LABEL: func.func @sum_of_sum
// CHECK-SAME: (%[[A:.*]]: tensor<4xf32>, %[[B:.*]]: tensor<4xf32>, %[[C:.*]]: tensor<4xf32>)
// CHECK-NEXT: %[[SUM:.*]] = megalodon.add %[[A]], %[[B]], %[[C]]
// CHECK-NEXT: return %[[SUM]]
func.func @sum_of_sum(%a: tensor<4xf32>, %b: tensor<4xf32>, %c: tensor<4xf32>) -> tensor<4xf32> {
  %0 = megalodon.add %a, %b : tensor<4xf32>
  %1 = megalodon.add %0, %c : tensor<4xf32>
  return %1 : tensor<4xf32>
}

// Terms are added from left to right: a + (b + c) is another rounding.
// CHECK-LABEL: func.func @sum_in_another_order
// CHECK-COUNT-2: megalodon.add
func.func @sum_in_another_order(%a: tensor<4xf32>, %b: tensor<4xf32>, %c: tensor<4xf32>) -> tensor<4xf32> {
  %0 = megalodon.add %b, %c : tensor<4xf32>
  %1 = megalodon.add %a, %0 : tensor<4xf32>
  return %1 : tensor<4xf32>
}

// CHECK-LABEL: func.func @shared_sum
// CHECK-COUNT-2: megalodon.add
func.func @shared_sum(%a: tensor<4xf32>, %b: tensor<4xf32>, %c: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = megalodon.add %a, %b : tensor<4xf32>
  %1 = megalodon.add %0, %c : tensor<4xf32>
  return %0, %1 : tensor<4xf32>, tensor<4xf32>
}

!x = tensor<2x8x8xf32>
!count = tensor<2xi64>

// CHECK-LABEL: func.func @rotation_and_inverse
// CHECK-SAME: (%[[X:.*]]: tensor<2x8x8xf32>
// CHECK-NEXT: return %[[X]]
func.func @rotation_and_inverse(%x: !x, %count: !count) -> !x {
  %0 = megalodon.rotary %x at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  %1 = megalodon.rotary %0 at %count inverse {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  return %1 : !x
}

// CHECK-LABEL: func.func @scaled_rotations_stay
// CHECK-COUNT-2: megalodon.rotary
func.func @scaled_rotations_stay(%x: !x, %count: !count) -> !x {
  %0 = megalodon.rotary %x at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64, scale = 0.5 : f64} : (!x, !count) -> !x
  %1 = megalodon.rotary %0 at %count inverse {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64, scale = 0.5 : f64} : (!x, !count) -> !x
  return %1 : !x
}

// CHECK-LABEL: func.func @rotation_twice
// CHECK-COUNT-2: megalodon.rotary
func.func @rotation_twice(%x: !x, %count: !count) -> !x {
  %0 = megalodon.rotary %x at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  %1 = megalodon.rotary %0 at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  return %1 : !x
}

// CHECK-LABEL: func.func @rotation_elsewhere
// CHECK-COUNT-2: megalodon.rotary
func.func @rotation_elsewhere(%x: !x, %count: !count, %other: !count) -> !x {
  %0 = megalodon.rotary %x at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  %1 = megalodon.rotary %0 at %other inverse {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  return %1 : !x
}

// CHECK-LABEL: func.func @no_clipping
// CHECK-NEXT: %[[ONE:.*]] = arith.constant dense<1.000000e+00> : tensor<f64>
// CHECK-NEXT: return %[[ONE]]
func.func @no_clipping(%norm: tensor<f64>) -> tensor<f64> {
  %0 = megalodon.clip %norm {max_norm = 0.0 : f64} : (tensor<f64>) -> tensor<f64>
  return %0 : tensor<f64>
}

// CHECK-LABEL: func.func @clipping
// CHECK-NEXT: megalodon.clip
func.func @clipping(%norm: tensor<f64>) -> tensor<f64> {
  %0 = megalodon.clip %norm {max_norm = 1.0 : f64} : (tensor<f64>) -> tensor<f64>
  return %0 : tensor<f64>
}

// Ops without side effects disappear with their last use.
// CHECK-LABEL: func.func @unused
// CHECK-NEXT: return
func.func @unused(%x: !x, %count: !count) {
  %0 = megalodon.rotary %x at %count {base = 1.0e4 : f64, chunk = 4 : i64, heads = 2 : i64} : (!x, !count) -> !x
  return
}
