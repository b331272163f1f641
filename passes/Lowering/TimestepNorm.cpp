// Lowers megalodon.timestep_norm and its gradient, each to three kernels:
// statistics of every token and group, a scan over time in f64, and applying
// the running statistics. Only the scan is sequential in time; it touches
// [tokens, G] numbers.
#include "passes/Lowering/TimestepNorm.h"
#include "passes/Lowering/Gpu/GpuTimestepNorm.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

constexpr int64_t kTokens = TimestepShape::kTokens;

/// Visits the tokens of this workgroup.
void forTokens(KernelBuilder &k, function_ref<void(Value token)> body) {
  Value first = k.mul(k.workgroup(), k.index(kTokens));
  k.loop(first, k.min(k.add(first, k.index(kTokens)), k.tokens()), 1, body);
}

void forGroups(KernelBuilder &k, const TimestepShape &shape,
               function_ref<void(Value group, Value firstChannel)> body) {
  k.loop(k.index(0), k.index(shape.groups), 1, [&](Value group) {
    body(group, k.mul(group, k.index(shape.groupSize)));
  });
}

//===-- Forward
//---------------------------------------------------------------------------------------------------------------===//

/// Mean and population variance of every token's groups, two passes over the
/// entries, in f64. Returns (mean, variance), both [B, L, G].
SmallVector<Value> buildStatistics(PatternRewriter &rewriter,
                                   const LoweringOptions &options,
                                   TimestepNormOp op,
                                   const TimestepShape &shape) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_statistics");
  Value x = k.read(op.getX(), View::Rows),
        mean = k.write(shape.wideStatistics, View::Rows),
        variance = k.write(shape.wideStatistics, View::Rows);
  auto wide = VectorType::get(k.lanes(shape.element), shape.f64);
  Value scale = k.constant(1.0 / shape.groupSize, shape.f64),
        zero = k.constant(0, wide);
  forTokens(k, [&](Value token) {
    forGroups(k, shape, [&](Value group, Value channel) {
      auto entries = [&](Value at, Value mask) {
        return k.toFloat(k.load(x, {token, k.add(channel, at)}, mask),
                         shape.f64);
      };
      Value sum = k.forLanes(
          shape.groupSize, shape.element, zero,
          [&](Value at, Value mask, ValueRange carried) -> SmallVector<Value> {
            return {k.add(carried[0], entries(at, mask))};
          })[0];
      Value average = k.mul(k.sum(sum), scale),
            averages = vector::BroadcastOp::create(k.b, wide, average);
      Value squares = k.forLanes(
          shape.groupSize, shape.element, zero,
          [&](Value at, Value mask, ValueRange carried) -> SmallVector<Value> {
            Value difference = k.sub(entries(at, mask), averages);
            if (mask)
              difference = k.select(mask, difference, zero);
            return {k.fma(difference, difference, carried[0])};
          })[0];
      k.storeScalar(average, mean, {token, group});
      k.storeScalar(k.mul(k.sum(squares), scale), variance, {token, group});
    });
  });
  return k.finish(shape.tokenGrid(),
                  /*flops=*/4.0 * shape.tokens() * shape.channels,
                  shape.bytes(1, 2));
}

/// y = (x - mean') rstd' (1 + weight) + bias.
Value buildApply(PatternRewriter &rewriter, const LoweringOptions &options,
                 TimestepNormOp op, const TimestepShape &shape, Value meanInF64,
                 Value rstd) {
  KernelBuilder k(rewriter, options, op, "timestep_norm");
  Value x = k.read(op.getX(), View::Rows), weight = k.read(op.getWeight()),
        bias = k.read(op.getBias());
  Value means = k.read(meanInF64, View::Rows), rstds = k.read(rstd, View::Rows),
        y = k.write(op.getResult().getType(), View::Rows);
  Value one = k.constant(1, k.vectorType(shape.element));
  forTokens(k, [&](Value token) {
    forGroups(k, shape, [&](Value group, Value channel) {
      // A mean far from 0 keeps its f64 accuracy as the sum of two numbers of
      // the compute type: x - high is exact near the mean.
      Value mean = k.loadScalar(means, {token, group}),
            high = k.toFloat(mean, shape.element);
      Value low =
          k.toFloat(k.sub(mean, k.toFloat(high, shape.f64)), shape.element);
      Value highs = k.splat(high), lows = k.splat(low),
            scale = k.splat(k.loadScalar(rstds, {token, group}));
      k.forLanes(shape.groupSize, shape.element, [&](Value at, Value mask) {
        Value c = k.add(channel, at);
        Value centered = k.sub(k.load(x, {token, c}, mask), highs);
        if (shape.element != shape.f64)
          centered = k.sub(centered, lows);
        Value gain = k.add(one, k.load(weight, {c}, mask));
        k.store(k.fma(k.mul(centered, scale), gain, k.load(bias, {c}, mask)), y,
                {token, c}, mask);
      });
    });
  });
  return k.finish(shape.tokenGrid(),
                  /*flops=*/5.0 * shape.tokens() * shape.channels,
                  shape.bytes(2, 2))[0];
}

