// Lowers megalodon.cema_grad: blocks of tokens in reverse order. A block's
// states are recomputed into scratch from its saved first state, then time runs
// backwards through the block:
//   l = conj(g) dy_t + m;  dx_t += p Re(l);  dp += x_t Re(l);  dq += l
//   conj(h_{t-1});  dg += dy_t conj(h_t);  m = conj(q) l
// with m starting at dnew_state and, in front of a document's first token, 0.
// Sums run in the compute type inside a block and in f64 across blocks; a
// second kernel adds the batch rows.
#include "passes/Lowering/CemaKernel.h"
#include "passes/Lowering/PackedDocuments.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

enum Coefficient { kQRe, kQIm, kGRe, kGImNegated, kP, kCoefficients };
/// The sums of one state: dp, dq and dg.
enum Sum { kDP, kDQRe, kDQIm, kDGRe, kDGIm, kSums };

/// Partial sums of one batch row: for every lane group [N][kSums][width], then
/// domega [width], all f64.
int64_t partialsOfGroup(const CemaTile &tile) {
  return (tile.states * kSums + 1) * tile.width;
}

class GradientKernel {
public:
  GradientKernel(KernelBuilder &k, CemaTile &tile, CemaGradOp op,
                 Type partialType)
      : k(k), tile(tile), block(op.getBlock()),
        documents(k, readPositions(k, op)), zero(k.index(0)), one(k.index(1)) {
    block = std::min(block,
                     cast<RankedTensorType>(op.getX().getType()).getDimSize(1));
    dy = k.read(op.getDy(), View::Rows);
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    omega = k.read(op.getOmega(), View::Flat);
    blockStates = k.read(op.getBlockStates(), View::Flat);
    if (op.getDnewState())
      dnewState = k.read(op.getDnewState());
    dx = k.write(op.getDx().getType(), View::Rows);
    dstate = k.write(op.getDstate().getType());
    partial = k.write(partialType, View::Flat);
    int64_t groups = tile.groupsPerWorkgroup, width = tile.width;
    table =
        k.scratch({groups, tile.states, kCoefficients, width}, tile.element);
    m = k.scratch({groups, tile.states, 2, width}, tile.element);
    sums = k.scratch({groups, tile.states, kSums, width}, k.b.getF64Type());
    omegaSums = k.scratch({groups, width}, k.b.getF64Type());
    xs = k.scratch({groups, block, width}, tile.element);
    dys = k.scratch({groups, block, width}, tile.element, /*skewBytes=*/1344);
    dxs = k.scratch({groups, block, width}, tile.element, /*skewBytes=*/1344);
    // Two states, their five coefficients and seven running values fill 32
    // registers.
    statesAtOnce = k.getOptions().vectorRegisters >= 32 ? 2 : 1;
    h = k.scratch({block, statesAtOnce, 2, width}, tile.element,
                  /*skewBytes=*/640);
  }

  void build() {
    Value channelBlocks = k.index(tile.workgroups());
    row = k.div(k.workgroup(), channelBlocks);
    tile.begin(k, k.rem(k.workgroup(), channelBlocks));
    documents.setRow(row);
    prepare();
    Value length = k.length(), blocks = k.ceilDiv(length, block);
    k.loop(zero, blocks, 1, [&](Value i) {
      Value index = k.sub(k.sub(blocks, i), one),
            first = k.mul(index, k.index(block));
      Value count = k.min(k.index(block), k.sub(length, first));
      Value token = k.add(k.mul(row, length), first);
      pack(token, count);
      tile.forGroups([&](Value group, Value channel) {
        skip(group, channel, count);
        documents.forRunsInReverse(
            first, count, [&] { clear(group); },
            [&](Value from, Value to) {
              tile.forStateGroups(statesAtOnce, [&](Value n, int64_t size) {
                reverse(group, channel, n, size, index, from, to);
              });
            });
      });
      k.loop(zero, count, 1, [&](Value t) {
        tile.forGroups([&](Value group, Value channel) {
          k.store(tile.load(dxs, {group, t, zero}), dx,
                  {k.add(token, t), channel}, tile.mask(channel));
        });
      });
    });
    tile.storeStates(m, dstate, row);
    storePartials();
  }

private:
  void prepare() {
    Value wideZero = k.constant(0, tile.wideVector());
    tile.forGroups([&](Value group, Value channel) {
      tile.forCoefficients(
          channel, p, q, g, [&](Value n, const CemaTile::Coefficients &c) {
            Value values[kCoefficients];
            values[kQRe] = c.qr;
            values[kQIm] = c.qi;
            values[kGRe] = c.gr;
            values[kGImNegated] = negate(c.gi);
            values[kP] = c.p;
            for (int64_t i = 0; i < kCoefficients; ++i)
              tile.store(k.toFloat(values[i], tile.element), table,
                         {group, n, k.index(i), zero});
            for (int64_t i = 0; i < kSums; ++i)
              tile.store(wideZero, sums, {group, n, k.index(i), zero});
          });
      tile.store(wideZero, omegaSums, {group, zero});
    });
    if (dnewState)
      tile.loadStates(dnewState, row, m);
    else
      tile.clearStates(m);
  }

