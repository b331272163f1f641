// Cross entropy and its gradient, one row of logits after the other, whole or
// one rank's columns; means and sums over positions in f64 by one workgroup.
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
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getLogits()),
            rows = rowsPerWorkgroup(options, width);
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

/// One rank's `width` columns of the vocabulary.
struct VocabularyPart {
  VocabularyPart(KernelBuilder &k, Value rank, int64_t width,
                 int64_t vocabulary)
      : k(k), first(k.mul(k.tensorRank(rank), k.index(width))) {
    Value all = k.index(vocabulary);
    valid = k.min(k.sub(all, k.min(first, all)), k.index(width));
  }
  /// A target's column, and whether it is one of this rank's.
  std::pair<Value, Value> column(Value target) {
    Value local = k.sub(target, first); // wraps around in front of the first
    return {local, k.less(local, valid)};
  }
  Value mask(Type element, Value from) {
    return vector::CreateMaskOp::create(
        k.b, VectorType::get({k.lanes(element)}, k.b.getI1Type()),
        k.sub(valid, from));
  }
  /// Visits the vectors of the columns that are no padding, four accumulators
  /// in turn, and returns those.
  SmallVector<Value>
  accumulate(Type element, Value initial,
             function_ref<Value(Value index, Value mask, Value carried)> body) {
    constexpr int64_t kSets = 4;
    int64_t lanes = k.lanes(element), step = kSets * lanes;
    Value unrolled = k.sub(valid, k.rem(valid, k.index(step)));
    SmallVector<Value> sets(kSets, initial);
    sets = k.loop(k.index(0), unrolled, step, sets,
                  [&](Value i, ValueRange carried) {
                    SmallVector<Value> next;
                    for (int64_t set = 0; set < kSets; ++set)
                      next.push_back(body(k.add(i, k.index(set * lanes)), {},
                                          carried[set]));
                    return next;
                  });
    sets[0] = k.loop(unrolled, valid, lanes, sets[0],
                     [&](Value i, ValueRange carried) -> SmallVector<Value> {
                       return {body(i, mask(element, i), carried[0])};
                     })[0];
    return sets;
  }

  KernelBuilder &k;
  Value first, valid; ///< first column; how many are no padding
};