struct TimestepNormLowering : OpRewritePattern<TimestepNormOp> {
  TimestepNormLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(TimestepNormOp op,
                                PatternRewriter &rewriter) const override {
    TimestepShape shape(cast<RankedTensorType>(op.getX().getType()),
                        cast<RankedTensorType>(op.getRunningMean().getType()));
    const bool warps = suitsWarps(options, shape);
    SmallVector<Value> statistics =
        warps ? buildGpuStatistics(rewriter, options, op, shape)
              : buildStatistics(rewriter, options, op, shape);
    SmallVector<Value> scan = buildTimestepScan(rewriter, options, op, shape,
                                                statistics[0], statistics[1]);
    // The running mean in f64, and rstd.
    Value y =
        warps ? buildGpuApply(rewriter, options, op, shape, scan[0], scan[5])
              : buildApply(rewriter, options, op, shape, scan[0], scan[5]);
    rewriter.replaceOp(op, {y, scan[3], scan[1], scan[2], scan[4], scan[5]});
    return success();
  }

  const LoweringOptions &options;
};

//===-- Backward
//--------------------------------------------------------------------------------------------------------------===//

/// For every token and group, with u = dy (1 + weight) and d = x - mean': sum
/// u, sum u d and mean d (which is m - mean'); and this workgroup's share of
/// dweight and dbias. Returns (sum u, sum u d, mean d) in f64, then the partial
/// rows of dweight and dbias.
SmallVector<Value> buildGradStatistics(PatternRewriter &rewriter,
                                       const LoweringOptions &options,
                                       TimestepNormGradOp op,
                                       const TimestepShape &shape) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad_statistics");
  Value dy = k.read(op.getDy(), View::Rows), x = k.read(op.getX(), View::Rows),
        weight = k.read(op.getWeight());
  Value means = k.read(op.getRunningMean(), View::Rows),
        rstds = k.read(op.getRunningRstd(), View::Rows);
  Value sumU = k.write(shape.wideStatistics, View::Rows),
        sumUD = k.write(shape.wideStatistics, View::Rows),
        meanD = k.write(shape.wideStatistics, View::Rows);
  auto partialType = RankedTensorType::get(
      {llvm::divideCeilSigned(shape.batch * shape.length, kTokens),
       shape.channels},
      shape.element);
  Value dweight = k.write(partialType), dbias = k.write(partialType);
  VectorType vector = k.vectorType(shape.element);
  Value zero = k.constant(0, vector),
        scale = k.constant(1.0 / shape.groupSize, shape.f64);
  k.forLanes(shape.channels, shape.element, [&](Value c, Value mask) {
    k.store(zero, dweight, {k.workgroup(), c}, mask);
    k.store(zero, dbias, {k.workgroup(), c}, mask);
  });
  forTokens(k, [&](Value token) {
    forGroups(k, shape, [&](Value group, Value channel) {
      Value mean = k.splat(k.loadScalar(means, {token, group})),
            rstd = k.splat(k.loadScalar(rstds, {token, group}));
      SmallVector<Value> sums = {zero, zero, zero};
      sums = k.forLanes(
          shape.groupSize, shape.element, sums,
          [&](Value at, Value mask, ValueRange carried) -> SmallVector<Value> {
            Value c = k.add(channel, at),
                  cotangent = k.load(dy, {token, c}, mask);
            Value u = k.fma(cotangent, k.load(weight, {c}, mask), cotangent),
                  d = k.sub(k.load(x, {token, c}, mask), mean);
            if (mask)
              d = k.select(mask, d, zero);
            k.store(k.fma(k.mul(d, rstd), cotangent,
                          k.load(dweight, {k.workgroup(), c}, mask)),
                    dweight, {k.workgroup(), c}, mask);
            k.store(k.add(cotangent, k.load(dbias, {k.workgroup(), c}, mask)),
                    dbias, {k.workgroup(), c}, mask);
            return {k.add(carried[0], u), k.fma(u, d, carried[1]),
                    k.add(carried[2], d)};
          });
      k.storeScalar(k.toFloat(k.sum(sums[0]), shape.f64), sumU, {token, group});
      k.storeScalar(k.toFloat(k.sum(sums[1]), shape.f64), sumUD,
                    {token, group});
      k.storeScalar(k.mul(k.toFloat(k.sum(sums[2]), shape.f64), scale), meanD,
                    {token, group});
    });
  });
  return k.finish(shape.tokenGrid(),
                  /*flops=*/10.0 * shape.tokens() * shape.channels,
                  shape.bytes(2, 4));
}

