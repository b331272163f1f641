// The shard dialect's collectives over ranks that run in lock-step.
#include "dialect/Interpreter/Frame.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static SmallVector<int64_t> wide(ArrayRef<int16_t> axes) {
  return SmallVector<int64_t>(axes.begin(), axes.end());
}

SmallVector<int64_t> interpreter::axesOf(Operation *op) {
  return llvm::TypeSwitch<Operation *, SmallVector<int64_t>>(op)
      .Case<shard::AllGatherOp, shard::AllReduceOp, shard::ReduceScatterOp,
            shard::AllSliceOp>([](auto op) { return wide(op.getGridAxes()); })
      .Case([](shard::ProcessMultiIndexOp op) { return wide(op.getAxes()); })
      .Default(SmallVector<int64_t>());
}

bool interpreter::isShardOp(Operation *op) {
  return isa<shard::AllGatherOp, shard::AllReduceOp, shard::ReduceScatterOp,
             shard::AllSliceOp, shard::ProcessMultiIndexOp>(op);
}

/// The positions in `ranks` of those that differ from `rank` along `axes` only,
/// in the order of their places.
static SmallVector<size_t> groupOf(const Grid &grid, ArrayRef<int64_t> ranks,
                                   int64_t rank, ArrayRef<int64_t> axes) {
  SmallVector<size_t> group;
  for (auto [position, other] : llvm::enumerate(ranks)) {
    bool same = true;
    for (int64_t axis = 0; axis < 4; ++axis)
      same &= llvm::is_contained(axes, axis) ||
              grid.coordinate(other, axis) == grid.coordinate(rank, axis);
    if (same)
      group.push_back(position);
  }
  llvm::sort(group, [&](size_t a, size_t b) {
    return grid.place(ranks[a], axes) < grid.place(ranks[b], axes);
  });
  return group;
}

static Tensor sum(const RankValues &values, ArrayRef<size_t> group) {
  Tensor total = *values[group.front()];
  for (size_t member : group.drop_front())
    for (int64_t i = 0; i < total.elements(); ++i)
      if (total.isReal())
        total[i] += (*values[member])[i];
      else
        total.integer(i) += values[member]->integer(i);
  return total;
}

static Tensor concatenate(const RankValues &values, ArrayRef<size_t> group,
                          size_t dimension) {
  SmallVector<int64_t> shape(values[group.front()]->shape());
  shape[dimension] *= group.size();
  Tensor result(shape, values[group.front()]->isReal());
  for (auto [number, member] : llvm::enumerate(group))
    insertPart(result, *values[member], dimension, number);
  return result;
}

FailureOr<RankValues> interpreter::evaluateShardOp(Operation *op,
                                                   const Grid &grid,
                                                   ArrayRef<int64_t> ranks,
                                                   const RankValues *operand) {
  const SmallVector<int64_t> axes = axesOf(op);
  if (auto reduce = dyn_cast<shard::AllReduceOp>(op);
      reduce && reduce.getReduction() != shard::ReductionKind::Sum)
    return op->emitOpError("has no evaluation but for sums"), failure();
  if (auto scatter = dyn_cast<shard::ReduceScatterOp>(op);
      scatter && scatter.getReduction() != shard::ReductionKind::Sum)
    return op->emitOpError("has no evaluation but for sums"), failure();
  RankValues results;
  for (int64_t rank : ranks) {
    const int64_t place = grid.place(rank, axes), parts = grid.parts(axes);
    const SmallVector<size_t> group = groupOf(grid, ranks, rank, axes);
    Tensor result =
        llvm::TypeSwitch<Operation *, Tensor>(op)
            .Case([&](shard::ProcessMultiIndexOp op) {
              Tensor number(op->getResult(0).getType());
              number.integer(0) = place;
              return number;
            })
            .Case([&](shard::AllGatherOp op) {
              return concatenate(*operand, group,
                                 op.getGatherAxis().getZExtValue());
            })
            .Case([&](shard::AllReduceOp) { return sum(*operand, group); })
            .Case([&](shard::ReduceScatterOp op) {
              return slice(sum(*operand, group),
                           op.getScatterAxis().getZExtValue(), place, parts);
            })
            .Case([&](shard::AllSliceOp op) {
              size_t own = llvm::find(ranks, rank) - ranks.begin();
              return slice(*(*operand)[own], op.getSliceAxis().getZExtValue(),
                           place, parts);
            });
    results.push_back(std::make_shared<const Tensor>(std::move(result)));
  }
  return results;
}
