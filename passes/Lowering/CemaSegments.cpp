// The first half of the two-level CEMA scan, for calls with fewer (row, channel
// block) pairs than cores: the states at the start of every segment of tokens.
// One kernel scans all segments from a zero state without computing y, four
// tokens an iteration; another carries the states from segment to segment with
// q^segment. The forward kernel then runs all segments at once.
#include "passes/Lowering/CemaKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

constexpr int64_t kTokens = 64;

/// h'''' = q^4 h + q^3 p x0 + q^2 p x1 + q p x2 + p x3.
enum Coefficient {
  kQ4Re,
  kQ4Im,
  kQ3PRe,
  kQ3PIm,
  kQ2PRe,
  kQ2PIm,
  kQPRe,
  kQPIm,
  kP,
  kQRe,
  kQIm,
  kCoefficients
};

struct Complex {
  Value re, im;
};

Complex multiply(KernelBuilder &k, Complex a, Complex b) {
  return {k.sub(k.mul(a.re, b.re), k.mul(a.im, b.im)),
          k.add(k.mul(a.re, b.im), k.mul(a.im, b.re))};
}

class SegmentKernel {
public:
  SegmentKernel(KernelBuilder &k, CemaTile &tile, CemaOp op, int64_t segment,
                Type carryType)
      : k(k), tile(tile), segment(segment), zero(k.index(0)), one(k.index(1)) {
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    carries = k.write(carryType, View::Flat);
    int64_t groups = tile.groupsPerWorkgroup, width = tile.width;
    table =
        k.scratch({groups, tile.states, kCoefficients, width}, tile.element);
    h = k.scratch({groups, tile.states, 2, width}, tile.element);
    xs = k.scratch({groups, kTokens, width}, tile.element);
  }

  void build() {
    Value channelBlocks = k.index(tile.workgroups()),
          pair = k.div(k.workgroup(), channelBlocks);
    Value row = k.rem(pair, k.batch()), index = k.div(pair, k.batch()),
          first = k.mul(index, k.index(segment));
    Value end = k.add(first, k.index(segment)), length = k.length();
    tile.begin(k, k.rem(k.workgroup(), channelBlocks));
    // Nothing comes after the last segment.
    k.when(k.less(end, length), [&] {
      buildTable();
      tile.clearStates(h);
      Value rowToken = k.mul(row, length);
      k.loop(first, end, kTokens, [&](Value from) {
        Value count = k.min(k.index(kTokens), k.sub(end, from));
        scan(k.add(rowToken, from), count);
      });
      tile.forGroups([&](Value group, Value channel) {
        k.loop(zero, k.index(tile.states), 1, [&](Value n) {
          for (int64_t part : {0, 1})
            tile.store(tile.load(h, {group, n, k.index(part), zero}), carries,
                       {tile.segmentStateOffset(index, row, k.batch(), channel,
                                                n, part)});
        });
      });
    });
  }

private:
  void buildTable() {
    tile.forGroups([&](Value group, Value channel) {
      tile.forCoefficients(
          channel, p, q, g, [&](Value n, const CemaTile::Coefficients &c) {
            Complex q1 = {c.qr, c.qi}, q2 = multiply(k, q1, q1),
                    q3 = multiply(k, q2, q1), q4 = multiply(k, q2, q2);
            Value values[kCoefficients];
            values[kQ4Re] = q4.re;
            values[kQ4Im] = q4.im;
            values[kQ3PRe] = k.mul(q3.re, c.p);
            values[kQ3PIm] = k.mul(q3.im, c.p);
            values[kQ2PRe] = k.mul(q2.re, c.p);
            values[kQ2PIm] = k.mul(q2.im, c.p);
            values[kQPRe] = k.mul(q1.re, c.p);
            values[kQPIm] = k.mul(q1.im, c.p);
            values[kP] = c.p;
            values[kQRe] = q1.re;
            values[kQIm] = q1.im;
            for (int64_t i = 0; i < kCoefficients; ++i)
              tile.store(k.toFloat(values[i], tile.element), table,
                         {group, n, k.index(i), zero});
          });
    });
  }

