// What ranks along the chunk axis do for CEMA: the state that a rank's tokens
// leave behind, forwards or, for the gradient, backwards, and the prefix over
// the ranks' states.
#include "mlir/Dialect/Math/IR/Math.h"
#include "passes/Lowering/CemaKernel.h"
#include "passes/Lowering/RowKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// A workgroup runs one batch row of up to 64 channels through all its tokens.
SmallVector<Value> buildSummary(PatternRewriter &rewriter,
                                const LoweringOptions &options, Operation *op,
                                StringRef name, Value activation, Value q,
                                Value pOrG, bool reverse) {
  RankedTensorType type = tensorOf(activation);
  int64_t channels = type.getDimSize(2), states = tensorOf(q).getDimSize(1);
  Type resultType = op->getResult(0).getType();
  CemaTile tile(options, computeType(type.getElementType()), channels, states);
  KernelBuilder k(rewriter, options, op, name);
  Value in = k.read(activation, View::Rows), qIn = k.read(q),
        pOrGIn = k.read(pOrG), summary = k.write(resultType, View::Rows);
  Value channelBlocks = k.index(tile.workgroups()),
        row = k.div(k.workgroup(), channelBlocks);
  tile.begin(k, k.rem(k.workgroup(), channelBlocks));
  CemaStateScan scan(k, tile, in, reverse);
  scan.begin(qIn, pOrGIn);
  scan.run(row, k.index(0), k.length());
  tile.storeStates(scan.states(), summary, row);
  return k.finish({.factor = tile.workgroups(), .outer = plan::Outer::Batch},
                  /*flops=*/5.5 * type.getNumElements() * states,
                  bytesOf(type) + bytesOf(resultType));
}

struct CemaSummaryLowering : LoweringPattern<CemaSummaryOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CemaSummaryOp op,
                                PatternRewriter &rewriter) const override {
    rewriter.replaceOp(op, buildSummary(rewriter, options, op, "cema_summary",
                                        op.getX(), op.getQ(), op.getP(),
                                        /*reverse=*/false));
    return success();
  }
};

struct CemaGradSummaryLowering : LoweringPattern<CemaGradSummaryOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CemaGradSummaryOp op,
                                PatternRewriter &rewriter) const override {
    rewriter.replaceOp(op,
                       buildSummary(rewriter, options, op, "cema_grad_summary",
                                    op.getDy(), op.getQ(), op.getG(),
                                    /*reverse=*/true));
    return success();
  }
};

/// Every (channel, state) by itself, in f64; a workgroup takes some of one
/// batch row.
class PrefixKernel {
public:
  /// (channel, state) pairs of a workgroup.
  static constexpr int64_t kPairs = 1024;

  PrefixKernel(KernelBuilder &k, CemaPrefixOp op)
      : k(k), reverse(op.getReverse()), f64(k.b.getF64Type()),
        lanes(k.lanes(f64)) {
    ArrayRef<int64_t> shape = tensorOf(op.getSummaries()).getShape();
    ranks = shape[1];
    pairs = shape[2] * shape[3];
    summaries = k.read(op.getSummaries(), View::Flat);
    q = k.read(op.getQ(), View::Flat);
    state = k.read(op.getState(), View::Flat);
    localState = k.write(op.getLocalState().getType(), View::Flat);
    newState = k.write(op.getNewState().getType(), View::Flat);
    rank = k.chunkRank(op.getRank());
  }

  int64_t parts() const { return llvm::divideCeilSigned(pairs, kPairs); }

  void build() {
    Value row = k.div(k.workgroup(), k.index(parts())),
          first =
              k.mul(k.rem(k.workgroup(), k.index(parts())), k.index(kPairs));
    Value end = k.min(k.add(first, k.index(kPairs)), k.index(pairs));
    k.loop(first, end, lanes, [&](Value at) {
      mask = pairs % lanes == 0
                 ? Value()
                 : vector::CreateMaskOp::create(
                       k.b, VectorType::get({2 * lanes}, k.b.getI1Type()),
                       k.mul(k.index(2), k.sub(k.index(pairs), at)))
                       .getResult();
      Complex factor = load(q, k.index(0), at);
      if (reverse)
        factor.im = arith::NegFOp::create(k.b, factor.im);
      factor = power(factor);
      Complex start = load(state, row, at);
      // The state that is carried, and this rank's.
      SmallVector<Value> states = {start.re, start.im, start.re, start.im};
      states = k.loop(
          k.index(0), k.index(ranks), 1, states,
          [&](Value i, ValueRange carried) -> SmallVector<Value> {
            Value r = reverse ? k.sub(k.index(ranks - 1), i) : i;
            Value here =
                arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, r, rank);
            Complex fresh =
                load(summaries, k.add(k.mul(row, k.index(ranks)), r), at);
            Complex moved = multiply(k, factor, {carried[0], carried[1]});
            return {k.add(moved.re, fresh.re), k.add(moved.im, fresh.im),
                    k.select(here, carried[0], carried[2]),
                    k.select(here, carried[1], carried[3])};
          });
      store({states[2], states[3]}, localState, row, at);
      store({states[0], states[1]}, newState, row, at);
    });
  }

