// Upstream's collectives become messages of the plan; axes of one rank have nothing to say, and a rank's number goes away with its last user.
// RUN: megalodon-opt %s -split-input-file -verify-diagnostics --pass-pipeline='builtin.module(megalodon-lower-to-kernels,cse)' | FileCheck %s

shard.grid @mesh(shape = 2x1x1x4)

// CHECK-LABEL: func.func @messages
// CHECK-NEXT: %[[WHOLE:.*]] = plan.collective all_gather(%arg0) over [3] {dimension = 2 : i64} : (tensor<2x8x16xf32>) -> tensor<2x8x64xf32>
// CHECK-NEXT: %[[PART:.*]] = plan.collective reduce_scatter(%[[WHOLE]]) over [3, 0] {dimension = 2 : i64} : (tensor<2x8x64xf32>) -> tensor<2x8x8xf32>
// CHECK-NEXT: %[[SUM:.*]] = plan.collective all_reduce(%arg1) over [0, 3] {last} : (tensor<16xf32>) -> tensor<16xf32>
// CHECK-NEXT: return %[[PART]], %[[SUM]]
func.func @messages(%x: tensor<2x8x16xf32>, %g: tensor<16xf32>) -> (tensor<2x8x8xf32>, tensor<16xf32>) {
  %rank = shard.process_multi_index on @mesh axes = [3] : index
  %0 = shard.all_gather %x on @mesh grid_axes = [3] gather_axis = 2 : tensor<2x8x16xf32> -> tensor<2x8x64xf32>
  %1 = shard.reduce_scatter %0 on @mesh grid_axes = [3, 0] scatter_axis = 2 : tensor<2x8x64xf32> -> tensor<2x8x8xf32>
  %2 = shard.all_reduce %g on @mesh grid_axes = [3, 1, 0] {plan.last} : tensor<16xf32> -> tensor<16xf32>
  return %1, %2 : tensor<2x8x8xf32>, tensor<16xf32>
}

// CHECK-LABEL: func.func @alone
// CHECK-NEXT: return %arg0, %arg0
func.func @alone(%x: tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>) {
  %0 = shard.all_gather %x on @mesh grid_axes = [1] gather_axis = 2 : tensor<2x8x16xf32> -> tensor<2x8x16xf32>
  %1 = shard.all_reduce %x on @mesh grid_axes = [1, 2] : tensor<2x8x16xf32> -> tensor<2x8x16xf32>
  return %0, %1 : tensor<2x8x16xf32>, tensor<2x8x16xf32>
}

// -----

shard.grid @mesh(shape = 2x1x1x1)

func.func @product(%x: tensor<16xf32>) -> tensor<16xf32> {
  // expected-error@+1 {{expected a sum, got reduction 'product'}}
  %0 = shard.all_reduce %x on @mesh grid_axes = [0] reduction = product : tensor<16xf32> -> tensor<16xf32>
  return %0 : tensor<16xf32>
}
