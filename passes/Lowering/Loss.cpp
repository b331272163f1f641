// Cross entropy and its gradient, one row of logits after the other; means and
// sums over positions in f64 by one workgroup.
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

constexpr int64_t kIgnoredTarget = -100;

/// The target of token t as an index, and whether it counts.
std::pair<Value, Value> targetOf(KernelBuilder &k, Value targets, Value t) {
  Value target = k.loadScalar(targets, {t});
  Value ignored =
      arith::ConstantOp::create(k.b, k.b.getI32IntegerAttr(kIgnoredTarget));
  Value counts =
      arith::CmpIOp::create(k.b, arith::CmpIPredicate::ne, target, ignored);
  return {arith::IndexCastOp::create(k.b, k.b.getIndexType(), target), counts};
}

struct CrossEntropyLowering : LoweringPattern<CrossEntropyOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CrossEntropyOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getLogits());
    Type element = type.getElementType();
    int64_t width = widthOf(op.getLogits()), rows = rowsPerWorkgroup(width);
    KernelBuilder k(rewriter, options, op, "cross_entropy");
    Value logits = k.read(op.getLogits(), View::Rows),
          targets = k.read(op.getTargets(), View::Rows);
    Value nll = k.write(op.getNll().getType(), View::Rows),
          lse = k.write(op.getLse().getType(), View::Rows);
    Value lowest = k.constant(-std::numeric_limits<double>::infinity(),
                              k.vectorType(element));
    forTokens(k, rows, [&](Value t) {
      Value highest;
      for (const SmallVector<Value> &set : accumulateRow(
               k, width, element, lowest,
               [&](Value i, Value mask, MutableArrayRef<Value> sets) {
                 sets[0] =
                     k.max(sets[0], fillMasked(k, k.load(logits, {t, i}, mask),
                                               mask, lowest));
               }))
        highest = highest ? k.max(highest, set[0]) : set[0];
      Value maximum = k.maximum(highest), maximumVector = k.splat(maximum);
      Value total = sumRow(
          k, width, element, 1,
          [&](Value i, Value mask, MutableArrayRef<Value> sums) {
            sums[0] = k.add(
                sums[0], k.exp(k.sub(fillMasked(k, k.load(logits, {t, i}, mask),
                                                mask, lowest),
                                     maximumVector)));
          })[0];
      Value logTotal = k.log(total);
      k.storeScalar(k.add(maximum, logTotal), lse, {t});
      auto [target, counts] = targetOf(k, targets, t);
      k.when(
          counts,
          // log(total) - (logit - maximum) instead of lse - logit: nothing
          // large cancels.
          [&, target = target] {
            k.storeScalar(
                k.sub(logTotal,
                      k.sub(k.loadScalar(logits, {t, target}), maximum)),
                nll, {t});
          },
          [&] { k.storeScalar(k.constant(0, element), nll, {t}); });
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    4.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct CrossEntropyGradLowering : LoweringPattern<CrossEntropyGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CrossEntropyGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getLogits());
    Type element = type.getElementType();
    int64_t width = widthOf(op.getLogits()), rows = rowsPerWorkgroup(width);
    KernelBuilder k(rewriter, options, op, "cross_entropy_grad");
    Value dnll = k.read(op.getDnll(), View::Rows),
          logits = k.read(op.getLogits(), View::Rows),
          targets = k.read(op.getTargets(), View::Rows);
    Value lse = k.read(op.getLse(), View::Rows),
          dlogits = k.write(type, View::Rows);
    forTokens(k, rows, [&](Value t) {
      auto [target, counts] = targetOf(k, targets, t);
      k.when(
          counts,
          [&, target = target] {
            Value gradient = k.loadScalar(dnll, {t});
            Value scale = k.splat(gradient),
                  shift = k.splat(k.loadScalar(lse, {t}));
            k.forLanes(width, element, [&](Value i, Value mask) {
              k.store(k.mul(scale,
                            k.exp(k.sub(k.load(logits, {t, i}, mask), shift))),
                      dlogits, {t, i}, mask);
            });
            k.storeScalar(k.sub(k.loadScalar(dlogits, {t, target}), gradient),
                          dlogits, {t, target});
          },
          [&] {
            k.forLanes(width, element, [&](Value i, Value mask) {
              k.store(k.constant(0, k.vectorType(element)), dlogits, {t, i},
                      mask);
            });
          });
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    3.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

//===-- Over all positions of a call: one workgroup, vectors of a length known
// at run time ----------------------------------------------===//

/// Visits the vectors of the call's positions; the last may be masked.
SmallVector<Value>
forPositions(KernelBuilder &k, Type element, ValueRange carried,
             function_ref<SmallVector<Value>(Value index, Value mask,
                                             ValueRange carried)>
                 body) {
  int64_t lanes = k.lanes(element);
  return k.loop(k.index(0), k.tokens(), lanes, carried,
                [&](Value i, ValueRange values) {
                  Value mask = vector::CreateMaskOp::create(
                      k.b, VectorType::get({lanes}, k.b.getI1Type()),
                      k.sub(k.tokens(), i));
                  return body(i, mask, values);
                });
}

/// Sum of x over the call's positions, an f64 scalar.
Value sumPositions(KernelBuilder &k, Value x, Type element) {
  Type f64 = k.b.getF64Type();
  Value zero = k.constant(0, VectorType::get({k.lanes(element)}, f64));
  return k.sum(forPositions(
      k, element, zero,
      [&](Value i, Value mask, ValueRange carried) -> SmallVector<Value> {
        return {k.add(carried[0], k.toFloat(k.load(x, {i}, mask), f64))};
      })[0]);
}

struct MeanLowering : LoweringPattern<MeanOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(MeanOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getX());
    KernelBuilder k(rewriter, options, op, "mean");
    Value x = k.read(op.getX(), View::Rows), y = k.write(op.getType());
    Value mean = k.div(sumPositions(k, x, element),
                       k.intToFloat(k.tokens(), k.b.getF64Type()));
    k.storeScalar(k.toFloat(mean, element), y, {});
    rewriter.replaceOp(
        op,
        k.finish(Grid{}, tensorOf(op.getX()).getNumElements(), bytesOf(op)));
    return success();
  }
};

struct MeanGradLowering : LoweringPattern<MeanGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(MeanGradOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getDy());
    KernelBuilder k(rewriter, options, op, "mean_grad");
    Value dy = k.read(op.getDy()), dx = k.write(op.getType(), View::Rows);
    Value share =
        k.splat(k.div(k.loadScalar(dy, {}), k.intToFloat(k.tokens(), element)));
    forPositions(k, element, ValueRange(),
                 [&](Value i, Value mask, ValueRange) {
                   k.store(share, dx, {i}, mask);
                   return SmallVector<Value>();
                 });
    rewriter.replaceOp(op, k.finish(Grid{}, 0, bytesOf(op)));
    return success();
  }
};

