// Ops without a reduction over a row: silu, gate, sums, the two-hop residual,
// rotary positions, accumulation, and their gradients.
#include "passes/Lowering/Rotation.h"
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {
namespace {

/// Visits the vectors of this workgroup's tokens.
void forTokenLanes(KernelBuilder &k, int64_t rows, int64_t width, Type element,
                   function_ref<void(Value t, Value i, Value mask)> body) {
  forTokens(k, rows, [&](Value t) {
    k.forLanes(width, element, [&](Value i, Value mask) { body(t, i, mask); });
  });
}

/// x sigma(x) and its derivative sigma(x) (1 + x (1 - sigma(x))).
std::pair<Value, Value> siluAndDerivative(KernelBuilder &k, Value x) {
  Value s = k.sigmoid(x), value = k.mul(x, s);
  return {value, k.fma(value, k.sub(k.constant(1, x.getType()), s), s)};
}

struct SiluLowering : LoweringPattern<SiluOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(SiluOp op,
                                PatternRewriter &rewriter) const override {
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "silu");
    Value x = k.read(op.getX(), View::Rows),
          y = k.write(op.getType(), View::Rows);
    forTokenLanes(k, rows, width, elementOf(op.getX()),
                  [&](Value t, Value i, Value mask) {
                    Value vector = k.load(x, {t, i}, mask);
                    k.store(k.mul(vector, k.sigmoid(vector)), y, {t, i}, mask);
                  });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    4.0 * op.getType().getNumElements(),
                                    bytesOf(op)));
    return success();
  }
};

struct SiluGradLowering : LoweringPattern<SiluGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(SiluGradOp op,
                                PatternRewriter &rewriter) const override {
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "silu_grad");
    Value dy = k.read(op.getDy(), View::Rows),
          x = k.read(op.getX(), View::Rows),
          dx = k.write(op.getType(), View::Rows);
    forTokenLanes(k, rows, width, elementOf(op.getX()),
                  [&](Value t, Value i, Value mask) {
                    Value derivative =
                        siluAndDerivative(k, k.load(x, {t, i}, mask)).second;
                    k.store(k.mul(k.load(dy, {t, i}, mask), derivative), dx,
                            {t, i}, mask);
                  });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    8.0 * op.getType().getNumElements(),
                                    bytesOf(op)));
    return success();
  }
};

struct GateLowering : LoweringPattern<GateOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(GateOp op,
                                PatternRewriter &rewriter) const override {
    int64_t width = widthOf(op.getValue()),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "gate");
    Value value = k.read(op.getValue(), View::Rows),
          gate = k.read(op.getGate(), View::Rows),
          y = k.write(op.getType(), View::Rows);
    forTokenLanes(k, rows, width, elementOf(op.getValue()),
                  [&](Value t, Value i, Value mask) {
                    Value vector = k.load(gate, {t, i}, mask);
                    k.store(k.mul(k.load(value, {t, i}, mask),
                                  k.mul(vector, k.sigmoid(vector))),
                            y, {t, i}, mask);
                  });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    5.0 * op.getType().getNumElements(),
                                    bytesOf(op)));
    return success();
  }
};

struct GateGradLowering : LoweringPattern<GateGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(GateGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getValue());
    int64_t width = widthOf(op.getValue()),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "gate_grad");
    Value dy = k.read(op.getDy(), View::Rows),
          value = k.read(op.getValue(), View::Rows),
          gate = k.read(op.getGate(), View::Rows);
    Value dvalue = k.write(type, View::Rows), dgate = k.write(type, View::Rows);
    forTokenLanes(
        k, rows, width, computeType(type.getElementType()),
        [&](Value t, Value i, Value mask) {
          auto [silu, derivative] =
              siluAndDerivative(k, k.load(gate, {t, i}, mask));
          Value d = k.load(dy, {t, i}, mask);
          k.store(k.mul(d, silu), dvalue, {t, i}, mask);
          k.store(k.mul(k.mul(d, k.load(value, {t, i}, mask)), derivative),
                  dgate, {t, i}, mask);
        });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    10.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

