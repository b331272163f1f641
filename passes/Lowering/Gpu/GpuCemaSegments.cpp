// The scan of CEMA's states alone, segment by segment, and their carry from
// segment to segment: what lets a GPU work on all of a row's tokens at once.
//   ends:  every segment's states after its tokens, from a state of zero, four
//          tokens an iteration: 11 multiply-adds a state instead of 20
//   carry: H_{s+1} = q^segment H_s + end_s, in f64
#include "mlir/Dialect/Math/IR/Math.h"
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/RowKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

SmallVector<Value> mlir::megalodon::scanGpuTokens(
    KernelBuilder &k, GpuCemaThreads &threads, Value activation,
    Value firstToken, Value count, bool reverse, PackedDocuments &documents,
    ValueRange states,
    function_ref<SmallVector<Value>(Value, ArrayRef<Value>, ValueRange)> piece,
    function_ref<SmallVector<Value>(Value, Value, ValueRange)> single) {
  Value zero = k.index(0), size = k.index(kGpuCemaTokens), one = k.index(1);
  Value whole = k.sub(count, k.rem(count, size)), last = k.sub(count, one);
  auto load = [&](Value offset) {
    Value token = reverse ? k.sub(last, offset) : offset;
    return k.loadScalar(activation,
                        {k.add(firstToken, token), threads.channel});
  };
  auto oneToken = [&](Value offset, ValueRange before) {
    if (!documents)
      return single(offset, load(offset), before);
    Value begins = documents.begins(
        k.add(firstToken, reverse ? k.sub(last, offset) : offset));
    if (reverse)
      return zeroWhere(k, begins, single(offset, load(offset), before));
    return single(offset, load(offset), zeroWhere(k, begins, before));
  };
  auto onePiece = [&](Value offset, ArrayRef<Value> u, ValueRange before) {
    if (!documents)
      return piece(offset, u, before);
    Value behind = k.sub(size, one),
          lastOfPiece = reverse ? k.sub(last, offset) : k.add(offset, behind);
    auto ifOp = scf::IfOp::create(
        k.b, before.getTypes(),
        documents.goesOn(k.add(firstToken, lastOfPiece), size), true);
    OpBuilder::InsertionGuard guard(k.b);
    k.b.setInsertionPointToStart(ifOp.thenBlock());
    scf::YieldOp::create(k.b, piece(offset, u, before));
    k.b.setInsertionPointToStart(ifOp.elseBlock());
    scf::YieldOp::create(
        k.b, k.loop(zero, size, 1, before, [&](Value i, ValueRange states) {
          return oneToken(k.add(offset, i), states);
        }));
    return SmallVector<Value>(ifOp.getResults());
  };
  // The first piece; where there is none, something of the tokens that are.
  SmallVector<Value> carried(states);
  const size_t stateCount = carried.size();
  for (int64_t i = 0; i < kGpuCemaTokens; ++i)
    carried.push_back(load(k.min(k.index(i), last)));
  Value lastPiece = k.sub(k.max(whole, size), size);
  carried = k.loop(zero, whole, kGpuCemaTokens, carried,
                   [&](Value offset, ValueRange before) {
                     // The last piece is loaded once too often.
                     Value next = k.min(k.add(offset, size), lastPiece);
                     SmallVector<Value> coming,
                         u(before.drop_front(stateCount));
                     for (int64_t i = 0; i < kGpuCemaTokens; ++i)
                       coming.push_back(load(k.add(next, k.index(i))));
                     SmallVector<Value> after =
                         onePiece(offset, u, before.take_front(stateCount));
                     llvm::append_range(after, coming);
                     return after;
                   });
  carried.resize(stateCount);
  return k.loop(whole, count, 1, carried, [&](Value offset, ValueRange before) {
    return oneToken(offset, before);
  });
}

