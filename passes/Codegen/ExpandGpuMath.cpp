// Math functions of GPU kernels as polynomials, so that PTX needs no library of
// device functions.
//
// Largest errors of dense samples: 1.1 ulp for exp and exp2, 0.9 for log, 1.5
// for log1p, sin, cos and rsqrt, 2.5 for tanh, and 5.2 for erfc, of f32 only
// (test/numerics/gpu_math.py).
// Polynomials interpolate at Chebyshev nodes of the reduced interval, which is
// within a small factor of the best; every reduction is exact or compensated
// through fma. The formulas stay right when products and sums are contracted.
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "passes/Codegen/Passes.h"
#include "llvm/ADT/TypeSwitch.h"
#include <cmath>
#include <limits>

namespace mlir::megalodon {
#define GEN_PASS_DEF_EXPANDGPUMATH
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;

namespace {

/// What differs between f32 and f64. Polynomials are in ascending order.
struct Constants {
  unsigned bits, mantissaBits;
  double roundToInteger; ///< adding it rounds to an integer in the low bits
  std::array<double, 2> ln2;
  std::array<double, 3> halfPi;
  ArrayRef<double> exp; ///< (exp(r) - 1 - r) / r^2, |r| <= ln(2) / 2
  ArrayRef<double> sin; ///< (sin(r) / r - 1) / r^2 in r^2, |r| <= pi / 4
  ArrayRef<double> cos; ///< (cos(r) - 1 + r^2 / 2) / r^4 in r^2, likewise
  ArrayRef<double> log; ///< (log((1 + s) / (1 - s)) / s - 2) / s^2 in s^2,
                        ///< |s| <= (sqrt(2) - 1) / (sqrt(2) + 1)
  double largestExp, smallestExp;   ///< exp is finite, and normal, between
  double largestExp2, smallestExp2; ///< likewise
  double smallestNormal;
  double tanhLimit; ///< tanh rounds to 1 from here on
  int64_t bias() const { return (int64_t(1) << (bits - mantissaBits - 2)) - 1; }
};

constexpr double kExp32[] = {0.5, 0.16666577, 0.0416665546, 0.00836317905,
                             0.00139261836};
constexpr double kSin32[] = {-0.166666647, 0.00833274594, -0.000195873871};
constexpr double kCos32[] = {0.0416666646, -0.00138883007, 2.45474372e-5};
constexpr double kLog32[] = {0.666666666, 0.400001219, 0.285508124,
                             0.233306967};
/// exp(x^2) erfc(x) / t in t = 2 / (2 + x), x >= 0.
constexpr double kErfc32[] = {0.282094806,  0.282092869,  0.246913567,
                              0.174948603,  0.0958271995, -0.067958273,
                              0.151885182,  -0.482474774, 0.516899526,
                              -0.245580032, 0.0453513376};
constexpr double kExp64[] = {0.5000000000000001,    0.16666666666666667,
                             0.041666666666624128,  0.0083333333333300618,
                             0.0013888888917213717, 0.00019841269863053617,
                             2.4801521295954375e-5, 2.7557268459997065e-6,
                             2.7620088445409748e-7, 2.5100385495510319e-8};
constexpr double kSin64[] = {-0.16666666666666665,    0.0083333333333309246,
                             -0.00019841269836722418, 2.7557316083816359e-6,
                             -2.5051127944014188e-8,  1.5917848524808261e-10};
constexpr double kCos64[] = {0.041666666666666665,  -0.0013888888888887382,
                             2.4801587298743069e-5, -2.7557317260008838e-7,
                             2.0876143827993132e-9, -1.1382456778061306e-11};
constexpr double kLog64[] = {0.66666666666666697, 0.39999999999899382,
                             0.28571428626031067, 0.22222211125722809,
                             0.18182889786191042, 0.15331699633543859,
                             0.14616721179861816};

const Constants kF32 = {32,
                        23,
                        0x1.8p23,
                        {0x1.62e43p-1, -0x1.05c61p-29},
                        {0x1.921fb6p0, -0x1.777a5cp-25, -0x1.ee59dap-50},
                        kExp32,
                        kSin32,
                        kCos32,
                        kLog32,
                        0x1.62e42ep6,
                        -0x1.5d589ep6,
                        0x1.fffffep6,
                        -126,
                        0x1p-126,
                        10};
const Constants kF64 = {
    64,
    52,
    0x1.8p52,
    {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56},
    {0x1.921fb54442d18p0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110},
    kExp64,
    kSin64,
    kCos64,
    kLog64,
    0x1.62e42fefa39efp9,
    -0x1.6232bdd7abcd2p9,
    0x1.fffffffffffffp9,
    -1022,
    0x1p-1022,
    22};

/// Builds the expansion of one op, on scalars or vectors of one float type.
class Expansion {
public:
  Expansion(OpBuilder &builder, Location location, Type type)
      : b(location, builder), type(type),
        of(getElementTypeOrSelf(type).isF32() ? kF32 : kF64) {}

