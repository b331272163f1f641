// Lowers megalodon.cema for GPUs as a scan: a thread carries some states of one
// channel through a segment of tokens (or through all), two tokens a step.
//
// With h the state before tokens t and t+1 (all states of a channel summed in
// y):
//   h''     = q^2 h + q p x_t + p x_{t+1}
//   y_t     = Re(g q h)   + k0 x_t                    k0 = omega + sum Re(g p)
//   y_{t+1} = Re(g q^2 h) + k1 x_t + k0 x_{t+1}       k1 = sum Re(g q p)
// which are the terms of the cpu's kernel, rounded at the same places.
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/RowKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

class ForwardKernel {
public:
  ForwardKernel(KernelBuilder &k, GpuCemaThreads &threads, CemaOp op,
                int64_t segment, Value segmentStates)
      : k(k), threads(threads),
        block(op.getBlockStates().use_empty()
                  ? 0
                  : static_cast<int64_t>(op.getBlock())),
        segment(segment), f32(elementOf(op.getState())),
        documents(k, readPositions(k, op)) {
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    omega = k.read(op.getOmega(), View::Flat);
    if (segment)
      starts = k.read(segmentStates, View::Flat);
    y = k.write(op.getResult().getType(), View::Rows);
    // A thread reads its states before it writes them, so one buffer does for
    // whole rows.
    newState =
        segment ? k.write(op.getNewState().getType()) : k.update(op.getState());
    if (block)
      blockStates = k.write(op.getBlockStates().getType(), View::Flat);
  }

  void build() {
    Value blocks = k.index(threads.workgroups()),
          pair = k.div(k.workgroup(), blocks), length = k.length();
    row = segment ? k.rem(pair, k.batch()) : pair;
    threads.begin(k, k.rem(k.workgroup(), blocks));
    documents.setRow(k.index(0));
    loadCoefficients();
    Value first = k.index(0), end = length;
    SmallVector<Value> states;
    if (segment) {
      Value index = k.div(pair, k.batch());
      first = k.mul(index, k.index(segment));
      end = k.add(first, segmentLength(k, index, segment));
      states =
          threads.loadInnerStates(starts, k.add(k.mul(index, k.batch()), row));
    } else {
      states = threads.loadStates(newState, row);
    }
    if (block) {
      states =
          k.loop(first, end, block, states, [&](Value from, ValueRange before) {
            Value index = k.div(from, k.index(block));
            Value place = k.add(k.mul(index, k.batch()), row);
            if (documents) {
              Value begins = documents.begins(k.add(k.mul(row, length), from));
              threads.storeInnerStates(zeroWhere(k, begins, before),
                                       blockStates, place);
            } else {
              threads.storeInnerStates(before, blockStates, place);
            }
            return scan(from, k.min(k.index(block), k.sub(end, from)), before);
          });
    } else {
      states = scan(first, k.sub(end, first), states);
    }
    auto store = [&] { threads.storeStates(states, newState, row); };
    if (segment)
      k.when(k.less(k.sub(length, k.index(1)), end), store);
    else
      store();
  }

private:
  /// Coefficients of one state; products are formed in f64 and rounded once.
  struct Row {
    Complex q2, qp, gq, gq2;
    Value p;
  };

  void loadCoefficients() {
    Type f64 = k.b.getF64Type();
    Value sum0 = k.toFloat(k.loadScalar(omega, {threads.channel}), f64),
          sum1 = k.constant(0, f64);
    if (threads.part)
      sum0 = k.select(k.less(threads.part, k.index(1)), sum0, sum1);
    skip = k.toFloat(sum0, f32);
    for (int64_t s = 0; s < threads.perThread; ++s) {
      auto c = threads.coefficients(s, p, q, g);
      Complex q1 = {c.qr, c.qi}, gq = multiply(k, {c.gr, c.gi}, q1);
      Row r;
      r.q2 = rounded(multiply(k, q1, q1));
      r.qp = rounded({k.mul(c.qr, c.p), k.mul(c.qi, c.p)});
      r.gq = rounded(gq);
      r.gq2 = rounded(multiply(k, gq, q1));
      r.p = k.toFloat(c.p, f32);
      table.push_back(r);
      sum0 = k.fma(c.gr, c.p, sum0);
      sum1 = k.fma(gq.re, c.p, sum1);
    }
    k0 = k.toFloat(sum0, f32);
    k1 = k.toFloat(sum1, f32);
  }
  Complex rounded(Complex c) {
    return {k.toFloat(c.re, f32), k.toFloat(c.im, f32)};
  }

  /// Tokens [first, first + count) of the row.
  SmallVector<Value> scan(Value first, Value count, ValueRange states) {
    Value token = k.add(k.mul(row, k.length()), first);
    return scanGpuTokens(
        k, threads, x, token, count, /*reverse=*/false, documents, states,
        [&](Value offset, ArrayRef<Value> xs, ValueRange before) {
          SmallVector<Value> h(before), ys;
          for (size_t t = 0; t < xs.size(); t += 2)
            h = step(xs[t], xs[t + 1], h, ys);
          store(ys, k.add(token, offset));
          return h;
        },
        [&](Value offset, Value x0, ValueRange before) {
          SmallVector<Value> after;
          Value y0 = k.mul(skip, x0), channel = threads.sameChannel();
          for (int64_t s = 0; s < threads.perThread; ++s) {
            auto c = threads.coefficients(s, {}, q, g, channel);
            Complex h = advance(k, rounded({c.qr, c.qi}),
                                {before[2 * s], before[2 * s + 1]},
                                {k.mul(table[s].p, x0), Value()});
            y0 = addReal(rounded({c.gr, c.gi}), h, y0);
            after.append({h.re, h.im});
          }
          store(y0, k.add(token, offset));
          return after;
        });
  }

