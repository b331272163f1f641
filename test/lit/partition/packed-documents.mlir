// Ranks along the chunk axis cut a row where chunks end; documents end elsewhere, so attention over them says so.
// RUN: not megalodon-opt %s --pass-pipeline='builtin.module(megalodon-partition)' 2>&1 | FileCheck %s

// CHECK: 'megalodon.chunk_attention' op has chunks of packed documents, which may lie on two ranks: expected a mesh with cp=1, got cp=2
shard.grid @mesh(shape = 1x1x2x1)
func.func @attention(%q: tensor<2x4x8xf32>, %cache: tensor<2x4x8xf32>, %count: tensor<2xi64>, %positions: tensor<2x4xi64>) -> tensor<2x4x8xf32> {
  %a, %lse = megalodon.chunk_attention %q, %q, %q cache(%cache, %cache) at %count positions(%positions) {heads = 1 : i64} : (tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2xi64>, tensor<2x4xi64>) -> (tensor<2x4x8xf32>, tensor<2x4x1xf32>)
  return %a : tensor<2x4x8xf32>
}