  Value exp(Value x) {
    auto [n, t] = round(x, 1 / std::log(2.0));
    return scaled(x, t, expMinus1(reduced(x, n)), of.largestExp,
                  of.smallestExp);
  }

  Value exp2(Value x) {
    auto [n, t] = round(x, 1);
    return scaled(x, t, expMinus1(mul(sub(x, n), number(std::log(2.0)))),
                  of.largestExp2, of.smallestExp2);
  }

  /// log(2^k m) with m in [sqrt(1/2), sqrt(2)): f = m - 1, s = f / (2 + f),
  /// log(m) = f - (f^2/2 - s (f^2/2 + s^2 P(s^2))), where the large terms come
  /// last.
  Value log(Value x) {
    Value tiny =
        compare(arith::CmpFPredicate::OLT, x, number(of.smallestNormal));
    int64_t shift = of.mantissaBits + 2;
    Value normal = select(tiny, mul(x, number(std::ldexp(1.0, shift))), x);
    Value above = subi(asInteger(normal), asInteger(number(std::sqrt(0.5))));
    Value exponent = arith::ShRSIOp::create(b, above, integer(of.mantissaBits));
    Value m = asFloat(subi(asInteger(normal), shl(exponent, of.mantissaBits)));
    Value k = arith::SIToFPOp::create(b, type, exponent);
    k = select(tiny, sub(k, number(double(shift))), k);
    Value f = sub(m, number(1));
    Value s = div(f, add(f, number(2)));
    Value z = mul(s, s), half = mul(mul(f, f), number(0.5));
    Value series = mul(z, polynomial(of.log, z));
    Value small = fma(s, add(half, series), mul(k, number(of.ln2[1])));
    Value result = fma(k, number(of.ln2[0]), sub(f, sub(half, small)));
    // 0, negative numbers, infinity and NaN.
    double infinity = std::numeric_limits<double>::infinity();
    result = select(compare(arith::CmpFPredicate::OLT, x, number(infinity)),
                    result, x);
    result = select(compare(arith::CmpFPredicate::OLT, x, number(0)),
                    number(std::numeric_limits<double>::quiet_NaN()), result);
    return select(compare(arith::CmpFPredicate::OEQ, x, number(0)),
                  number(-infinity), result);
  }

  /// log(u) + what rounding u = 1 + x lost, over u.
  Value log1p(Value x) {
    Value one = number(1), u = add(x, one), logarithm = log(u);
    // Whichever of the two is smaller lost its low bits.
    Value lost = select(compare(arith::CmpFPredicate::OLT, absolute(x), one),
                        sub(x, sub(u, one)), sub(one, sub(u, x)));
    Value result = add(logarithm, div(lost, u));
    Value finite = compare(arith::CmpFPredicate::OLT, absolute(logarithm),
                           number(std::numeric_limits<double>::infinity()));
    return select(finite, result, logarithm);
  }

