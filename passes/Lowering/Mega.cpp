// Row kernels that only MEGA has: queries and keys with a relative bias, the
// update gate, and their gradients.
#include "passes/Lowering/Mega.h"
#include "dialect/Megalodon/Mega.h"
#include "passes/Lowering/PackedDocuments.h"
#include "passes/Lowering/Rotation.h"
#include "passes/Lowering/RowKernel.h"
#include <cmath>

namespace mlir::megalodon {
namespace {

/// Visits this workgroup's tokens with the factor of their queries, after the
/// rotation was turned to their positions.
template <typename OpT>
void forPlacedTokens(KernelBuilder &k, OpT op, int64_t rows, Value count,
                     Value positions, Rotation &rotation, Type element,
                     int64_t width,
                     function_ref<void(Value token, Value scale)> body) {
  k.ownsRows();
  Value length = k.length(), chunk = k.index(op.getChunk());
  Value first = k.mul(k.workgroup(), k.index(rows)),
        last = k.min(k.add(first, k.index(rows)), k.tokens());
  auto toIndex = [&](Value i64) -> Value {
    return arith::IndexCastOp::create(k.b, k.b.getIndexType(), i64);
  };
  // Carried: the position one further than the token before; none at first.
  k.loop(first, last, 1, ValueRange(chunk),
         [&](Value t, ValueRange carried) -> SmallVector<Value> {
           Value seen =
               positions
                   ? toIndex(k.loadScalar(positions, {t}))
                   : k.add(toIndex(k.loadScalar(count, {k.div(t, length)})),
                           k.rem(t, length));
           Value position = k.rem(seen, chunk),
                 next = k.add(position, k.index(1));
           rotation.turnTo(position,
                           arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq,
                                                 position, carried[0]));
           Value scale =
               op.getPerKey()
                   ? k.div(k.constant(1, element), k.intToFloat(next, element))
                   : k.constant(1 / std::sqrt(double(width)), element);
           body(t, k.splat(scale));
           return {next};
         });
}

struct MegaQKLowering : LoweringPattern<MegaQKOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(MegaQKOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getQ().getType());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getZ()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "mega_qk");
    Value z = k.read(op.getZ(), View::Rows), gamma = k.read(op.getGamma()),
          beta = k.read(op.getBeta()), relative = k.read(op.getRelative()),
          positions = readPositions(k, op),
          count = positions ? Value() : k.read(op.getCount());
    Value outputs[] = {k.write(type, View::Rows), k.write(type, View::Rows)};
    Rotation rotation(k, width, op.getBase().convertToDouble(), element);
    forPlacedTokens(
        k, op, rows, count, positions, rotation, element, width,
        [&](Value t, Value scale) {
          k.forLanes(width, element, [&](Value i, Value mask) {
            Value shared = k.load(z, {t, i}, mask),
                  biasColumn = k.add(i, k.index(width));
            for (auto [index, output] : llvm::enumerate(outputs)) {
              Value row = k.index(index);
              Value own = k.fma(shared, k.load(gamma, {row, i}, mask),
                                k.load(beta, {row, i}, mask));
              k.store(index == 0 ? k.mul(own, scale) : own, output, {t, i},
                      mask);
              k.store(rotation.apply(k.load(relative, {row, i}, mask), i, mask),
                      output, {t, biasColumn}, mask);
            }
          });
        });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    5.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct MegaQKGradLowering : LoweringPattern<MegaQKGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(MegaQKGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getZ());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getZ()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "mega_qk_grad");
    Value cotangents[] = {k.read(op.getDq(), View::Rows),
                          k.read(op.getDk(), View::Rows)};
    Value z = k.read(op.getZ(), View::Rows), gamma = k.read(op.getGamma()),
          positions = readPositions(k, op),
          count = positions ? Value() : k.read(op.getCount());
    Value dz = k.write(type, View::Rows);
    // Rows of [2, Z] each: what belongs to q, then what belongs to k.
    RankedTensorType partial = partialRowsType(type, rows, 2 * width);
    Value dgamma = k.write(partial), dbeta = k.write(partial),
          drelative = k.write(partial);
    for (Value sums : {dgamma, dbeta, drelative})
      clearPartialRow(k, sums);
    Rotation rotation(k, width, op.getBase().convertToDouble(), element);
    forPlacedTokens(
        k, op, rows, count, positions, rotation, element, width,
        [&](Value t, Value scale) {
          k.forLanes(width, element, [&](Value i, Value mask) {
            Value shared = k.load(z, {t, i}, mask),
                  biasColumn = k.add(i, k.index(width)), sum;
            for (auto [index, cotangent] : llvm::enumerate(cotangents)) {
              Value slot = index == 0 ? i : biasColumn;
              Value d = k.load(cotangent, {t, i}, mask);
              if (index == 0)
                d = k.mul(d, scale);
              Value gain = k.load(gamma, {k.index(index), i}, mask);
              sum = sum ? k.fma(d, gain, sum) : k.mul(d, gain);
              addToPartialRow(k, dgamma, slot, k.mul(d, shared), mask);
              addToPartialRow(k, dbeta, slot, d, mask);
              addToPartialRow(
                  k, drelative, slot,
                  rotation.applyInverse(
                      k.load(cotangent, {t, biasColumn}, mask), i, mask),
                  mask);
            }
            k.store(sum, dz, {t, i}, mask);
          });
        });
    SmallVector<Value> results =
        k.finish(tokenGrid(rows), 20.0 * type.getNumElements(), bytesOf(op));
    for (unsigned i = 1; i < results.size(); ++i)
      results[i] =
          reducePartialRows(rewriter, options, op, results[i],
                            op.getResult(i).getType(), tokenGrid(rows));
    rewriter.replaceOp(op, results);
    return success();
  }
};

