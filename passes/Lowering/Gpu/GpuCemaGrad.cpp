// Lowers megalodon.cema_grad for GPUs: a thread runs some states of one channel
// backwards through a segment of tokens,
//   l = conj(g) dy_t + m;  dx_t += p Re(l);  dp += x_t Re(l);  dq += l
//   conj(h_{t-1});  dg += dy_t conj(h_t);  m = conj(q) l
// with m starting at dnew_state, or at what the segments behind leave
// (GpuCemaSegments.cpp). The states h come from those that forward kept before
// every block: one sweep through the block finds the states before every piece
// of eight tokens and keeps them in shared memory, and each piece then computes
// its states into registers. Sums run in f32 inside a block and in f64 across
// blocks; a second kernel adds segments and batch rows.
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/RowKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// The sums of one state: dp, dq and dg.
enum Sum { kDP, kDQRe, kDQIm, kDGRe, kDGIm, kSums };

class GradientKernel {
public:
  GradientKernel(KernelBuilder &k, GpuCemaThreads &threads, CemaGradOp op,
                 int64_t segment, Value segmentStates, Type partialType)
      : k(k), threads(threads), segment(segment), f32(k.b.getF32Type()),
        f64(k.b.getF64Type()), documents(k, readPositions(k, op)) {
    auto type = tensorOf(op.getX());
    block = std::min<int64_t>(op.getBlock(), type.getDimSize(1));
    dy = k.read(op.getDy(), View::Rows);
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    omega = k.read(op.getOmega(), View::Flat);
    blockStates = k.read(op.getBlockStates(), View::Flat);
    if (segment)
      starts = k.read(segmentStates, View::Flat);
    else if (op.getDnewState())
      dnewState = k.read(op.getDnewState());
    dx = k.write(op.getDx().getType(), View::Rows);
    dstate = k.write(op.getDstate().getType());
    partial = k.write(partialType, View::Flat);
    // Of each thread its own; no thread reads another's.
    pieces = block / kGpuCemaTokens;
    if (pieces)
      pieceStates = k.scratch(
          {pieces, 2 * threads.perThread, GpuCemaThreads::kThreads}, f32);
    totals = k.scratch({sumCount(), GpuCemaThreads::kThreads}, f64);
  }

  void build() {
    Value blocks = k.index(threads.workgroups()), zero = k.index(0),
          pair = k.div(k.workgroup(), blocks), first = zero, end = k.length();
    row = segment ? k.rem(pair, k.batch()) : pair;
    threads.begin(k, k.rem(k.workgroup(), blocks));
    documents.setRow(k.index(0));
    loadCoefficients();
    SmallVector<Value> m(2 * threads.perThread, k.constant(0, f32));
    Value index = zero;
    if (segment) {
      index = k.div(pair, k.batch());
      first = k.mul(index, k.index(segment));
      end = k.add(first, segmentLength(k, index, segment));
      m = threads.loadInnerStates(starts, k.add(k.mul(index, k.batch()), row));
    } else if (dnewState) {
      m = threads.loadStates(dnewState, row);
    }
    for (int64_t i = 0; i < sumCount(); ++i)
      k.storeScalar(k.constant(0, f64), totals, {k.index(i), k.thread()});

    Value count = k.ceilDiv(k.sub(end, first), block);
    m = k.loop(zero, count, 1, m, [&](Value i, ValueRange before) {
      Value from = k.add(
          first, k.mul(k.sub(k.sub(count, i), k.index(1)), k.index(block)));
      return runBlock(from, k.min(k.index(block), k.sub(end, from)), before);
    });

    auto store = [&] { threads.storeStates(m, dstate, row); };
    if (segment)
      k.when(k.less(index, k.index(1)), store);
    else
      store();
    storePartials(k.add(k.mul(index, k.batch()), row));
  }

private:
  struct Row {
    Complex q, conjugateQ, conjugateG;
    Value p;
  };
  /// What runs backwards through a block: m of every state, then the sums.
  int64_t sumCount() const { return threads.perThread * kSums + 1; }

