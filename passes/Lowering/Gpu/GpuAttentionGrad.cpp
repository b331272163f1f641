// The gradient of chunk attention on a GPU: GpuAttention.h says how. dq is made
// by blocks of queries, dk and dv by blocks of keys; nothing is added across
// workgroups.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "passes/Lowering/Gpu/GpuAttention.h"
#include "passes/Lowering/Lowerings.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {
namespace {

constexpr double kNoToken = 1e30;

/// delta = sum of dout * out over the columns of each head: exact in f32, and
/// in bf16 to the rounding of `out` (GpuAttention.h).
Value emitDelta(PatternRewriter &rewriter, const LoweringOptions &options,
                ChunkAttentionGradOp op, const AttentionShape &shape) {
  constexpr int64_t kWarps = 4;
  KernelBuilder k(rewriter, options, op, "attention_delta",
                  kWarps * kWarpThreads);
  Value dout = k.read(op.getDout(), View::Rows),
        out = k.read(op.getOut(), View::Rows);
  Value delta = k.write(op.getLse().getType(), View::Rows);
  int64_t piece = 16 / (shape.stored.getIntOrFloatBitWidth() / 8);
  while (shape.valueWidth % piece)
    piece /= 2;
  Type f32 = k.b.getF32Type();
  Value token = k.add(k.mul(k.workgroup(), k.index(kWarps)), k.warp());
  Value lane = k.lane();
  k.when(k.less(token, k.tokens()), [&] {
    k.loop(k.index(0), k.index(shape.heads), 1, [&](Value head) {
      Value column = k.mul(head, k.index(shape.valueWidth));
      Value from = k.mul(lane, k.index(piece));
      Value sum = k.loop(
          from, k.index(shape.valueWidth), piece * kWarpThreads,
          k.constant(0.0, f32),
          [&](Value at, ValueRange carried) -> SmallVector<Value> {
            Value next = carried[0];
            SmallVector<Value> place = {token, k.add(column, at)};
            SmallVector<Value> x = loadNeighbours(k, piece, dout, place, piece),
                               y = loadNeighbours(k, piece, out, place, piece);
            for (int64_t i = 0; i < piece; ++i)
              next = k.fma(x[i], y[i], next);
            return {next};
          })[0];
      sum = k.warpSum(sum);
      Value first = arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, lane,
                                          k.index(0));
      k.when(first, [&] { k.storeScalar(sum, delta, {token, head}); });
    });
  });
  const double count =
      double(shape.batch) * shape.length * shape.heads * shape.valueWidth;
  return k.finish({1, plan::Outer::One, plan::Inner::Tokens, kWarps},
                  2.0 * count, shape.bytes(2.0 * count))[0];
}

/// Makes tiles of P and dS.
class GradTiles {
public:
  GradTiles(KernelBuilder &k, ChunkAttentionGradOp op, Value deltaTensor,
            const AttentionShape &shape, const GpuAttentionForm &form,
            bool scoreGradients)
      : k(k), shape(shape),
        softmax(op.getFunction() == AttentionFunction::Softmax),
        q(k.read(op.getQ(), View::Rows)), keys(k.read(op.getK(), View::Rows)),
        cacheK(k.read(op.getCacheK())), count(readCount(k, op)),
        positions(readPositions(k, op)),
        lse(softmax ? k.read(op.getLse(), View::Rows) : Value()), form(form) {
    if (!scoreGradients)
      return;
    dout = k.read(op.getDout(), View::Rows);
    values = k.read(op.getV(), View::Rows);
    cacheV = k.read(op.getCacheV());
    if (softmax)
      delta = k.read(deltaTensor, View::Rows);
  }

  /// Once all buffers of the kernel are known.
  void start(GpuAttentionBlocks &blocks) {
    this->blocks = &blocks;
    scores.emplace(k, shape, form);
  }

  /// The tile of P, or with `forGradients` of what dP is multiplied by: the
  /// same with a softmax, the derivative of Laplace weights.
  void makeWeights(const ChunkBlock &block, Value queryFirst, Value keyFirst,
                   const TileStore &tile, bool forGradients = false) {
    SmallVector<Value> sums =
        scores->multiply(blocks->ofCall(q, block, shape.keyWidth), queryFirst,
                         blocks->ofChunk(keys, cacheK, block, shape.keyWidth),
                         keyFirst, shape.keyWidth);
    if (softmax)
      scores->toWeights(
          sums, queryFirst, keyFirst,
          blocks->ofRows(scores->product, lse, block, queryFirst, kNoToken));
    else
      scores->toWeights(sums, queryFirst, keyFirst,
                        forGradients ? laplaceDerivative : laplaceWeight);
    tile.store(k, scores->product, sums);
  }

