// Lowers megalodon.cema_coefficients, ema_coefficients and their gradients:
// elementwise over (channel, state), everything in f64.
#include "dialect/Megalodon/Mega.h"
#include "passes/Lowering/CemaKernel.h"
#include <cmath>

using namespace mlir;
using namespace mlir::megalodon;

namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;
/// Channels of one workgroup.
constexpr int64_t kChannels = 16;

/// Vectors of f64 over the states of one channel, and pairs (re, im)
/// interleaved in memory.
class CoefficientKernel {
public:
  CoefficientKernel(KernelBuilder &k, int64_t channels, int64_t states)
      : k(k), channels(channels), states(states), f64(k.b.getF64Type()),
        width(k.lanes(f64)), wide(k.vectorType(f64)) {}

  void forChannels(function_ref<void(Value channel)> body) {
    Value first = k.mul(k.workgroup(), k.index(kChannels));
    Value end = k.min(k.add(first, k.index(kChannels)), k.index(channels));
    k.loop(first, end, 1, body);
  }

  /// [channel, state..] of a tensor seen flat, `stride` elements a state;
  /// extended to f64.
  Value load(Value flat, Value channel, Value state, Value mask) {
    Type element = cast<MemRefType>(flat.getType()).getElementType();
    return k.toFloat(rawLoad(flat, offset(channel, state, 1),
                             VectorType::get(width, element), mask),
                     f64);
  }
  void store(Value value, Value flat, Value channel, Value state, Value mask) {
    rawStore(
        k.toFloat(value, cast<MemRefType>(flat.getType()).getElementType()),
        flat, offset(channel, state, 1), mask);
  }
  std::pair<Value, Value> loadComplex(Value flat, Value channel, Value state,
                                      Value mask) {
    Type element = cast<MemRefType>(flat.getType()).getElementType();
    Value pairs =
        rawLoad(flat, offset(channel, state, 2),
                VectorType::get(2 * width, element), interleavedMask(mask));
    auto parts = vector::DeinterleaveOp::create(k.b, pairs);
    return {k.toFloat(parts.getRes1(), f64), k.toFloat(parts.getRes2(), f64)};
  }
  void storeComplex(Value re, Value im, Value flat, Value channel, Value state,
                    Value mask) {
    Type element = cast<MemRefType>(flat.getType()).getElementType();
    Value pairs = vector::InterleaveOp::create(k.b, k.toFloat(re, element),
                                               k.toFloat(im, element));
    rawStore(pairs, flat, offset(channel, state, 2), interleavedMask(mask));
  }

  /// k = state + 1 of every lane.
  Value ordinals(Value state) {
    SmallVector<double> values;
    for (int64_t lane = 0; lane < width; ++lane)
      values.push_back(lane + 1);
    Value lanes = arith::ConstantOp::create(
        k.b, wide, DenseElementsAttr::get(wide, ArrayRef<double>(values)));
    Value first = arith::IndexCastOp::create(k.b, k.b.getI64Type(), state);
    return k.add(lanes, k.splat(k.intToFloat(first, f64)));
  }

  /// sigma of a scalar parameter [channel].
  Value channelSigmoid(Value flat, Value channel) {
    return k.sigmoid(k.toFloat(k.loadScalar(flat, {channel}), f64));
  }

  KernelBuilder &k;
  int64_t channels, states;
  Type f64;
  int64_t width;
  VectorType wide;

private:
  Value offset(Value channel, Value state, int64_t parts) {
    return k.mul(k.add(k.mul(channel, k.index(states)), state), k.index(parts));
  }
  Value interleavedMask(Value mask) {
    return mask ? vector::InterleaveOp::create(k.b, mask, mask).getResult()
                : Value();
  }
  Value rawLoad(Value flat, Value at, VectorType type, Value mask) {
    if (!mask)
      return vector::LoadOp::create(k.b, type, flat, ValueRange{at});
    return vector::MaskedLoadOp::create(k.b, type, flat, ValueRange{at}, mask,
                                        k.constant(0, type));
  }
  void rawStore(Value value, Value flat, Value at, Value mask) {
    if (mask)
      vector::MaskedStoreOp::create(k.b, flat, ValueRange{at}, mask, value);
    else
      vector::StoreOp::create(k.b, value, flat, ValueRange{at});
  }
};

double bytesOf(ValueRange values) {
  double bytes = 0;
  for (Value value : values) {
    auto type = cast<RankedTensorType>(value.getType());
    bytes += double(type.getNumElements()) * type.getElementTypeBitWidth() / 8;
  }
  return bytes;
}

