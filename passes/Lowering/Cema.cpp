// Lowers megalodon.cema: a workgroup runs one batch row of up to 64 channels
// through time, two tokens an iteration.
//
// With h the state before tokens t and t+1 (all states of a channel summed in
// y):
//   h''     = q^2 h + q p x_t + p x_{t+1}
//   y_t     = Re(g q h)   + k0 x_t                    k0 = omega + sum Re(g p)
//   y_{t+1} = Re(g q^2 h) + k1 x_t + k0 x_{t+1}       k1 = sum Re(g q p)
// 11 fused multiply-adds a state for two tokens instead of 14, with half the
// length of the dependence chain; the products of coefficients are formed in
// f64 and rounded once, so that powers of a |q| close to 1 stay accurate.
#include "passes/Lowering/CemaKernel.h"
#include "passes/Lowering/PackedDocuments.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens whose x and y are held in scratch at a time.
constexpr int64_t kTokens = 64;

/// Coefficients of one state, in the order of the table. Imaginary parts that
/// multiply an imaginary part into y are stored negated.
enum Coefficient {
  kQ2Re,
  kQ2Im,
  kQPRe,
  kQPIm,
  kP,
  kGQRe,
  kGQImNegated,
  kGQ2Re,
  kGQ2ImNegated,
  kQRe,
  kQIm,
  kCoefficients
};

class ForwardKernel {
public:
  /// `segment` is 0 when a workgroup runs a whole row; else a workgroup runs
  /// that many tokens, from their state in `segmentStates`.
  ForwardKernel(KernelBuilder &k, CemaTile &tile, CemaOp op, int64_t segment,
                Value segmentStates)
      : k(k), tile(tile), block(op.getBlockStates().use_empty()
                                    ? 0
                                    : static_cast<int64_t>(op.getBlock())),
        segment(segment), documents(k, readPositions(k, op)), zero(k.index(0)),
        one(k.index(1)) {
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    omega = k.read(op.getOmega(), View::Flat);
    if (segment)
      starts = k.read(segmentStates, View::Flat);
    y = k.write(op.getResult().getType(), View::Rows);
    // A workgroup reads its part of the state before it writes it, so one
    // buffer does for whole rows.
    newState =
        segment ? k.write(op.getNewState().getType()) : k.update(op.getState());
    if (block)
      blockStates = k.write(op.getBlockStates().getType(), View::Flat);
    int64_t groups = tile.groupsPerWorkgroup, width = tile.width;
    table =
        k.scratch({groups, tile.states, kCoefficients, width}, tile.element);
    kernel = k.scratch({groups, 2, width}, tile.element);
    kernelSums = k.scratch({2, width}, k.b.getF64Type());
    h = k.scratch({groups, tile.states, 2, width}, tile.element);
    // x and y of one token are used together: 2 KiB apart modulo the 4 KiB at
    // which addresses share a cache set.
    xs = k.scratch({groups, kTokens, width}, tile.element);
    ys = k.scratch({groups, kTokens, width}, tile.element, /*skewBytes=*/2048);
  }