private:
  /// x^l for the call's l tokens.
  Complex power(Complex x) {
    Type i64 = k.b.getI64Type();
    Value length = arith::IndexCastOp::create(k.b, i64, k.length());
    auto number = [&](int64_t value) -> Value {
      return arith::ConstantOp::create(k.b, k.b.getI64IntegerAttr(value));
    };
    Value bits = arith::SubIOp::create(
        k.b, number(64), math::CountLeadingZerosOp::create(k.b, length));
    SmallVector<Value> carried = {k.constant(1, k.vectorType(f64)),
                                  k.constant(0, k.vectorType(f64)), x.re, x.im};
    carried = k.loop(
        k.index(0), arith::IndexCastOp::create(k.b, k.b.getIndexType(), bits),
        1, carried, [&](Value bit, ValueRange values) -> SmallVector<Value> {
          Value shifted = arith::ShRUIOp::create(
              k.b, length, arith::IndexCastOp::create(k.b, i64, bit));
          Value isSet = arith::TruncIOp::create(k.b, k.b.getI1Type(), shifted);
          Complex square = {values[2], values[3]},
                  product = multiply(k, {values[0], values[1]}, square),
                  next = multiply(k, square, square);
          return {k.select(isSet, product.re, values[0]),
                  k.select(isSet, product.im, values[1]), next.re, next.im};
        });
    return {carried[0], carried[1]};
  }

  /// The place of pair `at` of a row of pairs.
  Value place(Value row, Value at) {
    return k.mul(k.index(2), k.add(k.mul(row, k.index(pairs)), at));
  }
  Complex load(Value memref, Value row, Value at) {
    auto type = VectorType::get(
        {2 * lanes}, cast<MemRefType>(memref.getType()).getElementType());
    Value from = place(row, at);
    Value both = mask ? vector::MaskedLoadOp::create(k.b, type, memref, from,
                                                     mask, k.constant(0, type))
                            .getResult()
                      : vector::LoadOp::create(k.b, type, memref, from);
    auto parts = vector::DeinterleaveOp::create(k.b, both);
    return {k.toFloat(parts.getRes1(), f64), k.toFloat(parts.getRes2(), f64)};
  }
  void store(Complex value, Value memref, Value row, Value at) {
    Type element = cast<MemRefType>(memref.getType()).getElementType();
    Value both = vector::InterleaveOp::create(k.b, k.toFloat(value.re, element),
                                              k.toFloat(value.im, element));
    k.store(both, memref, {place(row, at)}, mask);
  }

  KernelBuilder &k;
  bool reverse;
  Type f64;
  int64_t lanes, ranks, pairs;
  Value summaries, q, state, localState, newState, rank, mask;
};

struct CemaPrefixLowering : LoweringPattern<CemaPrefixOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(CemaPrefixOp op,
                                PatternRewriter &rewriter) const override {
    KernelBuilder k(rewriter, options, op,
                    op.getReverse() ? "cema_prefix_reverse" : "cema_prefix");
    PrefixKernel kernel(k, op);
    kernel.build();
    rewriter.replaceOp(
        op, k.finish(Grid{kernel.parts(), plan::Outer::Batch},
                     4.0 * tensorOf(op.getSummaries()).getNumElements(),
                     bytesOf(op)));
    return success();
  }
};

} // namespace

void mlir::megalodon::populateCemaSummaryLowering(
    RewritePatternSet &patterns, const LoweringOptions &options) {
  patterns
      .add<CemaSummaryLowering, CemaGradSummaryLowering, CemaPrefixLowering>(
          patterns.getContext(), options);
}
