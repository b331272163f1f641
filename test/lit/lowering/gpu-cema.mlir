// CEMA on a GPU: a thread carries some states of one channel; its lanes share y by shuffles.
// RUN: megalodon-opt %s "--megalodon-lower-to-kernels=target=cuda vector-bytes=512 cema=sequential" | FileCheck %s
// RUN: megalodon-opt %s "--megalodon-lower-to-kernels=target=cuda vector-bytes=512 cema=two-level" | FileCheck %s --check-prefix=LEVELS

// One row of 200 channels cannot fill a GPU: 8 lanes a channel with two states each, and in two levels segments.
// CHECK-LABEL: func.func @short
// CHECK: %[[F:.*]]:2 = plan.dispatch @kernels::@cema grid<13 * batch * one by 1>{{.*}}tied = array<i64: -1, 5>
// CHECK: return %[[F]]#0, %[[F]]#1
// LEVELS-LABEL: func.func @short
// LEVELS: %[[S:.*]] = plan.dispatch @kernels::@cema_ends grid<{{[0-9]+}} * batch * length by [[T:[0-9]+]]>
// LEVELS: %[[C:.*]] = plan.dispatch @kernels::@cema_carry grid<25 * batch * one by 1>({{.*}}, %[[S]]){{.*}}tied = array<i64: 2>
// LEVELS: %[[F:.*]]:2 = plan.dispatch @kernels::@cema_segment grid<{{[0-9]+}} * batch * length by [[T]]>({{.*}}, %[[C]])
func.func @short(%x: tensor<1x50x200xf32>, %p: tensor<200x16xf64>, %q: tensor<200x16x2xf64>, %g: tensor<200x16x2xf64>, %omega: tensor<200x1xf32>,
                 %h: tensor<1x200x16x2xf32>) -> (tensor<1x50x200xf32>, tensor<1x200x16x2xf32>) {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 64 : i64}
      : (tensor<1x50x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<1x200x16x2xf32>)
      -> (tensor<1x50x200xf32>, tensor<1x200x16x2xf32>, tensor<1x1x200x16x2xf32>)
  return %y, %next : tensor<1x50x200xf32>, tensor<1x200x16x2xf32>
}

// Many rows run whole, and keep the states before every block for backward, which adds its partial sums in a second kernel.
// CHECK-LABEL: func.func @training
// CHECK: %[[Y:.*]]:3 = plan.dispatch @kernels::@cema_1 grid<32 * batch * one by 1>
// CHECK: %[[G:.*]]:3 = plan.dispatch @kernels::@cema_grad grid<64 * batch * one by 1>({{.*}}, %[[Y]]#2)
// CHECK: %[[R:.*]]:4 = plan.dispatch @kernels::@cema_grad_sums grid<256 * one * one by 1>(%[[G]]#2)
// CHECK: return %[[G]]#0, %[[R]]#0, %[[R]]#1, %[[R]]#2, %[[R]]#3, %[[G]]#1
// Segments hold whole blocks.
// LEVELS-LABEL: func.func @training
// LEVELS: @cema_ends_1 grid
// LEVELS: @cema_segment_1 grid<32 * batch * length by [[T:[0-9]+]]>
// LEVELS: %[[E:.*]] = plan.dispatch @kernels::@cema_grad_ends grid<64 * batch * length by 1024>
// LEVELS: %[[C:.*]] = plan.dispatch @kernels::@cema_grad_carry grid<256 * batch * one by 1>({{.*}}, %[[E]])
// LEVELS: %[[G:.*]]:3 = plan.dispatch @kernels::@cema_grad_segment grid<64 * batch * length by 1024>({{.*}}, %[[C]])
// LEVELS: plan.dispatch @kernels::@cema_grad_sums grid<256 * one * one by 1>(%[[G]]#2)
func.func @training(%x: tensor<64x2048x2048xf32>, %p: tensor<2048x16xf64>, %q: tensor<2048x16x2xf64>, %g: tensor<2048x16x2xf64>,
                    %omega: tensor<2048x1xf32>, %h: tensor<64x2048x16x2xf32>, %dy: tensor<64x2048x2048xf32>)
    -> (tensor<64x2048x2048xf32>, tensor<2048x16xf64>, tensor<2048x16x2xf64>, tensor<2048x16x2xf64>, tensor<2048x1xf32>, tensor<64x2048x16x2xf32>) {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 64 : i64}
      : (tensor<64x2048x2048xf32>, tensor<2048x16xf64>, tensor<2048x16x2xf64>, tensor<2048x16x2xf64>, tensor<2048x1xf32>, tensor<64x2048x16x2xf32>)
      -> (tensor<64x2048x2048xf32>, tensor<64x2048x16x2xf32>, tensor<32x64x2048x16x2xf32>)
  %dx, %dp, %dq, %dg, %domega, %dh = megalodon.cema_grad %dy, %x, %p, %q, %g, %omega states(%blocks) {block = 64 : i64}
      : (tensor<64x2048x2048xf32>, tensor<64x2048x2048xf32>, tensor<2048x16xf64>, tensor<2048x16x2xf64>, tensor<2048x16x2xf64>, tensor<2048x1xf32>,
         tensor<32x64x2048x16x2xf32>)
      -> (tensor<64x2048x2048xf32>, tensor<2048x16xf64>, tensor<2048x16x2xf64>, tensor<2048x16x2xf64>, tensor<2048x1xf32>, tensor<64x2048x16x2xf32>)
  return %dx, %dp, %dq, %dg, %domega, %dh
      : tensor<64x2048x2048xf32>, tensor<2048x16xf64>, tensor<2048x16x2xf64>, tensor<2048x16x2xf64>, tensor<2048x1xf32>, tensor<64x2048x16x2xf32>
}

// The inner loop: eight tokens of x a piece ahead, two lanes a channel: y in shuffles of half the tokens.
// CHECK: func.func @cema_1({{.*}}plan.threads = 128
// CHECK: scf.for {{.*}} iter_args
// CHECK: scf.for {{.*}} iter_args
// CHECK-COUNT-8: memref.load %{{.*}} : memref<131072x2048xf32>
// CHECK-COUNT-4: gpu.shuffle xor
// CHECK-NOT: gpu.shuffle
// CHECK-COUNT-4: memref.store %{{.*}} : memref<131072x2048xf32>
// CHECK: scf.yield