  void build() {
    Value channelBlocks = k.index(tile.workgroups()), length = k.length(),
          first = zero, end = length;
    row = k.div(k.workgroup(), channelBlocks);
    tile.begin(k, k.rem(k.workgroup(), channelBlocks));
    buildTable();
    if (segment) {
      Value index = k.div(row, k.batch());
      row = k.rem(row, k.batch());
      first = k.mul(index, k.index(segment));
      end = k.min(k.add(first, k.index(segment)), length);
      loadSegmentState(index);
    } else {
      tile.loadStates(newState, row, h);
    }
    documents.setRow(row);
    if (block) {
      k.loop(first, end, block, [&](Value from) {
        documents.whenBegins(from, [&] { tile.clearStates(h); });
        saveStates(k.div(from, k.index(block)));
        scanDocuments(from, k.min(k.add(from, k.index(block)), end));
      });
    } else {
      documents.whenBegins(first, [&] { tile.clearStates(h); });
      scanDocuments(first, end);
    }
    if (segment)
      k.when(k.less(k.sub(length, one), end),
             [&] { tile.storeStates(h, newState, row); });
    else
      tile.storeStates(h, newState, row);
  }

private:
  void buildTable() {
    tile.forGroups([&](Value group, Value channel) {
      Value mask = tile.mask(channel);
      Value skip = mask ? vector::MaskedLoadOp::create(
                              k.b, tile.vector(), omega, ValueRange{channel},
                              mask, k.constant(0, tile.vector()))
                              .getResult()
                        : tile.load(omega, {channel});
      tile.store(k.toFloat(skip, k.b.getF64Type()), kernelSums, {zero, zero});
      tile.store(k.constant(0, tile.wideVector()), kernelSums, {one, zero});
      tile.forCoefficients(
          channel, p, q, g, [&](Value n, const CemaTile::Coefficients &c) {
            Value gqRe = k.sub(k.mul(c.gr, c.qr), k.mul(c.gi, c.qi)),
                  gqIm = k.add(k.mul(c.gr, c.qi), k.mul(c.gi, c.qr));
            Value values[kCoefficients];
            values[kQ2Re] = k.sub(k.mul(c.qr, c.qr), k.mul(c.qi, c.qi));
            values[kQ2Im] = k.mul(k.add(c.qr, c.qr), c.qi);
            values[kQPRe] = k.mul(c.qr, c.p);
            values[kQPIm] = k.mul(c.qi, c.p);
            values[kP] = c.p;
            values[kGQRe] = gqRe;
            values[kGQImNegated] = negate(gqIm);
            values[kGQ2Re] = k.sub(k.mul(gqRe, c.qr), k.mul(gqIm, c.qi));
            values[kGQ2ImNegated] =
                negate(k.add(k.mul(gqRe, c.qi), k.mul(gqIm, c.qr)));
            values[kQRe] = c.qr;
            values[kQIm] = c.qi;
            for (int64_t i = 0; i < kCoefficients; ++i)
              tile.store(k.toFloat(values[i], tile.element), table,
                         {group, n, k.index(i), zero});
            tile.store(k.fma(c.gr, c.p, tile.load(kernelSums, {zero, zero})),
                       kernelSums, {zero, zero});
            tile.store(k.fma(gqRe, c.p, tile.load(kernelSums, {one, zero})),
                       kernelSums, {one, zero});
          });
      for (Value i : {zero, one})
        tile.store(k.toFloat(tile.load(kernelSums, {i, zero}), tile.element),
                   kernel, {group, i, zero});
    });
  }

  void loadSegmentState(Value index) {
    tile.forGroups([&](Value group, Value channel) {
      k.loop(zero, k.index(tile.states), 1, [&](Value n) {
        for (int64_t part : {0, 1})
          tile.store(
              tile.load(starts, {tile.segmentStateOffset(index, row, k.batch(),
                                                         channel, n, part)}),
              h, {group, n, k.index(part), zero});
      });
    });
  }

  void saveStates(Value blockIndex) {
    tile.forGroups([&](Value group, Value channel) {
      Value mask = tile.mask(channel);
      k.loop(zero, k.index(tile.states), 1, [&](Value n) {
        for (int64_t part : {0, 1})
          k.store(tile.load(h, {group, n, k.index(part), zero}), blockStates,
                  {tile.blockStateOffset(blockIndex, row, k.batch(), channel, n,
                                         part)},
                  mask);
      });
    });
  }

  /// Tokens [first, end) of the row, from the states as they are.
  void scanDocuments(Value first, Value end) {
    documents.forRuns(
        first, end, [&] { tile.clearStates(h); },
        [&](Value from, Value to) { scan(from, to); });
  }