/// dx = dy (1 + weight) rstd' + meanTerm + varTerm (x - mean').
Value buildGradApply(PatternRewriter &rewriter, const LoweringOptions &options,
                     TimestepNormGradOp op, const TimestepShape &shape,
                     Value meanTerm, Value varTerm) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad");
  Value dy = k.read(op.getDy(), View::Rows), x = k.read(op.getX(), View::Rows),
        weight = k.read(op.getWeight());
  Value means = k.read(op.getRunningMean(), View::Rows),
        rstds = k.read(op.getRunningRstd(), View::Rows);
  Value meanTerms = k.read(meanTerm, View::Rows),
        varTerms = k.read(varTerm, View::Rows),
        dx = k.write(op.getDx().getType(), View::Rows);
  Value one = k.constant(1, k.vectorType(shape.element));
  forTokens(k, [&](Value token) {
    forGroups(k, shape, [&](Value group, Value channel) {
      auto ofGroup = [&](Value memref) {
        return k.splat(
            k.toFloat(k.loadScalar(memref, {token, group}), shape.element));
      };
      Value mean = ofGroup(means), rstd = ofGroup(rstds),
            offset = ofGroup(meanTerms), slope = ofGroup(varTerms);
      k.forLanes(shape.groupSize, shape.element, [&](Value at, Value mask) {
        Value c = k.add(channel, at),
              gain = k.mul(rstd, k.add(one, k.load(weight, {c}, mask)));
        Value path =
            k.fma(slope, k.sub(k.load(x, {token, c}, mask), mean), offset);
        k.store(k.fma(k.load(dy, {token, c}, mask), gain, path), dx, {token, c},
                mask);
      });
    });
  });
  return k.finish(shape.tokenGrid(),
                  /*flops=*/7.0 * shape.tokens() * shape.channels,
                  shape.bytes(3, 3))[0];
}

struct TimestepNormGradLowering : OpRewritePattern<TimestepNormGradOp> {
  TimestepNormGradLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(TimestepNormGradOp op,
                                PatternRewriter &rewriter) const override {
    TimestepShape shape(cast<RankedTensorType>(op.getX().getType()),
                        cast<RankedTensorType>(op.getRunningMean().getType()));
    const bool warps = suitsWarps(options, shape);
    SmallVector<Value> statistics =
        warps ? buildGpuGradStatistics(rewriter, options, op, shape)
              : buildGradStatistics(rewriter, options, op, shape);
    SmallVector<Value> scan =
        buildTimestepGradScan(rewriter, options, op, shape, statistics[0],
                              statistics[1], statistics[2]);
    Value dx =
        warps
            ? buildGpuGradApply(rewriter, options, op, shape, scan[0], scan[1])
            : buildGradApply(rewriter, options, op, shape, scan[0], scan[1]);
    auto sum = [&](Value partial, Type type) {
      return reducePartialRows(rewriter, options, op, partial, type,
                               shape.tokenGrid());
    };
    Value dweight = sum(statistics[3], op.getDweight().getType()),
          dbias = sum(statistics[4], op.getDbias().getType());
    rewriter.replaceOp(op, {dx, dweight, dbias, scan[2], scan[3]});
    return success();
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateTimestepNormLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<TimestepNormLowering, TimestepNormGradLowering>(
      patterns.getContext(), options);
}