struct AddLowering : LoweringPattern<AddOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(AddOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getType());
    Type element = computeType(type.getElementType());
    // A tensor of rank 3 is an activation [B, L, width] of which only the
    // call's tokens count; anything else is added whole.
    bool activation = type.getRank() == 3;
    View view = activation ? View::Rows : View::Flat;
    KernelBuilder k(rewriter, options, op, "add");
    SmallVector<Value> inputs;
    for (Value input : op.getInputs())
      inputs.push_back(k.read(input, view));
    Value y = k.write(type, view);
    auto sum = [&](ValueRange indices, Value mask) {
      Value total = k.load(inputs.front(), indices, mask);
      for (Value input : llvm::drop_begin(inputs))
        total = k.add(total, k.load(input, indices, mask));
      k.store(total, y, indices, mask);
    };
    int64_t elements = type.getNumElements(),
            rows = rowsPerWorkgroup(
                options, type.getShape().empty() ? 1 : type.getShape().back());
    if (activation)
      forTokenLanes(k, rows, type.getShape().back(), element,
                    [&](Value t, Value i, Value mask) { sum({t, i}, mask); });
    else
      forElements(k, elements, element,
                  [&](Value i, Value mask) { sum({i}, mask); });
    rewriter.replaceOp(
        op, k.finish(activation ? tokenGrid(rows) : flatGrid(elements),
                     double(elements) * (inputs.size() - 1), bytesOf(op)));
    return success();
  }
};

struct TwoHopResidualLowering : LoweringPattern<TwoHopResidualOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TwoHopResidualOp op,
                                PatternRewriter &rewriter) const override {
    int64_t width = widthOf(op.getX()), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "two_hop_residual");
    Value x = k.read(op.getX(), View::Rows),
          branch = k.read(op.getBranch(), View::Rows);
    Value alpha = op.getAlpha() ? k.read(op.getAlpha()) : Value();
    Value y = k.write(op.getType(), View::Rows);
    forTokenLanes(k, rows, width, elementOf(op.getX()),
                  [&](Value t, Value i, Value mask) {
                    Value base = k.load(x, {t, i}, mask),
                          added = k.load(branch, {t, i}, mask);
                    k.store(alpha ? k.fma(added, k.load(alpha, {i}, mask), base)
                                  : k.add(base, added),
                            y, {t, i}, mask);
                  });
    rewriter.replaceOp(
        op, k.finish(tokenGrid(rows),
                     (alpha ? 2.0 : 1.0) * op.getType().getNumElements(),
                     bytesOf(op)));
    return success();
  }
};

struct TwoHopResidualGradLowering : LoweringPattern<TwoHopResidualGradOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(TwoHopResidualGradOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getBranch());
    int64_t width = widthOf(op.getBranch()),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "two_hop_residual_grad");
    Value dy = k.read(op.getDy(), View::Rows),
          branch = k.read(op.getBranch(), View::Rows),
          alpha = k.read(op.getAlpha());
    Value dbranch = k.write(type, View::Rows),
          partial = k.write(partialRowsType(type, rows, width));
    clearPartialRow(k, partial);
    forTokenLanes(
        k, rows, width, computeType(type.getElementType()),
        [&](Value t, Value i, Value mask) {
          Value d = k.load(dy, {t, i}, mask);
          k.store(k.mul(d, k.load(alpha, {i}, mask)), dbranch, {t, i}, mask);
          addToPartialRow(k, partial, i, k.mul(d, k.load(branch, {t, i}, mask)),
                          mask);
        });
    SmallVector<Value> results =
        k.finish(tokenGrid(rows), 3.0 * type.getNumElements(), bytesOf(op));
    results[1] = reducePartialRows(rewriter, options, op, results[1],
                                   op.getDalpha().getType(), tokenGrid(rows));
    rewriter.replaceOp(op, results);
    return success();
  }
};

//===-- Rotary positions
//---------------------------------------------------------------------------------------------------------------===//

struct RotaryLowering : LoweringPattern<RotaryOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(RotaryOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getX());
    Type element = computeType(type.getElementType());
    int64_t width = widthOf(op.getX()), head = width / op.getHeads(),
            chunk = op.getChunk(), rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "rotary");
    k.ownsRows();
    // Where positions are given, they alone say where tokens stand.
    Value positions =
        op.getPositions() ? k.read(op.getPositions(), View::Rows) : Value();
    Value x = k.read(op.getX(), View::Rows),
          count = positions ? Value() : k.read(op.getCount()),
          y = k.write(type, View::Rows);

    Rotation rotation(k, head, op.getBase().convertToDouble(), element,
                      op.getInverse(), op.getScale().convertToDouble());
    Value length = k.length(), chunkLength = k.index(chunk);
    Value first = k.mul(k.workgroup(), k.index(rows)),
          last = k.min(k.add(first, k.index(rows)), k.tokens());
    // Carried: the position one further than the token before, to which the
    // rotation goes on without cos and sin.
    k.loop(first, last, 1, ValueRange(chunkLength),
           [&](Value t, ValueRange carried) -> SmallVector<Value> {
             Value seen = arith::IndexCastOp::create(
                 k.b, k.b.getIndexType(),
                 positions ? k.loadScalar(positions, {t})
                           : k.loadScalar(count, {k.div(t, length)}));
             if (!positions)
               seen = k.add(seen, k.rem(t, length));
             Value position = k.rem(seen, chunkLength);
             rotation.turnTo(
                 position, arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq,
                                                 position, carried[0]));
             k.loop(k.index(0), k.index(width), head, [&](Value start) {
               k.forLanes(head, element, [&](Value i, Value mask) {
                 Value column = k.add(start, i);
                 k.store(rotation.apply(k.load(x, {t, column}, mask), i, mask),
                         y, {t, column}, mask);
               });
             });
             return {k.add(position, k.index(1))};
           });
    rewriter.replaceOp(op, k.finish(tokenGrid(rows),
                                    3.0 * type.getNumElements(), bytesOf(op)));
    return success();
  }
};