  /// sin(x), or with `quarters` = 1 cos(x) = sin(x + pi/2): x = k pi/2 + r, and
  /// k mod 4 chooses between sin(r), cos(r) and their negatives. The first part
  /// of the reduction is exact as long as k fits the significand; its error is
  /// below half an ulp of r. So angles of 1e5 and more keep all digits.
  Value sine(Value x, int64_t quarters) {
    auto [k, t] = round(x, 2 / M_PI);
    Value minus = arith::NegFOp::create(b, k), r = x;
    for (double part : of.halfPi)
      r = fma(minus, number(part), r);
    Value z = mul(r, r);
    Value sinR = fma(mul(z, polynomial(of.sin, z)), r, r);
    Value half = mul(z, number(0.5)), one = number(1), w = sub(one, half);
    Value cosR =
        add(w, fma(mul(z, z), polynomial(of.cos, z), sub(sub(one, w), half)));
    Value quadrant = asInteger(t);
    if (quarters)
      quadrant = arith::AddIOp::create(b, quadrant, integer(quarters));
    Value odd = arith::CmpIOp::create(
        b, arith::CmpIPredicate::ne,
        arith::AndIOp::create(b, quadrant, integer(1)), integer(0));
    Value sign =
        shl(arith::AndIOp::create(b, quadrant, integer(2)), of.bits - 2);
    return asFloat(
        arith::XOrIOp::create(b, asInteger(select(odd, cosR, sinR)), sign));
  }

  /// e / (e + 2) of e = exp(2 |x|) - 1.
  Value tanh(Value x) {
    Value twice =
        mul(number(2),
            arith::MinimumFOp::create(b, absolute(x), number(of.tanhLimit)));
    auto [n, t] = round(twice, 1 / std::log(2.0));
    Value power =
        asFloat(shl(arith::AddIOp::create(b, asInteger(t), integer(of.bias())),
                    of.mantissaBits));
    Value e = fma(power, expMinus1(reduced(twice, n)), sub(power, number(1)));
    return math::CopySignOp::create(b, div(e, add(e, number(2))), x);
  }

  /// exp(-x^2) t P(t) of |x|. What rounding x^2 loses is made good to first
  /// order; from the limit on the result is 0 in f32.
  Value erfc(Value x) {
    constexpr double limit = 10.5;
    Value a = arith::MinimumFOp::create(b, absolute(x), number(limit));
    Value square = mul(a, a), minus = arith::NegFOp::create(b, square),
          lost = fma(a, a, minus);
    Value t = div(number(2), add(a, number(2)));
    Value tail = mul(exp(minus), mul(t, polynomial(kErfc32, t)));
    tail = fma(arith::NegFOp::create(b, lost), tail, tail);
    return select(compare(arith::CmpFPredicate::OLT, x, number(0)),
                  sub(number(2), tail), tail);
  }

  Value rsqrt(Value x) { return div(number(1), math::SqrtOp::create(b, x)); }

private:
  /// The integer next to factor * x, as a float, and the number that holds it
  /// in its low bits.
  std::pair<Value, Value> round(Value x, double factor) {
    Value large = number(of.roundToInteger);
    Value t = factor == 1 ? add(x, large) : fma(x, number(factor), large);
    return {sub(t, large), t};
  }

  /// x - n ln(2)
  Value reduced(Value x, Value n) {
    Value minus = arith::NegFOp::create(b, n);
    return fma(minus, number(of.ln2[1]), fma(minus, number(of.ln2[0]), x));
  }

  Value expMinus1(Value r) { return fma(mul(r, r), polynomial(of.exp, r), r); }

  /// (1 + e) 2^n with n in the low bits of t. The exponent is added to the
  /// bits, so numbers that would be denormal become 0.
  Value scaled(Value x, Value t, Value e, double largest, double smallest) {
    Value value = asFloat(arith::AddIOp::create(
        b, asInteger(add(e, number(1))), shl(asInteger(t), of.mantissaBits)));
    value = select(compare(arith::CmpFPredicate::OLT, x, number(smallest)),
                   number(0), value);
    // Not a comparison the other way round: NaN stays NaN.
    return select(compare(arith::CmpFPredicate::ULE, x, number(largest)), value,
                  number(std::numeric_limits<double>::infinity()));
  }

  Value polynomial(ArrayRef<double> coefficients, Value x) {
    Value value = number(coefficients.back());
    for (double coefficient : llvm::reverse(coefficients.drop_back()))
      value = fma(value, x, number(coefficient));
    return value;
  }