  void pack(Value token, Value count) {
    k.loop(zero, count, 1, [&](Value t) {
      Value at = k.add(token, t),
            coming = k.sub(k.max(at, k.index(block)), k.index(block));
      tile.forGroups([&](Value group, Value channel) {
        Value mask = tile.mask(channel);
        tile.prefetch(x, coming, channel);
        tile.prefetch(dy, coming, channel);
        tile.store(k.load(x, {at, channel}, mask), xs, {group, t, zero});
        tile.store(k.load(dy, {at, channel}, mask), dys, {group, t, zero});
      });
    });
  }

  /// The omega path: starts dx, sums domega.
  void skip(Value group, Value channel, Value count) {
    Value factor = k.load(omega, {channel}, tile.mask(channel));
    Value sum =
        k.loop(zero, count, 1, k.constant(0, tile.vector()),
               [&](Value t, ValueRange carried) -> SmallVector<Value> {
                 Value cotangent = tile.load(dys, {group, t, zero});
                 tile.store(k.mul(factor, cotangent), dxs, {group, t, zero});
                 return {k.fma(tile.load(xs, {group, t, zero}), cotangent,
                               carried[0])};
               })[0];
    accumulate(sum, omegaSums, {group, zero});
  }

  /// What a document gives back to the tokens in front of it.
  void clear(Value group) {
    Value none = k.constant(0, tile.vector());
    k.loop(zero, k.index(tile.states), 1, [&](Value n) {
      for (Value part : {zero, one})
        tile.store(none, m, {group, n, part, zero});
    });
  }

