// Chunk attention in bf16 on a GPU: stored tiles are bf16, products run on tensor cores from matrices of shared memory.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512 attention=stored" | FileCheck %s

// CHECK: plan.dispatch @kernels::@attention_weights
// CHECK-SAME: -> (tensor<1x256x1xf32>, tensor<6x128x128xbf16>)
// CHECK-LABEL: func.func @attention_weights
// CHECK: nvvm.mma.sync
// CHECK: math.exp {{.*}} : f32
// CHECK: vector.store {{.*}} : memref<6x128x128xbf16>, vector<2xbf16>
// CHECK-LABEL: func.func @attention_values
// CHECK: nvgpu.device_async_copy {{.*}}, 8, {{.*}} {bypassL1} : memref<256x128xbf16>
// CHECK: nvgpu.ldmatrix {{.*}} {numTiles = 4 : i32, transpose = false}
// CHECK: nvgpu.ldmatrix {{.*}} {numTiles = 4 : i32, transpose = true}
// CHECK: nvvm.mma.sync {{.*}} multiplicandAPtxType = #nvvm.mma_type<bf16>
func.func @forward(%q: tensor<1x256x64xbf16>, %v: tensor<1x256x128xbf16>, %cache_k: tensor<1x256x64xbf16>, %cache_v: tensor<1x256x128xbf16>,
                   %count: tensor<1xi64>) -> (tensor<1x256x128xbf16>, tensor<1x256x1xf32>) {
  %a, %lse = megalodon.chunk_attention %q, %q, %v cache(%cache_k, %cache_v) at %count {heads = 1 : i64}
      : (tensor<1x256x64xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>, tensor<1xi64>)
      -> (tensor<1x256x128xbf16>, tensor<1x256x1xf32>)
  return %a, %lse : tensor<1x256x128xbf16>, tensor<1x256x1xf32>
}
