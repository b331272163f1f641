// A called function is differentiated once, into input and weight gradients; the policy says what it keeps.
// RUN: megalodon-opt %s --megalodon-differentiate | FileCheck %s --check-prefixes=CHECK,SELECTIVE
// RUN: megalodon-opt %s --megalodon-differentiate=recompute=none | FileCheck %s --check-prefixes=CHECK,NONE
// RUN: megalodon-opt %s --megalodon-differentiate=recompute=full | FileCheck %s --check-prefixes=CHECK,FULL
// RUN: megalodon-opt %s --megalodon-differentiate --remark-format=emitRemark --remarks-filter=differentiate -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// REMARK: remark: [Analysis] Residuals | Category:differentiate | Function=layer | bytes=256, residuals=1

// Two values are needed: silu's operand and its result. The result is cheap to recompute once its operand is kept.
// SELECTIVE: func.func private @layer_forward(%[[X:.*]]: {{.*}}, %{{.*}}, %{{.*}}) -> (tensor<2x8x4xf32>, tensor<2x8x4xf32>)
// SELECTIVE-NEXT: %[[Z:.*]] = megalodon.linear
// SELECTIVE-NEXT: %[[S:.*]] = megalodon.silu %[[Z]]
// SELECTIVE-NEXT: %[[Y:.*]] = megalodon.linear %[[S]]
// SELECTIVE-NEXT: return %[[Y]], %[[Z]]
// SELECTIVE: func.func private @layer_backward_input(%[[DY:.*]]: {{.*}}, %[[W2:.*]]: {{.*}}, %[[Z:.*]]: {{.*}}, %[[W1:.*]]: {{.*}})
// SELECTIVE-NEXT: %[[DS:.*]] = megalodon.linear_grad_input %[[DY]], %[[W2]]
// SELECTIVE-NEXT: %[[DZ:.*]] = megalodon.silu_grad %[[DS]], %[[Z]]
// SELECTIVE-NEXT: %[[DX:.*]] = megalodon.linear_grad_input %[[DZ]], %[[W1]]
// SELECTIVE-NEXT: return %[[DX]], %[[DZ]]
// SELECTIVE: func.func private @layer_backward_weight(%[[Z:.*]]: {{.*}}, %[[DY:.*]]: {{.*}}, %[[DZ:.*]]: {{.*}}, %[[X:.*]]: {{.*}})
// SELECTIVE-NEXT: %[[S:.*]] = megalodon.silu %[[Z]]
// SELECTIVE-NEXT: %[[DW2:.*]] = megalodon.linear_grad_weight %[[DY]], %[[S]]
// SELECTIVE-NEXT: %[[DW1:.*]] = megalodon.linear_grad_weight %[[DZ]], %[[X]]
// SELECTIVE-NEXT: return %[[DW1]], %[[DW2]]

// NONE: func.func private @layer_forward
// NONE: %[[Z:.*]] = megalodon.linear
// NONE: %[[S:.*]] = megalodon.silu %[[Z]]
// NONE: %[[Y:.*]] = megalodon.linear
// NONE: return %[[Y]], %[[Z]], %[[S]]
// NONE-LABEL: func.func private @layer_backward_input
// NONE-NOT: megalodon.{{linear|silu}} %
// NONE-LABEL: func.func private @layer_backward_weight
// NONE-NOT: megalodon.{{linear|silu}} %

// Nothing is kept: forward is the function itself. What both parts need is recomputed by the first.
// FULL-NOT: @layer_forward
// FULL-LABEL: func.func private @layer_backward_input
// FULL-COUNT-1: megalodon.linear %
// FULL-NOT: megalodon.linear %
// FULL: megalodon.silu_grad
// FULL-LABEL: func.func private @layer_backward_weight
// FULL-NOT: megalodon.linear %
// FULL: megalodon.silu %
// FULL-NOT: megalodon.linear %
func.func private @layer(%x: tensor<2x8x4xf32>, %w1: tensor<4x4xf32>, %w2: tensor<4x4xf32>) -> tensor<2x8x4xf32> {
  %z = megalodon.linear %x, %w1 : (tensor<2x8x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
  %s = megalodon.silu %z : tensor<2x8x4xf32>
  %y = megalodon.linear %s, %w2 : (tensor<2x8x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
  return %y : tensor<2x8x4xf32>
}

// CHECK-NOT: @layer_backward_input_1
// CHECK-LABEL: func.func @grad
// SELECTIVE-SAME: %[[A:[^:]*]]: tensor<4x4xf32> {{[^%]*}}%[[B:[^:]*]]: tensor<4x4xf32> {{[^%]*}}%[[TOKENS:[^:]*]]:
// SELECTIVE: %[[X0:.*]] = megalodon.embedding
// SELECTIVE: %[[X1:.*]]:2 = call @layer_forward(%[[X0]], %[[A]], %[[B]])
// SELECTIVE: %[[X2:.*]]:2 = call @layer_forward(%[[X1]]#0, %[[B]], %[[A]])
// SELECTIVE: %[[D2:.*]] = megalodon.cross_entropy_grad
// SELECTIVE: %[[D1:.*]]:2 = call @layer_backward_input(%[[D2]], %[[A]], %[[X2]]#1, %[[B]])
// SELECTIVE: %[[W1:.*]]:2 = call @layer_backward_weight(%[[X2]]#1, %[[D2]], %[[D1]]#1, %[[X1]]#0)
// SELECTIVE: %[[D0:.*]]:2 = call @layer_backward_input(%[[D1]]#0, %[[B]], %[[X1]]#1, %[[A]])
// SELECTIVE: %[[W0:.*]]:2 = call @layer_backward_weight(%[[X1]]#1, %[[D1]]#0, %[[D0]]#1, %[[X0]])
// SELECTIVE: megalodon.embedding_grad %{{.*}}, %[[D0]]#0
// SELECTIVE: %[[DA:.*]] = megalodon.add %[[W1]]#1, %[[W0]]#0
// SELECTIVE: %[[DB:.*]] = megalodon.add %[[W1]]#0, %[[W0]]#1
// FULL: call @layer(
// FULL: call @layer(
// CHECK: return
func.func @grad(%a: tensor<4x4xf32> {megalodon.name = "a", megalodon.role = #megalodon.role<parameter>},
                %b: tensor<4x4xf32> {megalodon.name = "b", megalodon.role = #megalodon.role<parameter>}, %tokens: tensor<2x8xi32>,
                %e: tensor<16x4xf32> {megalodon.name = "e", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %x0 = megalodon.embedding %tokens, %e : (tensor<2x8xi32>, tensor<16x4xf32>) -> tensor<2x8x4xf32>
  %x1 = call @layer(%x0, %a, %b) : (tensor<2x8x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
  %x2 = call @layer(%x1, %b, %a) : (tensor<2x8x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<2x8x4xf32>
  %nll, %lse = megalodon.cross_entropy %x2, %tokens : (tensor<2x8x4xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %loss = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}
