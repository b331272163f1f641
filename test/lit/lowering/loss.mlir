// Cross entropy goes row by row; means and sums over positions are one workgroup's work, in f64.
// RUN: megalodon-opt %s --megalodon-lower-to-kernels=vector-bytes=64 | FileCheck %s

// CHECK-LABEL: func.func @loss
// CHECK: %[[NLL:.*]]:2 = plan.dispatch @kernels::@cross_entropy grid<1 * one * tokens by 1>(%arg0, %arg1)
// CHECK: %[[MEAN:.*]] = plan.dispatch @kernels::@mean grid<1 * one * one by 1>(%[[NLL]]#0) {{.*}} -> tensor<f32>
// CHECK: %{{.*}}:2 = plan.dispatch @kernels::@loss_sum grid<1 * one * one by 1>(%[[NLL]]#0, %arg1) {{.*}} -> (tensor<f32>, tensor<i64>)
// CHECK: %[[D:.*]] = plan.dispatch @kernels::@mean_grad grid<1 * one * one by 1>(%[[MEAN]])
// CHECK: plan.dispatch @kernels::@cross_entropy_grad grid<1 * one * tokens by 1>(%[[D]], %arg0, %arg1, %[[NLL]]#1)
func.func @loss(%logits: tensor<2x8x32000xf32>, %targets: tensor<2x8xi32>) -> (tensor<2x8x32000xf32>, tensor<f32>, tensor<i64>) {
  %nll, %lse = megalodon.cross_entropy %logits, %targets : (tensor<2x8x32000xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  %mean = megalodon.mean %nll : (tensor<2x8xf32>) -> tensor<f32>
  %sum, %count = megalodon.loss_sum %nll, %targets : (tensor<2x8xf32>, tensor<2x8xi32>) -> (tensor<f32>, tensor<i64>)
  %dnll = megalodon.mean_grad %mean : (tensor<f32>) -> tensor<2x8xf32>
  %dlogits = megalodon.cross_entropy_grad %dnll, %logits, %targets, %lse
      : (tensor<2x8xf32>, tensor<2x8x32000xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x32000xf32>
  return %dlogits, %sum, %count : tensor<2x8x32000xf32>, tensor<f32>, tensor<i64>
}

// Four maxima and four sums in flight; an ignored target stores 0.
// CHECK-LABEL: func.func @cross_entropy(
// CHECK: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>, vector<16xf32>, vector<16xf32>)
// CHECK-COUNT-4: arith.maxnumf
// CHECK: vector.reduction <maxnumf>
// CHECK: scf.for {{.*}} -> (vector<16xf32>, vector<16xf32>, vector<16xf32>, vector<16xf32>)
// CHECK-COUNT-4: math.exp
// CHECK: %[[IGNORED:.*]] = arith.constant -100 : i32
// CHECK: %[[COUNTS:.*]] = arith.cmpi ne, %{{.*}}, %[[IGNORED]]
// CHECK: scf.if %[[COUNTS]]
// CHECK: } else {
// CHECK-NEXT: %[[ZERO:.*]] = arith.constant 0.0
// CHECK-NEXT: memref.store %[[ZERO]]

// CHECK-LABEL: func.func @mean(
// CHECK: vector.create_mask
// CHECK: arith.extf {{.*}} to vector<16xf64>
// CHECK: vector.reduction <add>, {{.*}} into f64
