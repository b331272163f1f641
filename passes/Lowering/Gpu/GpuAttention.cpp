// Chunk attention on a GPU, forward: GpuAttention.h says how.
#include "passes/Lowering/Gpu/GpuAttention.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "passes/Lowering/Lowerings.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {

void populateGpuAttentionGradLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // GpuAttentionGrad.cpp

namespace {

/// What stands for the log-sum-exp of a row that is no token of the call: its
/// weights are zero.
constexpr double kNoToken = 1e30;

/// The operands of an attention op as one of its kernels reads them.
struct Operands {
  Value q, keys, cacheK, count;
  Operands(KernelBuilder &k, ChunkAttentionOp op)
      : q(k.read(op.getQ(), View::Rows)), keys(k.read(op.getK(), View::Rows)),
        cacheK(k.read(op.getCacheK())), count(k.read(op.getCount())) {}
};

/// lse of a block of queries, and with a workspace the tiles of weights.
class WeightsKernel {
public:
  WeightsKernel(KernelBuilder &k, ChunkAttentionOp op,
                const AttentionShape &shape, const GpuAttentionForm &form)
      : k(k), shape(shape), form(form), operands(k, op),
        lse(k.write(op.getLse().getType(), View::Rows)),
        workspace(form.stored ? k.write(form.workspace(
                                    shape, tileElement(k, form.math)))
                              : Value()),
        blocks(k, shape, form, operands.count, 1, /*heavyLast=*/true),
        scores(k, shape, form) {
    Type f32 = k.b.getF32Type();
    partMaxima = k.scratch({form.scoreWarpsN, form.block}, f32);
    partSums = k.scratch({form.scoreWarpsN, form.block}, f32);
  }

  void emit() {
    blocks.forEach([&](const ChunkBlock &block) {
      TileSource queries = blocks.ofCall(operands.q, block, shape.keyWidth);
      TileSource keys =
          blocks.ofChunk(operands.keys, operands.cacheK, block, shape.keyWidth);
      auto scoresAt = [&](Value keyFirst) {
        return scores.multiply(queries, block.first, keys, keyFirst,
                               shape.keyWidth);
      };
      SmallVector<Value> logs = reduce(block, scoresAt);
      if (!workspace)
        return;
      Value first = blocks.firstTile(block, block.number);
      forKeyBlocks(block, {}, [&](Value number, Value keyFirst, ValueRange) {
        SmallVector<Value> sums = scoresAt(keyFirst);
        scores.toWeights(sums, block.first, keyFirst, logs);
        TileStore{workspace, {k.add(first, number)}, form.block}.store(
            k, scores.product, sums);
        return SmallVector<Value>();
      });
    });
  }

private:
  SmallVector<Value> forKeyBlocks(
      const ChunkBlock &block, ValueRange carried,
      function_ref<SmallVector<Value>(Value, Value, ValueRange)> body) {
    Value count = k.add(block.number, k.index(1));
    auto step = [&](Value number, ValueRange values) {
      return body(number, k.mul(number, k.index(form.block)), values);
    };
    if (carried.empty()) {
      k.loop(k.index(0), count, 1, [&](Value number) { step(number, {}); });
      return {};
    }
    return k.loop(k.index(0), count, 1, carried, step);
  }