  void loadCoefficients() {
    skip = k.loadScalar(omega, {threads.channel});
    if (threads.part)
      skip =
          k.select(k.less(threads.part, k.index(1)), skip, k.constant(0, f32));
    for (int64_t s = 0; s < threads.perThread; ++s) {
      auto c = threads.coefficients(s, p, q, g);
      Row r;
      r.q = {k.toFloat(c.qr, f32), k.toFloat(c.qi, f32)};
      r.conjugateQ = {r.q.re, negate(r.q.im)};
      r.conjugateG = {k.toFloat(c.gr, f32), negate(k.toFloat(c.gi, f32))};
      r.p = k.toFloat(c.p, f32);
      table.push_back(r);
    }
  }

  /// Tokens [from, from + count) of the row; returns m before them.
  SmallVector<Value> runBlock(Value from, Value count, ValueRange m) {
    Value zero = k.index(0), one = k.index(1), size = k.index(kGpuCemaTokens);
    Value token = k.add(k.mul(row, k.length()), from);
    Value index = k.div(from, k.index(block));
    SmallVector<Value> h = threads.loadInnerStates(
        blockStates, k.add(k.mul(index, k.batch()), row));
    SmallVector<Value> carried(m);
    carried.append(sumCount(), k.constant(0, f32));

    Value whole = k.sub(count, k.rem(count, size));
    if (pieces)
      h = k.loop(
          zero, whole, kGpuCemaTokens, h, [&](Value offset, ValueRange before) {
            Value piece = k.div(offset, size);
            for (auto [i, value] : llvm::enumerate(before))
              k.storeScalar(value, pieceStates,
                            {piece, k.index(i), k.thread()});
            SmallVector<Value> after(before);
            Value first = k.add(token, offset);
            for (auto [t, u] : llvm::enumerate(loadPiece(x, first)))
              after = forward(entering(k.add(first, k.index(t)), after), u);
            return after;
          });

    // Tokens past the last whole piece one at a time, each with its state from
    // that of the piece: seven at most, and only at the end of a block.
    Value rest = k.sub(count, whole), restToken = k.add(token, whole);
    carried = k.loop(zero, rest, 1, carried, [&](Value i, ValueRange before) {
      Value t = k.sub(k.sub(rest, one), i);
      SmallVector<Value> here =
          k.loop(zero, t, 1, h, [&](Value j, ValueRange states) {
            Value at = k.add(restToken, j);
            return forward(entering(at, states), load(x, at));
          });
      Value at = k.add(restToken, t), u = load(x, at), cotangent = load(dy, at);
      here = entering(at, here);
      SmallVector<Value> after(before);
      Value gradient = backward(u, cotangent, here, forward(here, u), after);
      store(gradient, at);
      leave(at, after);
      return after;
    });

    if (pieces)
      carried = k.loop(zero, whole, kGpuCemaTokens, carried,
                       [&](Value behind, ValueRange before) {
                         return runPiece(
                             token, k.sub(k.sub(whole, behind), size), before);
                       });

    for (int64_t i = 0; i < sumCount(); ++i) {
      SmallVector<Value> at = {k.index(i), k.thread()};
      Value sum = carried[2 * threads.perThread + i];
      k.storeScalar(k.add(k.loadScalar(totals, at), k.toFloat(sum, f64)),
                    totals, at);
    }
    carried.resize(2 * threads.perThread);
    return carried;
  }

  SmallVector<Value> runPiece(Value token, Value offset, ValueRange before) {
    Value at = k.add(token, offset),
          piece = k.div(offset, k.index(kGpuCemaTokens));
    SmallVector<Value> xs = loadPiece(x, at), dys = loadPiece(dy, at);
    SmallVector<SmallVector<Value>> h(kGpuCemaTokens + 1);
    for (int64_t i = 0; i < 2 * threads.perThread; ++i)
      h[0].push_back(
          k.loadScalar(pieceStates, {piece, k.index(i), k.thread()}));
    // entered[t]: h[t], unless a document begins at t.
    SmallVector<SmallVector<Value>> entered(kGpuCemaTokens);
    auto place = [&](int64_t t) { return k.add(at, k.index(t)); };
    for (int64_t t = 0; t < kGpuCemaTokens; ++t) {
      entered[t] = entering(place(t), h[t]);
      h[t + 1] = forward(entered[t], xs[t]);
    }
    SmallVector<Value> after(before), dxs(kGpuCemaTokens);
    for (int64_t t = kGpuCemaTokens - 1; t >= 0; --t) {
      dxs[t] = backward(xs[t], dys[t], entered[t], h[t + 1], after);
      leave(place(t), after);
    }
    store(dxs, at);
    return after;
  }

