// Chunk attention in bf16 on a GPU: tiles are bf16, forward and backward, and products run on tensor cores from matrices of shared memory. What
// the roundings leave in the rows of the score gradients is taken out.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512 attention=stored" | FileCheck %s --check-prefixes=CHECK,STORED
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512 attention=recomputed" | FileCheck %s --check-prefixes=CHECK,RECOMPUTED

// CHECK-LABEL: func.func @forward
// STORED: plan.dispatch @kernels::@attention_weights
// STORED-SAME: tensor<6x128x128xbf16>
// RECOMPUTED: plan.dispatch @kernels::@attention_lse
// RECOMPUTED: plan.dispatch @kernels::@attention_values
func.func @forward(%q: tensor<1x256x64xbf16>, %v: tensor<1x256x128xbf16>, %cache_k: tensor<1x256x64xbf16>, %cache_v: tensor<1x256x128xbf16>,
                   %count: tensor<1xi64>) -> (tensor<1x256x128xbf16>, tensor<1x256x1xf32>) {
  %a, %lse = megalodon.chunk_attention %q, %q, %v cache(%cache_k, %cache_v) at %count {heads = 1 : i64}
      : (tensor<1x256x64xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>, tensor<1x256x64xbf16>, tensor<1x256x128xbf16>, tensor<1xi64>)
      -> (tensor<1x256x128xbf16>, tensor<1x256x1xf32>)
  return %a, %lse : tensor<1x256x128xbf16>, tensor<1x256x1xf32>
}

// The correction writes the score gradients in place; products read what it gives.
// CHECK-LABEL: func.func @backward
// CHECK: %[[D:.*]] = plan.dispatch @kernels::@attention_delta
// STORED: %[[T:.*]]:3 = plan.dispatch @kernels::@attention_grad_tiles
// STORED-SAME: -> (tensor<6x128x128xbf16>, tensor<6x128x128xbf16>, tensor<6x128xf32>)
// STORED: %[[S:.*]] = plan.dispatch @kernels::@attention_grad_center
// STORED: plan.dispatch @kernels::@attention_grad_q {{.*}}(%{{.*}}, %[[S]], %{{.*}})
// STORED: plan.dispatch @kernels::@attention_grad_k {{.*}}(%{{.*}}, %[[S]], %{{.*}})
// STORED: plan.dispatch @kernels::@attention_grad_v {{.*}}(%{{.*}}, %[[T]]#0, %{{.*}})
// RECOMPUTED: %[[Q:.*]]:2 = plan.dispatch @kernels::@attention_grad_q_center
// RECOMPUTED: plan.dispatch @kernels::@attention_grad_k {{.*}}%[[Q]]#1
// RECOMPUTED: plan.dispatch @kernels::@attention_grad_v

// Of the scores' kernel two workgroups shall fit a multiprocessor.
// RECOMPUTED: func.func @attention_lse
// RECOMPUTED-SAME: nvvm.minctasm = 2
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