namespace {

/// A complex number of the coefficients, rounded to the type of the scan.
Complex rounded(KernelBuilder &k, Complex value, Type type) {
  return {k.toFloat(value.re, type),
          value.im ? k.toFloat(value.im, type) : Value()};
}

/// value * u, or value * u + to.
Complex scale(KernelBuilder &k, Complex value, Value u, Complex to = {}) {
  auto half = [&](Value x, Value y) -> Value {
    if (!x)
      return y;
    return y ? k.fma(x, u, y) : k.mul(x, u);
  };
  return {half(value.re, to.re), half(value.im, to.im)};
}

class EndsKernel {
public:
  EndsKernel(KernelBuilder &k, GpuCemaThreads &threads, Value activation,
             Value q, Value pOrG, Value positions, int64_t segment,
             bool reverse, bool all, Type endsType)
      : k(k), threads(threads), segment(segment), reverse(reverse), all(all),
        u(k.read(activation, View::Rows)), q(k.read(q)), pOrG(k.read(pOrG)),
        documents(k, positions ? k.read(positions, View::Flat) : Value()),
        ends(k.write(endsType, View::Flat)),
        f32(cast<RankedTensorType>(endsType).getElementType()) {}

  void build() {
    Value blocks = k.index(threads.workgroups()),
          pair = k.div(k.workgroup(), blocks);
    Value row = k.rem(pair, k.batch()), index = k.div(pair, k.batch());
    threads.begin(k, k.rem(k.workgroup(), blocks));
    documents.setRow(k.index(0));
    auto run = [&] {
      loadCoefficients();
      SmallVector<Value> states(2 * threads.perThread, k.constant(0, f32));
      Value first =
          k.add(k.mul(row, k.length()), k.mul(index, k.index(segment)));
      states = scanGpuTokens(
          k, threads, u, first, segmentLength(k, index, segment), reverse,
          documents, states,
          [&](Value, ArrayRef<Value> tokens, ValueRange before) {
            SmallVector<Value> h(before);
            for (size_t t = 0; t < tokens.size(); t += 4)
              h = step(tokens.slice(t, 4), h);
            return h;
          },
          [&](Value, Value token, ValueRange before) {
            SmallVector<Value> after;
            Value channel = threads.sameChannel();
            for (int64_t s = 0; s < threads.perThread; ++s) {
              auto c = threads.coefficients(s, {}, q, {}, channel);
              append(after, advance(k, rounded(k, {c.qr, direction(c.qi)}, f32),
                                    {before[2 * s], before[2 * s + 1]},
                                    scale(k, table[s].input[0], token)));
            }
            return after;
          });
      threads.storeInnerStates(states, ends,
                               k.add(k.mul(index, k.batch()), row));
    };
    if (all)
      run();
    else if (reverse) // nothing comes before the first segment
      k.when(k.less(k.index(0), index), run);
    else // or after the last
      k.when(
          k.less(k.mul(k.add(index, k.index(1)), k.index(segment)), k.length()),
          run);
  }

private:
  /// Coefficients of one state: q^4, and those of the inputs 0 to 3 tokens
  /// ago. Products are formed in f64 and rounded once.
  struct Row {
    Complex q4, input[4];
  };
  Value direction(Value im) {
    return reverse ? arith::NegFOp::create(k.b, im).getResult() : im;
  }

  void loadCoefficients() {
    for (int64_t s = 0; s < threads.perThread; ++s) {
      auto c = threads.coefficients(s, reverse ? Value() : pOrG, q,
                                    reverse ? pOrG : Value());
      Complex q1 = {c.qr, direction(c.qi)}, q2 = multiply(k, q1, q1);
      Complex input[4];
      if (reverse) {
        input[0] = multiply(k, q1, {c.gr, direction(c.gi)});
        input[1] = multiply(k, q1, input[0]);
      } else {
        input[0] = {c.p, {}};
        input[1] = {k.mul(q1.re, c.p), k.mul(q1.im, c.p)};
      }
      input[2] = reverse ? multiply(k, q2, input[0])
                         : Complex{k.mul(q2.re, c.p), k.mul(q2.im, c.p)};
      input[3] = multiply(k, q2, input[1]);
      Row row;
      row.q4 = rounded(k, multiply(k, q2, q2), f32);
      for (int64_t i = 0; i < 4; ++i)
        row.input[i] = rounded(k, input[i], f32);
      table.push_back(row);
    }
  }

  SmallVector<Value> step(ArrayRef<Value> tokens, ValueRange before) {
    SmallVector<Value> after;
    for (int64_t s = 0; s < threads.perThread; ++s) {
      const Row &c = table[s];
      // The terms of u first: they do not wait for the state.
      Complex input;
      for (int64_t i = 0; i < 4; ++i)
        input = scale(k, c.input[i], tokens[3 - i], input);
      append(after,
             advance(k, c.q4, {before[2 * s], before[2 * s + 1]}, input));
    }
    return after;
  }