  /// The states that a token sees of those in front of it.
  SmallVector<Value> entering(Value token, ValueRange h) {
    if (!documents)
      return SmallVector<Value>(h);
    return zeroWhere(k, documents.begins(token), h);
  }
  /// Takes from `carried` what does not get in front of a token: m where a
  /// document begins.
  void leave(Value token, MutableArrayRef<Value> carried) {
    if (!documents)
      return;
    MutableArrayRef<Value> m = carried.take_front(2 * threads.perThread);
    llvm::copy(zeroWhere(k, documents.begins(token), m), m.begin());
  }

  SmallVector<Value> forward(ValueRange h, Value u) {
    SmallVector<Value> after;
    for (auto [s, c] : llvm::enumerate(table)) {
      Complex next =
          advance(k, c.q, {h[2 * s], h[2 * s + 1]}, {k.mul(c.p, u), Value()});
      after.append({next.re, next.im});
    }
    return after;
  }

  /// One token, given the states before and after it; updates m and the sums,
  /// returns this thread's share of dx.
  Value backward(Value u, Value cotangent, ArrayRef<Value> before,
                 ArrayRef<Value> after, MutableArrayRef<Value> carried) {
    Value gradient = k.mul(skip, cotangent), minusCotangent = negate(cotangent);
    MutableArrayRef<Value> sums = carried.drop_front(2 * threads.perThread);
    for (size_t s = 0; s < table.size(); ++s) {
      const Row &c = table[s];
      Value &mRe = carried[2 * s], &mIm = carried[2 * s + 1];
      Value lRe = k.fma(c.conjugateG.re, cotangent, mRe),
            lIm = k.fma(c.conjugateG.im, cotangent, mIm);
      gradient = k.fma(c.p, lRe, gradient);
      auto add = [&](Sum sum, Value a, Value b) {
        Value &to = sums[s * kSums + sum];
        to = k.fma(a, b, to);
      };
      Value hRe = before[2 * s], hIm = before[2 * s + 1];
      add(kDP, u, lRe);
      add(kDQRe, lRe, hRe);
      add(kDQRe, lIm, hIm);
      add(kDQIm, lIm, hRe);
      add(kDQIm, negate(lRe), hIm);
      add(kDGRe, cotangent, after[2 * s]);
      add(kDGIm, minusCotangent, after[2 * s + 1]);
      Complex m = advance(k, c.conjugateQ, {lRe, lIm}, {});
      mRe = m.re;
      mIm = m.im;
    }
    sums.back() = k.fma(u, cotangent, sums.back());
    return gradient;
  }

  void storePartials(Value index) {
    threads.whenOwned([&] {
      Value base = k.mul(index, k.index(gpuCemaPartialRows(threads.states)));
      auto store = [&](int64_t from, Value to) {
        Value at = k.add(k.mul(k.add(base, to), k.index(threads.channels)),
                         threads.channel);
        k.storeScalar(k.loadScalar(totals, {k.index(from), k.thread()}),
                      partial, {at});
      };
      threads.forStates([&](int64_t s, Value n) {
        for (int64_t i = 0; i < kSums; ++i)
          store(s * kSums + i, k.add(k.mul(n, k.index(kSums)), k.index(i)));
      });
      // Every part has the same domega.
      auto storeOmega = [&] {
        store(sumCount() - 1, k.index(gpuCemaPartialRows(threads.states) - 1));
      };
      if (threads.part)
        k.when(k.less(threads.part, k.index(1)), storeOmega);
      else
        storeOmega();
    });
  }

  Value load(Value activation, Value token) {
    return k.loadScalar(activation, {token, threads.channel});
  }
  SmallVector<Value> loadPiece(Value activation, Value token) {
    SmallVector<Value> values;
    for (int64_t t = 0; t < kGpuCemaTokens; ++t)
      values.push_back(load(activation, k.add(token, k.index(t))));
    return values;
  }
  void store(ArrayRef<Value> gradients, Value token) {
    threads.sumOverParts(gradients, [&](ArrayRef<Value> sums, Value first) {
      for (auto [i, sum] : llvm::enumerate(sums))
        k.storeScalar(
            sum, dx, {k.add(k.add(token, first), k.index(i)), threads.channel});
    });
  }
  Value negate(Value value) { return arith::NegFOp::create(k.b, value); }