  void scan(Value token, Value count) {
    k.loop(zero, count, 1, [&](Value t) {
      tile.forGroups([&](Value group, Value channel) {
        tile.store(k.load(x, {k.add(token, t), channel}, tile.mask(channel)),
                   xs, {group, t, zero});
      });
    });
    Value whole = k.sub(count, k.rem(count, k.index(4)));
    tile.forGroups([&](Value group, Value) {
      tile.forStateGroups(k.getOptions().vectorRegisters >= 32 ? 2 : 1,
                          [&](Value n, int64_t size) {
                            scanStates(group, n, size, whole, count);
                          });
    });
  }

  void scanStates(Value group, Value firstState, int64_t size, Value whole,
                  Value count) {
    SmallVector<Value> n(size), states;
    SmallVector<SmallVector<Value>> c(size);
    for (int64_t s = 0; s < size; ++s) {
      n[s] = k.add(firstState, k.index(s));
      for (int64_t part : {0, 1})
        states.push_back(tile.load(h, {group, n[s], k.index(part), zero}));
      for (int64_t i = 0; i < kCoefficients; ++i)
        c[s].push_back(tile.load(table, {group, n[s], k.index(i), zero}));
    }
    states = k.loop(zero, whole, 4, states, [&](Value t, ValueRange before) {
      Value x[4];
      for (int64_t i = 0; i < 4; ++i)
        x[i] = tile.load(xs, {group, k.add(t, k.index(i)), zero});
      SmallVector<Value> after;
      for (int64_t s = 0; s < size; ++s) {
        Value inputRe =
            k.fma(c[s][kQ3PRe], x[0],
                  k.fma(c[s][kQ2PRe], x[1],
                        k.fma(c[s][kQPRe], x[2], k.mul(c[s][kP], x[3]))));
        Value inputIm =
            k.fma(c[s][kQ3PIm], x[0],
                  k.fma(c[s][kQ2PIm], x[1], k.mul(c[s][kQPIm], x[2])));
        step(c[s][kQ4Re], c[s][kQ4Im], before[2 * s], before[2 * s + 1],
             inputRe, inputIm, after);
      }
      return after;
    });
    states = k.loop(whole, count, 1, states, [&](Value t, ValueRange before) {
      Value x0 = tile.load(xs, {group, t, zero}),
            none = k.constant(0, tile.vector());
      SmallVector<Value> after;
      for (int64_t s = 0; s < size; ++s)
        step(c[s][kQRe], c[s][kQIm], before[2 * s], before[2 * s + 1],
             k.mul(c[s][kP], x0), none, after);
      return after;
    });
    for (int64_t s = 0; s < size; ++s)
      for (int64_t part : {0, 1})
        tile.store(states[2 * s + part], h, {group, n[s], k.index(part), zero});
  }

  /// Appends (qRe + i qIm)(re + i im) + input.
  void step(Value qRe, Value qIm, Value re, Value im, Value inputRe,
            Value inputIm, SmallVector<Value> &after) {
    Value minusIm = arith::NegFOp::create(k.b, im);
    after.push_back(k.fma(qRe, re, k.fma(qIm, minusIm, inputRe)));
    after.push_back(k.fma(qRe, im, k.fma(qIm, re, inputIm)));
  }

  KernelBuilder &k;
  CemaTile &tile;
  int64_t segment;
  Value zero, one, x, p, q, g, carries, table, h, xs;
};

