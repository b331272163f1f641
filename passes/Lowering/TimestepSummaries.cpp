// What ranks along the chunk axis do for the timestep norm: statistics of a
// rank's tokens, the prefix over the ranks' statistics, and their gradients.
// All in f64.
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

/// Merging l more tokens into statistics of n, as vectors.
struct Weights {
  Value old;   ///< n/(n+l)
  Value fresh; ///< l/(n+l)
  Value cross; ///< n l/(n+l)^2
};

/// Visits vectors of G numbers, in f64, of batch row `row`: the workgroup.
class GroupVectors {
public:
  GroupVectors(KernelBuilder &k, int64_t groups)
      : k(k), groups(groups), f64(k.b.getF64Type()), row(k.workgroup()),
        length(k.intToFloat(k.length(), f64)) {}

  void visit(function_ref<void()> body) {
    k.forLanes(groups, f64, [&](Value at, Value atMask) {
      group = at;
      mask = atMask;
      body();
    });
  }
  /// The vector of this visit's groups at the leading indices.
  Value load(Value memref, ValueRange leading) {
    Type element = cast<MemRefType>(memref.getType()).getElementType();
    auto type = VectorType::get({k.lanes(f64)}, element);
    SmallVector<Value> at(leading);
    at.push_back(group);
    Value narrow = mask ? vector::MaskedLoadOp::create(
                              k.b, type, memref, at, mask, k.constant(0, type))
                              .getResult()
                        : vector::LoadOp::create(k.b, type, memref, at);
    return k.toFloat(narrow, f64);
  }
  void store(Value value, Value memref, ValueRange leading) {
    SmallVector<Value> at(leading);
    at.push_back(group);
    k.store(
        k.toFloat(value, cast<MemRefType>(memref.getType()).getElementType()),
        memref, at, mask);
  }
  /// Weights of rank `r`'s tokens behind those of the ranks in front of it.
  Weights weights(Value count, Value r) {
    Value n = k.add(count, k.mul(k.intToFloat(r, f64), length)),
          total = k.add(n, length);
    Value old = k.div(n, total), fresh = k.div(length, total);
    return {k.splat(old), k.splat(fresh), k.splat(k.mul(old, fresh))};
  }
  Value isRank(Value r, Value rank) {
    return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, r, rank);
  }

  KernelBuilder &k;
  int64_t groups;
  Type f64;
  Value row, length, group, mask;
};

struct TimestepStatisticsLowering : LoweringPattern<TimestepStatisticsOp> {
  using LoweringPattern::LoweringPattern;
  /// A workgroup is one group of one batch row: a pass for the mean and one for
  /// the variance.
  LogicalResult matchAndRewrite(TimestepStatisticsOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX());
    Type element = type.getElementType();
    int64_t groups = op.getGroups(), size = type.getDimSize(2) / groups;
    KernelBuilder k(rewriter, options, op, "timestep_statistics");
    Type f64 = k.b.getF64Type();
    Value x = k.read(op.getX(), View::Rows),
          summary = k.write(op.getType(), View::Rows);
    Value row = k.div(k.workgroup(), k.index(groups)),
          group = k.rem(k.workgroup(), k.index(groups)),
          channel = k.mul(group, k.index(size));
    Value first = k.mul(row, k.length()), end = k.add(first, k.length());
    Value entries =
        k.mul(k.intToFloat(k.length(), f64), k.constant(double(size), f64));
    Value zeros = k.constant(0, VectorType::get({k.lanes(element)}, f64));
    auto average =
        [&](function_ref<Value(Value entry, Value mask, Value sum)> add) {
          Value sums = k.loop(
              first, end, 1, zeros,
              [&](Value t, ValueRange carried) -> SmallVector<Value> {
                return k.forLanes(
                    size, element, carried,
                    [&](Value i, Value mask,
                        ValueRange partial) -> SmallVector<Value> {
                      Value entry = k.load(x, {t, k.add(channel, i)}, mask);
                      return {add(k.toFloat(entry, f64), mask, partial[0])};
                    });
              })[0];
          return k.div(k.sum(sums), entries);
        };
    Value mean = average(
        [&](Value entry, Value, Value sum) { return k.add(sum, entry); });
    Value means = vector::BroadcastOp::create(k.b, zeros.getType(), mean);
    Value variance = average([&](Value entry, Value mask, Value sum) {
      Value difference = fillMasked(k, k.sub(entry, means), mask, zeros);
      return k.fma(difference, difference, sum);
    });
    k.storeScalar(k.toFloat(mean, element), summary, {row, k.index(0), group});
    k.storeScalar(k.toFloat(variance, element), summary,
                  {row, k.index(1), group});
    rewriter.replaceOp(op, k.finish(Grid{groups, plan::Outer::Batch},
                                    4.0 * type.getNumElements(),
                                    2 * bytesOf(type)));
    return success();
  }
};

