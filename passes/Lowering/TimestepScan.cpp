// The scans over time of the timestep norm, in f64, in two forms: one pass over
// a row, or three kernels that run segments of a row side by side. The latter
// read the statistics twice and give thousands of threads work where a row and
// its groups alone give tens. Where documents are packed a token's position
// says how many tokens count, and a segment speaks of its last document only.
#include "passes/Lowering/PackedDocuments.h"
#include "passes/Lowering/TimestepNorm.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens of a segment of the two-level form.
constexpr int64_t kSegment = 64;

/// One vector of groups of one batch row, or of one segment of it.
struct ScanTile {
  /// `segment` is 0 for whole rows.
  ScanTile(KernelBuilder &k, const TimestepShape &shape, int64_t segment)
      : k(k), f64(shape.f64), width(k.lanes(shape.f64)),
        wide(k.vectorType(shape.f64)), segmentLength(segment),
        parts(llvm::divideCeilSigned(shape.groups, width)) {
    part = k.rem(k.workgroup(), k.index(parts));
    row = k.div(k.workgroup(), k.index(parts));
    first = k.index(0);
    end = k.length();
    if (segmentLength) {
      segments = k.ceilDiv(k.length(), segmentLength);
      segmentIndex = k.rem(row, segments);
      row = k.div(row, segments);
      first = k.mul(segmentIndex, k.index(segmentLength));
      end = k.min(k.add(first, k.index(segmentLength)), end);
    }
    group = k.mul(part, k.index(width));
    if (shape.groups % width)
      mask = vector::CreateMaskOp::create(
          k.b, VectorType::get(width, k.b.getI1Type()),
          ValueRange{k.sub(k.index(shape.groups), group)});
    rowToken = k.mul(row, k.length());
  }
  Grid grid() const {
    Grid result{.factor = parts, .outer = plan::Outer::Batch};
    if (segmentLength) {
      result.inner = plan::Inner::Length;
      result.divisor = segmentLength;
    }
    return result;
  }
  Value load(Value memref, Value at) {
    auto type = VectorType::get(
        width, cast<MemRefType>(memref.getType()).getElementType());
    if (!mask)
      return k.toFloat(
          vector::LoadOp::create(k.b, type, memref, ValueRange{at, group}),
          f64);
    return k.toFloat(vector::MaskedLoadOp::create(k.b, type, memref,
                                                  ValueRange{at, group}, mask,
                                                  k.constant(0, type)),
                     f64);
  }
  void store(Value value, Value memref, Value at) {
    k.store(
        k.toFloat(value, cast<MemRefType>(memref.getType()).getElementType()),
        memref, {at, group}, mask);
  }
  Value splat(Value scalar) {
    return vector::BroadcastOp::create(k.b, wide, scalar);
  }
  Value constant(double value) { return k.constant(value, wide); }
  Value token(Value t) { return k.add(rowToken, t); }
  /// Says what counts the tokens: those before the call, a row, or with packed
  /// documents the position of every token.
  void countBy(Value countsOfRows, Value positionsOfTokens) {
    positions = positionsOfTokens;
    if (!positions)
      seen = k.intToFloat(k.loadScalar(countsOfRows, {row}), f64);
  }
  Value position(Value t) {
    return arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                      k.loadScalar(positions, {token(t)}));
  }
  /// The number of tokens in front of token `t` that count for it; only those
  /// of its segment.
  Value tokensBefore(Value t) {
    return positions ? k.intToFloat(position(t), f64)
                     : k.add(seen, k.intToFloat(t, f64));
  }
  Value tokensOfSegmentBefore(Value t) {
    Value inSegment = k.sub(t, first);
    if (positions)
      inSegment = k.min(inSegment, position(t));
    return k.intToFloat(inSegment, f64);
  }
  /// Of `tokens` tokens from `firstToken` on: how many count for what comes
  /// behind them, and how many in front of those.
  struct Run {
    Value before, tokens;
  };
  Run runOf(Value firstToken, Value tokens) {
    if (!positions)
      return {k.add(seen, k.intToFloat(firstToken, f64)),
              k.intToFloat(tokens, f64)};
    Value end = k.add(firstToken, tokens),
          reach = k.add(position(k.sub(end, k.index(1))), k.index(1)),
          own = k.min(tokens, reach);
    return {k.intToFloat(k.sub(reach, own), f64), k.intToFloat(own, f64)};
  }
  /// `statistics` of `before` tokens. Those of another document must leave no
  /// trace, not even the rounding of a sum from which they are taken off again.
  Value ofTokens(Value before, Value statistics) {
    if (!positions)
      return statistics;
    Value any = arith::CmpFOp::create(k.b, arith::CmpFPredicate::OGT, before,
                                      k.constant(0, f64));
    return k.select(any, statistics, constant(0));
  }
  /// n tokens and one more: c1 = n/(n+1), c2 = 1/(n+1). With l tokens more: c1
  /// = n/(n+l), c2 = l/(n+l). Exact up to 2^53 tokens.
  struct Weights {
    Value c1, c2;
  };
  Weights weights(Value before, Value more) {
    Value reciprocal = k.div(k.constant(1, f64), k.add(before, more));
    return {splat(k.mul(before, reciprocal)), splat(k.mul(more, reciprocal))};
  }
  Weights ofOneMore(Value before) {
    return weights(before, k.constant(1, f64));
  }
  /// Visits the segments of this workgroup's row in order, or from the last to
  /// the first, with their places in the arrays of segments.
  SmallVector<Value>
  forSegments(bool reverse, int64_t length, ValueRange carried,
              function_ref<SmallVector<Value>(Value segment, Value place,
                                              ValueRange carried)>
                  body) {
    Value count = k.ceilDiv(k.length(), length),
          last = k.sub(count, k.index(1));
    return k.loop(k.index(0), count, 1, carried,
                  [&](Value i, ValueRange values) {
                    Value s = reverse ? k.sub(last, i) : i;
                    return body(s, k.add(k.mul(row, count), s), values);
                  });
  }
  /// This workgroup's segment in the arrays of segments.
  Value place() { return k.add(k.mul(row, segments), segmentIndex); }

  KernelBuilder &k;
  Type f64;
  int64_t width;
  VectorType wide;
  int64_t segmentLength, parts;
  Value row, part, group, mask, rowToken, first, end;
  Value segments, segmentIndex;
  Value seen, positions; ///< one of both
};

