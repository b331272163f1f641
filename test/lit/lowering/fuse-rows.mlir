// Kernels that own the same rows are joined; what only the second reads moves to scratch.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=64 --megalodon-fuse-rows | FileCheck %s

// %0 has one use and disappears, %1 is returned and stays a result.
// CHECK-LABEL: func.func @chain
// CHECK-NEXT: %[[R:.*]]:2 = plan.dispatch @kernels::@add.add.rms_norm grid<1 * one * tokens by 64>(%arg0, %arg1, %arg2)
// CHECK-SAME: tied = array<i64: -1, -1>
// CHECK-NEXT: return %[[R]]#0, %[[R]]#1
func.func @chain(%x: tensor<2x8x24xf32>, %y: tensor<2x8x24xf32>, %w: tensor<24xf32>) -> (tensor<2x8x24xf32>, tensor<2x8x24xf32>) {
  %0 = megalodon.add %x, %y : tensor<2x8x24xf32>
  %1 = megalodon.add %0, %y : tensor<2x8x24xf32>
  %2 = megalodon.rms_norm %1, %w {eps = 1.0e-5 : f64} : (tensor<2x8x24xf32>, tensor<24xf32>) -> tensor<2x8x24xf32>
  return %1, %2 : tensor<2x8x24xf32>, tensor<2x8x24xf32>
}

// The sum over tokens ends one joined kernel; the reduction of its partial rows is another grid.
// CHECK-LABEL: func.func @partial
// CHECK-NEXT: %[[G:.*]]:2 = plan.dispatch @kernels::@silu_grad.linear_grad_bias {{.*}} -> (tensor<2x8x24xf32>, tensor<1x24xf32>)
// CHECK-NEXT: plan.dispatch @kernels::@reduce_rows {{.*}}(%[[G]]#1)
func.func @partial(%dy: tensor<2x8x24xf32>, %x: tensor<2x8x24xf32>) -> (tensor<2x8x24xf32>, tensor<24xf32>) {
  %0 = megalodon.silu_grad %dy, %x : tensor<2x8x24xf32>
  %1 = megalodon.linear_grad_bias %0 : (tensor<2x8x24xf32>) -> tensor<24xf32>
  return %0, %1 : tensor<2x8x24xf32>, tensor<24xf32>
}

// The bias is added in place; both the sum and its activation are results, the sum still tied to the product.
// CHECK-LABEL: func.func @bias
// CHECK-NEXT: %[[P:.*]] = plan.product
// CHECK-NEXT: %[[B:.*]]:2 = plan.dispatch @kernels::@add_bias.silu grid<1 * one * tokens by 64>(%arg2, %[[P]])
// CHECK-SAME: tied = array<i64: 1, -1>
// CHECK-NEXT: return %[[B]]#0, %[[B]]#1
func.func @bias(%x: tensor<2x8x24xf32>, %w: tensor<24x24xf32>, %b: tensor<24xf32>) -> (tensor<2x8x24xf32>, tensor<2x8x24xf32>) {
  %0 = megalodon.linear %x, %w bias %b : (tensor<2x8x24xf32>, tensor<24x24xf32>, tensor<24xf32>) -> tensor<2x8x24xf32>
  %1 = megalodon.silu %0 : tensor<2x8x24xf32>
  return %0, %1 : tensor<2x8x24xf32>, tensor<2x8x24xf32>
}

// Something that is not by rows lies between: neither order of the two would do.
// CHECK-LABEL: func.func @between
// CHECK: plan.dispatch @kernels::@silu grid
// CHECK: plan.product
// CHECK: plan.dispatch @kernels::@add grid
func.func @between(%x: tensor<2x8x24xf32>, %w: tensor<24x24xf32>) -> tensor<2x8x24xf32> {
  %0 = megalodon.silu %x : tensor<2x8x24xf32>
  %1 = megalodon.linear %0, %w : (tensor<2x8x24xf32>, tensor<24x24xf32>) -> tensor<2x8x24xf32>
  %2 = megalodon.add %0, %1 : tensor<2x8x24xf32>
  return %2 : tensor<2x8x24xf32>
}

// Widths of other blocks are another grid.
// CHECK-LABEL: func.func @narrow
// CHECK: plan.dispatch @kernels::@cross_entropy grid<1 * one * tokens by 1>
// CHECK: plan.dispatch @kernels::@cross_entropy_grad grid<1 * one * tokens by 1>
func.func @narrow(%logits: tensor<2x8x32000xf32>, %targets: tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8x32000xf32>) {
  %nll, %lse = megalodon.cross_entropy %logits, %targets : (tensor<2x8x32000xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %mean = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  %dnll = megalodon.mean_grad %mean : (tensor<f32>) -> tensor<2x8xf32>
  %d = megalodon.cross_entropy_grad %dnll, %logits, %targets, %lse : (tensor<2x8xf32>, tensor<2x8x32000xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x32000xf32>
  return %nll, %d : tensor<2x8xf32>, tensor<2x8x32000xf32>
}

// One intermediate of 64 rows behind the kernels' own scratch, reached by rows of the block; kernels that nobody runs are gone.
// CHECK-LABEL: module @kernels
// CHECK-NOT: func.func @rms_norm(
// CHECK: func.func @add.add.rms_norm(%arg0: memref<16xi64>, %[[GROUP:.*]]: index, %[[SCRATCH:.*]]: memref<6144xi8>
// CHECK-SAME: plan.rows
// CHECK: %[[VIEW:.*]] = memref.view %[[SCRATCH]][%{{.*}}][] : memref<6144xi8> to memref<64x24xf32>
// CHECK: %[[FIRST:.*]] = arith.muli %[[GROUP]], %c64
// CHECK: %[[ROW:.*]] = arith.subi %{{.*}}, %[[FIRST]]
// CHECK: vector.store %{{.*}}, %[[VIEW]][%[[ROW]],