  /// The tile of dS = P (dout v - delta), or P' dout v. A thread's weights wait
  /// in `weights` (which may be `tile` itself). Returns what the thread holds
  /// of the sums of its rows.
  SmallVector<Value> makeGradients(const ChunkBlock &block, Value queryFirst,
                                   Value keyFirst, const TileStore &weights,
                                   const TileStore &tile) {
    makeWeights(block, queryFirst, keyFirst, weights, /*forGradients=*/true);
    SmallVector<Value> sums = scores->multiply(
        blocks->ofCall(dout, block, shape.valueWidth), queryFirst,
        blocks->ofChunk(values, cacheV, block, shape.valueWidth), keyFirst,
        shape.valueWidth);
    SmallVector<Value> deltas;
    if (softmax)
      deltas = blocks->ofRows(scores->product, delta, block, queryFirst, 0.0);
    SmallVector<Value> rowSums(rowsHeld(), k.constant(0.0, k.b.getF32Type()));
    scores->product.visit(sums, [&](int64_t i, Value row, Value column,
                                    MutableArrayRef<Value> values) {
      SmallVector<Value> ofRow = weights.load(k, values.size(), row, column);
      for (auto [value, weight] : llvm::zip(values, ofRow)) {
        value = k.mul(weight, softmax ? k.sub(value, deltas[i]) : value);
        rowSums[i] = k.add(rowSums[i], value);
      }
    });
    tile.store(k, scores->product, sums);
    return rowSums;
  }

  /// Of a tile: rows of which a thread holds scores.
  int64_t rowsHeld() const { return scores->product.rowsHeld(); }
  /// Shared memory for the sums of a block's rows.
  void startRowSums() {
    rowParts = k.scratch({form.scoreWarpsN, form.block}, k.b.getF32Type());
  }
  /// Adds up what the threads hold of their rows' sums, for rowSum(). All
  /// threads must come here.
  void shareRowSums(ValueRange sums) {
    GpuProduct &product = scores->product;
    Value leads = product.isRowLeader();
    for (int64_t i = 0; i < rowsHeld(); ++i) {
      Value sum = product.combineRow(
          sums[i], [&](Value x, Value y) { return k.add(x, y); });
      k.when(leads, [&] {
        k.storeScalar(sum, rowParts, {product.warpColumn(), product.row(i)});
      });
    }
    k.barrier();
  }
  Value rowSum(Value row) {
    Value sum = k.loadScalar(rowParts, {k.index(0), row});
    for (int64_t part = 1; part < form.scoreWarpsN; ++part)
      sum = k.add(sum, k.loadScalar(rowParts, {k.index(part), row}));
    return sum;
  }

  KernelBuilder &k;
  const AttentionShape &shape;
  bool softmax;
  Value q, keys, cacheK, count, positions, lse, dout, values, cacheV, delta;

private:
  const GpuAttentionForm &form;
  GpuAttentionBlocks *blocks = nullptr;
  std::optional<ScoreTiles> scores;
  Value rowParts;
};

/// One gradient: which tiles it is a product of, and with what.
struct Gradient {
  StringRef name;
  bool transposed, scoreGradients;
  Type type;
  int64_t width;
  Value right, cache; ///< cache: null where only the call's tokens count
};

struct GpuChunkAttentionGradLowering : OpRewritePattern<ChunkAttentionGradOp> {
  const LoweringOptions &options;
  GpuChunkAttentionGradLowering(MLIRContext *context,
                                const LoweringOptions &options)
      : OpRewritePattern(context, kGpuBenefit), options(options) {}