/// [B * segments, G] in f64.
RankedTensorType segmentsType(const TimestepShape &shape) {
  return RankedTensorType::get(
      {shape.batch * llvm::divideCeilSigned(shape.length, kSegment),
       shape.groups},
      shape.f64);
}

/// The two-level form pays where threads would idle otherwise: on a GPU, as
/// soon as there are a few segments.
bool usesSegments(const LoweringOptions &options, const TimestepShape &shape) {
  if (options.timestepNorm != "auto")
    return options.timestepNorm == "two-level";
  return options.target == Target::Cuda && shape.length >= 4 * kSegment;
}

//===-- Forward
//---------------------------------------------------------------------------------------------------------------===//

/// mean, var and what one more token with mean m and variance s makes of them:
/// s/n' + (n/n'^2) d^2 does not wait for the previous variance.
SmallVector<Value> merge(KernelBuilder &k, const ScanTile::Weights &w,
                         Value mean, Value variance, Value m, Value s) {
  Value d = k.sub(m, mean);
  Value fresh = k.mul(w.c2, k.fma(k.mul(w.c1, d), d, s));
  return {k.fma(d, w.c2, mean), k.fma(w.c1, variance, fresh)};
}

/// Mean and variance of every segment alone.
SmallVector<Value> buildSegments(PatternRewriter &rewriter,
                                 const LoweringOptions &options,
                                 TimestepNormOp op, const TimestepShape &shape,
                                 Value tokenMean, Value tokenVariance) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_segments");
  Value means = k.read(tokenMean, View::Rows),
        variances = k.read(tokenVariance, View::Rows);
  Value positions = readPositions(k, op);
  Value mean = k.write(segmentsType(shape)),
        variance = k.write(segmentsType(shape));
  ScanTile tile(k, shape, kSegment);
  tile.positions = positions;
  Value zero = tile.constant(0);
  SmallVector<Value> state = {zero, zero};
  state = k.loop(
      tile.first, tile.end, 1, state,
      [&](Value t, ValueRange carried) -> SmallVector<Value> {
        Value token = tile.token(t), before = tile.tokensOfSegmentBefore(t);
        return merge(k, tile.ofOneMore(before),
                     tile.ofTokens(before, carried[0]),
                     tile.ofTokens(before, carried[1]), tile.load(means, token),
                     tile.load(variances, token));
      });
  tile.store(state[0], mean, tile.place());
  tile.store(state[1], variance, tile.place());
  return k.finish(tile.grid(), /*flops=*/8.0 * shape.tokens() * shape.groups,
                  shape.bytes(0, 2));
}

