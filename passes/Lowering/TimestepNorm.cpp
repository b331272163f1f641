// Lowers megalodon.timestep_norm and its gradient, each to three kernels:
// statistics of every token and group, a scan over time in f64, and applying
// the running statistics. Only the scan is sequential in time; it touches
// [tokens, G] numbers.
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/Lowerings.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens of one workgroup of the parallel kernels.
constexpr int64_t kTokens = 32;

/// Sizes of one op and what its kernels share.
struct Shape {
  explicit Shape(RankedTensorType x, RankedTensorType running)
      : batch(x.getDimSize(0)), length(x.getDimSize(1)),
        channels(x.getDimSize(2)), groups(running.getDimSize(2)),
        groupSize(channels / groups), element(x.getElementType()),
        f64(Float64Type::get(x.getContext())),
        wideStatistics(RankedTensorType::get({batch, length, groups}, f64)) {}

  double tokens() const { return double(batch) * length; }
  double elementBytes() const { return element.getIntOrFloatBitWidth() / 8; }
  /// Bytes of `activations` tensors [B, L, D] and `statistics` tensors [B, L,
  /// G] in f64.
  double bytes(double activations, double statistics) const {
    return tokens() *
           (activations * channels * elementBytes() + statistics * groups * 8);
  }
  Grid tokenGrid() const {
    return {.inner = plan::Inner::Tokens, .divisor = kTokens};
  }
  /// The scans run one vector of groups of one batch row a workgroup.
  Grid scanGrid(const KernelBuilder &k) const {
    return {.factor = llvm::divideCeilSigned(groups, k.lanes(f64)),
            .outer = plan::Outer::Batch};
  }

  int64_t batch, length, channels, groups, groupSize;
  Type element, f64;
  RankedTensorType wideStatistics;
};

/// Visits the tokens of this workgroup.
void forTokens(KernelBuilder &k, function_ref<void(Value token)> body) {
  Value first = k.mul(k.workgroup(), k.index(kTokens));
  k.loop(first, k.min(k.add(first, k.index(kTokens)), k.tokens()), 1, body);
}

void forGroups(KernelBuilder &k, const Shape &shape,
               function_ref<void(Value group, Value firstChannel)> body) {
  k.loop(k.index(0), k.index(shape.groups), 1, [&](Value group) {
    body(group, k.mul(group, k.index(shape.groupSize)));
  });
}

Value splat(KernelBuilder &k, Value scalar, VectorType type) {
  return vector::BroadcastOp::create(k.b, type, scalar);
}

//===-- Forward
//---------------------------------------------------------------------------------------------------------------===//