  /// log sum exp of this thread's rows; also writes it to `lse`. Each thread
  /// keeps a maximum and a sum of what it sees of a row; they are joined once,
  /// at the end.
  SmallVector<Value> reduce(const ChunkBlock &block,
                            function_ref<SmallVector<Value>(Value)> scoresAt) {
    GpuProduct &product = scores.product;
    const int64_t rows = product.rowsHeld();
    Type f32 = k.b.getF32Type();
    Value lowest = k.constant(-kNoToken, f32), zero = k.constant(0.0, f32);
    SmallVector<Value> start(rows, lowest);
    start.append(rows, zero);
    SmallVector<Value> found = forKeyBlocks(
        block, start, [&](Value, Value keyFirst, ValueRange carried) {
          SmallVector<Value> sums = scoresAt(keyFirst);
          SmallVector<Value> maxima(carried.take_front(rows)),
              totals(carried.drop_front(rows));
          scores.forScores(sums, block.first, keyFirst,
                           [&](int64_t i, Value score, Value seen) {
                             Value value = k.select(seen, score, lowest);
                             maxima[i] = k.max(maxima[i], value);
                             return value;
                           });
          for (int64_t i = 0; i < rows; ++i)
            totals[i] = k.mul(totals[i], k.exp(k.sub(carried[i], maxima[i])));
          // Of a row of which nothing was seen yet the sum means nothing, and
          // is multiplied by 0 as soon as it has a maximum.
          product.visit(sums, [&](int64_t i, Value, Value,
                                  MutableArrayRef<Value> values) {
            for (Value value : values)
              totals[i] = k.add(totals[i], k.exp(k.sub(value, maxima[i])));
          });
          SmallVector<Value> next(maxima);
          next.append(totals);
          return next;
        });

    Value leads = product.isRowLeader();
    for (int64_t i = 0; i < rows; ++i) {
      Value maximum = product.combineRow(
          found[i], [&](Value x, Value y) { return k.max(x, y); });
      Value total = product.combineRow(
          k.mul(found[rows + i], k.exp(k.sub(found[i], maximum))),
          [&](Value x, Value y) { return k.add(x, y); });
      SmallVector<Value> at = {product.warpColumn(), product.row(i)};
      k.when(leads, [&] {
        k.storeScalar(maximum, partMaxima, at);
        k.storeScalar(total, partSums, at);
      });
    }
    k.barrier();
    SmallVector<Value> logs;
    for (int64_t i = 0; i < rows; ++i) {
      SmallVector<Value> maxima, sums;
      Value row = product.row(i), maximum = lowest, sum = zero;
      for (int64_t part = 0; part < form.scoreWarpsN; ++part) {
        maxima.push_back(k.loadScalar(partMaxima, {k.index(part), row}));
        sums.push_back(k.loadScalar(partSums, {k.index(part), row}));
        maximum = k.max(maximum, maxima.back());
      }
      for (int64_t part = 0; part < form.scoreWarpsN; ++part)
        sum =
            k.add(sum, k.mul(sums[part], k.exp(k.sub(maxima[part], maximum))));
      Value at = k.add(block.first, row);
      Value valid = arith::AndIOp::create(
          k.b, k.less(at, block.end),
          arith::CmpIOp::create(k.b, arith::CmpIPredicate::uge, at,
                                block.cached));
      Value logSum = k.add(maximum, k.log(sum));
      logs.push_back(
          k.select(valid, logSum, k.constant(kNoToken, logSum.getType())));
      Value first = arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq,
                                          product.warpColumn(), k.index(0));
      Value writes = arith::AndIOp::create(
          k.b, valid, arith::AndIOp::create(k.b, leads, first));
      k.when(writes, [&] {
        k.storeScalar(logs[i], lse, {k.add(block.origin, at), blocks.head()});
      });
    }
    return logs;
  }

  KernelBuilder &k;
  const AttentionShape &shape;
  const GpuAttentionForm &form;
  Operands operands;
  Value lse, workspace;
  GpuAttentionBlocks blocks;
  ScoreTiles scores;
  /// Shared: of each row, what the warps beside each other know.
  Value partMaxima, partSums;
};