struct CemaCoefficientsLowering : OpRewritePattern<CemaCoefficientsOp> {
  CemaCoefficientsLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(CemaCoefficientsOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getP().getType());
    int64_t channels = type.getDimSize(0), states = type.getDimSize(1);
    KernelBuilder k(rewriter, options, op, "cema_coefficients");
    CoefficientKernel kernel(k, channels, states);
    Value alpha = k.read(op.getAlpha(), View::Flat),
          delta = k.read(op.getDelta(), View::Flat),
          theta = k.read(op.getTheta(), View::Flat),
          gamma = k.read(op.getGamma(), View::Flat);
    Value p = k.write(op.getP().getType(), View::Flat),
          q = k.write(op.getQ().getType(), View::Flat),
          g = k.write(op.getG().getType(), View::Flat);

    kernel.forChannels([&](Value channel) {
      Value angle = k.splat(k.mul(kernel.channelSigmoid(theta, channel),
                                  k.constant(kTwoPi / states, kernel.f64)));
      k.forLanes(states, kernel.f64, [&](Value state, Value mask) {
        Value decay = k.sigmoid(kernel.load(alpha, channel, state, mask)),
              damping = k.sigmoid(kernel.load(delta, channel, state, mask));
        Value phi = k.mul(kernel.ordinals(state), angle);
        Value magnitude =
            k.sub(k.constant(1, kernel.wide), k.mul(decay, damping));
        kernel.store(decay, p, channel, state, mask);
        kernel.storeComplex(k.mul(magnitude, math::CosOp::create(k.b, phi)),
                            k.mul(magnitude, math::SinOp::create(k.b, phi)), q,
                            channel, state, mask);
        auto [re, im] = kernel.loadComplex(gamma, channel, state, mask);
        Value scale = k.constant(1 / std::sqrt(double(states)), kernel.wide);
        kernel.storeComplex(k.mul(re, scale), k.mul(im, scale), g, channel,
                            state, mask);
      });
    });
    // Two sigmoids, a sine and a cosine, counted as 20 operations each.
    rewriter.replaceOp(
        op, k.finish({.factor = llvm::divideCeilSigned(channels, kChannels)},
                     /*flops=*/90.0 * channels * states,
                     bytesOf(op->getOperands()) + bytesOf(op->getResults())));
    return success();
  }

  const LoweringOptions &options;
};

struct CemaCoefficientsGradLowering : OpRewritePattern<CemaCoefficientsGradOp> {
  CemaCoefficientsGradLowering(MLIRContext *context,
                               const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(CemaCoefficientsGradOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getDp().getType());
    int64_t channels = type.getDimSize(0), states = type.getDimSize(1);
    KernelBuilder k(rewriter, options, op, "cema_coefficients_grad");
    CoefficientKernel kernel(k, channels, states);
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

    kernel.forChannels([&](Value channel) {
      Value t = kernel.channelSigmoid(theta, channel),
            turn = k.constant(kTwoPi / states, kernel.f64);
      Value angle = k.splat(k.mul(t, turn)), one = k.constant(1, kernel.wide);
      Value turns = k.forLanes(
          states, kernel.f64, k.constant(0, kernel.wide),
          [&](Value state, Value mask,
              ValueRange carried) -> SmallVector<Value> {
            Value p = k.sigmoid(kernel.load(alpha, channel, state, mask)),
                  s = k.sigmoid(kernel.load(delta, channel, state, mask));
            Value ordinal = kernel.ordinals(state), phi = k.mul(ordinal, angle);
            Value cosine = math::CosOp::create(k.b, phi),
                  sine = math::SinOp::create(k.b, phi);
            auto [dqRe, dqIm] = kernel.loadComplex(dq, channel, state, mask);
            Value dm = k.fma(dqRe, cosine, k.mul(dqIm, sine));
            Value dphi = k.mul(k.sub(one, k.mul(p, s)),
                               k.sub(k.mul(dqIm, cosine), k.mul(dqRe, sine)));
            Value total =
                k.sub(kernel.load(dp, channel, state, mask), k.mul(s, dm));
            kernel.store(k.mul(total, k.mul(p, k.sub(one, p))), dalpha, channel,
                         state, mask);
            Value minusP = arith::NegFOp::create(k.b, p);
            kernel.store(k.mul(k.mul(minusP, dm), k.mul(s, k.sub(one, s))),
                         ddelta, channel, state, mask);
            auto [re, im] = kernel.loadComplex(dg, channel, state, mask);
            Value scale =
                k.constant(1 / std::sqrt(double(states)), kernel.wide);
            kernel.storeComplex(k.mul(re, scale), k.mul(im, scale), dgamma,
                                channel, state, mask);
            // Masked lanes hold dq = 0 and add nothing.
            return {k.fma(ordinal, dphi, carried[0])};
          })[0];
      Value chain = k.mul(k.mul(t, k.sub(k.constant(1, kernel.f64), t)), turn);
      k.storeScalar(k.toFloat(k.mul(chain, k.sum(turns)),
                              cast<RankedTensorType>(op.getDtheta().getType())
                                  .getElementType()),
                    dtheta, {channel});
    });
    rewriter.replaceOp(
        op, k.finish({.factor = llvm::divideCeilSigned(channels, kChannels)},
                     /*flops=*/110.0 * channels * states,
                     bytesOf(op->getOperands()) + bytesOf(op->getResults())));
    return success();
  }

