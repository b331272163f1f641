// Chunk attention for GPUs: tiles of the causal half in a workspace or made again where they are used, results by blocks of columns.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512 attention=stored" | FileCheck %s --check-prefixes=CHECK,STORED
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512 attention=recomputed" | FileCheck %s --check-prefixes=CHECK,RECOMPUTED
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512" | FileCheck %s --check-prefixes=AUTO
// RUN: megalodon-opt %s --megalodon-lower-to-kernels="target=cuda vector-bytes=512" | megalodon-opt -o /dev/null

// 2 rows of 1024 tokens touch at most 3 chunks of 512, each with 10 tiles of 128 x 128.
// CHECK-LABEL: func.func @forward
// STORED: %[[W:.*]]:2 = plan.dispatch @kernels::@attention_weights grid<3 * batch * length by 128>
// STORED-SAME: -> (tensor<2x1024x3xf32>, tensor<180x128x128xf32>)
// STORED: %[[R:.*]] = plan.dispatch @kernels::@attention_values grid<15 * batch * length by 128>({{.*}}, %[[W]]#1, %{{.*}})
// STORED: return %[[R]], %[[W]]#0
// RECOMPUTED: %[[L:.*]] = plan.dispatch @kernels::@attention_lse grid<3 * batch * length by 64>
// RECOMPUTED: plan.dispatch @kernels::@attention_values grid<9 * batch * length by 64>({{.*}}, %[[L]])
// Making a tile again costs 64 terms a pair, as much as reading it: not worth a workspace.
// AUTO-LABEL: func.func @forward
// AUTO: plan.dispatch @kernels::@attention_lse
func.func @forward(%q: tensor<2x1024x192xf32>, %v: tensor<2x1024x1920xf32>, %cache_k: tensor<2x512x192xf32>, %cache_v: tensor<2x512x1920xf32>,
                   %count: tensor<2xi64>) -> (tensor<2x1024x1920xf32>, tensor<2x1024x3xf32>) {
  %a, %lse = megalodon.chunk_attention %q, %q, %v cache(%cache_k, %cache_v) at %count {heads = 3 : i64}
      : (tensor<2x1024x192xf32>, tensor<2x1024x192xf32>, tensor<2x1024x1920xf32>, tensor<2x512x192xf32>, tensor<2x512x1920xf32>, tensor<2xi64>)
      -> (tensor<2x1024x1920xf32>, tensor<2x1024x3xf32>)
  return %a, %lse : tensor<2x1024x1920xf32>, tensor<2x1024x3xf32>
}

// No two workgroups write one element of a gradient.
// CHECK-LABEL: func.func @backward
// CHECK: %[[D:.*]] = plan.dispatch @kernels::@attention_delta grid<1 * one * tokens by 4>
// STORED: %[[T:.*]]:2 = plan.dispatch @kernels::@attention_grad_tiles grid<12 * batch * length by 128>({{.*}}, %[[D]])
// STORED: %[[Q:.*]] = plan.dispatch @kernels::@attention_grad_q grid<3 * batch * length by 128>({{.*}}, %[[T]]#1, %{{.*}})
// STORED: %[[K:.*]] = plan.dispatch @kernels::@attention_grad_k grid<3 * batch * length by 128>({{.*}}, %[[T]]#1, %{{.*}})
// STORED: %[[V:.*]] = plan.dispatch @kernels::@attention_grad_v grid<15 * batch * length by 128>({{.*}}, %[[T]]#0, %{{.*}})
// RECOMPUTED: %[[Q:.*]] = plan.dispatch @kernels::@attention_grad_q grid<3 * batch * length by 64>
// RECOMPUTED: %[[K:.*]] = plan.dispatch @kernels::@attention_grad_k grid<3 * batch * length by 64>
// RECOMPUTED: %[[V:.*]] = plan.dispatch @kernels::@attention_grad_v grid<9 * batch * length by 64>
// CHECK: return %[[Q]], %[[K]], %[[V]]
// A tile of score gradients costs 704.
// AUTO-LABEL: func.func @backward
// AUTO: plan.dispatch @kernels::@attention_grad_tiles
func.func @backward(%q: tensor<2x1024x192xf32>, %v: tensor<2x1024x1920xf32>, %cache_k: tensor<2x512x192xf32>, %cache_v: tensor<2x512x1920xf32>,
                    %count: tensor<2xi64>, %lse: tensor<2x1024x3xf32>)
    -> (tensor<2x1024x192xf32>, tensor<2x1024x192xf32>, tensor<2x1024x1920xf32>) {
  %dq, %dk, %dv = megalodon.chunk_attention_grad %v, %q, %q, %v cache(%cache_k, %cache_v) at %count saved(%v, %lse) {heads = 3 : i64}
      : (tensor<2x1024x1920xf32>, tensor<2x1024x192xf32>, tensor<2x1024x192xf32>, tensor<2x1024x1920xf32>, tensor<2x512x192xf32>,
         tensor<2x512x1920xf32>, tensor<2xi64>, tensor<2x1024x1920xf32>, tensor<2x1024x3xf32>)
      -> (tensor<2x1024x192xf32>, tensor<2x1024x192xf32>, tensor<2x1024x1920xf32>)
  return %dq, %dk, %dv : tensor<2x1024x192xf32>, tensor<2x1024x192xf32>, tensor<2x1024x1920xf32>
}

// One token: keys in splits of 64, values in blocks of 32 columns.
// CHECK-LABEL: func.func @step
// CHECK: %[[S:.*]] = plan.dispatch @kernels::@attention_decode_scores grid<24 * batch * one by 1>
// CHECK-SAME: -> tensor<2x3x512xf32>
// CHECK: plan.dispatch @kernels::@attention_decode_values grid<60 * batch * one by 1>(%[[S]],
func.func @step(%q: tensor<2x1x192xf32>, %v: tensor<2x1x1920xf32>, %cache_k: tensor<2x512x192xf32>, %cache_v: tensor<2x512x1920xf32>,
                %count: tensor<2xi64>) -> tensor<2x1x1920xf32> {
  %a, %lse = megalodon.chunk_attention %q, %q, %v cache(%cache_k, %cache_v) at %count {heads = 3 : i64}
      : (tensor<2x1x192xf32>, tensor<2x1x192xf32>, tensor<2x1x1920xf32>, tensor<2x512x192xf32>, tensor<2x512x1920xf32>, tensor<2xi64>)
      -> (tensor<2x1x1920xf32>, tensor<2x1x3xf32>)
  return %a : tensor<2x1x1920xf32>
}

// Kernels name their threads; copies run while tiles are multiplied.
// CHECK-LABEL: func.func @attention_values
// CHECK-SAME: plan.threads = 256
// CHECK: nvgpu.device_async_copy {{.*}} {bypassL1}
// CHECK: nvgpu.device_async_wait
// CHECK: math.fma
// CHECK-LABEL: func.func @attention_decode_scores
