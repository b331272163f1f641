// CEMA: a workgroup a batch row and 64 channels; the states of a vector of channels side by side.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels | FileCheck %s
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=cema=two-level | FileCheck %s --check-prefix=LEVELS
// RUN: megalodon-opt %s "--megalodon-lower-to-kernels=cores=64 cema=auto" | FileCheck %s --check-prefix=LEVELS
// RUN: megalodon-opt %s "--megalodon-lower-to-kernels=vector-bytes=32 vector-registers=16" | FileCheck %s --check-prefix=NARROW

// Block states nobody reads are not written; the state is updated in place.
// CHECK-LABEL: func.func @forward
// CHECK: %[[F:.*]]:2 = plan.dispatch @kernels::@cema grid<4 * batch * one by 1>
// CHECK-SAME: flops = 7.680000e+06 : f64, tied = array<i64: -1, 5>
// CHECK: return %[[F]]#0, %[[F]]#1
// A vector of 8 channels: still 64 channels a workgroup.
// NARROW-LABEL: func.func @forward
// NARROW: plan.dispatch @kernels::@cema grid<4 * batch * one by 1>
// The two-level form: all segments from a zero state, the states from segment to segment, all segments again with y.
// LEVELS-LABEL: func.func @forward
// LEVELS: %[[S:.*]] = plan.dispatch @kernels::@cema_segments grid<4 * batch * length by [[T:[0-9]+]]>
// LEVELS: %[[C:.*]] = plan.dispatch @kernels::@cema_carry grid<4 * batch * one by 1>({{.*}}, %[[S]]){{.*}}tied = array<i64: 2>
// LEVELS: %[[F:.*]]:2 = plan.dispatch @kernels::@cema_segment grid<4 * batch * length by [[T]]>({{.*}}, %[[C]])
// LEVELS: return %[[F]]#0, %[[F]]#1
func.func @forward(%x: tensor<2x100x200xf32>, %p: tensor<200x16xf64>, %q: tensor<200x16x2xf64>, %g: tensor<200x16x2xf64>, %omega: tensor<200x1xf32>,
                   %h: tensor<2x200x16x2xf32>) -> (tensor<2x100x200xf32>, tensor<2x200x16x2xf32>) {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 32 : i64}
      : (tensor<2x100x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<2x200x16x2xf32>)
      -> (tensor<2x100x200xf32>, tensor<2x200x16x2xf32>, tensor<4x2x200x16x2xf32>)
  return %y, %next : tensor<2x100x200xf32>, tensor<2x200x16x2xf32>
}

// The rows' sums of dp, dq, dg and domega are added by a second kernel.
// CHECK-LABEL: func.func @backward
// CHECK: %[[Y:.*]]:3 = plan.dispatch @kernels::@cema_1 grid
// CHECK: %[[G:.*]]:3 = plan.dispatch @kernels::@cema_grad grid<4 * batch * one by 1>({{.*}}, %[[Y]]#2)
// CHECK: %[[R:.*]]:4 = plan.dispatch @kernels::@cema_grad_rows grid<13 * one * one by 1>(%[[G]]#2)
// CHECK: return %[[G]]#0, %[[R]]#0, %[[R]]#1, %[[R]]#2, %[[R]]#3, %[[G]]#1
// Segments of the two-level form hold whole blocks.
// LEVELS-LABEL: func.func @backward
// LEVELS: @cema_segment_1 grid<4 * batch * length by {{32|64}}>
func.func @backward(%x: tensor<2x100x200xf32>, %p: tensor<200x16xf64>, %q: tensor<200x16x2xf64>, %g: tensor<200x16x2xf64>, %omega: tensor<200x1xf32>,
                    %h: tensor<2x200x16x2xf32>, %dy: tensor<2x100x200xf32>)
    -> (tensor<2x100x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<2x200x16x2xf32>) {
  %y, %next, %blocks = megalodon.cema %x, %p, %q, %g, %omega state(%h) {block = 32 : i64}
      : (tensor<2x100x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<2x200x16x2xf32>)
      -> (tensor<2x100x200xf32>, tensor<2x200x16x2xf32>, tensor<4x2x200x16x2xf32>)
  %dx, %dp, %dq, %dg, %domega, %dh = megalodon.cema_grad %dy, %x, %p, %q, %g, %omega states(%blocks) {block = 32 : i64}
      : (tensor<2x100x200xf32>, tensor<2x100x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<4x2x200x16x2xf32>)
      -> (tensor<2x100x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<2x200x16x2xf32>)
  return %dx, %dp, %dq, %dg, %domega, %dh
      : tensor<2x100x200xf32>, tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>, tensor<200x1xf32>, tensor<2x200x16x2xf32>
}

// CHECK-LABEL: func.func @coefficients
// CHECK: plan.dispatch @kernels::@cema_coefficients grid<13 * one * one by 1>
func.func @coefficients(%logits: tensor<200x16x1xf32>, %theta: tensor<200x1x1xf32>, %gamma: tensor<200x16x2xf32>)
    -> (tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>) {
  %p, %q, %g = megalodon.cema_coefficients %logits, %logits, %theta, %gamma
      : (tensor<200x16x1xf32>, tensor<200x16x1xf32>, tensor<200x1x1xf32>, tensor<200x16x2xf32>) -> (tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>)
  return %p, %q, %g : tensor<200x16xf64>, tensor<200x16x2xf64>, tensor<200x16x2xf64>
}

// Two tokens an iteration; 200 = 12 * 16 + 8 channels need a mask; the table of 11 coefficients a state.
// CHECK-LABEL: module @kernels
// CHECK: func.func @cema(
// CHECK: memref.view {{.*}} to memref<4x16x11x16xf32>
// CHECK: vector.create_mask
// NARROW-LABEL: module @kernels
// NARROW: func.func @cema(
// NARROW: memref.view {{.*}} to memref<8x16x11x8xf32>
// NARROW-NOT: vector.create_mask
// NARROW: func.func @cema_grad(