  /// Tokens [first, end) of the row, which belong to one document.
  void scan(Value first, Value end) {
    k.loop(first, end, kTokens, [&](Value from) {
      Value count = k.min(k.index(kTokens), k.sub(end, from));
      Value even = k.sub(count, k.rem(count, k.index(2)));
      Value token = k.add(k.mul(row, k.length()), from);
      pack(token, even, count);
      tile.forGroups([&](Value group, Value) {
        // Two states and their nine coefficients each fill 32 registers.
        tile.forStateGroups(k.getOptions().vectorRegisters >= 32 ? 2 : 1,
                            [&](Value n, int64_t size) {
                              scanStates(group, n, size, even, count);
                            });
      });
      k.loop(zero, count, 1, [&](Value t) {
        tile.forGroups([&](Value group, Value channel) {
          k.store(tile.load(ys, {group, t, zero}), y,
                  {k.add(token, t), channel}, tile.mask(channel));
        });
      });
    });
  }

  /// Copies x into scratch and starts y with the terms that need no state.
  void pack(Value token, Value even, Value count) {
    Value last = k.sub(k.tokens(), one);
    k.loop(zero, even, 2, [&](Value t) {
      Value next = k.add(t, one),
            coming = k.add(k.add(token, t), k.index(kTokens));
      tile.forGroups([&](Value group, Value channel) {
        Value mask = tile.mask(channel),
              k0 = tile.load(kernel, {group, zero, zero}),
              k1 = tile.load(kernel, {group, one, zero});
        Value x0 = k.load(x, {k.add(token, t), channel}, mask),
              x1 = k.load(x, {k.add(token, next), channel}, mask);
        tile.prefetch(x, k.min(coming, last), channel);
        tile.prefetch(x, k.min(k.add(coming, one), last), channel);
        tile.store(x0, xs, {group, t, zero});
        tile.store(x1, xs, {group, next, zero});
        tile.store(k.mul(k0, x0), ys, {group, t, zero});
        tile.store(k.fma(k1, x0, k.mul(k0, x1)), ys, {group, next, zero});
      });
    });
    k.loop(even, count, 1, [&](Value t) {
      tile.forGroups([&](Value group, Value channel) {
        Value x0 = k.load(x, {k.add(token, t), channel}, tile.mask(channel));
        tile.store(x0, xs, {group, t, zero});
        tile.store(k.mul(tile.load(kernel, {group, zero, zero}), x0), ys,
                   {group, t, zero});
      });
    });
  }

  void scanStates(Value group, Value firstState, int64_t size, Value even,
                  Value count) {
    SmallVector<Value> n(size), states;
    for (int64_t s = 0; s < size; ++s) {
      n[s] = k.add(firstState, k.index(s));
      states.push_back(tile.load(h, {group, n[s], zero, zero}));
      states.push_back(tile.load(h, {group, n[s], one, zero}));
    }
    auto coefficient = [&](int64_t s, int64_t i) {
      return tile.load(table, {group, n[s], k.index(i), zero});
    };

    SmallVector<SmallVector<Value>> c(size);
    for (int64_t s = 0; s < size; ++s)
      for (int64_t i = 0; i < kQRe; ++i)
        c[s].push_back(coefficient(s, i));
    states = k.loop(zero, even, 2, states, [&](Value t, ValueRange carried) {
      Value next = k.add(t, one);
      Value x0 = tile.load(xs, {group, t, zero}),
            x1 = tile.load(xs, {group, next, zero});
      Value y0 = tile.load(ys, {group, t, zero}),
            y1 = tile.load(ys, {group, next, zero});
      SmallVector<Value> after;
      for (int64_t s = 0; s < size; ++s) {
        Value re = carried[2 * s], im = carried[2 * s + 1];
        y0 = k.fma(c[s][kGQImNegated], im, k.fma(c[s][kGQRe], re, y0));
        y1 = k.fma(c[s][kGQ2ImNegated], im, k.fma(c[s][kGQ2Re], re, y1));
        // The terms of x first: they do not wait for the state.
        Value inputRe = k.fma(c[s][kP], x1, k.mul(c[s][kQPRe], x0)),
              inputIm = k.mul(c[s][kQPIm], x0);
        after.push_back(
            k.fma(c[s][kQ2Re], re, k.fma(c[s][kQ2Im], negate(im), inputRe)));
        after.push_back(
            k.fma(c[s][kQ2Re], im, k.fma(c[s][kQ2Im], re, inputIm)));
      }
      tile.store(y0, ys, {group, t, zero});
      tile.store(y1, ys, {group, next, zero});
      return after;
    });
    states = k.loop(even, count, 1, states, [&](Value t, ValueRange carried) {
      Value x0 = tile.load(xs, {group, t, zero}),
            y0 = tile.load(ys, {group, t, zero});
      SmallVector<Value> after;
      for (int64_t s = 0; s < size; ++s) {
        Value re = carried[2 * s], im = carried[2 * s + 1],
              qRe = coefficient(s, kQRe), qIm = coefficient(s, kQIm);
        y0 = k.fma(c[s][kGQImNegated], im, k.fma(c[s][kGQRe], re, y0));
        after.push_back(
            k.fma(qRe, re, k.fma(qIm, negate(im), k.mul(c[s][kP], x0))));
        after.push_back(k.fma(qRe, im, k.mul(qIm, re)));
      }
      tile.store(y0, ys, {group, t, zero});
      return after;
    });
    for (int64_t s = 0; s < size; ++s) {
      tile.store(states[2 * s], h, {group, n[s], zero, zero});
      tile.store(states[2 * s + 1], h, {group, n[s], one, zero});
    }
  }