struct CrossEntropySummaryLowering : LoweringPattern<CrossEntropySummaryOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CrossEntropySummaryOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getLogits());
    auto element = cast<FloatType>(type.getElementType());
    int64_t width = widthOf(op.getLogits()),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "cross_entropy_summary");
    Value logits = k.read(op.getLogits(), View::Rows),
          targets = k.read(op.getTargets(), View::Rows),
          summary = k.write(op.getType(), View::Rows);
    VocabularyPart part(k, op.getRank(), width, op.getVocabulary());
    Value lowest = k.constant(-std::numeric_limits<double>::infinity(),
                              k.vectorType(element)),
          zeros = k.constant(0, k.vectorType(element));
    Value zero = k.index(0), one = k.index(1), empty = k.less(part.valid, one);
    // Finite, so that differences between summaries are numbers.
    Value nothing = arith::ConstantOp::create(
        k.b,
        FloatAttr::get(element, APFloat::getLargest(element.getFloatSemantics(),
                                                    /*Negative=*/true)));
    forTokens(k, rows, [&](Value t) {
      auto row = [&](Value i, Value mask) {
        return fillMasked(k, k.load(logits, {t, i}, mask), mask, lowest);
      };
      SmallVector<Value> sets = part.accumulate(
          element, lowest, [&](Value i, Value mask, Value highest) {
            return k.max(highest, row(i, mask));
          });
      Value maximum = k.maximum(
                k.max(k.max(sets[0], sets[1]), k.max(sets[2], sets[3]))),
            shift = k.splat(maximum);
      sets = part.accumulate(
          element, zeros, [&](Value i, Value mask, Value total) {
            return k.add(total, k.exp(k.sub(row(i, mask), shift)));
          });
      Value total =
          k.sum(k.add(k.add(sets[0], sets[1]), k.add(sets[2], sets[3])));
      k.storeScalar(k.select(empty, nothing, k.add(maximum, k.log(total))),
                    summary, {t, zero});
      auto [column, here] = part.column(targetOf(k, targets, t).first);
      k.when(
          here,
          [&, column = column] {
            k.storeScalar(k.loadScalar(logits, {t, column}), summary, {t, one});
          },
          [&] { k.storeScalar(k.constant(0, element), summary, {t, one}); });
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    4.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct CrossEntropyCombineLowering : LoweringPattern<CrossEntropyCombineOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CrossEntropyCombineOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getSummaries());
    Type element = computeType(type.getElementType());
    int64_t width = type.getDimSize(2), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "cross_entropy_combine");
    Type f64 = k.b.getF64Type();
    Value summaries = k.read(op.getSummaries(), View::Rows),
          targets = k.read(op.getTargets(), View::Rows);
    Value nll = k.write(op.getNll().getType(), View::Rows),
          lse = k.write(op.getLse().getType(), View::Rows);
    Value zero = k.index(0), one = k.index(1), end = k.index(width);
    forTokens(k, rows, [&](Value t) {
      auto part = [&](Value i) {
        return k.toFloat(k.loadScalar(summaries, {t, i}), f64);
      };
      Value highest =
          k.loop(zero, end, 2, part(zero),
                 [&](Value i, ValueRange carried) -> SmallVector<Value> {
                   return {k.max(carried[0], part(i))};
                 })[0];
      Value none = k.constant(0, f64);
      SmallVector<Value> sums = {none, none};
      sums = k.loop(zero, end, 2, sums,
                    [&](Value i, ValueRange carried) -> SmallVector<Value> {
                      return {k.add(carried[0], k.exp(k.sub(part(i), highest))),
                              k.add(carried[1], part(k.add(i, one)))};
                    });
      Value total = k.add(highest, k.log(sums[0])),
            counts = targetOf(k, targets, t).second;
      k.storeScalar(k.toFloat(total, element), lse, {t});
      k.storeScalar(
          k.toFloat(k.select(counts, k.sub(total, sums[1]), none), element),
          nll, {t});
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
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getLogits()),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "cross_entropy_grad");
    Value dnll = k.read(op.getDnll(), View::Rows),
          logits = k.read(op.getLogits(), View::Rows),
          targets = k.read(op.getTargets(), View::Rows);
    Value lse = k.read(op.getLse(), View::Rows),
          dlogits = k.write(op.getType(), View::Rows);
    std::optional<VocabularyPart> part;
    if (op.getRank())
      part.emplace(k, op.getRank(), width, *op.getVocabulary());
    Value none = k.constant(0, k.vectorType(element));
    forTokens(k, rows, [&](Value t) {
      auto [target, counts] = targetOf(k, targets, t);
      k.when(
          counts,
          [&, target = target] {
            Value gradient = k.loadScalar(dnll, {t});
            Value scale = k.splat(gradient),
                  shift = k.splat(k.loadScalar(lse, {t}));
            k.forLanes(width, element, [&](Value i, Value mask) {
              Value share = k.mul(
                  scale, k.exp(k.sub(k.load(logits, {t, i}, mask), shift)));
              if (part)
                share = k.select(part->mask(element, i), share, none);
              k.store(share, dlogits, {t, i}, mask);
            });
            // From the logit again, not from what was stored: a stored share of
            // nearly 1 may have been rounded to 1.
            auto subtract = [&](Value column) {
              Value share = k.exp(k.sub(k.loadScalar(logits, {t, column}),
                                        k.loadScalar(lse, {t})));
              k.storeScalar(k.sub(k.mul(gradient, share), gradient), dlogits,
                            {t, column});
            };
            if (part) {
              auto [column, here] = part->column(target);
              k.when(here, [&, column = column] { subtract(column); });
            } else {
              subtract(target);
            }
          },
          [&] {
            k.forLanes(width, element, [&](Value i, Value mask) {
              k.store(none, dlogits, {t, i}, mask);
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

/// How many positions the calls of `parts` ranks have together.
Value positions(KernelBuilder &k, int64_t parts, Type type) {
  Value own = k.intToFloat(k.tokens(), type);
  return parts == 1 ? own : k.mul(own, k.constant(double(parts), type));
}

struct MeanLowering : LoweringPattern<MeanOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(MeanOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getX());
    KernelBuilder k(rewriter, options, op, "mean");
    Value x = k.read(op.getX(), View::Rows), y = k.write(op.getType());
    Value mean = k.div(sumPositions(k, x, element),
                       positions(k, op.getParts(), k.b.getF64Type()));
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
    Value share = k.splat(
        k.div(k.loadScalar(dy, {}), positions(k, op.getParts(), element)));
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
  patterns.add<CrossEntropyLowering, CrossEntropySummaryLowering,
               CrossEntropyCombineLowering, CrossEntropyGradLowering,
               MeanLowering, MeanGradLowering, LossSumLowering>(
      patterns.getContext(), options);
}

} // namespace mlir::megalodon