struct UpdateGateLowering : LoweringPattern<UpdateGateOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(UpdateGateOp op,
                                PatternRewriter &rewriter) const override {
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "update_gate");
    Value x = k.read(op.getX(), View::Rows),
          candidate = k.read(op.getCandidate(), View::Rows),
          gate = k.read(op.getGate(), View::Rows),
          y = k.write(op.getType(), View::Rows);
    forTokens(k, rows, [&](Value t) {
      k.forLanes(width, elementOf(op.getX()), [&](Value i, Value mask) {
        Value before = k.load(x, {t, i}, mask);
        Value step = k.sub(k.load(candidate, {t, i}, mask), before);
        k.store(k.fma(k.sigmoid(k.load(gate, {t, i}, mask)), step, before), y,
                {t, i}, mask);
      });
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    6.0 * op.getType().getNumElements(),
                                    bytesOf(op)));
    return success();
  }
};

struct UpdateGateGradLowering : LoweringPattern<UpdateGateGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(UpdateGateGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "update_gate_grad");
    Value dy = k.read(op.getDy(), View::Rows),
          x = k.read(op.getX(), View::Rows),
          candidate = k.read(op.getCandidate(), View::Rows),
          gate = k.read(op.getGate(), View::Rows);
    Value dx = k.write(type, View::Rows),
          dcandidate = k.write(type, View::Rows),
          dgate = k.write(type, View::Rows);
    Value one = k.constant(1, k.vectorType(element));
    forTokens(k, rows, [&](Value t) {
      k.forLanes(width, element, [&](Value i, Value mask) {
        Value d = k.load(dy, {t, i}, mask),
              s = k.sigmoid(k.load(gate, {t, i}, mask)), rest = k.sub(one, s);
        Value step =
            k.sub(k.load(candidate, {t, i}, mask), k.load(x, {t, i}, mask));
        k.store(k.mul(d, rest), dx, {t, i}, mask);
        k.store(k.mul(d, s), dcandidate, {t, i}, mask);
        k.store(k.mul(k.mul(d, step), k.mul(s, rest)), dgate, {t, i}, mask);
      });
    });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    10.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

} // namespace

void populateMegaLowering(RewritePatternSet &patterns,
                          const LoweringOptions &options) {
  patterns.add<MegaQKLowering, MegaQKGradLowering, UpdateGateLowering,
               UpdateGateGradLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