  /// Tokens [from, to) of the block, which belong to one document.
  void reverse(Value group, Value channel, Value firstState, int64_t size,
               Value blockIndex, Value from, Value to) {
    SmallVector<Value> n(size), state;
    SmallVector<SmallVector<Value>> c(size);
    Value mask = tile.mask(channel);
    for (int64_t s = 0; s < size; ++s) {
      n[s] = k.add(firstState, k.index(s));
      for (int64_t i = 0; i < kCoefficients; ++i)
        c[s].push_back(tile.load(table, {group, n[s], k.index(i), zero}));
      for (int64_t part : {0, 1})
        state.push_back(
            atStart(k.load(blockStates,
                           {tile.blockStateOffset(blockIndex, row, k.batch(),
                                                  channel, n[s], part)},
                           mask),
                    from));
    }
    // h[t] is the state before token t; the loop carries the state after it.
    state = k.loop(from, to, 1, state, [&](Value t, ValueRange before) {
      Value x0 = tile.load(xs, {group, t, zero});
      SmallVector<Value> after;
      for (int64_t s = 0; s < size; ++s) {
        Value re = before[2 * s], im = before[2 * s + 1];
        tile.store(re, h, {t, k.index(s), zero, zero});
        tile.store(im, h, {t, k.index(s), one, zero});
        after.push_back(
            k.fma(c[s][kQRe], re,
                  k.fma(c[s][kQIm], negate(im), k.mul(c[s][kP], x0))));
        after.push_back(k.fma(c[s][kQRe], im, k.mul(c[s][kQIm], re)));
      }
      return after;
    });

    // Carried a state: m (2), the sums (5), the state after the token (2).
    constexpr int64_t kCarried = 2 + kSums + 2;
    SmallVector<Value> carried;
    for (int64_t s = 0; s < size; ++s) {
      carried.push_back(tile.load(m, {group, n[s], zero, zero}));
      carried.push_back(tile.load(m, {group, n[s], one, zero}));
      carried.append(kSums, k.constant(0, tile.vector()));
      carried.push_back(state[2 * s]);
      carried.push_back(state[2 * s + 1]);
    }
    Value last = lastOf(from, to);
    carried = k.loop(from, to, 1, carried, [&](Value i, ValueRange values) {
      Value t = k.sub(last, i);
      Value x0 = tile.load(xs, {group, t, zero}),
            cotangent = tile.load(dys, {group, t, zero}),
            dx0 = tile.load(dxs, {group, t, zero});
      SmallVector<Value> next;
      for (int64_t s = 0; s < size; ++s) {
        ValueRange v = values.slice(s * kCarried, kCarried);
        Value beforeRe = tile.load(h, {t, k.index(s), zero, zero}),
              beforeIm = tile.load(h, {t, k.index(s), one, zero});
        Value afterRe = v[2 + kSums], afterIm = v[3 + kSums];
        Value lRe = k.fma(c[s][kGRe], cotangent, v[0]),
              lIm = k.fma(c[s][kGImNegated], cotangent, v[1]);
        dx0 = k.fma(c[s][kP], lRe, dx0);
        Value minusLRe = negate(lRe);
        next.push_back(k.fma(c[s][kQRe], lRe, k.mul(c[s][kQIm], lIm)));
        next.push_back(k.fma(c[s][kQRe], lIm, k.mul(c[s][kQIm], minusLRe)));
        next.push_back(k.fma(x0, lRe, v[2 + kDP]));
        next.push_back(
            k.fma(lRe, beforeRe, k.fma(lIm, beforeIm, v[2 + kDQRe])));
        next.push_back(
            k.fma(lIm, beforeRe, k.fma(minusLRe, beforeIm, v[2 + kDQIm])));
        next.push_back(k.fma(cotangent, afterRe, v[2 + kDGRe]));
        next.push_back(k.fma(negate(cotangent), afterIm, v[2 + kDGIm]));
        next.push_back(beforeRe);
        next.push_back(beforeIm);
      }
      tile.store(dx0, dxs, {group, t, zero});
      return next;
    });
    for (int64_t s = 0; s < size; ++s) {
      ValueRange v = ValueRange(carried).slice(s * kCarried, kCarried);
      tile.store(v[0], m, {group, n[s], zero, zero});
      tile.store(v[1], m, {group, n[s], one, zero});
      for (int64_t i = 0; i < kSums; ++i)
        accumulate(v[2 + i], sums, {group, n[s], k.index(i), zero});
    }
  }

  /// The state of a run's first token: the block's, unless the document begins
  /// behind the block's first token.
  Value atStart(Value ofBlock, Value from) {
    if (!documents)
      return ofBlock;
    return k.select(k.less(from, one), ofBlock,
                    k.constant(0, ofBlock.getType()));
  }
  /// From which the tokens from .. to - 1 are counted down by themselves.
  Value lastOf(Value from, Value to) {
    Value last = k.sub(to, one);
    return documents ? k.add(from, last) : last;
  }

  void storePartials() {
    tile.forGroups([&](Value group, Value channel) {
      Value index = k.add(k.mul(row, k.index(tile.groups)),
                          k.div(channel, k.index(tile.width)));
      Value base = k.mul(index, k.index(partialsOfGroup(tile)));
      k.loop(zero, k.index(tile.states), 1, [&](Value n) {
        for (int64_t i = 0; i < kSums; ++i) {
          Value place = k.mul(k.add(k.mul(n, k.index(kSums)), k.index(i)),
                              k.index(tile.width));
          tile.store(tile.load(sums, {group, n, k.index(i), zero}), partial,
                     {k.add(base, place)});
        }
      });
      tile.store(tile.load(omegaSums, {group, zero}), partial,
                 {k.add(base, k.index(tile.states * kSums * tile.width))});
    });
  }

  void accumulate(Value value, Value memref, ValueRange indices) {
    tile.store(
        k.add(tile.load(memref, indices), k.toFloat(value, k.b.getF64Type())),
        memref, indices);
  }
  Value negate(Value value) { return arith::NegFOp::create(k.b, value); }

  KernelBuilder &k;
  CemaTile &tile;
  int64_t block, statesAtOnce = 1;
  PackedDocuments documents;
  Value zero, one, row;
  Value dy, x, p, q, g, omega, blockStates, dnewState, dx, dstate, partial;
  Value table, m, sums, omegaSums, xs, dys, dxs, h;
};

