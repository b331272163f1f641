// Messages between ranks: upstream's collectives on the mesh become plan's.
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "passes/Lowering/Lowerings.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// The axes of a collective along which there is more than one rank.
template <typename Op> SmallVector<int64_t> realAxes(Op op) {
  auto grid =
      SymbolTable::lookupNearestSymbolFrom<shard::GridOp>(op, op.getGridAttr());
  SmallVector<int64_t> axes;
  for (int16_t axis : op.getGridAxes())
    if (grid.getShape()[axis] > 1)
      axes.push_back(axis);
  return axes;
}

/// Replaces `op` by one message over `axes`, or by its input when nobody else
/// has anything to say.
void replaceByMessage(PatternRewriter &rewriter, Operation *op,
                      plan::CollectiveKind kind, ArrayRef<int64_t> axes,
                      int64_t dimension) {
  Value input = op->getOperand(0);
  if (axes.empty()) {
    rewriter.replaceOp(op, input);
    return;
  }
  rewriter.replaceOpWithNewOp<plan::CollectiveOp>(
      op, op->getResultTypes(),
      plan::CollectiveKindAttr::get(rewriter.getContext(), kind), input,
      rewriter.getDenseI64ArrayAttr(axes),
      rewriter.getI64IntegerAttr(dimension),
      op->getAttrOfType<DenseI64ArrayAttr>(plan::kStagesAttr),
      op->hasAttr(plan::kLastAttr) ? rewriter.getUnitAttr() : UnitAttr());
}

struct AllGatherLowering : OpRewritePattern<shard::AllGatherOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(shard::AllGatherOp op,
                                PatternRewriter &rewriter) const override {
    replaceByMessage(rewriter, op, plan::CollectiveKind::AllGather,
                     realAxes(op), op.getGatherAxis().getSExtValue());
    return success();
  }
};

LogicalResult requireSum(Operation *op, shard::ReductionKind kind) {
  if (kind == shard::ReductionKind::Sum)
    return success();
  return op->emitOpError() << "expected a sum, got reduction '"
                           << shard::stringifyReductionKind(kind) << "'";
}

struct AllReduceLowering : OpRewritePattern<shard::AllReduceOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(shard::AllReduceOp op,
                                PatternRewriter &rewriter) const override {
    if (failed(requireSum(op, op.getReduction())))
      return failure();
    // A sum does not depend on the order of the axes, so there is one order.
    SmallVector<int64_t> axes = realAxes(op);
    llvm::sort(axes);
    replaceByMessage(rewriter, op, plan::CollectiveKind::AllReduce, axes, 0);
    return success();
  }
};

struct ReduceScatterLowering : OpRewritePattern<shard::ReduceScatterOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(shard::ReduceScatterOp op,
                                PatternRewriter &rewriter) const override {
    if (failed(requireSum(op, op.getReduction())))
      return failure();
    replaceByMessage(rewriter, op, plan::CollectiveKind::ReduceScatter,
                     realAxes(op), op.getScatterAxis().getSExtValue());
    return success();
  }
};

} // namespace

void mlir::megalodon::populateCollectiveLowering(RewritePatternSet &patterns) {
  patterns.add<AllGatherLowering, AllReduceLowering, ReduceScatterLowering>(
      patterns.getContext());
}
