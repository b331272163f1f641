// The states of CEMA after many tokens, without its output.
#include "passes/Lowering/CemaKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens whose activations are held in scratch at a time.
constexpr int64_t kTokens = 64;

/// h'''' = q^4 h + q^3 c u0 + q^2 c u1 + q c u2 + c u3. Products are formed in
/// f64 and rounded once. Forward c is real and its imaginary part is not used.
enum Coefficient {
  kQ4Re,
  kQ4Im,
  kQ3CRe,
  kQ3CIm,
  kQ2CRe,
  kQ2CIm,
  kQCRe,
  kQCIm,
  kCRe,
  kCIm,
  kQRe,
  kQIm,
  kCoefficients
};

} // namespace

CemaStateScan::CemaStateScan(KernelBuilder &k, CemaTile &tile, Value activation,
                             bool reverse)
    : k(k), tile(tile), reverse(reverse), u(activation), zero(k.index(0)),
      one(k.index(1)) {
  int64_t groups = tile.groupsPerWorkgroup, width = tile.width;
  table = k.scratch({groups, tile.states, kCoefficients, width}, tile.element);
  h = k.scratch({groups, tile.states, 2, width}, tile.element);
  us = k.scratch({groups, kTokens, width}, tile.element);
}

void CemaStateScan::begin(Value q, Value pOrG) {
  Value p = reverse ? Value() : pOrG, g = reverse ? pOrG : Value();
  tile.forGroups([&](Value group, Value channel) {
    tile.forCoefficients(
        channel, p, q, g, [&](Value n, const CemaTile::Coefficients &c) {
          auto conjugate = [&](Value im) {
            return arith::NegFOp::create(k.b, im);
          };
          Complex q1 = {c.qr, reverse ? conjugate(c.qi) : c.qi}, input;
          input = reverse ? multiply(k, q1, {c.gr, conjugate(c.gi)})
                          : Complex{c.p, k.constant(0, tile.wideVector())};
          Complex q2 = multiply(k, q1, q1), q4 = multiply(k, q2, q2);
          Complex input1 = multiply(k, q1, input),
                  input2 = multiply(k, q2, input),
                  input3 = multiply(k, q2, input1);
          Complex values[] = {q4, input3, input2, input1, input, q1};
          for (auto [i, value] : llvm::enumerate(values))
            for (auto [part, number] : {std::pair(0, value.re), {1, value.im}})
              tile.store(k.toFloat(number, tile.element), table,
                         {group, n, k.index(2 * i + part), zero});
        });
  });
  tile.clearStates(h);
}

void CemaStateScan::run(Value row, Value first, Value end) {
  Value rowToken = k.mul(row, k.length());
  k.loop(first, end, kTokens, [&](Value from) {
    Value count = k.min(k.index(kTokens), k.sub(end, from));
    k.loop(zero, count, 1, [&](Value t) {
      Value at = k.add(from, t);
      if (reverse)
        at = k.sub(k.add(first, k.sub(end, one)), at);
      tile.forGroups([&](Value group, Value channel) {
        tile.store(
            k.load(u, {k.add(rowToken, at), channel}, tile.mask(channel)), us,
            {group, t, zero});
      });
    });
    Value whole = k.sub(count, k.rem(count, k.index(4)));
    tile.forGroups([&](Value group, Value) {
      tile.forStateGroups(k.getOptions().vectorRegisters >= 32 ? 2 : 1,
                          [&](Value n, int64_t size) {
                            scanStates(group, n, size, whole, count);
                          });
    });
  });
}

void CemaStateScan::scanStates(Value group, Value firstState, int64_t size,
                               Value whole, Value count) {
  SmallVector<Value> n(size), states;
  SmallVector<SmallVector<Value>> c(size);
  for (int64_t s = 0; s < size; ++s) {
    n[s] = k.add(firstState, k.index(s));
    for (int64_t part : {0, 1})
      states.push_back(tile.load(h, {group, n[s], k.index(part), zero}));
    for (int64_t i = 0; i < kCoefficients; ++i)
      c[s].push_back(i == kCIm && !reverse
                         ? Value()
                         : tile.load(table, {group, n[s], k.index(i), zero}));
  }
  /// Appends q h + input; a part of the input that is 0 is null.
  auto step = [&](Value qRe, Value qIm, ValueRange before, Complex input,
                  SmallVector<Value> &after) {
    Value minusIm = arith::NegFOp::create(k.b, before[1]);
    after.push_back(k.fma(qRe, before[0], k.fma(qIm, minusIm, input.re)));
    Value turned =
        input.im ? k.fma(qIm, before[0], input.im) : k.mul(qIm, before[0]);
    after.push_back(k.fma(qRe, before[1], turned));
  };
  states = k.loop(zero, whole, 4, states, [&](Value t, ValueRange before) {
    Value u[4];
    for (int64_t i = 0; i < 4; ++i)
      u[i] = tile.load(us, {group, k.add(t, k.index(i)), zero});
    SmallVector<Value> after;
    for (int64_t s = 0; s < size; ++s) {
      Complex input;
      input.re =
          k.fma(c[s][kQ3CRe], u[0],
                k.fma(c[s][kQ2CRe], u[1],
                      k.fma(c[s][kQCRe], u[2], k.mul(c[s][kCRe], u[3]))));
      Value last = k.mul(c[s][kQCIm], u[2]);
      if (reverse)
        last = k.fma(c[s][kCIm], u[3], last);
      input.im = k.fma(c[s][kQ3CIm], u[0], k.fma(c[s][kQ2CIm], u[1], last));
      step(c[s][kQ4Re], c[s][kQ4Im], before.slice(2 * s, 2), input, after);
    }
    return after;
  });
  states = k.loop(whole, count, 1, states, [&](Value t, ValueRange before) {
    Value u0 = tile.load(us, {group, t, zero});
    SmallVector<Value> after;
    for (int64_t s = 0; s < size; ++s)
      step(c[s][kQRe], c[s][kQIm], before.slice(2 * s, 2),
           {k.mul(c[s][kCRe], u0), reverse ? k.mul(c[s][kCIm], u0) : Value()},
           after);
    return after;
  });
  for (int64_t s = 0; s < size; ++s)
    for (int64_t part : {0, 1})
      tile.store(states[2 * s + part], h, {group, n[s], k.index(part), zero});
}