struct LossSumLowering : LoweringPattern<LossSumOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(LossSumOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getNll()), i64 = rewriter.getI64Type();
    KernelBuilder k(rewriter, options, op, "loss_sum");
    Value nll = k.read(op.getNll(), View::Rows),
          targets = k.read(op.getTargets(), View::Rows);
    Value sum = k.write(op.getSum().getType()),
          count = k.write(op.getCount().getType());
    k.storeScalar(k.toFloat(sumPositions(k, nll, element), element), sum, {});
    Value zero = arith::ConstantOp::create(k.b, k.b.getI64IntegerAttr(0));
    Value counted = k.loop(
        k.index(0), k.tokens(), 1, zero,
        [&](Value t, ValueRange carried) -> SmallVector<Value> {
          Value counts = targetOf(k, targets, t).second;
          return {arith::AddIOp::create(
              k.b, carried[0], arith::ExtUIOp::create(k.b, i64, counts))};
        })[0];
    k.storeScalar(counted, count, {});
    rewriter.replaceOp(
        op,
        k.finish(Grid{}, tensorOf(op.getNll()).getNumElements(), bytesOf(op)));
    return success();
  }
};

} // namespace

void populateLossLowering(RewritePatternSet &patterns,
                          const LoweringOptions &options) {
  patterns.add<CrossEntropyLowering, CrossEntropyGradLowering, MeanLowering,
               MeanGradLowering, LossSumLowering>(patterns.getContext(),
                                                  options);
}

} // namespace mlir::megalodon