struct TimestepPrefixLowering : LoweringPattern<TimestepPrefixOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TimestepPrefixOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getSummaries());
    KernelBuilder k(rewriter, options, op, "timestep_prefix");
    Value summaries = k.read(op.getSummaries()), count = k.read(op.getCount()),
          mean = k.read(op.getMean()), var = k.read(op.getVar());
    SmallVector<Value> out;
    for (Type result : op->getResultTypes())
      out.push_back(k.write(result));
    Value rank = k.chunkRank(op.getRank()), zero = k.index(0), one = k.index(1),
          ranks = k.index(type.getDimSize(1));
    GroupVectors groups(k, type.getDimSize(3));
    Value row = groups.row, seen = k.loadScalar(count, {row}),
          seenTokens = k.intToFloat(seen, groups.f64);
    groups.visit([&] {
      Value m = groups.load(mean, row), v = groups.load(var, row);
      SmallVector<Value> states = {m, v, m, v}; // running, and rank's
      states = k.loop(
          zero, ranks, 1, states,
          [&](Value r, ValueRange carried) -> SmallVector<Value> {
            Value here = groups.isRank(r, rank);
            Weights w = groups.weights(seenTokens, r);
            Value d = k.sub(groups.load(summaries, {row, r, zero}), carried[0]);
            Value fresh = k.fma(w.fresh, groups.load(summaries, {row, r, one}),
                                k.mul(k.mul(w.cross, d), d));
            return {k.fma(w.fresh, d, carried[0]),
                    k.fma(w.old, carried[1], fresh),
                    k.select(here, carried[0], carried[2]),
                    k.select(here, carried[1], carried[3])};
          });
      groups.store(states[2], out[1], row);
      groups.store(states[3], out[2], row);
      groups.store(states[0], out[4], row);
      groups.store(states[1], out[5], row);
    });
    auto storeCount = [&](Value times, Value to) {
      Value tokens = arith::IndexCastOp::create(k.b, k.b.getI64Type(),
                                                k.mul(times, k.length()));
      k.storeScalar(arith::AddIOp::create(k.b, seen, tokens), to, {row});
    };
    storeCount(rank, out[0]);
    storeCount(ranks, out[3]);
    rewriter.replaceOp(op, k.finish(Grid{1, plan::Outer::Batch},
                                    5.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct TimestepPrefixGradLowering : LoweringPattern<TimestepPrefixGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TimestepPrefixGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getSummaries());
    KernelBuilder k(rewriter, options, op, "timestep_prefix_grad");
    Value dlocal = k.read(op.getDlocal()), dnewMean, dnewVar;
    if (op.getDnewMean()) {
      dnewMean = k.read(op.getDnewMean());
      dnewVar = k.read(op.getDnewVar());
    }
    Value summaries = k.read(op.getSummaries()), count = k.read(op.getCount()),
          mean = k.read(op.getMean());
    Value dsummary = k.write(op.getDsummary().getType(), View::Rows),
          dmean = k.write(op.getDmean().getType()),
          dvar = k.write(op.getDvar().getType());
    GroupVectors groups(k, type.getDimSize(3));
    // A rank's mean less that in front of it: all that the gradient needs of
    // the states.
    Value differences =
        k.scratch({type.getDimSize(1), k.lanes(groups.f64)}, groups.f64);
    Value rank = k.chunkRank(op.getRank()), zero = k.index(0), one = k.index(1),
          ranks = k.index(type.getDimSize(1));
    Value row = groups.row,
          seen = k.intToFloat(k.loadScalar(count, {row}), groups.f64);
    Value zeros = k.constant(0, k.vectorType(groups.f64)),
          two = k.constant(2, k.vectorType(groups.f64));
    groups.visit([&] {
      k.loop(zero, ranks, 1, groups.load(mean, row),
             [&](Value r, ValueRange carried) -> SmallVector<Value> {
               Value d =
                   k.sub(groups.load(summaries, {row, r, zero}), carried[0]);
               k.store(d, differences, {r, zero});
               return {k.fma(groups.weights(seen, r).fresh, d, carried[0])};
             });
      // The state's cotangents, and those of this rank's summary.
      SmallVector<Value> cotangents = {
          dnewMean ? groups.load(dnewMean, row) : zeros,
          dnewVar ? groups.load(dnewVar, row) : zeros, zeros, zeros};
      cotangents = k.loop(
          zero, ranks, 1, cotangents,
          [&](Value i, ValueRange carried) -> SmallVector<Value> {
            Value r = k.sub(k.sub(ranks, i), one),
                  here = groups.isRank(r, rank);
            Weights w = groups.weights(seen, r);
            Value d = k.load(differences, {r, zero}),
                  path = k.mul(k.mul(two, k.mul(w.cross, d)), carried[1]);
            Value ofMean = k.fma(w.fresh, carried[0], path),
                  ofVar = k.mul(w.fresh, carried[1]);
            return {
                k.add(groups.load(dlocal, {row, r, zero}),
                      k.sub(k.mul(w.old, carried[0]), path)),
                k.fma(w.old, carried[1], groups.load(dlocal, {row, r, one})),
                k.select(here, ofMean, carried[2]),
                k.select(here, ofVar, carried[3])};
          });
      groups.store(cotangents[0], dmean, row);
      groups.store(cotangents[1], dvar, row);
      groups.store(cotangents[2], dsummary, {row, zero});
      groups.store(cotangents[3], dsummary, {row, one});
    });
    rewriter.replaceOp(op, k.finish(Grid{1, plan::Outer::Batch},
                                    9.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct TimestepStatisticsGradLowering
    : LoweringPattern<TimestepStatisticsGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TimestepStatisticsGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX());
    Type element = type.getElementType();
    int64_t groups = widthOf(op.getSummary()), channels = type.getDimSize(2),
            size = channels / groups, rows = rowsPerWorkgroup(channels);
    KernelBuilder k(rewriter, options, op, "timestep_statistics_grad");
    Type f64 = k.b.getF64Type();
    Value x = k.read(op.getX(), View::Rows),
          summary = k.read(op.getSummary(), View::Rows),
          dsummary = k.read(op.getDsummary(), View::Rows);
    Value dx = k.update(op.getDx(), View::Rows);
    Value share =
              k.div(k.constant(1, f64), k.mul(k.intToFloat(k.length(), f64),
                                              k.constant(double(size), f64))),
          zero = k.index(0), one = k.index(1);
    forTokens(k, rows, [&](Value t) {
      Value row = k.div(t, k.length());
      k.loop(zero, k.index(groups), 1, [&](Value group) {
        auto wide = [&](Value memref, Value part) {
          return k.toFloat(k.loadScalar(memref, {row, part, group}), f64);
        };
        auto narrow = [&](Value value) {
          return k.splat(k.toFloat(value, element));
        };
        Value dvar = wide(dsummary, one);
        Value offset = narrow(k.mul(share, wide(dsummary, zero))),
              slope = narrow(k.mul(share, k.add(dvar, dvar))),
              mean = narrow(wide(summary, zero));
        k.forLanes(size, element, [&](Value i, Value mask) {
          Value c = k.add(k.mul(group, k.index(size)), i);
          Value path =
              k.fma(slope, k.sub(k.load(x, {t, c}, mask), mean), offset);
          k.store(k.add(k.load(dx, {t, c}, mask), path), dx, {t, c}, mask);
        });
      });
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    4.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct PackStatisticsLowering : LoweringPattern<PackStatisticsOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(PackStatisticsOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getMean());
    KernelBuilder k(rewriter, options, op, "pack_statistics");
    Value parts[] = {k.read(op.getMean()), k.read(op.getVar())};
    Value summary = k.write(op.getType(), View::Rows), row = k.workgroup();
    k.forLanes(widthOf(op.getMean()), element, [&](Value group, Value mask) {
      for (auto [i, part] : llvm::enumerate(parts))
        k.store(k.load(part, {row, group}, mask), summary,
                {row, k.index(i), group}, mask);
    });
    rewriter.replaceOp(op,
                       k.finish(Grid{1, plan::Outer::Batch}, 0, bytesOf(op)));
    return success();
  }
};

} // namespace

void populateTimestepSummaryLowering(RewritePatternSet &patterns,
                                     const LoweringOptions &options) {
  patterns.add<TimestepStatisticsLowering, TimestepPrefixLowering,
               TimestepPrefixGradLowering, TimestepStatisticsGradLowering,
               PackStatisticsLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
