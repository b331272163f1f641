// Chunk attention on a GPU, forward: GpuAttention.h says how.
#include "passes/Lowering/Gpu/GpuAttention.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
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
  Value q, keys, cacheK, count, positions;
  Operands(KernelBuilder &k, ChunkAttentionOp op)
      : q(k.read(op.getQ(), View::Rows)), keys(k.read(op.getK(), View::Rows)),
        cacheK(k.read(op.getCacheK())), count(readCount(k, op)),
        positions(readPositions(k, op)) {}
};

/// A multiprocessor shall hold this many workgroups of the kernel at once.
/// Of attention_lse ptxas would choose to hold three, with 80 registers a
/// thread, and spill.
void keepResident(KernelBuilder &k, int64_t workgroups) {
  k.b.getInsertionBlock()->getParentOp()->setAttr(
      NVVM::NVVMDialect::getMinctasmAttrName(),
      k.b.getI32IntegerAttr(workgroups));
}

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
        total(form.stored && form.math == TileMath::Bf16
                  ? k.write(op.getLse().getType(), View::Rows)
                  : Value()),
        blocks(k, shape, form, operands.count, operands.positions, 1,
               /*heavyLast=*/true),
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
      SmallVector<Value> zeros(total ? scores.product.rowsHeld() : 0,
                               k.constant(0.0, k.b.getF32Type()));
      SmallVector<Value> rowSums = forKeyBlocks(
          block, zeros, [&](Value number, Value keyFirst, ValueRange carried) {
            SmallVector<Value> sums = scoresAt(keyFirst), next(carried);
            scores.toWeights(sums, block.first, keyFirst, logs);
            if (total)
              scores.addToRows(sums, next);
            TileStore{workspace, {k.add(first, number)}, form.block}.store(
                k, scores.product, sums);
            return next;
          });
      if (total)
        storeTotals(block, rowSums);
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

  /// Writes the sums of the rounded weights of rows.
  void storeTotals(const ChunkBlock &block, ValueRange rowSums) {
    GpuProduct &product = scores.product;
    Value leads = product.isRowLeader();
    for (int64_t i = 0; i < product.rowsHeld(); ++i) {
      Value sum = product.combineRow(
          rowSums[i], [&](Value x, Value y) { return k.add(x, y); });
      k.when(leads, [&] {
        k.storeScalar(sum, partSums, {product.warpColumn(), product.row(i)});
      });
    }
    k.barrier();
    Value row = k.thread(), at = k.add(block.first, row);
    Value writes = arith::AndIOp::create(k.b, k.less(row, k.index(form.block)),
                                         blocks.isOfCall(block, at));
    k.when(writes, [&] {
      Value sum = k.loadScalar(partSums, {k.index(0), row});
      for (int64_t part = 1; part < form.scoreWarpsN; ++part)
        sum = k.add(sum, k.loadScalar(partSums, {k.index(part), row}));
      k.storeScalar(sum, total, {k.add(block.origin, at), blocks.head()});
    });
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
  /// Sums of the weights of rows as the workspace holds them; null where that
  /// is exact.
  Value total;
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
    AttentionShape shape(op.getQ(), op.getK(), op.getV(), op.getCacheK(),
                         op.getHeads());
    if (!fitsGpuAttention(shape))
      return failure();
    const bool softmax = op.getFunction() == AttentionFunction::Softmax,
               packed = static_cast<bool>(op.getPositions());
    if (softmax && !packed && fitsDecodeAttention(shape, options)) {
      rewriter.replaceOp(op, decodeAttention(rewriter, options, op, shape));
      return success();
    }
    const GpuAttentionForm form = GpuAttentionForm::choose(
        shape, options, shape.stored, packed || !softmax, /*backward=*/false);
    const double pairs = shape.pairs() * shape.heads,
                 tokens = double(shape.batch) * shape.length * shape.heads;
    const int64_t blocks = form.columnBlocks(shape.valueWidth);

    SmallVector<Value> ofWeights;
    if (softmax) {
      KernelBuilder weights(rewriter, options, op,
                            form.stored ? "attention_weights" : "attention_lse",
                            form.threads);
      if (!form.stored)
        keepResident(weights, 2);
      WeightsKernel(weights, op, shape, form).emit();
      ofWeights =
          weights.finish(GpuAttentionBlocks::grid(shape, form, 1),
                         2.0 * pairs * shape.keyWidth * (form.stored ? 2 : 1),
                         shape.bytes(2.0 * tokens * shape.keyWidth +
                                     (form.stored ? pairs : 0.0)));
    }

    KernelBuilder k(rewriter, options, op, "attention_values", form.threads);
    emitValues(k, op, shape, form, ofWeights);
    SmallVector<Value> result = k.finish(
        GpuAttentionBlocks::grid(shape, form, blocks),
        2.0 * pairs *
            (shape.valueWidth + (form.stored ? 0 : blocks * shape.keyWidth)),
        shape.bytes(2.0 * tokens * shape.valueWidth +
                    (form.stored ? pairs : 2.0 * tokens * shape.keyWidth)));
    if (softmax)
      result.push_back(ofWeights[0]);
    rewriter.replaceOp(op, result);
    return success();
  }

  /// parts[warp, row] += the weights of a tile, from 0 at the first one. A
  /// row's first lane owns its place, so no barrier is needed.
  static void addToParts(KernelBuilder &k, ScoreTiles &scores, Value parts,
                         ArrayRef<Value> weights, Value keyFirst) {
    GpuProduct &product = scores.product;
    Value zero = k.constant(0.0, k.b.getF32Type());
    SmallVector<Value> rowSums(product.rowsHeld(), zero);
    scores.addToRows(weights, rowSums);
    Value leads = product.isRowLeader(), isFirst = k.less(keyFirst, k.index(1));
    for (int64_t i = 0; i < product.rowsHeld(); ++i) {
      Value sum = product.combineRow(
          rowSums[i], [&](Value x, Value y) { return k.add(x, y); });
      k.when(leads, [&] {
        SmallVector<Value> at = {product.warpColumn(), product.row(i)};
        k.storeScalar(
            k.add(k.select(isFirst, zero, k.loadScalar(parts, at)), sum), parts,
            at);
      });
    }
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
    Value count, positions, lse, total;
    // Weights of bf16 do not sum to 1: without the division a row would be a
    // little too long or too short as a whole.
    const bool softmax = op.getFunction() == AttentionFunction::Softmax,
               divides = softmax && form.math == TileMath::Bf16;
    if (form.stored) {
      product.workspace = k.read(ofWeights[1]);
      if (divides)
        total = k.read(ofWeights[2], View::Rows);
      count = k.read(op.getCount());
    } else {
      operands.emplace(k, op);
      if (softmax)
        lse = k.read(ofWeights[0], View::Rows);
      count = operands->count;
      positions = operands->positions;
    }
    product.out = k.write(op.getResult().getType(), View::Rows);
    GpuAttentionBlocks blocks(k, shape, form, count, positions,
                              form.columnBlocks(shape.valueWidth),
                              /*heavyLast=*/true);
    product.right = [&](const ChunkBlock &block) {
      return blocks.ofChunk(values, cacheV, block, shape.valueWidth);
    };
    std::optional<ScoreTiles> scores;
    Value parts;
    if (divides && form.stored)
      product.divisor = [&](const ChunkBlock &block, Value row) {
        Value at = k.add(block.first, row), valid = blocks.isOfCall(block, at);
        Value token = k.select(valid, k.add(block.origin, at), k.index(0));
        return k.loadScalar(total, {token, blocks.head()});
      };
    if (divides && !form.stored) {
      parts = k.scratch({form.scoreWarpsN, form.block}, k.b.getF32Type());
      product.divisor = [&](const ChunkBlock &, Value row) {
        Value sum = k.loadScalar(parts, {k.index(0), row});
        for (int64_t part = 1; part < form.scoreWarpsN; ++part)
          sum = k.add(sum, k.loadScalar(parts, {k.index(part), row}));
        return sum;
      };
    }
    if (!form.stored) {
      scores.emplace(k, shape, form);
      product.make = [&](const ChunkBlock &block, Value queryFirst,
                         Value keyFirst, const TileStore &tile) {
        SmallVector<Value> sums = scores->multiply(
            blocks.ofCall(operands->q, block, shape.keyWidth), queryFirst,
            blocks.ofChunk(operands->keys, operands->cacheK, block,
                           shape.keyWidth),
            keyFirst, shape.keyWidth);
        if (softmax)
          scores->toWeights(
              sums, queryFirst, keyFirst,
              blocks.ofRows(scores->product, lse, block, queryFirst, kNoToken));
        else
          scores->toWeights(sums, queryFirst, keyFirst, laplaceWeight);
        tile.store(k, scores->product, sums);
        if (divides)
          addToParts(k, *scores, parts, sums, keyFirst);
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
