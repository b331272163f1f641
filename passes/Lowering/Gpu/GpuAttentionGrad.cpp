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

/// delta = sum of dout * out over the columns of each head.
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
      : k(k), shape(shape), q(k.read(op.getQ(), View::Rows)),
        keys(k.read(op.getK(), View::Rows)), cacheK(k.read(op.getCacheK())),
        count(k.read(op.getCount())), lse(k.read(op.getLse(), View::Rows)),
        form(form) {
    if (!scoreGradients)
      return;
    dout = k.read(op.getDout(), View::Rows);
    values = k.read(op.getV(), View::Rows);
    cacheV = k.read(op.getCacheV());
    delta = k.read(deltaTensor, View::Rows);
  }

  /// Once all buffers of the kernel are known.
  void start(GpuAttentionBlocks &blocks) {
    this->blocks = &blocks;
    scores.emplace(k, shape, form);
  }

  /// The tile of P.
  void makeWeights(const ChunkBlock &block, Value queryFirst, Value keyFirst,
                   const TileStore &tile) {
    SmallVector<Value> sums =
        scores->multiply(blocks->ofCall(q, block, shape.keyWidth), queryFirst,
                         blocks->ofChunk(keys, cacheK, block, shape.keyWidth),
                         keyFirst, shape.keyWidth);
    scores->toWeights(
        sums, queryFirst, keyFirst,
        blocks->ofRows(scores->product, lse, block, queryFirst, kNoToken));
    tile.store(k, scores->product, sums);
  }

  /// The tile of dS = P (dout v - delta). A thread's weights wait in `weights`
  /// (which may be `tile` itself).
  void makeGradients(const ChunkBlock &block, Value queryFirst, Value keyFirst,
                     const TileStore &weights, const TileStore &tile) {
    makeWeights(block, queryFirst, keyFirst, weights);
    SmallVector<Value> sums = scores->multiply(
        blocks->ofCall(dout, block, shape.valueWidth), queryFirst,
        blocks->ofChunk(values, cacheV, block, shape.valueWidth), keyFirst,
        shape.valueWidth);
    SmallVector<Value> deltas =
        blocks->ofRows(scores->product, delta, block, queryFirst, 0.0);
    scores->product.visit(sums, [&](int64_t i, Value row, Value column,
                                    MutableArrayRef<Value> values) {
      SmallVector<Value> ofRow = weights.load(k, values.size(), row, column);
      for (auto [value, weight] : llvm::zip(values, ofRow))
        value = k.mul(weight, k.sub(value, deltas[i]));
    });
    tile.store(k, scores->product, sums);
  }

  KernelBuilder &k;
  const AttentionShape &shape;
  Value q, keys, cacheK, count, lse, dout, values, cacheV, delta;

private:
  const GpuAttentionForm &form;
  GpuAttentionBlocks *blocks = nullptr;
  std::optional<ScoreTiles> scores;
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
    AttentionShape shape(op.getQ(), op.getV(), op.getCacheK(), op.getHeads());
    if (!fitsGpuAttention(shape))
      return failure();
    const GpuAttentionForm form = GpuAttentionForm::choose(
        shape, options, shape.stored, /*backward=*/true);
    Value delta = emitDelta(rewriter, options, op, shape);
    SmallVector<Value> tiles;
    if (form.stored)
      tiles = emitTiles(rewriter, op, shape, form, delta);
    const Gradient gradients[] = {
        {"attention_grad_q", false, true, op.getDq().getType(), shape.keyWidth,
         op.getK(), op.getCacheK()},
        {"attention_grad_k", true, true, op.getDk().getType(), shape.keyWidth,
         op.getQ(), Value()},
        {"attention_grad_v", true, false, op.getDv().getType(),
         shape.valueWidth, op.getDout(), Value()}};
    SmallVector<Value> results;
    for (const Gradient &gradient : gradients)
      results.push_back(
          emitGradient(rewriter, op, shape, form, gradient, delta, tiles));
    rewriter.replaceOp(op, results);
    return success();
  }

  /// Workspaces of P and dS.
  SmallVector<Value> emitTiles(PatternRewriter &rewriter,
                               ChunkAttentionGradOp op,
                               const AttentionShape &shape,
                               const GpuAttentionForm &form,
                               Value delta) const {
    KernelBuilder k(rewriter, options, op, "attention_grad_tiles",
                    form.threads);
    GradTiles tiles(k, op, delta, shape, form, /*scoreGradients=*/true);
    Type type = form.workspace(shape, tileElement(k, form.math));
    Value weights = k.write(type), gradients = k.write(type);
    // A workgroup a tile: the half above the diagonal has nothing to do.
    const int64_t keyBlocks = form.blocksPerChunk(shape);
    GpuAttentionBlocks blocks(k, shape, form, tiles.count, keyBlocks,
                              /*heavyLast=*/true);
    tiles.start(blocks);
    blocks.forEach([&](const ChunkBlock &block) {
      Value number = blocks.inner();
      k.when(k.less(number, k.add(block.number, k.index(1))), [&] {
        Value tile = k.add(blocks.firstTile(block, block.number), number);
        tiles.makeGradients(
            block, block.first, k.mul(number, k.index(form.block)),
            {weights, {tile}, form.block}, {gradients, {tile}, form.block});
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
    Value count;
    if (form.stored) {
      product.workspace = k.read(workspaces[gradient.scoreGradients]);
      count = k.read(op.getCount());
    } else {
      tiles.emplace(k, op, delta, shape, form, gradient.scoreGradients);
      count = tiles->count;
    }
    product.out = k.write(gradient.type, View::Rows);
    const int64_t columnBlocks = form.columnBlocks(gradient.width);
    GpuAttentionBlocks blocks(k, shape, form, count, columnBlocks,
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