struct GpuChunkAttentionLowering : OpRewritePattern<ChunkAttentionOp> {
  const LoweringOptions &options;
  GpuChunkAttentionLowering(MLIRContext *context,
                            const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(ChunkAttentionOp op,
                                PatternRewriter &rewriter) const override {
    AttentionShape shape(op.getQ(), op.getV(), op.getCacheK(), op.getHeads());
    if (!fitsGpuAttention(shape))
      return failure();
    if (fitsDecodeAttention(shape, options)) {
      rewriter.replaceOp(op, decodeAttention(rewriter, options, op, shape));
      return success();
    }
    // Weights rounded to bf16 for the tensor cores would cost the gradients a
    // digit more than bf16 has to: backward takes dout * out for the sum of the
    // weights' cotangents, which must not differ from what it sums itself.
    const GpuAttentionForm form = GpuAttentionForm::choose(
        shape, options, shape.element, /*backward=*/false);
    const double pairs = shape.pairs() * shape.heads,
                 tokens = double(shape.batch) * shape.length * shape.heads;
    const int64_t blocks = form.columnBlocks(shape.valueWidth);

    KernelBuilder weights(rewriter, options, op,
                          form.stored ? "attention_weights" : "attention_lse",
                          form.threads);
    WeightsKernel(weights, op, shape, form).emit();
    SmallVector<Value> ofWeights =
        weights.finish(GpuAttentionBlocks::grid(shape, form, 1),
                       2.0 * pairs * shape.keyWidth * (form.stored ? 2 : 1),
                       shape.bytes(2.0 * tokens * shape.keyWidth +
                                   (form.stored ? pairs : 0.0)));

    KernelBuilder k(rewriter, options, op, "attention_values", form.threads);
    emitValues(k, op, shape, form, ofWeights);
    SmallVector<Value> result = k.finish(
        GpuAttentionBlocks::grid(shape, form, blocks),
        2.0 * pairs *
            (shape.valueWidth + (form.stored ? 0 : blocks * shape.keyWidth)),
        shape.bytes(2.0 * tokens * shape.valueWidth +
                    (form.stored ? pairs : 2.0 * tokens * shape.keyWidth)));
    rewriter.replaceOp(op, {result[0], ofWeights[0]});
    return success();
  }

  static void emitValues(KernelBuilder &k, ChunkAttentionOp op,
                         const AttentionShape &shape,
                         const GpuAttentionForm &form,
                         ArrayRef<Value> ofWeights) {
    TileRowProduct product;
    product.width = shape.valueWidth;
    Value values = k.read(op.getV(), View::Rows),
          cacheV = k.read(op.getCacheV());
    std::optional<Operands> operands;
    Value count, lse;
    if (form.stored) {
      product.workspace = k.read(ofWeights[1]);
      count = k.read(op.getCount());
    } else {
      operands.emplace(k, op);
      lse = k.read(ofWeights[0], View::Rows);
      count = operands->count;
    }
    product.out = k.write(op.getResult().getType(), View::Rows);
    GpuAttentionBlocks blocks(k, shape, form, count,
                              form.columnBlocks(shape.valueWidth),
                              /*heavyLast=*/true);
    product.right = [&](const ChunkBlock &block) {
      return blocks.ofChunk(values, cacheV, block, shape.valueWidth);
    };
    std::optional<ScoreTiles> scores;
    if (!form.stored) {
      scores.emplace(k, shape, form);
      product.make = [&](const ChunkBlock &block, Value queryFirst,
                         Value keyFirst, const TileStore &tile) {
        SmallVector<Value> sums = scores->multiply(
            blocks.ofCall(operands->q, block, shape.keyWidth), queryFirst,
            blocks.ofChunk(operands->keys, operands->cacheK, block,
                           shape.keyWidth),
            keyFirst, shape.keyWidth);
        scores->toWeights(
            sums, queryFirst, keyFirst,
            blocks.ofRows(scores->product, lse, block, queryFirst, kNoToken));
        tile.store(k, scores->product, sums);
      };
    }
    product.emit(k, shape, form, blocks);
  }
};

} // namespace

void populateGpuAttentionLowering(RewritePatternSet &patterns,
                                  const LoweringOptions &options) {
  patterns.add<GpuChunkAttentionLowering>(patterns.getContext(), options);
  populateGpuAttentionGradLowering(patterns, options);
}

} // namespace mlir::megalodon
