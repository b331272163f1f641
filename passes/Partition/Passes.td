// Passes of the partition phase.
#ifndef MEGALODON_PARTITION_PASSES_TD
#define MEGALODON_PARTITION_PASSES_TD

include "mlir/Pass/PassBase.td"

def AssignLayouts : Pass<"megalodon-assign-layouts", "::mlir::ModuleOp"> {
  let summary = "give every tensor a layout on the mesh";
  let description = [{
    Before: functions on whole tensors, as the optimize phase leaves them.

    After: every tensor type carries a `#megalodon.layout`. Parameters, state and inputs get theirs from the table in LayoutTable.cpp, everything else follows
    from the ops' rules there. Where a rule needs another layout than a value has, and plans for that, a `megalodon.reshard` stands in between; where it
    does not, that is an error which names the op, both layouts and the bytes that would move. The mesh is the symbol `@mesh`, a `shard.grid`.

    ```mlir
    %y = megalodon.linear %x, %w : (tensor<4x64x32xf32>, tensor<96x32xf32>) -> tensor<4x64x96xf32>
    // becomes on dp=2,tp=2, x being the residual stream and w split by rows
    %whole = megalodon.reshard %x : tensor<4x64x32xf32, #megalodon.layout<[dp, _, tp]>> -> tensor<4x64x32xf32, #megalodon.layout<[dp, _, _]>>
    %y = megalodon.linear %whole, %w : (.., tensor<96x32xf32, #megalodon.layout<[tp, _]>>) -> tensor<4x64x96xf32, #megalodon.layout<[dp, _, tp]>>
    ```
  }];
  let options = [
    Option<"mesh", "mesh", "std::string", "", "ranks along each axis: dp=2,cp=2,tp=2">,
    Option<"zero", "zero", "unsigned", "0", "what is sharded over the data and chunk axes: 0 nothing, 1 optimizer state, 3 parameters too">];
  let statistics = [Statistic<"numReshards", "reshards", "changes of layout">];
  let dependentDialects = ["::mlir::megalodon::MegalodonDialect", "::mlir::shard::ShardDialect", "::mlir::arith::ArithDialect"];
}

def PartitionOps : Pass<"megalodon-partition", "::mlir::ModuleOp"> {
  let summary = "turn whole tensors with layouts into what one rank holds, and changes of layout into collectives";
  let description = [{
    Before: megalodon-assign-layouts ran.

    After: types are local and carry no layout; `megalodon.reshard` became `shard.all_gather`, `shard.all_reduce`, `shard.reduce_scatter` or
    a local slice; ops that need to know of other ranks exchange what they need: the statistics of the timestep norm and the end states of CEMA along cp,
    the log-sum-exp of the cross entropy along tp. Entries remember the whole shapes in `megalodon.shape`, `megalodon.splits`, `megalodon.batch` and
    `megalodon.length`.
  }];
  let statistics = [Statistic<"numCollectives", "collectives", "collectives, each counted once a function">];
  let dependentDialects = ["::mlir::megalodon::MegalodonDialect", "::mlir::shard::ShardDialect", "::mlir::arith::ArithDialect"];
}

def OverlapCollectives : Pass<"megalodon-overlap-collectives", "::mlir::func::FuncOp"> {
  let summary = "order ops so that messages travel while others compute";
  let description = [{
    A collective starts where it stands and is waited for at the first op that reads its result. This pass puts the first long op that does not depend on it
    (a projection, attention, another layer) in between, with what that op needs; so the exchange of CEMA states runs behind the value projection.
    The halves of a training step, parted by `plan.update`, stay apart.
  }];
  let statistics = [Statistic<"numHidden", "hidden", "collectives with work behind them">];
}

def CutPipeline : Pass<"megalodon-cut-pipeline", "::mlir::ModuleOp"> {
  let summary = "cut entries into the stages of a pipeline";
  let description = [{
    Before: megalodon-partition ran, and the pipeline axis of `@mesh` has several ranks. Entries with gradients work on the rows of one microbatch;
    `megalodon.microbatches` says how many make a call. Ops carry the locations of the import phase: `embed`, `layers.<i>`, `output...`, `loss`, or the name
    of a parameter.

    After: an entry is a `plan.pipeline` that names a function for each stage and phase, and the order in which each rank runs them. Layers go to stages so
    that the slowest is as fast as possible, the embedding and the head counted in. A stage keeps what its backward function reads in slots, variables
    of the role `residual`; of what another stage computes it may read the residual stream of the stage in front of it and the cotangent of its own output,
    nothing else. `mean` and its gradient are shares of the microbatches. Behind the microbatches `finish` adds up the loss over microbatches and ranks,
    and `update` makes the norm of all gradients and updates what a rank holds. A parameter that the first and the last stage share is updated by both
    alike, from the sum of their gradients.

    ```mlir
    func.func @forward(%tokens: .., %w: .., %p: ..) attributes {megalodon.entry = "forward"}
      %x = megalodon.embedding %tokens, %w loc("embed")
      %y = call @layer(%x, %p) loc("layers.0")
      %z = call @layer(%y, %q) loc("layers.1")
    // becomes
    func.func @forward.stage0.forward(%tokens: .., %w: .., %p: ..)
        -> (.. {megalodon.name = "stage0.out", megalodon.role = #megalodon.role<residual>, plan.index = "slot", plan.to = 1})
    func.func @forward.stage1.forward(%y: .. {megalodon.name = "stage1.in", megalodon.role = #megalodon.role<residual>, plan.index = "slot", plan.from = 0}, ..)
    plan.pipeline @forward {forward = [@forward.stage0.forward, @forward.stage1.forward], work = ["F0", "F0"], ..}
    ```
  }];
  let options = [
    Option<"schedule", "schedule", "std::string", "\"1f1b\"", "order of a rank's work: gpipe, 1f1b, interleaved or zero-bubble">,
    Option<"chunks", "chunks", "unsigned", "1", "stages of each rank (interleaved)">];
  let statistics = [Statistic<"numStages", "stages", "stages of the pipeline">];
  let dependentDialects = ["::mlir::megalodon::MegalodonDialect", "::mlir::plan::PlanDialect", "::mlir::shard::ShardDialect",
                           "::mlir::arith::ArithDialect"];
}

#endif
