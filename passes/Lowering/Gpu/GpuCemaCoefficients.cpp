// Lowers megalodon.cema_coefficients, ema_coefficients and their gradients for
// GPUs: a thread has one (channel, state), everything in f64. In vector form
// the states of one channel would be a vector, and most of a warp would have
// none.
#include "dialect/Megalodon/Mega.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/RowKernel.h"
#include <cmath>

using namespace mlir;
using namespace mlir::megalodon;

namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

/// A workgroup has whole channels, as many as fit about 128 threads; a thread
/// takes its pair, or several in turn where a channel has more states.
class PairKernel {
public:
  static constexpr int64_t kThreads = 128;
  static int64_t channelsPerWorkgroup(int64_t states) {
    return std::max<int64_t>(1, kThreads / states);
  }

  PairKernel(KernelBuilder &k, int64_t channels, int64_t states)
      : k(k), channels(channels), states(states), f64(k.b.getF64Type()) {}

  Grid grid() const {
    return {.factor =
                llvm::divideCeilSigned(channels, channelsPerWorkgroup(states))};
  }
  /// Visits this thread's pairs: their index in the workgroup and in all.
  void forPairs(function_ref<void(Value local, Value pair)> body) {
    int64_t count = channelsPerWorkgroup(states) * states;
    Value first = k.mul(k.workgroup(), k.index(count));
    Value end = k.min(k.index(count), k.sub(k.index(channels * states), first));
    k.loop(k.thread(), end, kThreads,
           [&](Value local) { body(local, k.add(first, local)); });
  }

  Value load(Value flat, Value at) {
    return k.toFloat(k.loadScalar(flat, {at}), f64);
  }
  void store(Value value, Value flat, Value at) {
    Type element = cast<MemRefType>(flat.getType()).getElementType();
    k.storeScalar(k.toFloat(value, element), flat, {at});
  }
  Complex loadComplex(Value flat, Value pair) {
    auto [re, im] = loadPair(k, flat, {k.mul(pair, k.index(2))});
    return {k.toFloat(re, f64), k.toFloat(im, f64)};
  }
  void storeComplex(Value re, Value im, Value flat, Value pair) {
    storePair(k, re, im, flat, {k.mul(pair, k.index(2))});
  }
  /// 1, 2, .. of the pair's state.
  Value ordinal(Value pair) {
    return k.intToFloat(k.add(k.rem(pair, k.index(states)), k.index(1)), f64);
  }
  Value channelSigmoid(Value theta, Value channel) {
    return k.sigmoid(load(theta, channel));
  }

  KernelBuilder &k;
  int64_t channels, states;
  Type f64;
};

