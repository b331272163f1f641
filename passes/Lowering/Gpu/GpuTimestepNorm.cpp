// Per token and 128 channels a warp needs one 16-byte access a lane and tensor,
// and two butterflies over a group's lanes. Every kernel is bound by memory:
// statistics reads x once, apply reads x and writes y.
#include "passes/Lowering/Gpu/GpuTimestepNorm.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Channels of a lane and of a warp.
constexpr int64_t kLaneChannels = 4,
                  kWarpChannels = kLaneChannels * kWarpThreads;
constexpr int64_t kWarps = 4;
/// Tokens whose loads a warp has under way at once.
constexpr int64_t kTokensInFlight = 4;

/// A workgroup is a block of tokens of 128 channels; its warps take the tokens
/// in turn.
class Slab {
public:
  Slab(KernelBuilder &k, const TimestepShape &shape)
      : k(k), shape(shape), slabs(shape.channels / kWarpChannels),
        groupLanes(shape.groupSize / kLaneChannels), lane(k.lane()),
        warp(k.warp()) {
    slab = k.rem(k.workgroup(), k.index(slabs));
    block = k.div(k.workgroup(), k.index(slabs));
    channel = k.add(k.mul(slab, k.index(kWarpChannels)),
                    k.mul(lane, k.index(kLaneChannels)));
    group = k.div(channel, k.index(shape.groupSize));
    leads = arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq,
                                  k.rem(lane, k.index(groupLanes)), k.index(0));
  }
  Grid grid() const {
    return {.factor = slabs,
            .inner = plan::Inner::Tokens,
            .divisor = TimestepShape::kTokens};
  }

  /// Visits this warp's tokens, some at a time: `body` gets them and whether
  /// each exists; one that does not stands for the call's last token.
  SmallVector<Value> forTokens(
      ValueRange carried,
      function_ref<SmallVector<Value>(
          ArrayRef<Value> tokens, ArrayRef<Value> exist, ValueRange carried)>
          body) {
    Value first = k.add(k.mul(block, k.index(TimestepShape::kTokens)), warp),
          last = k.sub(k.tokens(), k.index(1));
    return k.loop(
        k.index(0), k.index(TimestepShape::kTokens), kWarps * kTokensInFlight,
        carried, [&](Value from, ValueRange values) {
          SmallVector<Value> tokens, exist;
          for (int64_t i = 0; i < kTokensInFlight; ++i) {
            Value token = k.add(k.add(first, from), k.index(kWarps * i));
            exist.push_back(k.less(token, k.tokens()));
            tokens.push_back(k.min(token, last));
          }
          return body(tokens, exist, values);
        });
  }
  void forTokens(function_ref<void(ArrayRef<Value>, ArrayRef<Value>)> body) {
    forTokens({},
              [&](ArrayRef<Value> tokens, ArrayRef<Value> exist,
                  ValueRange) -> SmallVector<Value> {
                body(tokens, exist);
                return {};
              });
  }

  /// This lane's channels of a token, or of a vector of channels.
  Value load(Value memref, Value token) {
    return k.load(memref, {token, channel});
  }
  Value load(Value vector) { return k.load(vector, {channel}); }
  /// [token, this lane's group].
  Value ofGroup(Value memref, Value token, Type type) {
    return k.toFloat(k.loadScalar(memref, {token, group}), type);
  }
  /// Stores numbers of a token's groups, where the token exists.
  void storeOfGroup(Value exists, Value token,
                    ArrayRef<std::pair<Value, Value>> valuesAndMemrefs) {
    k.when(arith::AndIOp::create(k.b, exists, leads), [&] {
      for (auto [value, memref] : valuesAndMemrefs)
        k.storeScalar(value, memref, {token, group});
    });
  }
  /// The sum of a vector of every lane of a group; each of its lanes has it.
  Value sumOfGroup(Value vector) {
    Value sum = vector::ReductionOp::create(
        k.b, vector::CombiningKind::ADD, vector, arith::FastMathFlags::reassoc);
    for (int64_t mask = groupLanes / 2; mask > 0; mask /= 2)
      sum = k.add(sum, k.shuffleXor(sum, mask));
    return sum;
  }
  Value splat(Value scalar) {
    return vector::BroadcastOp::create(
        k.b, VectorType::get(kLaneChannels, scalar.getType()), scalar);
  }

  KernelBuilder &k;
  const TimestepShape &shape;
  int64_t slabs, groupLanes;
  Value lane, warp, slab, block, channel, group, leads;
};

} // namespace