  Value negate(Value x) { return arith::NegFOp::create(k.b, x); }

  KernelBuilder &k;
  CemaTile &tile;
  /// Tokens between saved states (0: they are not wanted) and tokens of a
  /// workgroup (0: whole rows).
  int64_t block, segment;
  PackedDocuments documents;
  Value zero, one, row;
  Value x, p, q, g, omega, starts, y, newState, blockStates;
  Value table, kernel, kernelSums, h, xs, ys;
};

struct CemaLowering : OpRewritePattern<CemaOp> {
  CemaLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(CemaOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getX().getType());
    int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
            channels = type.getDimSize(2);
    int64_t states = cast<RankedTensorType>(op.getP().getType()).getDimSize(1);
    CemaTile tile(options, computeType(type.getElementType()), channels,
                  states);
    int64_t segment = segmentLength(op, batch * tile.workgroups(), length);
    Value starts =
        segment ? buildSegmentStates(rewriter, options, op, segment) : Value();
    KernelBuilder k(rewriter, options, op, segment ? "cema_segment" : "cema");
    ForwardKernel(k, tile, op, segment, starts).build();

    double tokens = double(batch) * length,
           stateBytes = tile.element.getIntOrFloatBitWidth() / 8;
    double bytes = 2 * tokens * channels * (type.getElementTypeBitWidth() / 8) +
                   4.0 * stateBytes * channels * batch * states +
                   40.0 * channels * states;
    bool saves = !op.getBlockStates().use_empty();
    if (saves)
      bytes +=
          stateBytes * cast<RankedTensorType>(op.getBlockStates().getType())
                           .getNumElements();
    Grid grid = {.factor = tile.workgroups(), .outer = plan::Outer::Batch};
    if (segment) {
      grid.inner = plan::Inner::Length;
      grid.divisor = segment;
    }
    SmallVector<Value> results =
        k.finish(grid, /*flops=*/12.0 * tokens * channels * states, bytes);
    replaceUsedResults(rewriter, op,
                       {results[0], results[1], saves ? results[2] : Value()});
    return success();
  }

  /// Tokens of one segment of the two-level form, or 0 for the sequential form.
  /// The two-level form costs about half as much again, so it pays when less
  /// than half the cores would have work; a segment holds whole blocks of saved
  /// states.
  int64_t segmentLength(CemaOp op, int64_t workgroups, int64_t length) const {
    if (options.cema == "sequential" ||
        (options.cema == "auto" && 2 * workgroups >= options.cores))
      return 0;
    int64_t wanted = std::max<int64_t>(2, options.cores / workgroups);
    int64_t unit = op.getBlockStates().use_empty()
                       ? 2
                       : static_cast<int64_t>(op.getBlock());
    int64_t segment =
        llvm::alignTo(llvm::divideCeilSigned(length, wanted), unit);
    return segment < length ? segment : 0;
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateCemaForwardLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<CemaLowering>(patterns.getContext(), options);
}