struct GpuCemaCoefficientsLowering : OpRewritePattern<CemaCoefficientsOp> {
  GpuCemaCoefficientsLowering(MLIRContext *context,
                              const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(CemaCoefficientsOp op,
                                PatternRewriter &rewriter) const override {
    int64_t channels = tensorOf(op.getP()).getDimSize(0),
            states = tensorOf(op.getP()).getDimSize(1);
    KernelBuilder k(rewriter, options, op, "cema_coefficients",
                    PairKernel::kThreads);
    PairKernel kernel(k, channels, states);
    Value alpha = k.read(op.getAlpha(), View::Flat),
          delta = k.read(op.getDelta(), View::Flat),
          theta = k.read(op.getTheta(), View::Flat),
          gamma = k.read(op.getGamma(), View::Flat);
    Value p = k.write(op.getP().getType(), View::Flat),
          q = k.write(op.getQ().getType(), View::Flat),
          g = k.write(op.getG().getType(), View::Flat);
    Value one = k.constant(1, kernel.f64),
          turn = k.constant(kTwoPi / states, kernel.f64),
          scale = k.constant(1 / std::sqrt(double(states)), kernel.f64);
    kernel.forPairs([&](Value, Value pair) {
      Value channel = k.div(pair, k.index(states));
      Value angle = k.mul(kernel.channelSigmoid(theta, channel), turn),
            phi = k.mul(kernel.ordinal(pair), angle);
      Value decay = k.sigmoid(kernel.load(alpha, pair)),
            damping = k.sigmoid(kernel.load(delta, pair)),
            magnitude = k.sub(one, k.mul(decay, damping));
      kernel.store(decay, p, pair);
      kernel.storeComplex(k.mul(magnitude, math::CosOp::create(k.b, phi)),
                          k.mul(magnitude, math::SinOp::create(k.b, phi)), q,
                          pair);
      Complex gain = kernel.loadComplex(gamma, pair);
      kernel.storeComplex(k.mul(gain.re, scale), k.mul(gain.im, scale), g,
                          pair);
    });
    // Three sigmoids, a sine and a cosine, counted as 20 operations each.
    rewriter.replaceOp(op, k.finish(kernel.grid(),
                                    /*flops=*/110.0 * channels * states,
                                    megalodon::bytesOf(op)));
    return success();
  }

  const LoweringOptions &options;
};

struct GpuCemaCoefficientsGradLowering
    : OpRewritePattern<CemaCoefficientsGradOp> {
  GpuCemaCoefficientsGradLowering(MLIRContext *context,
                                  const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(CemaCoefficientsGradOp op,
                                PatternRewriter &rewriter) const override {
    int64_t channels = tensorOf(op.getDp()).getDimSize(0),
            states = tensorOf(op.getDp()).getDimSize(1);
    // Shared memory for a channel's terms of dtheta.
    if (8 * states > options.sharedBytes)
      return failure();
    KernelBuilder k(rewriter, options, op, "cema_coefficients_grad",
                    PairKernel::kThreads);
    PairKernel kernel(k, channels, states);
    Value dp = k.read(op.getDp(), View::Flat),
          dq = k.read(op.getDq(), View::Flat),
          dg = k.read(op.getDg(), View::Flat),
          alpha = k.read(op.getAlpha(), View::Flat),
          delta = k.read(op.getDelta(), View::Flat),
          theta = k.read(op.getTheta(), View::Flat);
    Value dalpha = k.write(op.getDalpha().getType(), View::Flat),
          ddelta = k.write(op.getDdelta().getType(), View::Flat),
          dtheta = k.write(op.getDtheta().getType(), View::Flat),
          dgamma = k.write(op.getDgamma().getType(), View::Flat);
    const int64_t perWorkgroup = PairKernel::channelsPerWorkgroup(states);
    Value turns = k.scratch({perWorkgroup * states}, kernel.f64);
    Value one = k.constant(1, kernel.f64),
          turn = k.constant(kTwoPi / states, kernel.f64),
          scale = k.constant(1 / std::sqrt(double(states)), kernel.f64);
    kernel.forPairs([&](Value local, Value pair) {
      Value channel = k.div(pair, k.index(states));
      Value ordinal = kernel.ordinal(pair),
            phi = k.mul(ordinal,
                        k.mul(kernel.channelSigmoid(theta, channel), turn));
      Value p = k.sigmoid(kernel.load(alpha, pair)),
            s = k.sigmoid(kernel.load(delta, pair));
      Value cosine = math::CosOp::create(k.b, phi),
            sine = math::SinOp::create(k.b, phi);
      Complex c = kernel.loadComplex(dq, pair);
      Value dm = k.fma(c.re, cosine, k.mul(c.im, sine)),
            dphi = k.mul(k.sub(one, k.mul(p, s)),
                         k.sub(k.mul(c.im, cosine), k.mul(c.re, sine)));
      Value total = k.sub(kernel.load(dp, pair), k.mul(s, dm));
      kernel.store(k.mul(total, k.mul(p, k.sub(one, p))), dalpha, pair);
      Value minusP = arith::NegFOp::create(k.b, p);
      kernel.store(k.mul(k.mul(minusP, dm), k.mul(s, k.sub(one, s))), ddelta,
                   pair);
      Complex gain = kernel.loadComplex(dg, pair);
      kernel.storeComplex(k.mul(gain.re, scale), k.mul(gain.im, scale), dgamma,
                          pair);
      k.storeScalar(k.mul(ordinal, dphi), turns, {local});
    });
    k.barrier();
    // dtheta of a channel sums its states, in their order.
    Value first = k.mul(k.workgroup(), k.index(perWorkgroup));
    Value end = k.min(k.index(perWorkgroup), k.sub(k.index(channels), first));
    k.loop(k.thread(), end, PairKernel::kThreads, [&](Value local) {
      Value channel = k.add(first, local), base = k.mul(local, k.index(states));
      Value sum = k.loop(
          k.index(0), k.index(states), 1, k.constant(0, kernel.f64),
          [&](Value n, ValueRange before) -> SmallVector<Value> {
            return {k.add(before[0], k.loadScalar(turns, {k.add(base, n)}))};
          })[0];
      Value t = kernel.channelSigmoid(theta, channel);
      kernel.store(k.mul(k.mul(k.mul(t, k.sub(one, t)), turn), sum), dtheta,
                   channel);
    });
    rewriter.replaceOp(op, k.finish(kernel.grid(),
                                    /*flops=*/130.0 * channels * states,
                                    megalodon::bytesOf(op)));
    return success();
  }

  const LoweringOptions &options;
};

struct GpuEmaCoefficientsLowering : OpRewritePattern<EmaCoefficientsOp> {
  GpuEmaCoefficientsLowering(MLIRContext *context,
                             const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(EmaCoefficientsOp op,
                                PatternRewriter &rewriter) const override {
    int64_t channels = tensorOf(op.getP()).getDimSize(0),
            states = tensorOf(op.getP()).getDimSize(1);
    KernelBuilder k(rewriter, options, op, "ema_coefficients",
                    PairKernel::kThreads);
    PairKernel kernel(k, channels, states);
    Value alpha = k.read(op.getAlpha(), View::Flat),
          delta = k.read(op.getDelta(), View::Flat),
          beta = k.read(op.getBeta(), View::Flat),
          gamma = k.read(op.getGamma(), View::Flat);
    Value p = k.write(op.getP().getType(), View::Flat),
          q = k.write(op.getQ().getType(), View::Flat),
          g = k.write(op.getG().getType(), View::Flat);
    Value one = k.constant(1, kernel.f64), zero = k.constant(0, kernel.f64),
          scale = k.constant(1 / std::sqrt(double(states)), kernel.f64);
    kernel.forPairs([&](Value, Value pair) {
      Value input = k.sigmoid(kernel.load(delta, pair)),
            damping = k.sigmoid(kernel.load(alpha, pair));
      kernel.store(k.mul(input, kernel.load(beta, pair)), p, pair);
      kernel.storeComplex(k.sub(one, k.mul(input, damping)), zero, q, pair);
      kernel.storeComplex(k.mul(kernel.load(gamma, pair), scale), zero, g,
                          pair);
    });
    // Two sigmoids, counted as 20 operations each.
    rewriter.replaceOp(op, k.finish(kernel.grid(),
                                    /*flops=*/44.0 * channels * states,
                                    megalodon::bytesOf(op)));
    return success();
  }

  const LoweringOptions &options;
};

struct GpuEmaCoefficientsGradLowering
    : OpRewritePattern<EmaCoefficientsGradOp> {
  GpuEmaCoefficientsGradLowering(MLIRContext *context,
                                 const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(EmaCoefficientsGradOp op,
                                PatternRewriter &rewriter) const override {
    int64_t channels = tensorOf(op.getDp()).getDimSize(0),
            states = tensorOf(op.getDp()).getDimSize(1);
    KernelBuilder k(rewriter, options, op, "ema_coefficients_grad",
                    PairKernel::kThreads);
    PairKernel kernel(k, channels, states);
    Value dp = k.read(op.getDp(), View::Flat),
          dq = k.read(op.getDq(), View::Flat),
          dg = k.read(op.getDg(), View::Flat),
          alpha = k.read(op.getAlpha(), View::Flat),
          delta = k.read(op.getDelta(), View::Flat),
          beta = k.read(op.getBeta(), View::Flat);
    Value dalpha = k.write(op.getDalpha().getType(), View::Flat),
          ddelta = k.write(op.getDdelta().getType(), View::Flat),
          dbeta = k.write(op.getDbeta().getType(), View::Flat),
          dgamma = k.write(op.getDgamma().getType(), View::Flat);
    Value one = k.constant(1, kernel.f64),
          scale = k.constant(1 / std::sqrt(double(states)), kernel.f64);
    kernel.forPairs([&](Value, Value pair) {
      Value a = k.sigmoid(kernel.load(alpha, pair)),
            s = k.sigmoid(kernel.load(delta, pair)),
            gain = kernel.load(dp, pair);
      Value shrink = k.mul(a, kernel.loadComplex(dq, pair).re);
      kernel.store(k.mul(k.mul(s, k.sub(a, one)), shrink), dalpha, pair);
      kernel.store(k.mul(k.mul(s, k.sub(one, s)),
                         k.sub(k.mul(kernel.load(beta, pair), gain), shrink)),
                   ddelta, pair);
      kernel.store(k.mul(s, gain), dbeta, pair);
      kernel.store(k.mul(kernel.loadComplex(dg, pair).re, scale), dgamma, pair);
    });
    rewriter.replaceOp(op, k.finish(kernel.grid(),
                                    /*flops=*/52.0 * channels * states,
                                    megalodon::bytesOf(op)));
    return success();
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateGpuCemaCoefficientLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<GpuCemaCoefficientsLowering, GpuCemaCoefficientsGradLowering,
               GpuEmaCoefficientsLowering, GpuEmaCoefficientsGradLowering>(
      patterns.getContext(), options);
}
