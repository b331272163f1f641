// Folders and canonicalization patterns of the megalodon dialect. None changes
// the result of a computation by a bit, except that a rotation and its inverse
// cancel exactly.
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::megalodon;

OpFoldResult AddOp::fold(FoldAdaptor) {
  // A sum of one term is the term.
  return getInputs().size() == 1 ? getInputs().front() : Value();
}

namespace {
/// add(add(a, b), c) -> add(a, b, c), when the inner sum has no other use.
/// Terms are added from left to right, so only the first may be opened.
struct FlattenAdd : OpRewritePattern<AddOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(AddOp op,
                                PatternRewriter &rewriter) const override {
    auto inner = op.getInputs().front().getDefiningOp<AddOp>();
    if (!inner || !inner->hasOneUse())
      return failure();
    SmallVector<Value> terms(inner.getInputs());
    llvm::append_range(terms, op.getInputs().drop_front());
    rewriter.replaceOpWithNewOp<AddOp>(op, op.getType(), terms);
    return success();
  }
};
} // namespace

void AddOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                        MLIRContext *context) {
  patterns.add<FlattenAdd>(context);
}

OpFoldResult RotaryOp::fold(FoldAdaptor) {
  // A rotation and its inverse by the same angles cancel.
  auto inner = getX().getDefiningOp<RotaryOp>();
  if (inner && inner.getScale().isExactlyValue(1.0) &&
      getScale().isExactlyValue(1.0) && inner.getInverse() != getInverse() &&
      inner.getCount() == getCount() &&
      inner.getPositions() == getPositions() &&
      inner.getHeads() == getHeads() && inner.getBase() == getBase() &&
      inner.getChunk() == getChunk())
    return inner.getX();
  return {};
}

OpFoldResult ClipOp::fold(FoldAdaptor) {
  // Without a largest norm nothing is clipped.
  if (getMaxNorm().convertToDouble() > 0)
    return {};
  auto type = cast<RankedTensorType>(getType());
  return DenseElementsAttr::get(
      type, FloatAttr::get(type.getElementType(), 1.0).getValue());
}

namespace {
/// Logits are f32 where activations are bf16, and so would be their cotangent.
/// Who reads it is a product that rounds it, so it need not be stored in full.
struct RoundLogitsGradient : OpRewritePattern<CrossEntropyGradOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(CrossEntropyGradOp op,
                                PatternRewriter &rewriter) const override {
    auto isRounded = [](Value value) {
      return cast<RankedTensorType>(value.getType()).getElementType().isBF16();
    };
    auto rounds = [&](Operation *user) {
      if (auto input = dyn_cast<LinearGradInputOp>(user))
        return isRounded(input.getDx()) || isRounded(input.getWeight());
      if (auto weight = dyn_cast<LinearGradWeightOp>(user))
        return isRounded(weight.getX()) || isRounded(weight.getDy());
      return false;
    };
    if (isRounded(op.getDlogits()) || op.use_empty() ||
        !llvm::all_of(op->getUsers(), rounds))
      return failure();
    auto type = cast<RankedTensorType>(op.getType());
    rewriter.modifyOpInPlace(op, [&] {
      op.getDlogits().setType(RankedTensorType::get(
          type.getShape(), rewriter.getBF16Type(), type.getEncoding()));
    });
    return success();
  }
};
} // namespace

void CrossEntropyGradOp::getCanonicalizationPatterns(
    RewritePatternSet &patterns, MLIRContext *context) {
  patterns.add<RoundLogitsGradient>(context);
}
