// The matrix form of CEMA on a GPU: blocks of 32 tokens as products on tensor cores, a warp a channel.
// RUN: megalodon-opt %s "--megalodon-lower-to-kernels=target=cuda vector-bytes=512 cema=matrix" | FileCheck %s
// RUN: megalodon-opt %s "--megalodon-lower-to-kernels=target=cuda vector-bytes=512" | FileCheck %s --check-prefix=AUTO

// Where all channels give few workgroups of eight, segments of whole chunks start from the states that a scan finds.
// CHECK-LABEL: func.func @forward
// CHECK: %[[E:.*]] = plan.dispatch @kernels::@cema_ends grid<{{[0-9]+}} * batch * length by 512>
// CHECK: %[[S:.*]] = plan.dispatch @kernels::@cema_carry grid<{{[0-9]+}} * batch * one by 1>({{.*}}, %[[E]])
// CHECK: plan.dispatch @kernels::@cema_matrix_segment grid<32 * batch * length by 512>({{.*}}, %[[S]])
// Too little work for tensor cores to matter.
// AUTO-LABEL: func.func @forward
// AUTO-NOT: cema_matrix
func.func @forward(%x: tensor<1x2048x256xf32>, %p: tensor<256x16xf64>, %q: tensor<256x16x2xf64>, %g: tensor<256x16x2xf64>, %omega: tensor<256x1xf32>,
                   %h: tensor<1x256x16x2xf32>) -> (tensor<1x2048x256xf32>, tensor<1x256x16x2xf32>) {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 64 : i64}
      : (tensor<1x2048x256xf32>, tensor<256x16xf64>, tensor<256x16x2xf64>, tensor<256x16x2xf64>, tensor<256x1xf32>, tensor<1x256x16x2xf32>)
      -> (tensor<1x2048x256xf32>, tensor<1x256x16x2xf32>, tensor<32x1x256x16x2xf32>)
  return %y, %next : tensor<1x2048x256xf32>, tensor<1x256x16x2xf32>
}

// AUTO-LABEL: func.func @wide
// AUTO: plan.dispatch @kernels::@cema_matrix grid<128 * batch * one by 1>{{.*}}tied = array<i64: -1, 5>
func.func @wide(%x: tensor<1x2048x1024xf32>, %p: tensor<1024x16xf64>, %q: tensor<1024x16x2xf64>, %g: tensor<1024x16x2xf64>, %omega: tensor<1024x1xf32>,
                %h: tensor<1x1024x16x2xf32>) -> (tensor<1x2048x1024xf32>, tensor<1x1024x16x2xf32>) {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 64 : i64}
      : (tensor<1x2048x1024xf32>, tensor<1024x16xf64>, tensor<1024x16x2xf64>, tensor<1024x16x2xf64>, tensor<1024x1xf32>, tensor<1x1024x16x2xf32>)
      -> (tensor<1x2048x1024xf32>, tensor<1x1024x16x2xf32>, tensor<32x1x1024x16x2xf32>)
  return %y, %next : tensor<1x2048x1024xf32>, tensor<1x1024x16x2xf32>
}

// Not with a number of channels that eight warps do not divide.
// CHECK-LABEL: func.func @odd
// CHECK-NOT: cema_matrix
// CHECK: return
func.func @odd(%x: tensor<1x2048x1030xf32>, %p: tensor<1030x16xf64>, %q: tensor<1030x16x2xf64>, %g: tensor<1030x16x2xf64>, %omega: tensor<1030x1xf32>,
               %h: tensor<1x1030x16x2xf32>) -> tensor<1x2048x1030xf32> {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 64 : i64}
      : (tensor<1x2048x1030xf32>, tensor<1030x16xf64>, tensor<1030x16x2xf64>, tensor<1030x16x2xf64>, tensor<1030x1xf32>, tensor<1x1030x16x2xf32>)
      -> (tensor<1x2048x1030xf32>, tensor<1x1030x16x2xf32>, tensor<32x1x1030x16x2xf32>)
  return %y : tensor<1x2048x1030xf32>
}

// Backwards the same kernel gives dx and the cotangents behind every chunk; from these, all chunks at once, come the sums over blocks.
// CHECK-LABEL: func.func @backward
// CHECK: %[[D:.*]]:3 = plan.dispatch @kernels::@cema_grad_matrix grid<128 * batch * one by 1>
// CHECK: %[[P:.*]] = plan.dispatch @kernels::@cema_grad_correlations grid<128 * batch * length by 1024>({{.*}}, %[[D]]#2)
// CHECK: plan.dispatch @kernels::@cema_grad_sums grid<{{[0-9]+}} * one * one by 1>(%[[P]])
// AUTO-LABEL: func.func @backward
// AUTO: plan.dispatch @kernels::@cema_grad_correlations
func.func @backward(%dy: tensor<1x2048x1024xf32>, %x: tensor<1x2048x1024xf32>, %p: tensor<1024x16xf64>, %q: tensor<1024x16x2xf64>, %g: tensor<1024x16x2xf64>, %omega: tensor<1024x1xf32>,
                    %blocks: tensor<32x1x1024x16x2xf32>) -> (tensor<1x2048x1024xf32>, tensor<1024x16xf64>, tensor<1024x16x2xf64>, tensor<1024x16x2xf64>, tensor<1024x1xf32>, tensor<1x1024x16x2xf32>) {
  %dx, %dp, %dq, %dg, %domega, %dstate = megalodon.cema_grad %dy, %x, %p, %q, %g, %omega states(%blocks) {block = 64 : i64}
      : (tensor<1x2048x1024xf32>, tensor<1x2048x1024xf32>, tensor<1024x16xf64>, tensor<1024x16x2xf64>, tensor<1024x16x2xf64>, tensor<1024x1xf32>, tensor<32x1x1024x16x2xf32>)
      -> (tensor<1x2048x1024xf32>, tensor<1024x16xf64>, tensor<1024x16x2xf64>, tensor<1024x16x2xf64>, tensor<1024x1xf32>, tensor<1x1024x16x2xf32>)
  return %dx, %dp, %dq, %dg, %domega, %dstate : tensor<1x2048x1024xf32>, tensor<1024x16xf64>, tensor<1024x16x2xf64>, tensor<1024x16x2xf64>, tensor<1024x1xf32>, tensor<1x1024x16x2xf32>
}

// A chunk of 16 blocks: what they leave behind, 4 x 2 products of 16 x 16 x 8; outputs, 4 x 2 from the states and 6 below the diagonal;
// six times each, of three bf16 terms.
// CHECK: func.func @cema_matrix_segment({{.*}}plan.threads = 256
// CHECK: gpu.barrier
// CHECK: scf.for
// CHECK: gpu.barrier
// CHECK-COUNT-48: nvvm.mma.sync
// CHECK-COUNT-84: nvvm.mma.sync
// CHECK-NOT: nvvm.mma.sync
// CHECK: gpu.barrier
// CHECK: scf.yield

// A chunk: what blocks leave behind, forwards and backwards, 2 x 2 x 2 products each; 2 x 4 of h and dy before those of dy; 4 x 2 of m and x,
// and six of dy and x.
// CHECK: func.func @cema_grad_correlations({{.*}}plan.threads = 256
// CHECK: scf.for
// CHECK: gpu.barrier
// CHECK-COUNT-48: nvvm.mma.sync
// CHECK-COUNT-48: nvvm.mma.sync
// CHECK-COUNT-48: nvvm.mma.sync
// CHECK-COUNT-84: nvvm.mma.sync
// CHECK-NOT: nvvm.mma.sync
// CHECK: gpu.barrier
// CHECK: scf.yield
