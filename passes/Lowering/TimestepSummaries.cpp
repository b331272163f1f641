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
    Type element = computeType(type.getElementType());
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

struct LocalCountLowering : LoweringPattern<LocalCountOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(LocalCountOp op,
                                PatternRewriter &rewriter) const override {
    KernelBuilder k(rewriter, options, op, "local_count");
    Value count = k.read(op.getCount()), to = k.write(op.getType());
    Value tokens = arith::IndexCastOp::create(
        k.b, k.b.getI64Type(), k.mul(k.chunkRank(op.getRank()), k.length()));
    Value row = k.workgroup();
    k.storeScalar(
        arith::AddIOp::create(k.b, k.loadScalar(count, {row}), tokens), to,
        {row});
    rewriter.replaceOp(op,
                       k.finish(Grid{1, plan::Outer::Batch}, 0, bytesOf(op)));
    return success();
  }
};

/// The statistics in front of a rank's tokens, of batch row `row`, from the
/// running mean behind its first token.
class StartStatistics {
public:
  StartStatistics(KernelBuilder &k, Value x, Value count, Value runningMean,
                  int64_t size)
      : k(k), x(x), runningMean(runningMean), f64(k.b.getF64Type()), size(size),
        row(k.workgroup()), first(k.mul(row, k.length())) {
    tokens = k.intToFloat(k.loadScalar(count, {row}), f64);
    zero = k.constant(0, f64);
    known = arith::CmpFOp::create(k.b, arith::CmpFPredicate::OGT, tokens, zero);
  }

  /// The mean of a group; of no meaning where no token is in front.
  Value mean(Value group) {
    Value sum = k.loop(
        k.index(0), k.index(size), 1, zero,
        [&](Value i, ValueRange carried) -> SmallVector<Value> {
          Value channel = k.add(k.mul(group, k.index(size)), i);
          return {k.add(carried[0],
                        k.toFloat(k.loadScalar(x, {first, channel}), f64))};
        })[0];
    Value here = k.div(sum, k.constant(double(size), f64)),
          behind = k.toFloat(k.loadScalar(runningMean, {first, group}), f64);
    Value total = k.mul(k.add(tokens, k.constant(1, f64)), behind);
    return k.div(k.sub(total, here), tokens);
  }
  /// 0 where no token is in front.
  Value ifKnown(Value value) { return k.select(known, value, zero); }

  KernelBuilder &k;
  Value x, runningMean;
  Type f64;
  int64_t size;
  Value row, first, tokens, zero, known;
};

struct TimestepMomentsGradLowering : LoweringPattern<TimestepMomentsGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TimestepMomentsGradOp op,
                                PatternRewriter &rewriter) const override {
    Type element = elementOf(op.getX());
    int64_t groups = widthOf(op.getDmean()), size = widthOf(op.getX()) / groups;
    KernelBuilder k(rewriter, options, op, "timestep_moments_grad");
    Value dmean = k.read(op.getDmean()), dvar = k.read(op.getDvar()),
          x = k.read(op.getX(), View::Rows), count = k.read(op.getCount()),
          runningMean = k.read(op.getRunningMean(), View::Rows),
          share = k.write(op.getType(), View::Rows);
    StartStatistics start(k, x, count, runningMean, size);
    k.loop(k.index(0), k.index(groups), 1, [&](Value group) {
      auto wide = [&](Value memref) {
        return k.toFloat(k.loadScalar(memref, {start.row, group}), start.f64);
      };
      Value ofVar = wide(dvar),
            path = k.mul(k.mul(k.constant(2, start.f64), start.mean(group)),
                         ofVar);
      Value moments[] = {k.div(k.sub(wide(dmean), path), start.tokens),
                         k.div(ofVar, start.tokens)};
      for (auto [part, moment] : llvm::enumerate(moments))
        k.storeScalar(k.toFloat(start.ifKnown(moment), element), share,
                      {start.row, k.index(part), group});
    });
    rewriter.replaceOp(op, k.finish(Grid{1, plan::Outer::Batch},
                                    2.0 * groups * size, bytesOf(op)));
    return success();
  }
};