void storeNewCount(KernelBuilder &k, ScanTile &tile, Value count,
                   Value newCount) {
  k.when(k.less(tile.part, k.index(1)), [&] {
    Value one = k.index(1), counted;
    if (tile.positions)
      counted = k.add(tile.position(k.sub(k.length(), one)), one);
    else
      counted =
          k.add(arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                           k.loadScalar(count, {tile.row})),
                k.length());
    k.storeScalar(arith::IndexCastOp::create(k.b, k.b.getI64Type(), counted),
                  newCount, {tile.row});
  });
}

/// What stands in front of every segment, in place of its own statistics; and
/// (new_mean, new_var, new_count) behind the last. Returns (mean, variance) of
/// the segments, then those.
SmallVector<Value> buildPrefix(PatternRewriter &rewriter,
                               const LoweringOptions &options,
                               TimestepNormOp op, const TimestepShape &shape,
                               ValueRange ofSegments) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_prefix");
  Value count = k.read(op.getCount()), positions = readPositions(k, op);
  Value means = k.update(ofSegments[0]), variances = k.update(ofSegments[1]),
        mean = k.update(op.getMean()), variance = k.update(op.getVar()),
        newCount = k.write(op.getNewCount().getType());
  ScanTile tile(k, shape, 0);
  tile.countBy(count, positions);
  SmallVector<Value> state = {tile.load(mean, tile.row),
                              tile.load(variance, tile.row)};
  state = tile.forSegments(
      /*reverse=*/false, kSegment, state,
      [&](Value segment, Value place, ValueRange carried) {
        Value first = k.mul(segment, k.index(kSegment));
        Value tokens = k.min(k.index(kSegment), k.sub(k.length(), first));
        Value m = tile.load(means, place), s = tile.load(variances, place);
        tile.store(carried[0], means, place);
        tile.store(carried[1], variances, place);
        ScanTile::Run run = tile.runOf(first, tokens);
        return merge(k, tile.weights(run.before, run.tokens),
                     tile.ofTokens(run.before, carried[0]),
                     tile.ofTokens(run.before, carried[1]), m, s);
      });
  tile.store(state[0], mean, tile.row);
  tile.store(state[1], variance, tile.row);
  storeNewCount(k, tile, count, newCount);
  const double segments = segmentsType(shape).getNumElements();
  return k.finish(tile.grid(), /*flops=*/10.0 * segments, 32.0 * segments);
}