  Type integerType() {
    Type element = b.getIntegerType(of.bits);
    if (auto vector = dyn_cast<VectorType>(type))
      return vector.clone(element);
    return element;
  }
  Value number(double value) {
    TypedAttr attribute = FloatAttr::get(getElementTypeOrSelf(type), value);
    if (auto vector = dyn_cast<VectorType>(type))
      attribute = DenseElementsAttr::get(vector, attribute);
    return arith::ConstantOp::create(b, attribute);
  }
  Value integer(int64_t value) {
    Type wide = integerType();
    TypedAttr attribute = IntegerAttr::get(getElementTypeOrSelf(wide), value);
    if (auto vector = dyn_cast<VectorType>(wide))
      attribute = DenseElementsAttr::get(vector, attribute);
    return arith::ConstantOp::create(b, attribute);
  }
  Value asInteger(Value x) {
    return arith::BitcastOp::create(b, integerType(), x);
  }
  Value asFloat(Value x) { return arith::BitcastOp::create(b, type, x); }
  Value add(Value x, Value y) { return arith::AddFOp::create(b, x, y); }
  Value sub(Value x, Value y) { return arith::SubFOp::create(b, x, y); }
  Value mul(Value x, Value y) { return arith::MulFOp::create(b, x, y); }
  Value div(Value x, Value y) { return arith::DivFOp::create(b, x, y); }
  Value fma(Value x, Value y, Value z) {
    return math::FmaOp::create(b, x, y, z);
  }
  Value subi(Value x, Value y) { return arith::SubIOp::create(b, x, y); }
  Value shl(Value x, int64_t bits) {
    return arith::ShLIOp::create(b, x, integer(bits));
  }
  Value absolute(Value x) { return math::AbsFOp::create(b, x); }
  Value compare(arith::CmpFPredicate predicate, Value x, Value y) {
    return arith::CmpFOp::create(b, predicate, x, y);
  }
  Value select(Value condition, Value x, Value y) {
    return arith::SelectOp::create(b, condition, x, y);
  }

  ImplicitLocOpBuilder b;
  Type type;
  const Constants &of;
};

/// Ops that become one instruction, or a few without a call.
bool isInstruction(Operation *op) {
  return isa<math::AbsFOp, math::AbsIOp, math::CeilOp, math::CopySignOp,
             math::CountLeadingZerosOp, math::CountTrailingZerosOp,
             math::CtPopOp, math::FloorOp, math::FmaOp, math::IsFiniteOp,
             math::IsInfOp, math::IsNaNOp, math::IsNormalOp, math::RoundEvenOp,
             math::SqrtOp, math::TruncOp>(op);
}

struct ExpandGpuMath : mlir::megalodon::impl::ExpandGpuMathBase<ExpandGpuMath> {
  void runOnOperation() override {
    SmallVector<Operation *> calls;
    getOperation()->walk([&](Operation *op) {
      if (isa_and_nonnull<math::MathDialect>(op->getDialect()) &&
          !isInstruction(op))
        calls.push_back(op);
    });
    for (Operation *op : calls) {
      Type type = op->getResult(0).getType(),
           element = getElementTypeOrSelf(type);
      Value result;
      if (element.isF32() || element.isF64()) {
        OpBuilder builder(op);
        Expansion expand(builder, op->getLoc(), type);
        Value x = op->getOperand(0);
        result = llvm::TypeSwitch<Operation *, Value>(op)
                     .Case([&](math::ExpOp) { return expand.exp(x); })
                     .Case([&](math::Exp2Op) { return expand.exp2(x); })
                     .Case([&](math::LogOp) { return expand.log(x); })
                     .Case([&](math::Log1pOp) { return expand.log1p(x); })
                     .Case([&](math::SinOp) { return expand.sine(x, 0); })
                     .Case([&](math::CosOp) { return expand.sine(x, 1); })
                     .Case([&](math::TanhOp) { return expand.tanh(x); })
                     .Case([&](math::RsqrtOp) { return expand.rsqrt(x); })
                     .Case([&](math::ErfcOp) {
                       return element.isF32() ? expand.erfc(x) : Value();
                     })
                     .Default(Value());
      }
      if (!result) {
        op->emitOpError() << "cannot run on a GPU: expected exp, exp2, log, "
                             "log1p, sin, cos, tanh or rsqrt of f32 or f64, or "
                             "erfc of f32, got "
                          << type;
        return signalPassFailure();
      }
      op->replaceAllUsesWith(ValueRange(result));
      op->erase();
      ++numExpanded;
    }
  }
};
} // namespace
