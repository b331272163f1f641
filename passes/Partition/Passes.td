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

#endif
