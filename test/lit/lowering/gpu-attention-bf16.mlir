// Chunk attention in bf16 on a GPU: backward's tiles are bf16, and products run on tensor cores from matrices of shared memory.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512 attention=stored" | FileCheck %s

// CHECK: plan.dispatch @kernels::@attention_grad_tiles
// CHECK-SAME: tensor<6x128x128xbf16>
// CHECK: func.func @attention_grad_
// CHECK: nvgpu.ldmatrix {{.*}} {numTiles = 4 : i32
// CHECK: nvvm.mma.sync {{.*}} multiplicandAPtxType = #nvvm.mma_type<bf16>
func.func @backward(%q: tensor<1x256x64xbf16>, %v: tensor<1x256x128xbf16>, %cache_k: tensor<1x256x64xbf16>, %cache_v: tensor<1x256x128xbf16>,
                    %count: tensor<1xi64>, %lse: tensor<1x256x1xf32>) -> (tensor<1x256x64xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>) {
  %dq, %dk, %dv = megalodon.chunk_attention_grad %v, %q, %q, %v cache(%cache_k, %cache_v) at %count saved(%v, %lse) {heads = 1 : i64}
      : (tensor<1x256x128xbf16>, tensor<1x256x64xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>, tensor<1x256x64xbf16>,
         tensor<1x256x128xbf16>, tensor<1xi64>, tensor<1x256x128xbf16>, tensor<1x256x1xf32>)
      -> (tensor<1x256x64xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>)
  return %dq, %dk, %dv : tensor<1x256x64xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>
}