  const LoweringOptions &options;
};

struct EmaCoefficientsLowering : OpRewritePattern<EmaCoefficientsOp> {
  EmaCoefficientsLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(EmaCoefficientsOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getP().getType());
    int64_t channels = type.getDimSize(0), states = type.getDimSize(1);
    KernelBuilder k(rewriter, options, op, "ema_coefficients");
    CoefficientKernel kernel(k, channels, states);
    Value alpha = k.read(op.getAlpha(), View::Flat),
          delta = k.read(op.getDelta(), View::Flat),
          beta = k.read(op.getBeta(), View::Flat),
          gamma = k.read(op.getGamma(), View::Flat);
    Value p = k.write(op.getP().getType(), View::Flat),
          q = k.write(op.getQ().getType(), View::Flat),
          g = k.write(op.getG().getType(), View::Flat);

    Value one = k.constant(1, kernel.wide), zero = k.constant(0, kernel.wide),
          scale = k.constant(1 / std::sqrt(double(states)), kernel.wide);
    kernel.forChannels([&](Value channel) {
      k.forLanes(states, kernel.f64, [&](Value state, Value mask) {
        Value input = k.sigmoid(kernel.load(delta, channel, state, mask)),
              damping = k.sigmoid(kernel.load(alpha, channel, state, mask));
        kernel.store(k.mul(input, kernel.load(beta, channel, state, mask)), p,
                     channel, state, mask);
        kernel.storeComplex(k.sub(one, k.mul(input, damping)), zero, q, channel,
                            state, mask);
        kernel.storeComplex(
            k.mul(kernel.load(gamma, channel, state, mask), scale), zero, g,
            channel, state, mask);
      });
    });
    // Two sigmoids, counted as 20 operations each.
    rewriter.replaceOp(
        op, k.finish({.factor = llvm::divideCeilSigned(channels, kChannels)},
                     /*flops=*/44.0 * channels * states,
                     bytesOf(op->getOperands()) + bytesOf(op->getResults())));
    return success();
  }

  const LoweringOptions &options;
};

struct EmaCoefficientsGradLowering : OpRewritePattern<EmaCoefficientsGradOp> {
  EmaCoefficientsGradLowering(MLIRContext *context,
                              const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(EmaCoefficientsGradOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getDp().getType());
    int64_t channels = type.getDimSize(0), states = type.getDimSize(1);
    KernelBuilder k(rewriter, options, op, "ema_coefficients_grad");
    CoefficientKernel kernel(k, channels, states);
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

    Value one = k.constant(1, kernel.wide),
          scale = k.constant(1 / std::sqrt(double(states)), kernel.wide);
    kernel.forChannels([&](Value channel) {
      k.forLanes(states, kernel.f64, [&](Value state, Value mask) {
        auto of = [&](Value flat) {
          return kernel.load(flat, channel, state, mask);
        };
        auto set = [&](Value value, Value flat) {
          kernel.store(value, flat, channel, state, mask);
        };
        Value a = k.sigmoid(of(alpha)), s = k.sigmoid(of(delta)), gain = of(dp);
        Value decay = kernel.loadComplex(dq, channel, state, mask).first,
              shrink = k.mul(a, decay);
        set(k.mul(k.mul(s, k.sub(a, one)), shrink), dalpha);
        set(k.mul(k.mul(s, k.sub(one, s)),
                  k.sub(k.mul(of(beta), gain), shrink)),
            ddelta);
        set(k.mul(s, gain), dbeta);
        set(k.mul(kernel.loadComplex(dg, channel, state, mask).first, scale),
            dgamma);
      });
    });
    rewriter.replaceOp(
        op, k.finish({.factor = llvm::divideCeilSigned(channels, kChannels)},
                     /*flops=*/52.0 * channels * states,
                     bytesOf(op->getOperands()) + bytesOf(op->getResults())));
    return success();
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateCemaCoefficientLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<CemaCoefficientsLowering, CemaCoefficientsGradLowering,
               EmaCoefficientsLowering, EmaCoefficientsGradLowering>(
      patterns.getContext(), options);
}