bool mlir::megalodon::suitsWarps(const LoweringOptions &options,
                                 const TimestepShape &shape) {
  return options.target == Target::Cuda && shape.element.isF32() &&
         shape.channels % kWarpChannels == 0 &&
         llvm::isPowerOf2_64(shape.groupSize) &&
         shape.groupSize >= kLaneChannels && shape.groupSize <= kWarpChannels;
}

SmallVector<Value> mlir::megalodon::buildGpuStatistics(
    PatternRewriter &rewriter, const LoweringOptions &options,
    TimestepNormOp op, const TimestepShape &shape) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_statistics",
                  kWarps * kWarpThreads);
  Value x = k.read(op.getX(), View::Rows),
        mean = k.write(shape.wideStatistics, View::Rows),
        variance = k.write(shape.wideStatistics, View::Rows);
  Slab slab(k, shape);
  Value scale = k.constant(1.0 / shape.groupSize, shape.f64);
  slab.forTokens([&](ArrayRef<Value> tokens, ArrayRef<Value> exist) {
    SmallVector<Value> entries;
    for (Value token : tokens)
      entries.push_back(k.toFloat(slab.load(x, token), shape.f64));
    for (auto [token, exists, entry] :
         llvm::zip_equal(tokens, exist, entries)) {
      Value average = k.mul(slab.sumOfGroup(entry), scale);
      Value d = k.sub(entry, slab.splat(average));
      Value squares = k.mul(slab.sumOfGroup(k.mul(d, d)), scale);
      slab.storeOfGroup(exists, token, {{average, mean}, {squares, variance}});
    }
  });
  return k.finish(slab.grid(), /*flops=*/4.0 * shape.tokens() * shape.channels,
                  shape.bytes(1, 2));
}

Value mlir::megalodon::buildGpuApply(PatternRewriter &rewriter,
                                     const LoweringOptions &options,
                                     TimestepNormOp op,
                                     const TimestepShape &shape,
                                     Value meanInF64, Value rstd) {
  KernelBuilder k(rewriter, options, op, "timestep_norm",
                  kWarps * kWarpThreads);
  Value x = k.read(op.getX(), View::Rows), weight = k.read(op.getWeight()),
        bias = k.read(op.getBias());
  Value means = k.read(meanInF64, View::Rows), rstds = k.read(rstd, View::Rows),
        y = k.write(op.getResult().getType(), View::Rows);
  Slab slab(k, shape);
  Value gain = slab.load(weight), offset = slab.load(bias);
  gain = k.add(gain, k.constant(1, gain.getType()));
  slab.forTokens([&](ArrayRef<Value> tokens, ArrayRef<Value> exist) {
    SmallVector<Value> entries;
    for (Value token : tokens)
      entries.push_back(slab.load(x, token));
    for (auto [token, exists, entry] :
         llvm::zip_equal(tokens, exist, entries)) {
      // A mean far from 0 keeps its f64 accuracy as the sum of two numbers:
      // x - high is exact near the mean.
      Value mean = slab.ofGroup(means, token, shape.f64),
            high = k.toFloat(mean, shape.element);
      Value low =
          k.toFloat(k.sub(mean, k.toFloat(high, shape.f64)), shape.element);
      Value centered = k.sub(k.sub(entry, slab.splat(high)), slab.splat(low)),
            scale = slab.splat(slab.ofGroup(rstds, token, shape.element));
      Value result = k.fma(k.mul(centered, scale), gain, offset);
      k.when(exists,
             [&, token = token] { k.store(result, y, {token, slab.channel}); });
    }
  });
  return k.finish(slab.grid(), /*flops=*/5.0 * shape.tokens() * shape.channels,
                  shape.bytes(2, 2))[0];
}

