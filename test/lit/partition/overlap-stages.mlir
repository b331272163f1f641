// What pipeline ranks say to each other keeps its order, whatever is ready first: each rank has another function. Other messages start early.
// RUN: megalodon-opt %s --pass-pipeline='builtin.module(func.func(megalodon-overlap-collectives))' | FileCheck %s

shard.grid @mesh(shape = 2x2x1x1)

// CHECK-LABEL: func.func @stages
// CHECK: %[[SUM:.*]] = megalodon.add
// CHECK-NEXT: shard.all_reduce %[[SUM]] on @mesh grid_axes = [1]
// CHECK-NEXT: shard.all_reduce %arg1 on @mesh grid_axes = [1]
func.func @stages(%a: tensor<4xf32>, %b: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %sum = megalodon.add %a, %a : tensor<4xf32>
  %0 = shard.all_reduce %sum on @mesh grid_axes = [1] : tensor<4xf32> -> tensor<4xf32>
  %1 = shard.all_reduce %b on @mesh grid_axes = [1] : tensor<4xf32> -> tensor<4xf32>
  return %0, %1 : tensor<4xf32>, tensor<4xf32>
}

// CHECK-LABEL: func.func @data
// CHECK: shard.all_reduce %arg1 on @mesh grid_axes = [0]
// CHECK: %[[SUM:.*]] = megalodon.add
// CHECK: shard.all_reduce %[[SUM]] on @mesh grid_axes = [0]
func.func @data(%a: tensor<4xf32>, %b: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %sum = megalodon.add %a, %a : tensor<4xf32>
  %0 = shard.all_reduce %sum on @mesh grid_axes = [0] : tensor<4xf32> -> tensor<4xf32>
  %1 = shard.all_reduce %b on @mesh grid_axes = [0] : tensor<4xf32> -> tensor<4xf32>
  return %0, %1 : tensor<4xf32>, tensor<4xf32>
}