/// Mean and population variance of every token's groups, two passes over the
/// entries, in f64. Returns (mean, variance), both [B, L, G].
SmallVector<Value> buildStatistics(PatternRewriter &rewriter,
                                   const LoweringOptions &options,
                                   TimestepNormOp op, const Shape &shape) {
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
            averages = splat(k, average, wide);
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

/// One vector of groups of one batch row.
struct ScanTile {
  ScanTile(KernelBuilder &k, const Shape &shape)
      : k(k), shape(shape), width(k.lanes(shape.f64)),
        wide(k.vectorType(shape.f64)) {
    Value parts = k.index(llvm::divideCeilSigned(shape.groups, width));
    row = k.div(k.workgroup(), parts);
    part = k.rem(k.workgroup(), parts);
    group = k.mul(part, k.index(width));
    if (shape.groups % width)
      mask = vector::CreateMaskOp::create(
          k.b, VectorType::get(width, k.b.getI1Type()),
          ValueRange{k.sub(k.index(shape.groups), group)});
    firstToken = k.mul(row, k.length());
  }
  Value load(Value memref, Value at) {
    auto type = VectorType::get(
        width, cast<MemRefType>(memref.getType()).getElementType());
    if (!mask)
      return k.toFloat(
          vector::LoadOp::create(k.b, type, memref, ValueRange{at, group}),
          shape.f64);
    return k.toFloat(vector::MaskedLoadOp::create(k.b, type, memref,
                                                  ValueRange{at, group}, mask,
                                                  k.constant(0, type)),
                     shape.f64);
  }
  void store(Value value, Value memref, Value at) {
    k.store(
        k.toFloat(value, cast<MemRefType>(memref.getType()).getElementType()),
        memref, {at, group}, mask);
  }
  /// n = tokens before token `t` of the call, and c1 = n/(n+1), c2 = 1/(n+1):
  /// exact up to 2^53 tokens.
  struct Weights {
    Value c1, c2;
  };
  Weights weights(Value count, Value t) {
    Value before = k.add(count, k.intToFloat(t, shape.f64));
    Value c2 = k.div(k.constant(1, shape.f64),
                     k.add(before, k.constant(1, shape.f64)));
    return {splat(k, k.mul(before, c2), wide), splat(k, c2, wide)};
  }
  Value countOfRow(Value count) {
    return k.intToFloat(k.loadScalar(count, {row}), shape.f64);
  }

  KernelBuilder &k;
  const Shape &shape;
  int64_t width;
  VectorType wide;
  Value row, part, group, mask, firstToken;
};

/// Running statistics of every token. Returns (running mean in f64, new_mean,
/// new_var, new_count, running_mean, running_rstd).
SmallVector<Value> buildScan(PatternRewriter &rewriter,
                             const LoweringOptions &options, TimestepNormOp op,
                             const Shape &shape, Value tokenMean,
                             Value tokenVariance) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_scan");
  Value count = k.read(op.getCount()),
        variances = k.read(tokenVariance, View::Rows);
  // A token's mean becomes the running mean in place; so do the carried
  // statistics, of which every workgroup has its own.
  Value means = k.update(tokenMean, View::Rows), mean = k.update(op.getMean()),
        variance = k.update(op.getVar());
  Value newCount = k.write(op.getNewCount().getType());
  Value runningMean = k.write(op.getRunningMean().getType(), View::Rows),
        runningRstd = k.write(op.getRunningRstd().getType(), View::Rows);
  ScanTile tile(k, shape);
  Value seen = tile.countOfRow(count), one = k.constant(1, tile.wide),
        eps = k.constant(op.getEps().convertToDouble(), tile.wide);
  SmallVector<Value> state = {tile.load(mean, tile.row),
                              tile.load(variance, tile.row)};
  state =
      k.loop(k.index(0), k.length(), 1, state,
             [&](Value t, ValueRange carried) -> SmallVector<Value> {
               Value token = k.add(tile.firstToken, t);
               auto [c1, c2] = tile.weights(seen, t);
               Value difference = k.sub(tile.load(means, token), carried[0]);
               Value nextMean = k.fma(difference, c2, carried[0]);
               // s/n' + (n/n'^2) d^2 does not wait for the previous variance.
               Value fresh = k.mul(c2, k.fma(k.mul(c1, difference), difference,
                                             tile.load(variances, token)));
               Value nextVariance = k.fma(c1, carried[1], fresh);
               tile.store(nextMean, means, token);
               tile.store(nextMean, runningMean, token);
               tile.store(k.div(one, k.sqrt(k.add(nextVariance, eps))),
                          runningRstd, token);
               return {nextMean, nextVariance};
             });
  tile.store(state[0], mean, tile.row);
  tile.store(state[1], variance, tile.row);
  k.when(k.less(tile.part, k.index(1)), [&] {
    Value before = arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                              k.loadScalar(count, {tile.row}));
    k.storeScalar(arith::IndexCastOp::create(k.b, k.b.getI64Type(),
                                             k.add(before, k.length())),
                  newCount, {tile.row});
  });
  return k.finish(shape.scanGrid(k),
                  /*flops=*/14.0 * shape.tokens() * shape.groups,
                  shape.bytes(0, 5));
}