  LogicalResult matchAndRewrite(ChunkAttentionGradOp op,
                                PatternRewriter &rewriter) const override {
    AttentionShape shape(op.getQ(), op.getK(), op.getV(), op.getCacheK(),
                         op.getHeads());
    if (!fitsGpuAttention(shape))
      return failure();
    const bool softmax = op.getFunction() == AttentionFunction::Softmax;
    const GpuAttentionForm form = GpuAttentionForm::choose(
        shape, options, shape.stored, op.getPositions() || !softmax,
        /*backward=*/true);
    const bool centered = softmax && form.math == TileMath::Bf16;
    Value delta = softmax ? emitDelta(rewriter, options, op, shape) : Value();
    SmallVector<Value> tiles, results;
    if (form.stored) {
      tiles = emitTiles(rewriter, op, shape, form, delta);
      if (centered)
        tiles[1] = emitCenter(rewriter, op, shape, form, tiles);
    } else if (centered) {
      SmallVector<Value> ofQueries =
          emitCenteredQuery(rewriter, op, shape, form, delta);
      results.push_back(ofQueries[0]);
      delta = ofQueries[1];
    }
    const Gradient gradients[] = {
        {"attention_grad_q", false, true, op.getDq().getType(), shape.keyWidth,
         op.getK(), op.getCacheK()},
        {"attention_grad_k", true, true, op.getDk().getType(), shape.keyWidth,
         op.getQ(), Value()},
        {"attention_grad_v", true, false, op.getDv().getType(),
         shape.valueWidth, op.getDout(), Value()}};
    for (const Gradient &gradient :
         ArrayRef<Gradient>(gradients).drop_front(results.size()))
      results.push_back(
          emitGradient(rewriter, op, shape, form, gradient, delta, tiles));
    rewriter.replaceOp(op, results);
    return success();
  }

  /// Workspaces of P and dS and, where dS is to be centered, the sums of the
  /// rows of its tiles.
  SmallVector<Value> emitTiles(PatternRewriter &rewriter,
                               ChunkAttentionGradOp op,
                               const AttentionShape &shape,
                               const GpuAttentionForm &form,
                               Value delta) const {
    KernelBuilder k(rewriter, options, op, "attention_grad_tiles",
                    form.threads);
    GradTiles tiles(k, op, delta, shape, form, /*scoreGradients=*/true);
    RankedTensorType type = form.workspace(shape, tileElement(k, form.math));
    Value weights = k.write(type), gradients = k.write(type), rowSums;
    if (form.math == TileMath::Bf16)
      rowSums = k.write(RankedTensorType::get({type.getDimSize(0), form.block},
                                              k.b.getF32Type()));
    // A workgroup a tile: the half above the diagonal has nothing to do.
    const int64_t keyBlocks = form.blocksPerChunk(shape);
    GpuAttentionBlocks blocks(k, shape, form, tiles.count, tiles.positions,
                              keyBlocks,
                              /*heavyLast=*/true);
    tiles.start(blocks);
    if (rowSums)
      tiles.startRowSums();
    blocks.forEach([&](const ChunkBlock &block) {
      Value number = blocks.inner();
      k.when(k.less(number, k.add(block.number, k.index(1))), [&] {
        Value tile = k.add(blocks.firstTile(block, block.number), number);
        SmallVector<Value> sums = tiles.makeGradients(
            block, block.first, k.mul(number, k.index(form.block)),
            {weights, {tile}, form.block}, {gradients, {tile}, form.block});
        if (!rowSums)
          return;
        tiles.shareRowSums(sums);
        k.when(k.less(k.thread(), k.index(form.block)), [&] {
          k.storeScalar(tiles.rowSum(k.thread()), rowSums, {tile, k.thread()});
        });
      });
    });
    const double pairs = shape.pairs() * shape.heads,
                 tokens = double(shape.batch) * shape.length * shape.heads;
    return k.finish(
        GpuAttentionBlocks::grid(shape, form, keyBlocks),
        2.0 * pairs * (shape.keyWidth + shape.valueWidth),
        shape.bytes(3.0 * pairs +
                    2.0 * tokens * (shape.keyWidth + shape.valueWidth)));
  }