  KernelBuilder &k;
  GpuCemaThreads &threads;
  /// Tokens between saved states, and of a segment (0: whole rows).
  int64_t block, segment, pieces;
  Type f32, f64;
  PackedDocuments documents;
  Value dy, x, p, q, g, omega, blockStates, starts, dnewState, dx, dstate,
      partial, pieceStates, totals, row, skip;
  SmallVector<Row> table;
};

/// Adds the partial sums of segments and batch rows in f64, in their order; a
/// thread has one (state, channel).
SmallVector<Value> addPartials(PatternRewriter &rewriter,
                               const LoweringOptions &options, CemaGradOp op,
                               Value partials, int64_t segment) {
  constexpr int64_t kThreads = 128;
  int64_t channels = tensorOf(op.getP()).getDimSize(0),
          states = tensorOf(op.getP()).getDimSize(1), pairs = channels * states;
  KernelBuilder k(rewriter, options, op, "cema_grad_sums", kThreads);
  Value partial = k.read(partials, View::Flat);
  Value dp = k.write(op.getDp().getType()), dq = k.write(op.getDq().getType()),
        dg = k.write(op.getDg().getType()),
        domega = k.write(op.getDomega().getType(), View::Flat);
  Value zero = k.index(0);
  Value pair = k.add(k.mul(k.workgroup(), k.index(kThreads)), k.thread());
  Value state = k.div(pair, k.index(channels)),
        channel = k.rem(pair, k.index(channels));
  Value rows = k.batch();
  if (segment)
    rows = k.mul(rows, k.ceilDiv(k.length(), segment));
  auto sum = [&](Value from, int64_t count) {
    SmallVector<Value> sums(count, k.constant(0, k.b.getF64Type()));
    return k.loop(zero, rows, 1, sums, [&](Value row, ValueRange before) {
      SmallVector<Value> after;
      for (int64_t i = 0; i < count; ++i) {
        Value line = k.add(k.mul(row, k.index(gpuCemaPartialRows(states))),
                           k.add(from, k.index(i)));
        Value at = k.add(k.mul(line, k.index(channels)), channel);
        after.push_back(k.add(before[i], k.loadScalar(partial, {at})));
      }
      return after;
    });
  };
  auto body = [&] {
    SmallVector<Value> sums = sum(k.mul(state, k.index(kSums)), kSums);
    k.storeScalar(sums[kDP], dp, {channel, state});
    storePair(k, sums[kDQRe], sums[kDQIm], dq, {channel, state, zero});
    storePair(k, sums[kDGRe], sums[kDGIm], dg, {channel, state, zero});
    k.when(k.less(state, k.index(1)), [&] {
      Value total = sum(k.index(states * kSums), 1)[0];
      k.storeScalar(k.toFloat(total, elementOf(op.getDomega())), domega,
                    {channel});
    });
  };
  if (pairs % kThreads)
    k.when(k.less(pair, k.index(pairs)), body);
  else
    body();
  double elements = tensorOf(partials).getNumElements();
  return k.finish({.factor = llvm::divideCeilSigned(pairs, kThreads)},
                  /*flops=*/elements,
                  /*bytes=*/8 * elements + 40.0 * pairs);
}

struct GpuCemaGradLowering : OpRewritePattern<CemaGradOp> {
  GpuCemaGradLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(CemaGradOp op,
                                PatternRewriter &rewriter) const override {
    Partials result = usesGpuCemaMatrix(options, op.getX(), op.getP(),
                                        op.getPositions(), op.getBlock())
                          ? buildMatrix(rewriter, op)
                          : buildScan(rewriter, op);
    SmallVector<Value> sums =
        addPartials(rewriter, options, op, result.sums, result.segment);
    rewriter.replaceOp(
        op, {result.dx, sums[0], sums[1], sums[2], sums[3], result.dstate});
    return success();
  }

private:
  /// What is there before the sums of segments (0: whole rows) and rows are
  /// added.
  struct Partials {
    Value dx, dstate, sums;
    int64_t segment;
  };