  SmallVector<Value> step(Value x0, Value x1, ValueRange before,
                          SmallVector<Value> &ys) {
    SmallVector<Value> after;
    Value y0 = k.mul(k0, x0), y1 = k.fma(k1, x0, k.mul(k0, x1));
    for (auto [s, c] : llvm::enumerate(table)) {
      Complex h = {before[2 * s], before[2 * s + 1]};
      y0 = addReal(c.gq, h, y0);
      y1 = addReal(c.gq2, h, y1);
      // The terms of x first: they do not wait for the state.
      Complex next = advance(
          k, c.q2, h, {k.fma(c.p, x1, k.mul(c.qp.re, x0)), k.mul(c.qp.im, x0)});
      after.append({next.re, next.im});
    }
    ys.append({y0, y1});
    return after;
  }

  /// Re(a b) + to.
  Value addReal(Complex a, Complex b, Value to) {
    return k.fma(arith::NegFOp::create(k.b, a.im), b.im, k.fma(a.re, b.re, to));
  }

  void store(ArrayRef<Value> ys, Value token) {
    threads.sumOverParts(ys, [&](ArrayRef<Value> sums, Value first) {
      for (auto [i, sum] : llvm::enumerate(sums))
        k.storeScalar(
            sum, y, {k.add(k.add(token, first), k.index(i)), threads.channel});
    });
  }

  KernelBuilder &k;
  GpuCemaThreads &threads;
  /// Tokens between saved states (0: they are not wanted) and tokens of a
  /// segment (0: whole rows).
  int64_t block, segment;
  Type f32;
  PackedDocuments documents;
  Value x, p, q, g, omega, starts, y, newState, blockStates, row;
  SmallVector<Row> table;
  Value k0, k1, skip;
};

struct GpuCemaLowering : OpRewritePattern<CemaOp> {
  GpuCemaLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(CemaOp op,
                                PatternRewriter &rewriter) const override {
    auto type = tensorOf(op.getX());
    int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
            channels = type.getDimSize(2),
            states = tensorOf(op.getP()).getDimSize(1);
    const bool saves = !op.getBlockStates().use_empty();
    const int64_t unit =
        saves ? static_cast<int64_t>(op.getBlock()) : kGpuCemaTokens;
    const bool matrix =
        usesGpuCemaMatrix(options, op.getX(), op.getP(), op.getPositions(),
                          saves ? static_cast<int64_t>(op.getBlock()) : 0);
    GpuCemaForm form = chooseGpuCemaForm(options.cema, batch, length, channels,
                                         states, /*perThread=*/8, unit);
    if (matrix)
      form.segment = gpuCemaMatrixSegment(type);
    Value starts;
    if (form.segment) {
      starts = buildGpuSegmentEnds(rewriter, options, op, op.getX(), op.getQ(),
                                   op.getP(), op.getPositions(), form.parts,
                                   form.segment,
                                   /*reverse=*/false, /*all=*/false);
      starts =
          buildGpuSegmentCarry(rewriter, options, op, starts, op.getQ(),
                               op.getState(), op.getPositions(), form.segment,
                               /*reverse=*/false);
    }
    double bytes = 2 * bytesOf(type) + 2 * bytesOf(op.getState().getType()) +
                   40.0 * channels * states;
    if (saves)
      bytes += bytesOf(op.getBlockStates().getType());
    SmallVector<Value> results =
        matrix ? buildGpuCemaMatrix(rewriter, options, op, form.segment, starts,
                                    bytes)
               : buildScan(rewriter, op, form, starts, bytes);
    replaceUsedResults(rewriter, op,
                       {results[0], results[1], saves ? results[2] : Value()});
    return success();
  }

  SmallVector<Value> buildScan(PatternRewriter &rewriter, CemaOp op,
                               GpuCemaForm form, Value starts,
                               double bytes) const {
    auto type = tensorOf(op.getX());
    int64_t states = tensorOf(op.getP()).getDimSize(1);
    GpuCemaThreads threads(type.getDimSize(2), states, form.parts);
    KernelBuilder k(rewriter, options, op,
                    form.segment ? "cema_segment" : "cema",
                    GpuCemaThreads::kThreads);
    ForwardKernel(k, threads, op, form.segment, starts).build();
    Grid grid = {.factor = threads.workgroups(), .outer = plan::Outer::Batch};
    if (form.segment) {
      grid.inner = plan::Inner::Length;
      grid.divisor = form.segment;
    }
    return k.finish(grid, /*flops=*/12.0 * type.getNumElements() * states,
                    bytes);
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateGpuCemaForwardLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<GpuCemaLowering>(patterns.getContext(), options);
}