/// First the sums over ranks, a row at a time; then every token.
struct TimestepSuffixGradLowering : LoweringPattern<TimestepSuffixGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TimestepSuffixGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX()),
                     shares = tensorOf(op.getShares());
    int64_t groups = shares.getDimSize(3), channels = type.getDimSize(2),
            size = channels / groups;
    auto sumsType = RankedTensorType::get({type.getDimSize(0), 2, groups},
                                          rewriter.getF64Type());
    SmallVector<Value> sums =
        sumOverRanks(op, rewriter, sumsType, shares.getDimSize(1), size);

    Type element = computeType(type.getElementType());
    int64_t rows = rowsPerWorkgroup(options, channels);
    KernelBuilder k(rewriter, options, op, "timestep_suffix_grad");
    Value x = k.read(op.getX(), View::Rows), suffix = k.read(sums[0]),
          dx = k.update(op.getDx(), View::Rows);
    forTokens(k, rows, [&](Value t) {
      Value row = k.div(t, k.length());
      k.loop(k.index(0), k.index(groups), 1, [&](Value group) {
        auto term = [&](int64_t part) {
          return k.splat(k.toFloat(
              k.loadScalar(suffix, {row, k.index(part), group}), element));
        };
        Value offset = term(0), slope = term(1);
        k.forLanes(size, element, [&](Value i, Value mask) {
          Value c = k.add(k.mul(group, k.index(size)), i);
          Value path = k.fma(slope, k.load(x, {t, c}, mask), offset);
          k.store(k.add(k.load(dx, {t, c}, mask), path), dx, {t, c}, mask);
        });
      });
    });
    SmallVector<Value> results = k.finish(
        tokenGrid(rows), 3.0 * type.getNumElements(), 3 * bytesOf(type));
    rewriter.replaceOp(op, {results[0], sums[1], sums[2]});
    return success();
  }

  /// (A1, 2 A2)/(D/G) of every row and group, and dmean, dvar.
  SmallVector<Value> sumOverRanks(TimestepSuffixGradOp op,
                                  PatternRewriter &rewriter, Type sumsType,
                                  int64_t ranks, int64_t size) const {
    Type element = elementOf(op.getX());
    int64_t groups = widthOf(op.getShares());
    KernelBuilder k(rewriter, options, op, "timestep_suffix_sums");
    Value x = k.read(op.getX(), View::Rows), shares = k.read(op.getShares()),
          count = k.read(op.getCount()),
          runningMean = k.read(op.getRunningMean(), View::Rows),
          suffix = k.write(sumsType), dmean = k.write(op.getDmean().getType()),
          dvar = k.write(op.getDvar().getType());
    StartStatistics start(k, x, count, runningMean, size);
    Type f64 = start.f64;
    Value rank = k.chunkRank(op.getRank()), row = start.row,
          isFirst = k.less(rank, k.index(1));
    Value share = k.constant(1.0 / double(size), f64), two = k.constant(2, f64);
    k.loop(k.index(0), k.index(groups), 1, [&](Value group) {
      SmallVector<Value> none(4, start.zero); // behind: 1, 2; all: 1, 2
      SmallVector<Value> sums = k.loop(
          k.index(0), k.index(ranks), 1, none,
          [&](Value r, ValueRange carried) -> SmallVector<Value> {
            Value behind = k.less(rank, r);
            SmallVector<Value> next(carried);
            for (int64_t part : {0, 1}) {
              Value term = k.toFloat(
                  k.loadScalar(shares, {row, r, k.index(part), group}), f64);
              next[part] =
                  k.add(next[part], k.select(behind, term, start.zero));
              next[part + 2] = k.add(next[part + 2], term);
            }
            return next;
          });
      k.storeScalar(k.mul(share, sums[0]), suffix, {row, k.index(0), group});
      k.storeScalar(k.mul(k.mul(share, two), sums[1]), suffix,
                    {row, k.index(1), group});
      Value mean = start.ifKnown(start.mean(group));
      Value ofMean = k.fma(k.mul(two, mean), sums[3], sums[2]);
      auto storeFirst = [&](Value value, Value to) {
        k.storeScalar(
            k.toFloat(k.select(isFirst, k.mul(start.tokens, value), start.zero),
                      element),
            to, {row, group});
      };
      storeFirst(ofMean, dmean);
      storeFirst(sums[3], dvar);
    });
    return k.finish(Grid{1, plan::Outer::Batch},
                    6.0 * tensorOf(op.getShares()).getNumElements(),
                    bytesOf(op.getShares().getType()));
  }
};

} // namespace

void populateTimestepSummaryLowering(RewritePatternSet &patterns,
                                     const LoweringOptions &options) {
  patterns.add<TimestepStatisticsLowering, TimestepPrefixLowering,
               LocalCountLowering, TimestepMomentsGradLowering,
               TimestepSuffixGradLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