  static void append(SmallVector<Value> &values, Complex value) {
    values.push_back(value.re);
    values.push_back(value.im);
  }

  KernelBuilder &k;
  GpuCemaThreads &threads;
  int64_t segment;
  bool reverse, all;
  Value u, q, pOrG;
  PackedDocuments documents;
  Value ends;
  Type f32;
  SmallVector<Row> table;
};

/// One thread for every (row, state, channel), channels side by side.
class PairThreads {
public:
  static constexpr int64_t kThreads = 128;
  PairThreads(int64_t channels, int64_t states)
      : channels(channels), states(states) {}
  int64_t workgroups() const {
    return llvm::divideCeilSigned(channels * states, kThreads);
  }
  /// Runs `body` in the threads that have a pair.
  void run(KernelBuilder &k, function_ref<void()> body) {
    Value blocks = k.index(workgroups());
    row = k.div(k.workgroup(), blocks);
    Value pair = k.add(k.mul(k.rem(k.workgroup(), blocks), k.index(kThreads)),
                       k.thread());
    channel = k.rem(pair, k.index(channels));
    state = k.div(pair, k.index(channels));
    if (channels * states % kThreads)
      k.when(k.less(pair, k.index(channels * states)), body);
    else
      body();
  }
  /// Of [S, B, N, 2, D] seen flat.
  Value offset(KernelBuilder &k, Value segment, int64_t half) {
    Value index = k.add(k.mul(segment, k.batch()), row);
    Value pair = k.add(k.mul(index, k.index(states)), state);
    return k.add(
        k.mul(k.add(k.mul(pair, k.index(2)), k.index(half)), k.index(channels)),
        channel);
  }
  Complex load(KernelBuilder &k, Value inside, Value segment) {
    Type f64 = k.b.getF64Type();
    return {k.toFloat(k.loadScalar(inside, {offset(k, segment, 0)}), f64),
            k.toFloat(k.loadScalar(inside, {offset(k, segment, 1)}), f64)};
  }

  int64_t channels, states;
  Value row, channel, state;
};

/// base^exponent for an exponent known now.
Complex power(KernelBuilder &k, Complex base, int64_t exponent) {
  Complex result = {k.constant(1, base.re.getType()),
                    k.constant(0, base.re.getType())};
  bool first = true;
  for (int64_t rest = exponent; rest; rest /= 2) {
    if (rest % 2) {
      result = first ? base : multiply(k, result, base);
      first = false;
    }
    if (rest > 1)
      base = multiply(k, base, base);
  }
  return result;
}

/// base^exponent for 0 <= exponent < 2^31.
Complex power(KernelBuilder &k, Complex base, Value exponent) {
  Type i32 = k.b.getI32Type();
  Value bits = arith::IndexCastOp::create(k.b, i32, exponent);
  auto number = [&](int64_t value) -> Value {
    return arith::ConstantOp::create(k.b, k.b.getI32IntegerAttr(value));
  };
  Value count = arith::SubIOp::create(
      k.b, number(32), math::CountLeadingZerosOp::create(k.b, bits));
  Type type = base.re.getType();
  SmallVector<Value> carried = {k.constant(1, type), k.constant(0, type),
                                base.re, base.im};
  carried = k.loop(
      k.index(0), arith::IndexCastOp::create(k.b, k.b.getIndexType(), count), 1,
      carried, [&](Value bit, ValueRange values) -> SmallVector<Value> {
        Value shifted = arith::ShRUIOp::create(
            k.b, bits, arith::IndexCastOp::create(k.b, i32, bit));
        Value isSet = arith::TruncIOp::create(k.b, k.b.getI1Type(), shifted);
        Complex square = {values[2], values[3]},
                product = multiply(k, {values[0], values[1]}, square),
                next = multiply(k, square, square);
        return {k.select(isSet, product.re, values[0]),
                k.select(isSet, product.im, values[1]), next.re, next.im};
      });
  return {carried[0], carried[1]};
}

Complex loadQ(KernelBuilder &k, PairThreads &pairs, Value q, bool reverse) {
  auto [re, im] = loadPair(k, q, {pairs.channel, pairs.state, k.index(0)});
  return {re, reverse ? arith::NegFOp::create(k.b, im).getResult() : im};
}

} // namespace