//===-- Gradients of biases, accumulation
//------------------------------------------------------------------------------------------------===//

struct LinearGradBiasLowering : LoweringPattern<LinearGradBiasOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(LinearGradBiasOp op,
                                PatternRewriter &rewriter) const override {
    RankedTensorType type = tensorOf(op.getDy());
    int64_t width = widthOf(op.getDy()),
            rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "linear_grad_bias");
    Value dy = k.read(op.getDy(), View::Rows),
          partial = k.write(partialRowsType(type, rows, width));
    clearPartialRow(k, partial);
    forTokenLanes(k, rows, width, computeType(type.getElementType()),
                  [&](Value t, Value i, Value mask) {
                    addToPartialRow(k, partial, i, k.load(dy, {t, i}, mask),
                                    mask);
                  });
    SmallVector<Value> results =
        k.finish(tokenGrid(rows), type.getNumElements(), bytesOf(op));
    rewriter.replaceOp(op, reducePartialRows(rewriter, options, op, results[0],
                                             op.getType(), tokenGrid(rows)));
    return success();
  }
};

struct AccumulateLowering : LoweringPattern<AccumulateOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(AccumulateOp op,
                                PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getType());
    int64_t elements = type.getNumElements();
    KernelBuilder k(rewriter, options, op, "accumulate");
    Value gradient = k.read(op.getGradient(), View::Flat),
          into = k.update(op.getInto(), View::Flat);
    k.when(
        k.accumulating(),
        [&] {
          forElements(k, elements, type.getElementType(),
                      [&](Value i, Value mask) {
                        k.store(k.add(k.load(into, {i}, mask),
                                      k.load(gradient, {i}, mask)),
                                into, {i}, mask);
                      });
        },
        [&] {
          forElements(k, elements, type.getElementType(),
                      [&](Value i, Value mask) {
                        k.store(k.load(gradient, {i}, mask), into, {i}, mask);
                      });
        });
    rewriter.replaceOp(op, k.finish(flatGrid(elements), elements, bytesOf(op)));
    return success();
  }
};

/// A tensor of one value: the cotangent of the loss, or of a result that
/// nobody uses.
struct ConstantLowering : LoweringPattern<arith::ConstantOp> {
  using LoweringPattern::LoweringPattern;
  LogicalResult matchAndRewrite(arith::ConstantOp op,
                                PatternRewriter &rewriter) const override {
    auto splat = dyn_cast<SplatElementsAttr>(op.getValue());
    if (!splat || !isa<FloatType>(splat.getElementType()))
      return failure();
    Type element = computeType(splat.getElementType());
    int64_t elements = splat.getNumElements();
    KernelBuilder k(rewriter, options, op, "fill");
    Value tensor = k.write(op.getType(), View::Flat);
    Value value = k.constant(splat.getSplatValue<APFloat>().convertToDouble(),
                             k.vectorType(element));
    forElements(k, elements, element, [&](Value i, Value mask) {
      k.store(value, tensor, {i}, mask);
    });
    rewriter.replaceOp(op, k.finish(flatGrid(elements), 0, bytesOf(op)));
    return success();
  }
};

} // namespace

void populateElementwiseLowering(RewritePatternSet &patterns,
                                 const LoweringOptions &options) {
  patterns.add<SiluLowering, SiluGradLowering, GateLowering, GateGradLowering,
               AddLowering, TwoHopResidualLowering, TwoHopResidualGradLowering,
               RotaryLowering, LinearGradBiasLowering, AccumulateLowering,
               ConstantLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