/// In place: the end state of every segment scanned from zero becomes the state
/// at its start. Sums in f64.
Value carryStates(PatternRewriter &rewriter, const LoweringOptions &options,
                  CemaOp op, CemaTile &tile, int64_t segment, Value carried) {
  KernelBuilder k(rewriter, options, op, "cema_carry");
  Value p = k.read(op.getP()), q = k.read(op.getQ()), g = k.read(op.getG()),
        state = k.read(op.getState()), carries = k.update(carried, View::Flat);
  Value h = k.scratch({tile.groupsPerWorkgroup, tile.states, 2, tile.width},
                      tile.element);
  Value channelBlocks = k.index(tile.workgroups()),
        row = k.div(k.workgroup(), channelBlocks), zero = k.index(0);
  tile.begin(k, k.rem(k.workgroup(), channelBlocks));
  tile.loadStates(state, row, h);
  Value last = k.sub(k.ceilDiv(k.length(), segment), k.index(1));
  Type f64 = k.b.getF64Type();
  tile.forGroups([&](Value group, Value channel) {
    tile.forCoefficients(
        channel, p, q, g, [&](Value n, const CemaTile::Coefficients &c) {
          Complex power = {k.constant(1, tile.wideVector()),
                           k.constant(0, tile.wideVector())},
                  square = {c.qr, c.qi};
          for (int64_t exponent = segment; exponent; exponent /= 2) {
            if (exponent % 2)
              power = multiply(k, power, square);
            if (exponent > 1)
              square = multiply(k, square, square);
          }
          auto offset = [&](Value index, int64_t part) {
            return tile.segmentStateOffset(index, row, k.batch(), channel, n,
                                           part);
          };
          auto put = [&](Value index, ValueRange value) {
            for (int64_t part : {0, 1})
              tile.store(k.toFloat(value[part], tile.element), carries,
                         {offset(index, part)});
          };
          SmallVector<Value> current;
          for (int64_t part : {0, 1})
            current.push_back(
                k.toFloat(tile.load(h, {group, n, k.index(part), zero}), f64));
          current = k.loop(
              zero, last, 1, current,
              [&](Value index, ValueRange before) -> SmallVector<Value> {
                Value re = k.toFloat(tile.load(carries, {offset(index, 0)}),
                                     f64),
                      im = k.toFloat(tile.load(carries, {offset(index, 1)}),
                                     f64);
                put(index, before);
                Complex moved = multiply(k, power, {before[0], before[1]});
                return {k.add(moved.re, re), k.add(moved.im, im)};
              });
          put(last, current);
        });
  });
  double elements = cast<RankedTensorType>(carried.getType()).getNumElements();
  return k.finish({.factor = tile.workgroups(), .outer = plan::Outer::Batch},
                  /*flops=*/4 * elements,
                  /*bytes=*/2 * elements *
                      tile.element.getIntOrFloatBitWidth() / 8)[0];
}

} // namespace

Value mlir::megalodon::buildSegmentStates(PatternRewriter &rewriter,
                                          const LoweringOptions &options,
                                          CemaOp op, int64_t segment) {
  auto type = cast<RankedTensorType>(op.getX().getType());
  int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
          channels = type.getDimSize(2);
  int64_t states = cast<RankedTensorType>(op.getP().getType()).getDimSize(1);
  CemaTile tile(options, type.getElementType(), channels, states);
  auto carryType = RankedTensorType::get(
      {llvm::divideCeilSigned(length, segment), batch, tile.segmentStateSize()},
      type.getElementType());
  KernelBuilder k(rewriter, options, op, "cema_segments");
  SegmentKernel(k, tile, op, segment, carryType).build();
  double tokens = double(batch) * length;
  Value carried = k.finish({.factor = tile.workgroups(),
                            .outer = plan::Outer::Batch,
                            .inner = plan::Inner::Length,
                            .divisor = segment},
                           /*flops=*/5.5 * tokens * channels * states,
                           /*bytes=*/tokens * channels *
                               type.getElementTypeBitWidth() / 8)[0];
  return carryStates(rewriter, options, op, tile, segment, carried);
}
