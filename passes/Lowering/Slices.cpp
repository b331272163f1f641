// Local slices of tensors that every rank of a group holds whole.
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

/// Whether the leading dimensions of a tensor of rank 3 are a call's tokens.
/// Parameters, moments and state, which entries take, have others.
static bool isActivation(Value value) {
  auto argument = dyn_cast<BlockArgument>(value);
  auto function =
      argument ? dyn_cast<func::FuncOp>(argument.getOwner()->getParentOp())
               : func::FuncOp();
  return !function || !function.getArgAttr(argument.getArgNumber(), kRoleAttr);
}

/// The dimension is cut into as many parts as the group has ranks; the rank's
/// number in the group is that of the mesh's order, tensor axis fastest.
struct SliceLowering : LoweringPattern<shard::AllSliceOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(shard::AllSliceOp op,
                                PatternRewriter &rewriter) const override {
    auto from = cast<RankedTensorType>(op.getInput().getType()),
         to = cast<RankedTensorType>(op.getType());
    int64_t dimension = op.getSliceAxis().getSExtValue();
    auto grid = SymbolTable::lookupNearestSymbolFrom<shard::GridOp>(
        op, op.getGridAttr());
    int64_t inner = 1; // elements of the piece that stand together
    for (int64_t extent : to.getShape().drop_front(dimension))
      inner *= extent;
    int64_t whole =
        inner / to.getDimSize(dimension) * from.getDimSize(dimension);
    // A slice of the channels of an activation follows the call's tokens.
    bool perToken =
        from.getRank() == 3 && dimension == 2 && isActivation(op.getInput());
    int64_t outer = from.getNumElements() / whole;

    KernelBuilder k(rewriter, options, op, "slice");
    Value x = k.read(op.getInput(), View::Flat), y = k.write(to, View::Flat);
    Value number = k.index(0);
    for (int16_t axis : op.getGridAxes())
      number = k.add(k.mul(number, k.index(grid.getShape()[axis])),
                     k.rankAlong(axis));
    Value offset = k.mul(number, k.index(inner));
    int64_t rows = perToken ? rowsPerWorkgroup(options, inner) : 1;
    auto copyRow = [&](Value row) {
      Value source = k.add(k.mul(row, k.index(whole)), offset),
            target = k.mul(row, k.index(inner));
      k.forLanes(inner, elementOf(op.getInput()), [&](Value i, Value mask) {
        k.store(k.load(x, {k.add(source, i)}, mask), y, {k.add(target, i)},
                mask);
      });
    };
    if (perToken)
      forTokens(k, rows, copyRow);
    else
      copyRow(k.workgroup());
    rewriter.replaceOp(op, k.finish(perToken ? tokenGrid(rows) : Grid{outer}, 0,
                                    2 * bytesOf(to)));
    return success();
  }
};

} // namespace

void populateSliceLowering(RewritePatternSet &patterns,
                           const LoweringOptions &options) {
  patterns.add<SliceLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