/// y = (x - mean') rstd' (1 + weight) + bias.
Value buildApply(PatternRewriter &rewriter, const LoweringOptions &options,
                 TimestepNormOp op, const Shape &shape, Value meanInF64,
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
    Shape shape(cast<RankedTensorType>(op.getX().getType()),
                cast<RankedTensorType>(op.getRunningMean().getType()));
    SmallVector<Value> statistics =
        buildStatistics(rewriter, options, op, shape);
    SmallVector<Value> scan =
        buildScan(rewriter, options, op, shape, statistics[0], statistics[1]);
    Value y = buildApply(rewriter, options, op, shape, /*meanInF64=*/scan[0],
                         /*rstd=*/scan[5]);
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
                                       const Shape &shape) {
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

/// Reverse scan. With s the group size, returns c2 du / s and 2 c2 dv / s of
/// every token (in place of the sums), dmean and dvar.
SmallVector<Value> buildGradScan(PatternRewriter &rewriter,
                                 const LoweringOptions &options,
                                 TimestepNormGradOp op, const Shape &shape,
                                 Value sumU, Value sumUD, Value meanD) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad_scan");
  Value count = k.read(op.getCount()),
        rstds = k.read(op.getRunningRstd(), View::Rows),
        differences = k.read(meanD, View::Rows);
  Value dnewMean, dnewVar;
  if (op.getDnewMean()) {
    dnewMean = k.read(op.getDnewMean());
    dnewVar = k.read(op.getDnewVar());
  }
  Value meanTerm = k.update(sumU, View::Rows),
        varTerm = k.update(sumUD, View::Rows);
  Value dmean = k.write(op.getDmean().getType()),
        dvar = k.write(op.getDvar().getType());
  ScanTile tile(k, shape);
  Value seen = tile.countOfRow(count), zero = k.constant(0, tile.wide),
        last = k.sub(k.length(), k.index(1));
  Value share = k.constant(1.0 / shape.groupSize, tile.wide),
        minusHalf = k.constant(-0.5, tile.wide),
        minusTwo = k.constant(-2, tile.wide);
  Value twoShares = k.constant(2.0 / shape.groupSize, tile.wide);
  SmallVector<Value> carried = {dnewMean ? tile.load(dnewMean, tile.row) : zero,
                                dnewVar ? tile.load(dnewVar, tile.row) : zero};
  carried = k.loop(
      k.index(0), k.length(), 1, carried,
      [&](Value i, ValueRange values) -> SmallVector<Value> {
        Value t = k.sub(last, i), token = k.add(tile.firstToken, t);
        auto [c1, c2] = tile.weights(seen, t);
        Value r = tile.load(rstds, token);
        Value du = k.sub(values[0], k.mul(r, tile.load(meanTerm, token)));
        Value dv = k.fma(k.mul(minusHalf, k.mul(r, k.mul(r, r))),
                         tile.load(varTerm, token), values[1]);
        Value c2dv = k.mul(c2, dv);
        tile.store(k.mul(k.mul(c2, share), du), meanTerm, token);
        tile.store(k.mul(twoShares, c2dv), varTerm, token);
        // c1 (m - mean) = m - mean'. At n = 0 it is 0, which the rounding of
        // mean' must not hide.
        Value seenAny =
            arith::CmpFOp::create(k.b, arith::CmpFPredicate::OGT, c1, zero);
        Value difference =
            k.select(seenAny, tile.load(differences, token), zero);
        return {k.fma(c1, du, k.mul(k.mul(minusTwo, c2dv), difference)),
                k.mul(c1, dv)};
      });
  tile.store(carried[0], dmean, tile.row);
  tile.store(carried[1], dvar, tile.row);
  return k.finish(shape.scanGrid(k),
                  /*flops=*/18.0 * shape.tokens() * shape.groups,
                  shape.bytes(0, 6));
}

/// dx = dy (1 + weight) rstd' + meanTerm + varTerm (x - mean').
Value buildGradApply(PatternRewriter &rewriter, const LoweringOptions &options,
                     TimestepNormGradOp op, const Shape &shape, Value meanTerm,
                     Value varTerm) {
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
    Shape shape(cast<RankedTensorType>(op.getX().getType()),
                cast<RankedTensorType>(op.getRunningMean().getType()));
    SmallVector<Value> statistics =
        buildGradStatistics(rewriter, options, op, shape);
    SmallVector<Value> scan =
        buildGradScan(rewriter, options, op, shape, statistics[0],
                      statistics[1], statistics[2]);
    Value dx = buildGradApply(rewriter, options, op, shape, scan[0], scan[1]);
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
