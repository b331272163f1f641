// A model of two layers cut into two stages: what each stage takes, gives and keeps, and what moves between them.
// RUN: megalodon-opt %s --megalodon-cut-pipeline | FileCheck %s

// Two microbatches of two rows. The weight is the embedding's and the head's: each stage accumulates its part of the gradient.
//
// CHECK-LABEL: func.func @grad.stage0.forward(
// CHECK-SAME: %[[TOKENS:.*]]: tensor<2x4xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>, megalodon.shape = array<i64: 4, 4>, plan.index = "microbatch"},
// CHECK-SAME: %[[TABLE:.*]]: tensor<8x6xf64> {megalodon.name = "embed.weight"
// CHECK-SAME: %[[W:.*]]: tensor<6x6xf64> {megalodon.name = "layers.0.w"
// CHECK-SAME: -> (tensor<2x4x6xf64> {megalodon.name = "stage0.0", megalodon.role = #megalodon.role<residual>, plan.index = "slot"},
// CHECK-SAME: tensor<2x4x6xf64> {megalodon.name = "stage0.out", megalodon.role = #megalodon.role<residual>, plan.index = "slot", plan.to = 1 : i64})
// CHECK-NEXT: %[[X:.*]] = megalodon.embedding %[[TOKENS]], %[[TABLE]]
// CHECK-NEXT: %[[Y:.*]] = megalodon.linear %[[X]], %[[W]]
// CHECK-NEXT: return %[[X]], %[[Y]]

// The last stage receives, keeps what it will need and leaves the loss of the microbatch, a share of the mean.
// CHECK-LABEL: func.func @grad.stage1.forward(
// CHECK-SAME: %[[IN:.*]]: tensor<2x4x6xf64> {megalodon.name = "stage1.in", megalodon.role = #megalodon.role<residual>, plan.from = 0 : i64, plan.index = "slot"},
// CHECK-SAME: %[[W:.*]]: tensor<6x6xf64> {megalodon.name = "layers.1.w"
// CHECK-SAME: %[[COUNT:.*]]: tensor<2xi64> {megalodon.name = "state.final.count", {{[^}]*}}plan.index = "microbatch"}
// CHECK-SAME: "embed.weight"
// CHECK-SAME: -> (tensor<2x4x8xf64> {megalodon.name = "stage1.0"
// CHECK-SAME: tensor<f64> {megalodon.name = "loss.of_microbatch", megalodon.role = #megalodon.role<residual>, plan.index = "microbatch"}
// CHECK: megalodon.mean {{.*}} {parts = 2 : i64}

// CHECK-LABEL: func.func @grad.stage0.backward(
// CHECK-SAME: %[[DOUT:.*]]: tensor<2x4x6xf64> {megalodon.name = "stage0.dout", megalodon.role = #megalodon.role<residual>, plan.from = 1 : i64, plan.index = "slot"},
// CHECK-SAME: %[[W:[^:]*]]: tensor<6x6xf64> {megalodon.name = "layers.0.w"
// CHECK-SAME: %[[X:[^:]*]]: tensor<2x4x6xf64> {megalodon.name = "stage0.0", megalodon.role = #megalodon.role<residual>, plan.index = "slot"},
// CHECK-SAME: %[[SUM:[^:]*]]: tensor<6x6xf64> {megalodon.name = "grad.layers.0.w", megalodon.role = #megalodon.role<gradient>}
// CHECK-SAME: -> (tensor<6x6xf64> {megalodon.name = "grad.layers.0.w", {{[^}]*}}}, tensor<8x6xf64> {megalodon.name = "grad.embed.weight", {{[^}]*}}})
// CHECK: %[[DX:.*]] = megalodon.linear_grad_input %[[DOUT]], %[[W]]
// CHECK: %[[DW:.*]] = megalodon.linear_grad_weight %[[DOUT]], %[[X]]
// CHECK-NEXT: megalodon.accumulate %[[DW]] into %[[SUM]]
// CHECK: %[[DTABLE:.*]] = megalodon.embedding_grad %{{.*}}, %[[DX]]
// CHECK-NEXT: megalodon.accumulate %[[DTABLE]] into