/// Running statistics of the tokens of a row, or of a segment from what stands
/// in front of it. Returns (running mean in f64, running_mean, running_rstd);
/// without segments (new_mean, new_var, new_count) stand behind the first.
SmallVector<Value> buildTokens(PatternRewriter &rewriter,
                               const LoweringOptions &options,
                               TimestepNormOp op, const TimestepShape &shape,
                               Value tokenMean, Value tokenVariance,
                               ValueRange segmentStarts) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_scan");
  const bool whole = segmentStarts.empty();
  Value count = k.read(op.getCount()),
        variances = k.read(tokenVariance, View::Rows),
        positions = readPositions(k, op);
  // A token's mean becomes the running mean in place; so do the carried
  // statistics, of which every workgroup has its own.
  Value means = k.update(tokenMean, View::Rows), mean, variance, newCount;
  if (whole) {
    mean = k.update(op.getMean());
    variance = k.update(op.getVar());
    newCount = k.write(op.getNewCount().getType());
  } else {
    mean = k.read(segmentStarts[0]);
    variance = k.read(segmentStarts[1]);
  }
  Value runningMean = k.write(op.getRunningMean().getType(), View::Rows),
        runningRstd = k.write(op.getRunningRstd().getType(), View::Rows);
  ScanTile tile(k, shape, whole ? 0 : kSegment);
  tile.countBy(count, positions);
  Value one = tile.constant(1),
        eps = tile.constant(op.getEps().convertToDouble());
  Value start = whole ? tile.row : tile.place();
  SmallVector<Value> state = {tile.load(mean, start),
                              tile.load(variance, start)};
  state = k.loop(
      tile.first, tile.end, 1, state,
      [&](Value t, ValueRange carried) -> SmallVector<Value> {
        Value token = tile.token(t), before = tile.tokensBefore(t);
        SmallVector<Value> next =
            merge(k, tile.ofOneMore(before), tile.ofTokens(before, carried[0]),
                  tile.ofTokens(before, carried[1]), tile.load(means, token),
                  tile.load(variances, token));
        tile.store(next[0], means, token);
        tile.store(next[0], runningMean, token);
        tile.store(k.div(one, k.sqrt(k.add(next[1], eps))), runningRstd, token);
        return next;
      });
  if (whole) {
    tile.store(state[0], mean, start);
    tile.store(state[1], variance, start);
    storeNewCount(k, tile, count, newCount);
  }
  return k.finish(tile.grid(), /*flops=*/14.0 * shape.tokens() * shape.groups,
                  shape.bytes(0, 5));
}

//===-- Backward
//--------------------------------------------------------------------------------------------------------------===//

/// The gradient's step over one token, from the cotangents (du, dv) of the
/// statistics behind it, carried from later tokens, to those in front:
///   du -= a, dv += b;   du' = c1 du - 2 c2 d dv,  dv' = c1 dv
/// with a = r sum u, b = -r^3/2 sum u d, d = m - mean.
class GradStep {
public:
  GradStep(KernelBuilder &k, ScanTile &tile, Value rstds, Value differences,
           Value sumU, Value sumUD)
      : k(k), tile(tile), rstds(rstds), differences(differences), sumU(sumU),
        sumUD(sumUD) {}

  /// Goes to token `t` and adds its terms to (du, dv).
  void enter(Value t, Value &du, Value &dv) {
    token = tile.token(t);
    weights = tile.ofOneMore(tile.tokensBefore(t));
    Value r = tile.load(rstds, token);
    du = k.sub(du, k.mul(r, tile.load(sumU, token)));
    dv = k.fma(k.mul(tile.constant(-0.5), k.mul(r, k.mul(r, r))),
               tile.load(sumUD, token), dv);
  }
  /// Carries (du, dv) to the token in front.
  void leave(Value &du, Value &dv) {
    // c1 (m - mean) = m - mean'. At n = 0 it is 0, which the rounding of mean'
    // must not hide.
    Value seenAny = arith::CmpFOp::create(k.b, arith::CmpFPredicate::OGT,
                                          weights.c1, tile.constant(0));
    Value difference =
        k.select(seenAny, tile.load(differences, token), tile.constant(0));
    du = k.fma(
        weights.c1, du,
        k.mul(k.mul(tile.constant(-2), k.mul(weights.c2, dv)), difference));
    dv = k.mul(weights.c1, dv);
  }

  KernelBuilder &k;
  ScanTile &tile;
  Value rstds, differences, sumU, sumUD;
  Value token;
  ScanTile::Weights weights;
};