Value mlir::megalodon::buildGpuSegmentEnds(PatternRewriter &rewriter,
                                           const LoweringOptions &options,
                                           Operation *op, Value activation,
                                           Value q, Value pOrG, Value positions,
                                           int64_t parts, int64_t segment,
                                           bool reverse, bool all) {
  auto type = tensorOf(activation);
  int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
          channels = type.getDimSize(2), states = tensorOf(q).getDimSize(1);
  auto endsType = RankedTensorType::get(
      {llvm::divideCeilSigned(length, segment), batch, states, 2, channels},
      rewriter.getF32Type());
  GpuCemaThreads threads(channels, states, parts);
  KernelBuilder k(rewriter, options, op,
                  reverse ? "cema_grad_ends" : "cema_ends",
                  GpuCemaThreads::kThreads);
  EndsKernel(k, threads, activation, q, pOrG, positions, segment, reverse, all,
             endsType)
      .build();
  return k.finish({.factor = threads.workgroups(),
                   .outer = plan::Outer::Batch,
                   .inner = plan::Inner::Length,
                   .divisor = segment},
                  /*flops=*/5.5 * type.getNumElements() * states,
                  bytesOf(type) + bytesOf(endsType))[0];
}

Value mlir::megalodon::buildGpuSegmentCarry(PatternRewriter &rewriter,
                                            const LoweringOptions &options,
                                            Operation *op, Value ends, Value q,
                                            Value state, Value positions,
                                            int64_t segment, bool reverse) {
  PairThreads pairs(tensorOf(q).getDimSize(0), tensorOf(q).getDimSize(1));
  KernelBuilder k(rewriter, options, op,
                  reverse ? "cema_grad_carry" : "cema_carry",
                  PairThreads::kThreads);
  Value qIn = k.read(q), stateIn = state ? k.read(state) : Value();
  PackedDocuments documents(k, positions ? k.read(positions, View::Flat)
                                         : Value());
  Value carries = k.update(ends, View::Flat);
  pairs.run(k, [&] {
    documents.setRow(pairs.row);
    Type f32 = elementOf(ends), f64 = k.b.getF64Type();
    Complex q1 = loadQ(k, pairs, qIn, reverse);
    Complex factor = power(k, q1, segment);
    SmallVector<Value> current(2, k.constant(0, f64));
    if (stateIn) {
      auto [re, im] = loadPair(
          k, stateIn, {pairs.row, pairs.channel, pairs.state, k.index(0)});
      current = {k.toFloat(re, f64), k.toFloat(im, f64)};
    }
    Value zero = k.index(0), one = k.index(1),
          last = k.sub(k.ceilDiv(k.length(), segment), one);
    auto put = [&](Value index, ValueRange value) {
      for (int64_t half : {0, 1})
        k.storeScalar(k.toFloat(value[half], f32), carries,
                      {pairs.offset(k, index, half)});
    };
    auto step = [&](Value index, ValueRange before,
                    Complex by) -> SmallVector<Value> {
      Complex end = pairs.load(k, carries, index);
      put(index, before);
      Complex from = {before[0], before[1]};
      if (documents) {
        // What comes in front of a document's begin does not get past it, be it
        // infinite.
        Value tokens = segmentLength(k, index, segment),
              behind = k.add(k.mul(index, k.index(segment)), tokens),
              passes = documents.goesOn(k.sub(behind, one), tokens),
              none = k.constant(0, f64);
        from = {k.select(passes, from.re, none),
                k.select(passes, from.im, none)};
      }
      Complex after = advance(k, by, from, end);
      return {after.re, after.im};
    };
    if (!reverse) {
      current =
          k.loop(zero, last, 1, current, [&](Value index, ValueRange before) {
            return step(index, before, factor);
          });
      put(last, current);
      return;
    }
    // Backwards the last segment, which may be shorter, comes first.
    Value several = k.less(zero, last);
    auto ifOp = scf::IfOp::create(k.b, TypeRange{f64, f64}, several, true);
    {
      OpBuilder::InsertionGuard guard(k.b);
      k.b.setInsertionPointToStart(ifOp.thenBlock());
      Complex rest = power(k, q1, segmentLength(k, last, segment));
      SmallVector<Value> behind = step(last, current, rest);
      behind = k.loop(one, last, 1, behind, [&](Value i, ValueRange before) {
        return step(k.sub(last, i), before, factor);
      });
      scf::YieldOp::create(k.b, behind);
      k.b.setInsertionPointToStart(ifOp.elseBlock());
      scf::YieldOp::create(k.b, current);
    }
    put(zero, ifOp.getResults());
  });
  double elements = tensorOf(ends).getNumElements();
  return k.finish({.factor = pairs.workgroups(), .outer = plan::Outer::Batch},
                  /*flops=*/4 * elements, /*bytes=*/8 * elements)[0];
}