// A state that backward reads is written when backward is done.
// CHECK-LABEL: func.func @grad.stage1.backward(
// CHECK-SAME: %[[OLD:[^:]*]]: tensor<2xi64> {megalodon.name = "state.final.count"
// CHECK-SAME: %[[NEW:[^:]*]]: tensor<2xi64> {megalodon.name = "stage1.8", megalodon.role = #megalodon.role<residual>
// CHECK-SAME: -> (tensor<2x4x6xf64> {megalodon.name = "stage1.din", megalodon.role = #megalodon.role<residual>, plan.index = "slot", plan.to = 0 : i64},
// CHECK-SAME: tensor<2xi64> {megalodon.name = "state.final.count", {{[^}]*}}}, tensor<6x6xf64> {megalodon.name = "grad.layers.1.w", {{[^}]*}}},
// CHECK-SAME: tensor<8x6xf64> {megalodon.name = "grad.embed.weight",
// CHECK: megalodon.mean_grad {{.*}} {parts = 2 : i64}
// CHECK: megalodon.timestep_norm_grad {{.*}} state(%[[OLD]],
// CHECK: %[[DIN:.*]] = megalodon.linear_grad_input
// CHECK: return %[[DIN]], %[[NEW]],

// Behind the microbatches: both ranks first make the gradient of the shared weight, then the loss, which only the last one has parts of.
// CHECK-LABEL: func.func @grad.rank0.finish(
// CHECK-SAME: %[[SUM:.*]]: tensor<8x6xf64> {megalodon.name = "grad.embed.weight"{{[^}]*}}}) -> (tensor<f64> {megalodon.name = "loss"{{[^}]*}}}, tensor<8x6xf64> {megalodon.name = "grad.embed.weight"
// CHECK: %[[WHOLE:.*]] = shard.all_reduce %[[SUM]] on @mesh grid_axes = [1]
// CHECK: %[[ZERO:.*]] = arith.constant dense<0.000000e+00>
// CHECK: %[[LOSS:.*]] = shard.all_reduce %[[ZERO]] on @mesh grid_axes = [1]
// CHECK: return %[[LOSS]], %[[WHOLE]]
// CHECK-LABEL: func.func @grad.rank1.finish(
// CHECK-SAME: %[[SUM:[^:]*]]: tensor<8x6xf64> {megalodon.name = "grad.embed.weight"{{[^}]*}}},
// CHECK-SAME: %[[A:[^:]*]]: tensor<f64> {megalodon.name = "loss.of_microbatch", {{[^}]*}} plan.index = 0 : i64},
// CHECK-SAME: %[[B:[^:]*]]: tensor<f64> {megalodon.name = "loss.of_microbatch", {{[^}]*}} plan.index = 1 : i64})
// CHECK: shard.all_reduce %[[SUM]] on @mesh grid_axes = [1]
// CHECK: %[[OWN:.*]] = megalodon.add %[[A]], %[[B]]
// CHECK: shard.all_reduce %[[OWN]] on @mesh grid_axes = [1]