SmallVector<Value> mlir::megalodon::buildGpuGradStatistics(
    PatternRewriter &rewriter, const LoweringOptions &options,
    TimestepNormGradOp op, const TimestepShape &shape) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad_statistics",
                  kWarps * kWarpThreads);
  Value dy = k.read(op.getDy(), View::Rows), x = k.read(op.getX(), View::Rows),
        weight = k.read(op.getWeight());
  Value means = k.read(op.getRunningMean(), View::Rows),
        rstds = k.read(op.getRunningRstd(), View::Rows);
  Value sumU = k.write(shape.wideStatistics, View::Rows),
        sumUD = k.write(shape.wideStatistics, View::Rows),
        meanD = k.write(shape.wideStatistics, View::Rows);
  auto partialType =
      RankedTensorType::get({llvm::divideCeilSigned(shape.batch * shape.length,
                                                    TimestepShape::kTokens),
                             shape.channels},
                            shape.element);
  Value dweight = k.write(partialType), dbias = k.write(partialType);
  // What each warp adds up of its tokens.
  Value sums = k.scratch({2, kWarps, kWarpChannels}, shape.element);
  Slab slab(k, shape);
  Value gain = slab.load(weight), zero = k.constant(0, gain.getType()),
        scale = k.constant(1.0 / shape.groupSize, shape.f64);
  SmallVector<Value> totals = slab.forTokens(
      {zero, zero},
      [&](ArrayRef<Value> tokens, ArrayRef<Value> exist,
          ValueRange carried) -> SmallVector<Value> {
        SmallVector<Value> cotangents, entries, next(carried);
        for (Value token : tokens) {
          cotangents.push_back(slab.load(dy, token));
          entries.push_back(slab.load(x, token));
        }
        for (auto [token, exists, cotangent, entry] :
             llvm::zip_equal(tokens, exist, cotangents, entries)) {
          Value mean = slab.ofGroup(means, token, shape.element),
                rstd = slab.ofGroup(rstds, token, shape.element);
          Value u = k.fma(cotangent, gain, cotangent),
                d = k.sub(entry, slab.splat(mean));
          Value term = k.mul(k.mul(d, slab.splat(rstd)), cotangent);
          next[0] = k.add(next[0], k.select(exists, term, zero));
          next[1] = k.add(next[1], k.select(exists, cotangent, zero));
          auto wide = [&](Value vector) {
            return k.toFloat(slab.sumOfGroup(vector), shape.f64);
          };
          slab.storeOfGroup(exists, token,
                            {{wide(u), sumU},
                             {wide(k.mul(u, d)), sumUD},
                             {k.mul(wide(d), scale), meanD}});
        }
        return next;
      });
  Value laneChannel = k.mul(slab.lane, k.index(kLaneChannels));
  for (auto [part, total] : llvm::enumerate(totals))
    k.store(total, sums, {k.index(part), slab.warp, laneChannel});
  k.barrier();
  // 128 threads and 128 channels: each thread adds up one.
  static_assert(kWarps * kWarpThreads == kWarpChannels);
  Value column = k.add(k.mul(slab.slab, k.index(kWarpChannels)), k.thread());
  for (auto [part, partial] :
       llvm::enumerate(ArrayRef<Value>{dweight, dbias})) {
    Value total;
    for (int64_t warp = 0; warp < kWarps; ++warp) {
      Value term =
          k.loadScalar(sums, {k.index(part), k.index(warp), k.thread()});
      total = total ? k.add(total, term) : term;
    }
    k.storeScalar(total, partial, {slab.block, column});
  }
  return k.finish(slab.grid(), /*flops=*/10.0 * shape.tokens() * shape.channels,
                  shape.bytes(2, 4));
}

Value mlir::megalodon::buildGpuGradApply(PatternRewriter &rewriter,
                                         const LoweringOptions &options,
                                         TimestepNormGradOp op,
                                         const TimestepShape &shape,
                                         Value meanTerm, Value varTerm) {
  KernelBuilder k(rewriter, options, op, "timestep_norm_grad",
                  kWarps * kWarpThreads);
  Value dy = k.read(op.getDy(), View::Rows), x = k.read(op.getX(), View::Rows),
        weight = k.read(op.getWeight());
  Value means = k.read(op.getRunningMean(), View::Rows),
        rstds = k.read(op.getRunningRstd(), View::Rows);
  Value meanTerms = k.read(meanTerm, View::Rows),
        varTerms = k.read(varTerm, View::Rows),
        dx = k.write(op.getDx().getType(), View::Rows);
  Slab slab(k, shape);
  Value gain = slab.load(weight);
  gain = k.add(gain, k.constant(1, gain.getType()));
  slab.forTokens([&](ArrayRef<Value> tokens, ArrayRef<Value> exist) {
    SmallVector<Value> cotangents, entries;
    for (Value token : tokens) {
      cotangents.push_back(slab.load(dy, token));
      entries.push_back(slab.load(x, token));
    }
    for (auto [token, exists, cotangent, entry] :
         llvm::zip_equal(tokens, exist, cotangents, entries)) {
      auto ofGroup = [&, token = token](Value memref) {
        return slab.splat(slab.ofGroup(memref, token, shape.element));
      };
      Value mean = ofGroup(means), rstd = ofGroup(rstds),
            offset = ofGroup(meanTerms), slope = ofGroup(varTerms);
      Value path = k.fma(slope, k.sub(entry, mean), offset);
      Value result = k.fma(cotangent, k.mul(rstd, gain), path);
      k.when(exists, [&, token = token] {
        k.store(result, dx, {token, slab.channel});
      });
    }
  });
  return k.finish(slab.grid(), /*flops=*/7.0 * shape.tokens() * shape.channels,
                  shape.bytes(3, 3))[0];
}
