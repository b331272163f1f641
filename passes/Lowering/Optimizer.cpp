// Global norm, clip and AdamW. Every tensor is treated as one flat array.
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

/// What global_norm and sum_of_squares share. Each workgroup of each gradient
/// leaves its sum of squares in a slot of one shared buffer; one workgroup then
/// adds the slots in order. The kernels know a tensor's size, but its place
/// among the slots and their number are immediates: layers of equal shapes
/// share kernels.
template <typename OpType> struct SquaresLowering : LoweringPattern<OpType> {
  using LoweringPattern<OpType>::LoweringPattern;
  using LoweringPattern<OpType>::options;

  LogicalResult matchAndRewrite(OpType op,
                                PatternRewriter &rewriter) const override {
    constexpr bool isNorm = std::is_same_v<OpType, GlobalNormOp>;
    int64_t slots = 0;
    for (Value gradient : op.getGradients())
      slots += flatWorkgroups(tensorOf(gradient).getNumElements());
    Value partial = plan::UndefinedOp::create(
        rewriter, op.getLoc(),
        RankedTensorType::get({slots}, rewriter.getF64Type()));
    int64_t slot = 0;
    for (Value gradient : op.getGradients()) {
      partial = sumOfSquares(rewriter, op, gradient, partial, slot);
      // The optimizer's half of a training step begins at its first dispatch.
      if (slot == 0 && op->hasAttr(plan::kUpdateAttr))
        partial.getDefiningOp()->setAttr(plan::kUpdateAttr,
                                         rewriter.getUnitAttr());
      slot += flatWorkgroups(tensorOf(gradient).getNumElements());
    }

    KernelBuilder k(rewriter, options, op,
                    isNorm ? "norm_of_sums" : "sum_of_sums");
    Type f64 = k.b.getF64Type();
    Value sums = k.read(partial), result = k.write(op.getType());
    Value total =
        k.loop(k.index(0), k.immediate(slots), 1, k.constant(0, f64),
               [&](Value i, ValueRange carried) -> SmallVector<Value> {
                 return {k.add(carried[0], k.loadScalar(sums, {i}))};
               })[0];
    k.storeScalar(k.toFloat(isNorm ? k.sqrt(total) : total,
                            op.getType().getElementType()),
                  result, {});
    rewriter.replaceOp(op, k.finish(Grid{}, slots, 8.0 * slots));
    return success();
  }

  Value sumOfSquares(PatternRewriter &rewriter, OpType op, Value gradient,
                     Value partial, int64_t slot) const {
    Type element = elementOf(gradient);
    int64_t elements = tensorOf(gradient).getNumElements();
    KernelBuilder k(rewriter, options, op, "sum_of_squares");
    Type f64 = k.b.getF64Type();
    Value x = k.read(gradient, View::Flat), sums = k.update(partial);
    Value offset = k.immediate(slot);
    Value zero = k.constant(0, VectorType::get({k.lanes(element)}, f64));
    Value total = forElements(
        k, elements, element, zero,
        [&](Value i, Value mask, ValueRange carried) -> SmallVector<Value> {
          Value wide = k.toFloat(k.load(x, {i}, mask), f64);
          return {k.fma(wide, wide, carried[0])};
        })[0];
    k.storeScalar(k.sum(total), sums, {k.add(offset, k.workgroup())});
    return k
        .finish(flatGrid(elements), 2.0 * elements, bytesOf(gradient.getType()))
        .front();
  }
};

struct NormOfSquaresLowering : LoweringPattern<NormOfSquaresOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(NormOfSquaresOp op,
                                PatternRewriter &rewriter) const override {
    KernelBuilder k(rewriter, options, op, "norm_of_squares");
    Value total;
    for (Value sum : op.getSums()) {
      Value term = k.loadScalar(k.read(sum), {});
      total = total ? k.add(total, term) : term;
    }
    Value norm = k.write(op.getType());
    k.storeScalar(k.toFloat(k.sqrt(total), op.getType().getElementType()), norm,
                  {});
    rewriter.replaceOp(op, k.finish(Grid{}, op.getSums().size(), bytesOf(op)));
    return success();
  }
};