// CHECK: plan.pipeline @grad
// CHECK-SAME: backward = [@grad.stage0.backward, @grad.stage1.backward]
// CHECK-SAME: finish = [@grad.rank0.finish, @grad.rank1.finish]
// CHECK-SAME: forward = [@grad.stage0.forward, @grad.stage1.forward]
// CHECK-SAME: work = ["F0 F1 B0 B1", "F0 B0 F1 B1"]
// CHECK-NOT: func.func @grad(
module {
shard.grid @mesh(shape = 1x2x1x1)
func.func @grad(%tokens: tensor<2x4xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                %targets: tensor<2x4xi32> {megalodon.name = "targets", megalodon.role = #megalodon.role<input>},
                %table: tensor<8x6xf64> {megalodon.name = "embed.weight", megalodon.role = #megalodon.role<parameter>},
                %w0: tensor<6x6xf64> {megalodon.name = "layers.0.w", megalodon.role = #megalodon.role<parameter>},
                %w1: tensor<6x6xf64> {megalodon.name = "layers.1.w", megalodon.role = #megalodon.role<parameter>},
                %count: tensor<2xi64> {megalodon.name = "state.final.count", megalodon.role = #megalodon.role<state>},
                %mean: tensor<2x2xf64> {megalodon.name = "state.final.mean", megalodon.role = #megalodon.role<state>})
    -> (tensor<f64> {megalodon.name = "loss", megalodon.role = #megalodon.role<output>},
        tensor<2xi64> {megalodon.name = "state.final.count", megalodon.role = #megalodon.role<state>},
        tensor<2x2xf64> {megalodon.name = "state.final.mean", megalodon.role = #megalodon.role<state>},
        tensor<8x6xf64> {megalodon.name = "grad.embed.weight", megalodon.role = #megalodon.role<gradient>},
        tensor<6x6xf64> {megalodon.name = "grad.layers.0.w", megalodon.role = #megalodon.role<gradient>},
        tensor<6x6xf64> {megalodon.name = "grad.layers.1.w", megalodon.role = #megalodon.role<gradient>})
    attributes {megalodon.entry = "grad", megalodon.microbatches = 2 : i64} {
  %one = arith.constant dense<1.0> : tensor<f64>
  %gain = arith.constant dense<0.0> : tensor<6xf64>
  %x = megalodon.embedding %tokens, %table : (tensor<2x4xi32>, tensor<8x6xf64>) -> tensor<2x4x6xf64> loc("embed")
  %y = megalodon.linear %x, %w0 : (tensor<2x4x6xf64>, tensor<6x6xf64>) -> tensor<2x4x6xf64> loc("layers.0")
  %z = megalodon.linear %y, %w1 : (tensor<2x4x6xf64>, tensor<6x6xf64>) -> tensor<2x4x6xf64> loc("layers.1")
  %n, %count1, %mean1, %var1, %rm, %rr = megalodon.timestep_norm %z, %gain, %gain state(%count, %mean, %mean) {eps = 1.0e-5 : f64}
      : (tensor<2x4x6xf64>, tensor<6xf64>, tensor<6xf64>, tensor<2xi64>, tensor<2x2xf64>, tensor<2x2xf64>)
     -> (tensor<2x4x6xf64>, tensor<2xi64>, tensor<2x2xf64>, tensor<2x2xf64>, tensor<2x4x2xf64>, tensor<2x4x2xf64>) loc("output.final_norm")
  %logits = megalodon.linear %n, %table : (tensor<2x4x6xf64>, tensor<8x6xf64>) -> tensor<2x4x8xf64> loc("output.output")
  %nll, %lse = megalodon.cross_entropy %logits, %targets : (tensor<2x4x8xf64>, tensor<2x4xi32>) -> (tensor<2x4xf64>, tensor<2x4xf64>) loc("loss")
  %loss = megalodon.mean %nll : (tensor<2x4xf64>) -> tensor<f64> loc("loss")
  %dnll = megalodon.mean_grad %one : (tensor<f64>) -> tensor<2x4xf64> loc("loss")
  %dlogits = megalodon.cross_entropy_grad %dnll, %logits, %targets, %lse
      : (tensor<2x4xf64>, tensor<2x4x8xf64>, tensor<2x4xi32>, tensor<2x4xf64>) -> tensor<2x4x8xf64> loc("loss")
  %dn = megalodon.linear_grad_input %dlogits, %table : (tensor<2x4x8xf64>, tensor<8x6xf64>) -> tensor<2x4x6xf64> loc("output.output")
  %dhead = megalodon.linear_grad_weight %dlogits, %n : (tensor<2x4x8xf64>, tensor<2x4x6xf64>) -> tensor<8x6xf64> loc("output.output")
  %dz, %dg, %db, %dm, %dv = megalodon.timestep_norm_grad %dn, %z, %gain state(%count, %rm, %rr)
      : (tensor<2x4x6xf64>, tensor<2x4x6xf64>, tensor<6xf64>, tensor<2xi64>, tensor<2x4x2xf64>, tensor<2x4x2xf64>)
     -> (tensor<2x4x6xf64>, tensor<6xf64>, tensor<6xf64>, tensor<2x2xf64>, tensor<2x2xf64>) loc("output.final_norm")
  %dy = megalodon.linear_grad_input %dz, %w1 : (tensor<2x4x6xf64>, tensor<6x6xf64>) -> tensor<2x4x6xf64> loc("layers.1")
  %dw1 = megalodon.linear_grad_weight %dz, %y : (tensor<2x4x6xf64>, tensor<2x4x6xf64>) -> tensor<6x6xf64> loc("layers.1")
  %dx = megalodon.linear_grad_input %dy, %w0 : (tensor<2x4x6xf64>, tensor<6x6xf64>) -> tensor<2x4x6xf64> loc("layers.0")
  %dw0 = megalodon.linear_grad_weight %dy, %x : (tensor<2x4x6xf64>, tensor<2x4x6xf64>) -> tensor<6x6xf64> loc("layers.0")
  %dembed = megalodon.embedding_grad %tokens, %dx : (tensor<2x4xi32>, tensor<2x4x6xf64>) -> tensor<8x6xf64> loc("embed")
  %dtable = megalodon.add %dhead, %dembed : tensor<8x6xf64> loc("embed.weight")
  return %loss, %count1, %mean1, %dtable, %dw0, %dw1 : tensor<f64>, tensor<2xi64>, tensor<2x2xf64>, tensor<8x6xf64>, tensor<6x6xf64>, tensor<6x6xf64>
}
}