/// What a segment does with the cotangents behind it is affine: du' = P du + Q
/// dv + x, dv' = P dv + y. Returns P, Q, x, y of every segment.
SmallVector<Value> buildGradSegments(PatternRewriter &rewriter,
                                     const LoweringOptions &options,
                                     TimestepNormGradOp op,
                                     const TimestepShape &shape, Value sumU,
                                     Value sumUD, Value meanD) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad_segments");
  Value count = k.read(op.getCount()),
        rstds = k.read(op.getRunningRstd(), View::Rows),
        differences = k.read(meanD, View::Rows), us = k.read(sumU, View::Rows),
        uds = k.read(sumUD, View::Rows), positions = readPositions(k, op);
  Value out[4];
  for (Value &value : out)
    value = k.write(segmentsType(shape));
  ScanTile tile(k, shape, kSegment);
  tile.countBy(count, positions);
  GradStep step(k, tile, rstds, differences, us, uds);
  Value zero = tile.constant(0),
        last = k.sub(k.add(tile.first, tile.end), k.index(1));
  SmallVector<Value> map = {tile.constant(1), zero, zero, zero};
  map = k.loop(tile.first, tile.end, 1, map,
               [&](Value i, ValueRange carried) -> SmallVector<Value> {
                 // (P, Q) is how du' follows (du, dv); (0, P) how dv' does.
                 Value p = carried[0], q = carried[1], x = carried[2],
                       y = carried[3];
                 step.enter(k.sub(last, i), x, y);
                 Value diagonal = p;
                 step.leave(q, diagonal);
                 step.leave(x, y);
                 return {diagonal, q, x, y};
               });
  for (auto [value, to] : llvm::zip_equal(map, out))
    tile.store(value, to, tile.place());
  return k.finish(tile.grid(), /*flops=*/24.0 * shape.tokens() * shape.groups,
                  shape.bytes(0, 4));
}

/// The cotangents behind every segment, in place of its x and y; and (dmean,
/// dvar) in front of the first. Returns them in this order.
SmallVector<Value> buildGradSuffix(PatternRewriter &rewriter,
                                   const LoweringOptions &options,
                                   TimestepNormGradOp op,
                                   const TimestepShape &shape,
                                   ValueRange maps) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad_suffix");
  Value dnewMean, dnewVar;
  if (op.getDnewMean()) {
    dnewMean = k.read(op.getDnewMean());
    dnewVar = k.read(op.getDnewVar());
  }
  Value p = k.read(maps[0]), q = k.read(maps[1]), x = k.update(maps[2]),
        y = k.update(maps[3]);
  Value dmean = k.write(op.getDmean().getType()),
        dvar = k.write(op.getDvar().getType());
  ScanTile tile(k, shape, 0);
  Value zero = tile.constant(0);
  SmallVector<Value> carried = {dnewMean ? tile.load(dnewMean, tile.row) : zero,
                                dnewVar ? tile.load(dnewVar, tile.row) : zero};
  carried = tile.forSegments(
      /*reverse=*/true, kSegment, carried,
      [&](Value, Value place, ValueRange values) -> SmallVector<Value> {
        Value dx = tile.load(x, place), dy = tile.load(y, place),
              diagonal = tile.load(p, place);
        tile.store(values[0], x, place);
        tile.store(values[1], y, place);
        return {k.fma(diagonal, values[0],
                      k.fma(tile.load(q, place), values[1], dx)),
                k.fma(diagonal, values[1], dy)};
      });
  tile.store(carried[0], dmean, tile.row);
  tile.store(carried[1], dvar, tile.row);
  const double segments = segmentsType(shape).getNumElements();
  return k.finish(tile.grid(), /*flops=*/6.0 * segments, 48.0 * segments);
}