struct ClipLowering : LoweringPattern<ClipOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(ClipOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getNorm());
    double maxNorm = op.getMaxNorm().convertToDouble();
    KernelBuilder k(rewriter, options, op, "clip");
    Value norm = k.read(op.getNorm()), coefficient = k.write(op.getType());
    Value one = k.constant(1, element), factor = one;
    if (maxNorm > 0) {
      Value ratio =
          k.div(k.constant(maxNorm, element),
                k.add(k.loadScalar(norm, {}), k.constant(1e-6, element)));
      Value above =
          arith::CmpFOp::create(k.b, arith::CmpFPredicate::OGE, ratio, one);
      // A NaN norm stays visible: it is not above, so it reaches the weights'
      // check.
      factor = k.select(above, one, ratio);
    }
    k.storeScalar(factor, coefficient, {});
    rewriter.replaceOp(op, k.finish(Grid{}, 2, bytesOf(op)));
    return success();
  }
};

struct AdamWLowering : LoweringPattern<AdamWOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(AdamWOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getParameter());
    Type element = type.getElementType();
    int64_t elements = type.getNumElements();
    double beta1 = op.getBeta1().convertToDouble(),
           beta2 = op.getBeta2().convertToDouble();
    KernelBuilder k(rewriter, options, op, "adamw");
    Type f64 = k.b.getF64Type();
    Value gradient = k.read(op.getGradient(), View::Flat);
    Value step = k.read(op.getStep()), rate = k.read(op.getLr()),
          clip = k.read(op.getClip());
    Value parameter = k.update(op.getParameter(), View::Flat);
    Value firstMoment = k.update(op.getFirstMoment(), View::Flat),
          secondMoment = k.update(op.getSecondMoment(), View::Flat);

    // Once a workgroup, in f64: decay = 1 - lr wd; size = lr / (1 -
    // beta1^step); root = 1 / sqrt(1 - beta2^step).
    Value steps = k.intToFloat(k.loadScalar(step, {}), f64),
          lr = k.toFloat(k.loadScalar(rate, {}), f64), one = k.constant(1, f64);
    auto correction = [&](double beta) {
      return beta == 0
                 ? one
                 : k.sub(one,
                         k.exp(k.mul(steps, k.constant(std::log(beta), f64))));
    };
    auto vector = [&](Value scalar) {
      return k.splat(k.toFloat(scalar, element));
    };
    Value decay = vector(k.sub(
        one,
        k.mul(lr, k.constant(op.getWeightDecay().convertToDouble(), f64))));
    Value size =
        vector(k.sub(k.constant(0, f64), k.div(lr, correction(beta1))));
    Value root = vector(k.div(one, k.sqrt(correction(beta2))));
    Value clipping = k.splat(k.loadScalar(clip, {}));
    VectorType vectorType = k.vectorType(element);
    Value keepFirst = k.constant(beta1, vectorType),
          takeFirst = k.constant(1 - beta1, vectorType);
    Value keepSecond = k.constant(beta2, vectorType),
          takeSecond = k.constant(1 - beta2, vectorType);
    Value epsilon = k.constant(op.getEpsilon().convertToDouble(), vectorType);
    forElements(k, elements, element, [&](Value i, Value mask) {
      Value g = k.mul(k.load(gradient, {i}, mask), clipping);
      Value m =
          k.fma(k.load(firstMoment, {i}, mask), keepFirst, k.mul(g, takeFirst));
      Value v = k.fma(k.load(secondMoment, {i}, mask), keepSecond,
                      k.mul(k.mul(g, g), takeSecond));
      k.store(m, firstMoment, {i}, mask);
      k.store(v, secondMoment, {i}, mask);
      Value update = k.div(k.mul(m, size), k.fma(k.sqrt(v), root, epsilon));
      k.store(k.fma(k.load(parameter, {i}, mask), decay, update), parameter,
              {i}, mask);
    });
    rewriter.replaceOp(
        op, k.finish(flatGrid(elements), 14.0 * elements, 7 * bytesOf(type)));
    return success();
  }
};

} // namespace

void populateOptimizerLowering(RewritePatternSet &patterns,
                               const LoweringOptions &options) {
  patterns.add<SquaresLowering<GlobalNormOp>, SquaresLowering<SumOfSquaresOp>,
               NormOfSquaresLowering, ClipLowering, AdamWLowering>(
      patterns.getContext(), options);
}

} // namespace mlir::megalodon