struct CemaGradLowering : OpRewritePattern<CemaGradOp> {
  CemaGradLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(CemaGradOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getX().getType());
    int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
            channels = type.getDimSize(2);
    int64_t states = cast<RankedTensorType>(op.getP().getType()).getDimSize(1);
    CemaTile tile(options, computeType(type.getElementType()), channels,
                  states);
    auto partialType = RankedTensorType::get(
        {batch, tile.groups * partialsOfGroup(tile)}, rewriter.getF64Type());

    KernelBuilder k(rewriter, options, op, "cema_grad");
    GradientKernel(k, tile, op, partialType).build();
    double tokens = double(batch) * length,
           stateBytes = tile.element.getIntOrFloatBitWidth() / 8;
    double bytes =
        3 * tokens * channels * (type.getElementTypeBitWidth() / 8) +
        stateBytes * (4.0 * batch * channels * states +
                      cast<RankedTensorType>(op.getBlockStates().getType())
                          .getNumElements()) +
        40.0 * channels * states + 8.0 * partialType.getNumElements();
    SmallVector<Value> results =
        k.finish({.factor = tile.workgroups(), .outer = plan::Outer::Batch},
                 /*flops=*/32.0 * tokens * channels * states, bytes);
    SmallVector<Value> sums = addRows(op, rewriter, tile, results[2], batch);
    rewriter.replaceOp(
        op, {results[0], sums[0], sums[1], sums[2], sums[3], results[1]});
    return success();
  }

  /// Adds the batch rows' partial sums and brings them into the outside layout;
  /// a workgroup is one lane group.
  SmallVector<Value> addRows(CemaGradOp op, PatternRewriter &rewriter,
                             CemaTile &tile, Value partials,
                             int64_t batch) const {
    KernelBuilder k(rewriter, options, op, "cema_grad_rows");
    Value partial = k.read(partials, View::Flat);
    Value dp = k.write(op.getDp().getType()),
          dq = k.write(op.getDq().getType()),
          dg = k.write(op.getDg().getType()),
          domega = k.write(op.getDomega().getType(), View::Flat);
    Value line = k.scratch({kSums, tile.width}, k.b.getF64Type());
    Value zero = k.index(0), one = k.index(1),
          channel = k.mul(k.workgroup(), k.index(tile.width));
    tile.groupsPerWorkgroup = 1;
    tile.begin(k, k.workgroup());
    auto sum = [&](Value offset) {
      return k.loop(
          zero, k.batch(), 1, k.constant(0, tile.wideVector()),
          [&](Value row, ValueRange carried) -> SmallVector<Value> {
            Value index =
                k.add(k.mul(row, k.index(tile.groups)), k.workgroup());
            return {k.add(
                carried[0],
                tile.load(partial,
                          {k.add(k.mul(index, k.index(partialsOfGroup(tile))),
                                 offset)}))};
          })[0];
    };
    k.loop(zero, k.index(tile.states), 1, [&](Value n) {
      for (int64_t i = 0; i < kSums; ++i)
        tile.store(sum(k.mul(k.add(k.mul(n, k.index(kSums)), k.index(i)),
                             k.index(tile.width))),
                   line, {k.index(i), zero});
      tile.forLanes(channel, /*repeat=*/false, [&](Value lane, Value to) {
        auto part = [&](int64_t i) {
          return k.loadScalar(line, {k.index(i), lane});
        };
        k.storeScalar(part(kDP), dp, {to, n});
        k.storeScalar(part(kDQRe), dq, {to, n, zero});
        k.storeScalar(part(kDQIm), dq, {to, n, one});
        k.storeScalar(part(kDGRe), dg, {to, n, zero});
        k.storeScalar(part(kDGIm), dg, {to, n, one});
      });
    });
    k.store(
        k.toFloat(sum(k.index(tile.states * kSums * tile.width)), tile.element),
        domega, {channel}, tile.mask(channel));
    double elements = double(tile.groups) * partialsOfGroup(tile);
    return k.finish({.factor = tile.groups}, /*flops=*/batch * elements,
                    /*bytes=*/8.0 * (batch + 1) * elements);
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateCemaGradLowering(RewritePatternSet &patterns,
                                               const LoweringOptions &options) {
  patterns.add<CemaGradLowering>(patterns.getContext(), options);
}