  Value buildStarts(PatternRewriter &rewriter, CemaGradOp op,
                    GpuCemaForm form) const {
    if (!form.segment)
      return {};
    Value ends = buildGpuSegmentEnds(rewriter, options, op, op.getDy(),
                                     op.getQ(), op.getG(), op.getPositions(),
                                     form.parts, form.segment, /*reverse=*/true,
                                     /*all=*/false);
    return buildGpuSegmentCarry(rewriter, options, op, ends, op.getQ(),
                                op.getDnewState(), op.getPositions(),
                                form.segment,
                                /*reverse=*/true);
  }

  Partials buildScan(PatternRewriter &rewriter, CemaGradOp op) const {
    auto type = tensorOf(op.getX());
    int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
            channels = type.getDimSize(2),
            states = tensorOf(op.getP()).getDimSize(1);
    GpuCemaForm form =
        chooseGpuCemaForm(options.cema, batch, length, channels, states,
                          /*perThread=*/4, /*unit=*/op.getBlock());
    Value starts = buildStarts(rewriter, op, form);
    int64_t segments =
        form.segment ? llvm::divideCeilSigned(length, form.segment) : 1;
    auto partialType = RankedTensorType::get(
        {segments * batch, gpuCemaPartialRows(states), channels},
        rewriter.getF64Type());
    GpuCemaThreads threads(channels, states, form.parts);
    KernelBuilder k(rewriter, options, op,
                    form.segment ? "cema_grad_segment" : "cema_grad",
                    GpuCemaThreads::kThreads);
    GradientKernel(k, threads, op, form.segment, starts, partialType).build();
    Grid grid = {.factor = threads.workgroups(), .outer = plan::Outer::Batch};
    if (form.segment) {
      grid.inner = plan::Inner::Length;
      grid.divisor = form.segment;
    }
    double bytes = 3 * bytesOf(type) + 2 * bytesOf(op.getDstate().getType()) +
                   bytesOf(op.getBlockStates().getType()) +
                   40.0 * channels * states + bytesOf(partialType);
    SmallVector<Value> results =
        k.finish(grid, /*flops=*/42.0 * type.getNumElements() * states, bytes);
    return {results[0], results[1], results[2], form.segment};
  }

  Partials buildMatrix(PatternRewriter &rewriter, CemaGradOp op) const {
    auto type = tensorOf(op.getX());
    int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
            channels = type.getDimSize(2);
    GpuCemaForm form = chooseGpuCemaForm(options.cema, batch, length, channels,
                                         tensorOf(op.getP()).getDimSize(1),
                                         /*perThread=*/4, gpuCemaChunk());
    form.segment = gpuCemaMatrixSegment(type);
    Value starts = buildStarts(rewriter, op, form);
    SmallVector<Value> results =
        buildGpuCemaGradMatrix(rewriter, options, op, form.segment, starts);
    int64_t segment = correlationSegment(batch, length, channels);
    Value sums =
        buildGpuCemaCorrelations(rewriter, options, op, segment, results[2]);
    return {results[0], results[1], sums, segment};
  }

  /// All chunks are independent. A workgroup has at most as many as f32 sums
  /// should have (128 blocks), and fewer where that gives less than two
  /// workgroups a processor, down to where the end of a segment, which costs
  /// about a chunk, would show.
  static int64_t correlationSegment(int64_t batch, int64_t length,
                                    int64_t channels) {
    constexpr int64_t kWanted = 264, kLongest = 4096, kShortest = 1024;
    int64_t parts = llvm::divideCeilSigned(kWanted, batch * channels / 8);
    int64_t segment =
        llvm::alignTo(llvm::divideCeilSigned(length, parts), gpuCemaChunk());
    return std::clamp(segment, kShortest, kLongest);
  }

  const LoweringOptions &options;
};

} // namespace

int64_t mlir::megalodon::gpuCemaPartialRows(int64_t states) {
  return states * kSums + 1;
}

void mlir::megalodon::populateGpuCemaGradLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<GpuCemaGradLowering>(patterns.getContext(), options);
}