/// The terms of every token, of a row or, from the cotangents behind it, of a
/// segment. Returns the terms; without segments dmean and dvar behind them.
SmallVector<Value>
buildGradTokens(PatternRewriter &rewriter, const LoweringOptions &options,
                TimestepNormGradOp op, const TimestepShape &shape, Value sumU,
                Value sumUD, Value meanD, ValueRange behindSegments) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad_scan");
  const bool whole = behindSegments.empty();
  Value count = k.read(op.getCount()),
        rstds = k.read(op.getRunningRstd(), View::Rows),
        differences = k.read(meanD, View::Rows),
        positions = readPositions(k, op);
  Value behindMean, behindVar;
  if (!whole) {
    behindMean = k.read(behindSegments[0]);
    behindVar = k.read(behindSegments[1]);
  } else if (op.getDnewMean()) {
    behindMean = k.read(op.getDnewMean());
    behindVar = k.read(op.getDnewVar());
  }
  Value meanTerm = k.update(sumU, View::Rows),
        varTerm = k.update(sumUD, View::Rows);
  Value dmean, dvar;
  if (whole) {
    dmean = k.write(op.getDmean().getType());
    dvar = k.write(op.getDvar().getType());
  }
  ScanTile tile(k, shape, whole ? 0 : kSegment);
  tile.countBy(count, positions);
  GradStep step(k, tile, rstds, differences, meanTerm, varTerm);
  Value zero = tile.constant(0), at = whole ? tile.row : tile.place(),
        last = k.sub(k.add(tile.first, tile.end), k.index(1));
  Value share = tile.constant(1.0 / shape.groupSize),
        twoShares = tile.constant(2.0 / shape.groupSize);
  SmallVector<Value> carried = {behindMean ? tile.load(behindMean, at) : zero,
                                behindVar ? tile.load(behindVar, at) : zero};
  carried = k.loop(tile.first, tile.end, 1, carried,
                   [&](Value i, ValueRange values) -> SmallVector<Value> {
                     Value du = values[0], dv = values[1];
                     step.enter(k.sub(last, i), du, dv);
                     tile.store(k.mul(k.mul(step.weights.c2, share), du),
                                meanTerm, step.token);
                     tile.store(k.mul(twoShares, k.mul(step.weights.c2, dv)),
                                varTerm, step.token);
                     step.leave(du, dv);
                     return {du, dv};
                   });
  if (whole) {
    tile.store(carried[0], dmean, tile.row);
    tile.store(carried[1], dvar, tile.row);
  }
  return k.finish(tile.grid(), /*flops=*/18.0 * shape.tokens() * shape.groups,
                  shape.bytes(0, 6));
}

} // namespace

SmallVector<Value> mlir::megalodon::buildTimestepScan(
    PatternRewriter &rewriter, const LoweringOptions &options,
    TimestepNormOp op, const TimestepShape &shape, Value tokenMean,
    Value tokenVariance) {
  if (!usesSegments(options, shape))
    return buildTokens(rewriter, options, op, shape, tokenMean, tokenVariance,
                       {});
  SmallVector<Value> segments =
      buildSegments(rewriter, options, op, shape, tokenMean, tokenVariance);
  SmallVector<Value> prefix =
      buildPrefix(rewriter, options, op, shape, segments);
  SmallVector<Value> tokens =
      buildTokens(rewriter, options, op, shape, tokenMean, tokenVariance,
                  ValueRange(prefix).take_front(2));
  return {tokens[0], prefix[2], prefix[3], prefix[4], tokens[1], tokens[2]};
}

SmallVector<Value> mlir::megalodon::buildTimestepGradScan(
    PatternRewriter &rewriter, const LoweringOptions &options,
    TimestepNormGradOp op, const TimestepShape &shape, Value sumU, Value sumUD,
    Value meanD) {
  if (!usesSegments(options, shape))
    return buildGradTokens(rewriter, options, op, shape, sumU, sumUD, meanD,
                           {});
  SmallVector<Value> maps =
      buildGradSegments(rewriter, options, op, shape, sumU, sumUD, meanD);
  SmallVector<Value> suffix =
      buildGradSuffix(rewriter, options, op, shape, maps);
  SmallVector<Value> tokens =
      buildGradTokens(rewriter, options, op, shape, sumU, sumUD, meanD,
                      ValueRange(suffix).take_front(2));
  return {tokens[0], tokens[1], suffix[2], suffix[3]};
}