  /// Takes out of the stored tiles of dS what their rows sum to.
  Value emitCenter(PatternRewriter &rewriter, ChunkAttentionGradOp op,
                   const AttentionShape &shape, const GpuAttentionForm &form,
                   ArrayRef<Value> tiles) const {
    KernelBuilder k(rewriter, options, op, "attention_grad_center",
                    form.threads);
    Value count = k.read(op.getCount()), weights = k.read(tiles[0]),
          rowSums = k.read(tiles[2]), gradients = k.update(tiles[1]);
    Type f32 = k.b.getF32Type();
    Value means = k.scratch({form.block}, f32);
    const int64_t keyBlocks = form.blocksPerChunk(shape);
    constexpr int64_t kPiece = 8;
    GpuAttentionBlocks blocks(k, shape, form, count, /*positions=*/{},
                              keyBlocks,
                              /*heavyLast=*/true);
    blocks.forEach([&](const ChunkBlock &block) {
      Value number = blocks.inner(),
            tileCount = k.add(block.number, k.index(1));
      k.when(k.less(number, tileCount), [&] {
        Value first = blocks.firstTile(block, block.number), row = k.thread();
        k.barrier(); // `means` of an earlier block were read
        k.when(k.less(row, k.index(form.block)), [&] {
          Value mean = k.loop(
              k.index(0), tileCount, 1, k.constant(0.0, f32),
              [&](Value other, ValueRange carried) -> SmallVector<Value> {
                return {
                    k.add(carried[0],
                          k.loadScalar(rowSums, {k.add(first, other), row}))};
              })[0];
          k.storeScalar(mean, means, {row});
        });
        k.barrier();
        Value tile = k.add(first, number);
        k.loop(k.thread(), k.index(form.block * form.block / kPiece),
               form.threads, [&](Value piece) {
                 Value perRow = k.index(form.block / kPiece);
                 Value row = k.div(piece, perRow),
                       column = k.mul(k.rem(piece, perRow), k.index(kPiece));
                 SmallVector<Value> at = {tile, row, column};
                 SmallVector<Value> values =
                     loadNeighbours(k, kPiece, gradients, at, kPiece);
                 Value mean = k.loadScalar(means, {row});
                 for (auto [value, weight] :
                      llvm::zip(values,
                                loadNeighbours(k, kPiece, weights, at, kPiece)))
                   value = k.sub(value, k.mul(weight, mean));
                 storeNeighbours(k, values, gradients, at, kPiece);
               });
      });
    });
    const double pairs = shape.pairs() * shape.heads;
    return k.finish(GpuAttentionBlocks::grid(shape, form, keyBlocks),
                    2.0 * pairs, shape.bytes(3.0 * pairs))[0];
  }

  /// dq and the corrected delta, in the recomputed form.
  SmallVector<Value> emitCenteredQuery(PatternRewriter &rewriter,
                                       ChunkAttentionGradOp op,
                                       const AttentionShape &shape,
                                       const GpuAttentionForm &form,
                                       Value delta) const {
    KernelBuilder k(rewriter, options, op, "attention_grad_q_center",
                    form.threads);
    GradTiles tiles(k, op, delta, shape, form, /*scoreGradients=*/true);
    Value dq = k.write(op.getDq().getType(), View::Rows),
          corrected = k.write(op.getLse().getType(), View::Rows);
    const int64_t width = shape.keyWidth, columns = form.columnBlock(width),
                  columnBlocks = form.columnBlocks(width),
                  slice = form.productSlice;
    GpuAttentionBlocks blocks(k, shape, form, tiles.count, tiles.positions,
                              columnBlocks,
                              /*heavyLast=*/true);
    tiles.start(blocks);
    tiles.startRowSums();
    Type element = tileElement(k, form.math);
    GpuProduct product(k, form.math,
                       {form.block, columns, form.warpsM, form.warpsN,
                        /*leftTransposed=*/false, /*rightTransposed=*/false});
    SharedTile rights =
                   SharedTile::create(k, slice, columns, element, form.stages),
               weights = SharedTile::create(k, form.block, form.block, element),
               gradients =
                   SharedTile::create(k, form.block, form.block, element);
    const int64_t held = product.size();
    Value zero = k.index(0), size = k.index(form.block);
    Value columnFirst = k.mul(blocks.inner(), k.index(columns));

    blocks.forEach([&](const ChunkBlock &own) {
      TileSource from = blocks.ofChunk(tiles.keys, tiles.cacheK, own, width);
      Value end = k.min(own.end, k.add(own.first, size));
      // Sums of dS k, of P k, and of the rows of dS.
      SmallVector<Value> carried = product.zeros();
      carried.append(product.zeros());
      carried.append(tiles.rowsHeld(), k.constant(0.0, k.b.getF32Type()));
      carried = k.loop(
          zero, k.ceilDiv(end, form.block), 1, carried,
          [&](Value number, ValueRange sums) {
            Value at = k.mul(number, size);
            SmallVector<Value> rowSums = tiles.makeGradients(
                own, own.first, at, TileStore::of(k, weights),
                TileStore::of(k, gradients));
            SmallVector<Value> next = pipeline(
                k, k.ceilDiv(k.min(size, k.sub(end, at)), slice), form.stages,
                sums.take_front(2 * held),
                [&](Value part, Value stage) {
                  copyTile(k, rights.at(stage), from,
                           k.add(at, k.mul(part, k.index(slice))), columnFirst);
                },
                [&](Value part, Value stage, ValueRange sums) {
                  Value offset = k.mul(part, k.index(slice));
                  SmallVector<Value> both = product.multiply(
                      sums.take_front(held), gradients.from(k, zero, offset),
                      rights.at(stage), slice);
                  both.append(product.multiply(sums.drop_front(held),
                                               weights.from(k, zero, offset),
                                               rights.at(stage), slice));
                  return both;
                });
            for (auto [sum, more] :
                 llvm::zip(sums.drop_front(2 * held), rowSums))
              next.push_back(k.add(sum, more));
            return next;
          });
      ArrayRef<Value> all(carried);
      tiles.shareRowSums(all.drop_front(2 * held));
      SmallVector<Value> results(all.take_front(held)),
          ofWeights(all.slice(held, held));
      product.visit(ofWeights, [&](int64_t, Value row, Value,
                                   MutableArrayRef<Value> values) {
        Value mean = tiles.rowSum(row);
        for (Value &value : values)
          value = k.mul(value, mean);
      });
      for (auto [result, mean] : llvm::zip(results, ofWeights))
        result = k.sub(result, mean);
      blocks.store(product, results, own, dq, width, columns);

      Value at = k.add(own.first, k.thread());
      Value writes = arith::AndIOp::create(
          k.b, blocks.isOfCall(own, at),
          arith::AndIOp::create(k.b, k.less(k.thread(), size),
                                k.less(blocks.inner(), k.index(1))));
      k.when(writes, [&] {
        SmallVector<Value> place = {k.add(own.origin, at), blocks.head()};
        k.storeScalar(
            k.add(k.loadScalar(tiles.delta, place), tiles.rowSum(k.thread())),
            corrected, place);
      });
    });
    const double pairs = shape.pairs() * shape.heads,
                 tokens = double(shape.batch) * shape.length * shape.heads;
    return k.finish(
        GpuAttentionBlocks::grid(shape, form, columnBlocks),
        2.0 * pairs * (2.0 * width + columnBlocks * (width + shape.valueWidth)),
        shape.bytes(tokens * (4.0 * width + 2.0 * shape.valueWidth)));
  }