//===-- What ranks along the chunk axis ask for
//----------------------------------------------------------------------------------------------------===//

namespace {

/// The ends of all segments, brought together: [B, 1, D, N, 2].
Value buildSummary(PatternRewriter &rewriter, const LoweringOptions &options,
                   Operation *op, Value activation, Value q, Value pOrG,
                   bool reverse) {
  auto type = tensorOf(activation);
  int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
          channels = type.getDimSize(2), states = tensorOf(q).getDimSize(1);
  GpuCemaForm form =
      chooseGpuCemaForm(options.cema, batch, length, channels, states,
                        /*perThread=*/8, /*unit=*/kGpuCemaTokens);
  int64_t segment = form.segment ? form.segment : length;
  Value ends = buildGpuSegmentEnds(rewriter, options, op, activation, q, pOrG,
                                   /*positions=*/{}, form.parts, segment,
                                   reverse, /*all=*/true);

  PairThreads pairs(channels, states);
  KernelBuilder k(rewriter, options, op,
                  reverse ? "cema_grad_summary" : "cema_summary",
                  PairThreads::kThreads);
  Value qIn = k.read(q), endsIn = k.read(ends, View::Flat),
        summary = k.write(op->getResult(0).getType(), View::Rows);
  pairs.run(k, [&] {
    Type f64 = k.b.getF64Type();
    Complex q1 = loadQ(k, pairs, qIn, reverse), factor = power(k, q1, segment);
    Value zero = k.index(0), one = k.index(1),
          last = k.sub(k.ceilDiv(k.length(), segment), one);
    SmallVector<Value> current(2, k.constant(0, f64));
    auto step = [&](Value index, ValueRange before,
                    Complex by) -> SmallVector<Value> {
      Complex after =
          advance(k, by, {before[0], before[1]}, pairs.load(k, endsIn, index));
      return {after.re, after.im};
    };
    Complex rest = power(k, q1, segmentLength(k, last, segment));
    if (reverse) {
      // current is 0 in front of the last segment, so its power is not needed.
      current = k.loop(zero, k.add(last, one), 1, current,
                       [&](Value i, ValueRange before) {
                         return step(k.sub(last, i), before, factor);
                       });
    } else {
      current =
          k.loop(zero, last, 1, current, [&](Value index, ValueRange before) {
            return step(index, before, factor);
          });
      current = step(last, current, rest);
    }
    storePair(k, current[0], current[1], summary,
              {pairs.row, pairs.channel, pairs.state, zero});
  });
  return k.finish({.factor = pairs.workgroups(), .outer = plan::Outer::Batch},
                  /*flops=*/4.0 * tensorOf(ends).getNumElements(),
                  bytesOf(ends.getType()) +
                      bytesOf(op->getResult(0).getType()))[0];
}

struct GpuCemaSummaryLowering : OpRewritePattern<CemaSummaryOp> {
  GpuCemaSummaryLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(CemaSummaryOp op,
                                PatternRewriter &rewriter) const override {
    rewriter.replaceOp(op,
                       buildSummary(rewriter, options, op, op.getX(), op.getQ(),
                                    op.getP(), /*reverse=*/false));
    return success();
  }

  const LoweringOptions &options;
};

struct GpuCemaGradSummaryLowering : OpRewritePattern<CemaGradSummaryOp> {
  GpuCemaGradSummaryLowering(MLIRContext *context,
                             const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(CemaGradSummaryOp op,
                                PatternRewriter &rewriter) const override {
    rewriter.replaceOp(op,
                       buildSummary(rewriter, options, op, op.getDy(),
                                    op.getQ(), op.getG(), /*reverse=*/true));
    return success();
  }

  const LoweringOptions &options;
};

} // namespace

void mlir::megalodon::populateGpuCemaSummaryLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns.add<GpuCemaSummaryLowering, GpuCemaGradSummaryLowering>(
      patterns.getContext(), options);
}