  Value emitGradient(PatternRewriter &rewriter, ChunkAttentionGradOp op,
                     const AttentionShape &shape, const GpuAttentionForm &form,
                     const Gradient &gradient, Value delta,
                     ArrayRef<Value> workspaces) const {
    KernelBuilder k(rewriter, options, op, gradient.name, form.threads);
    TileRowProduct product;
    product.transposed = gradient.transposed;
    product.width = gradient.width;
    Value right = k.read(gradient.right, View::Rows);
    Value cache = gradient.cache ? k.read(gradient.cache) : Value();
    std::optional<GradTiles> tiles;
    Value count, positions;
    if (form.stored) {
      product.workspace = k.read(workspaces[gradient.scoreGradients]);
      count = k.read(op.getCount());
    } else {
      tiles.emplace(k, op, delta, shape, form, gradient.scoreGradients);
      count = tiles->count;
      positions = tiles->positions;
    }
    product.out = k.write(gradient.type, View::Rows);
    const int64_t columnBlocks = form.columnBlocks(gradient.width);
    GpuAttentionBlocks blocks(k, shape, form, count, positions, columnBlocks,
                              /*heavyLast=*/!gradient.transposed);
    product.right = [&](const ChunkBlock &block) {
      return cache ? blocks.ofChunk(right, cache, block, gradient.width)
                   : blocks.ofCall(right, block, gradient.width);
    };
    if (!form.stored) {
      tiles->start(blocks);
      product.make = [&](const ChunkBlock &block, Value queryFirst,
                         Value keyFirst, const TileStore &tile) {
        if (gradient.scoreGradients)
          tiles->makeGradients(block, queryFirst, keyFirst, tile, tile);
        else
          tiles->makeWeights(block, queryFirst, keyFirst, tile);
      };
    }
    product.emit(k, shape, form, blocks);

    const double pairs = shape.pairs() * shape.heads,
                 tokens = double(shape.batch) * shape.length * shape.heads;
    double terms = gradient.width, columns = 2.0 * gradient.width;
    if (!form.stored) {
      terms +=
          columnBlocks *
          (shape.keyWidth + (gradient.scoreGradients ? shape.valueWidth : 0));
      columns += 2.0 * (shape.keyWidth +
                        (gradient.scoreGradients ? shape.valueWidth : 0));
    }
    return k.finish(
        GpuAttentionBlocks::grid(shape, form, columnBlocks),
        2.0 * pairs * terms,
        shape.bytes(tokens * columns + (form.stored ? pairs : 0.0)))[0];
  }
};

} // namespace

void populateGpuAttentionGradLowering(RewritePatternSet &patterns,
                                      const LoweringOptions &options) {
  patterns.add<GpuChunkAttentionGradLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
