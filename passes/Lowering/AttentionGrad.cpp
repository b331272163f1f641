// The gradient of chunk attention. Two kernels, each the only writer of what it
// computes: one over blocks of queries gives dq, one over blocks of keys gives
// dk and dv. Both recompute the weights, those of a softmax from the saved
// log-sum-exp.
#include "passes/Lowering/AttentionTiles.h"
#include "passes/Lowering/Lowerings.h"

namespace mlir::megalodon {
namespace {

/// dq, and delta = the mean of dP by the weights P, of every query and head. It
/// is summed here and not taken as dout * out, which is the same number but for
/// the rounding of `out`: what that leaves in a row of dS = P (dP - delta) does
/// not cancel over the keys. Laplace weights have no delta, and dS is dP times
/// their derivative.
class QueryGradKernel {
public:
  QueryGradKernel(KernelBuilder &k, ChunkAttentionGradOp op,
                  const AttentionShape &shape)
      : k(k), shape(shape),
        softmax(op.getFunction() == AttentionFunction::Softmax),
        dout(k.read(op.getDout(), View::Rows)),
        q(k.read(op.getQ(), View::Rows)), keys(k.read(op.getK(), View::Rows)),
        values(k.read(op.getV(), View::Rows)), cacheK(k.read(op.getCacheK())),
        cacheV(k.read(op.getCacheV())), count(readCount(k, op)),
        lse(softmax ? k.read(op.getLse(), View::Rows) : Value()),
        positions(readPositions(k, op)),
        dq(k.write(op.getDq().getType(), View::Rows)),
        delta(softmax ? k.write(op.getLse().getType(), View::Rows) : Value()),
        block(k, shape, count, positions) {}

  void emit() {
    const int64_t blockTokens = block.panels * block.panelWidth;
    queries = block.transposedPanels(k, shape.keyWidth);
    gradients = block.transposedPanels(k, shape.valueWidth);
    weights = block.scores(k, 528 * 4);
    scores = block.scores(k, 264 * 4);
    if (softmax) {
      rowLse = k.scratch({blockTokens}, shape.element);
      rowDelta = k.scratch({blockTokens}, shape.element);
    }
    block.forSegments(k, [&](const Segment &segment) { queriesOf(segment); });
  }

private:
  void queriesOf(const Segment &segment) {
    Value zero = k.index(0), width = k.index(block.panelWidth);
    Value rows = k.sub(segment.end, segment.begin);
    Value before =
              k.add(segment.cached, k.sub(segment.begin, segment.chunkBegin)),
          keyCount = k.add(before, rows);
    MatrixView queryRows = block.keyColumns(k, q, segment.begin),
               gradientRows = block.valueColumns(k, dout, segment.begin);
    auto tokenOf = [&](Value row) {
      return k.add(block.tokenBase, k.add(segment.begin, row));
    };
    if (softmax)
      k.loop(zero, rows, 1, [&](Value row) {
        k.storeScalar(k.loadScalar(lse, {tokenOf(row), block.head}), rowLse,
                      {row});
      });
    k.loop(zero, k.ceilDiv(rows, block.panelWidth), 1, [&](Value panel) {
      Value first = k.mul(panel, width);
      packTransposed(k, block.tile.vectors, queryRows, first, rows, zero,
                     k.index(shape.keyWidth), shape.keyWidth % block.lanes == 0,
                     queries, {panel});
      packTransposed(k, block.tile.vectors, gradientRows, first, rows, zero,
                     k.index(shape.valueWidth),
                     shape.valueWidth % block.lanes == 0, gradients, {panel});
      Value common = k.add(before, first),
            limit = k.min(keyCount, k.add(common, width));
      multiplyRows(block.cachedKeys(k, cacheK), block.cachedValues(k, cacheV),
                   segment.cached, panel, first, common, zero);
      multiplyRows(block.keyColumns(k, keys, segment.chunkBegin),
                   block.valueColumns(k, values, segment.chunkBegin),
                   k.sub(limit, segment.cached), panel, first, common,
                   segment.cached);
      scoreGradients(panel, first, limit);
    });
    if (softmax)
      k.loop(zero, rows, 1, [&](Value row) {
        k.storeScalar(k.loadScalar(rowDelta, {row}), delta,
                      {tokenOf(row), block.head});
      });

    BlockProduct product;
    product.rows = rows;
    product.columnBegin = zero;
    product.columnEnd = k.index(shape.keyWidth);
    product.wholePanels = shape.keyWidth % block.panelWidth == 0;
    product.depth = keyCount;
    product.out = block.keyColumns(k, dq, segment.begin);
    product.left = block.scoreColumns(k, scores);
    product.pack =
        block.packCachedThenOwn(k, block.cachedKeys(k, cacheK),
                                block.keyColumns(k, keys, segment.chunkBegin),
                                segment.cached, shape.keyWidth);
    product.terms = [&](Value row, Value t, Value count) {
      Value seen = k.add(before, k.add(row, k.index(block.tile.rows)));
      return std::make_pair(zero, k.min(count, k.sub(k.max(seen, t), t)));
    };
    product.emit(k, shape.element);
  }

  /// weights and scores [offset + key, query] = P and dP of `keyCount` keys and
  /// one panel of queries; of Laplace weights, the derivative in place of P.
  void multiplyRows(const MatrixView &keyRows, const MatrixView &valueRows,
                    Value keyCount, Value panel, Value first, Value common,
                    Value offset) {
    const int64_t vectors = block.tile.vectors;
    Value zeros = k.constant(0.0, k.vectorType(shape.element));
    k.loop(k.index(0), keyCount, block.tile.rows, [&](Value key) {
      auto place = [&](int64_t i) {
        return k.add(offset, k.add(key, k.index(i)));
      };
      SmallVector<Value> sums = block.scoreTile(k, keyRows, key, keyCount,
                                                shape.keyWidth, queries, panel);
      for (int64_t j = 0; j < vectors; ++j) {
        Value lseOf =
            softmax ? k.load(rowLse, {k.add(first, k.index(j * block.lanes))})
                    : Value();
        for (int64_t i = 0; i < block.tile.rows; ++i) {
          Value seen = block.lanesFrom(k, j, k.sub(place(i), common));
          Value score = sums[i * vectors + j];
          Value weight = softmax ? k.exp(k.sub(score, lseOf))
                                 : laplaceDerivative(k, score);
          k.store(k.select(seen, weight, zeros), weights,
                  at(panel, place(i), j));
        }
      }
      sums = block.scoreTile(k, valueRows, key, keyCount, shape.valueWidth,
                             gradients, panel);
      for (int64_t i = 0; i < block.tile.rows; ++i)
        for (int64_t j = 0; j < vectors; ++j)
          k.store(sums[i * vectors + j], scores, at(panel, place(i), j));
    });
  }

  /// Replaces dP of a panel by dS, and keeps delta of its queries.
  void scoreGradients(Value panel, Value first, Value limit) {
    const int64_t vectors = block.tile.vectors;
    if (!softmax)
      return k.loop(k.index(0), limit, 1, [&](Value key) {
        for (int64_t j = 0; j < vectors; ++j)
          k.store(k.mul(k.load(weights, at(panel, key, j)),
                        k.load(scores, at(panel, key, j))),
                  scores, at(panel, key, j));
      });
    SmallVector<Value> sums(2 * vectors,
                            k.constant(0.0, k.vectorType(shape.element)));
    sums =
        k.loop(k.index(0), limit, 1, sums, [&](Value key, ValueRange carried) {
          SmallVector<Value> next(carried);
          for (int64_t j = 0; j < vectors; ++j) {
            Value weight = k.load(weights, at(panel, key, j));
            next[j] = k.add(next[j], weight);
            next[vectors + j] = k.fma(weight, k.load(scores, at(panel, key, j)),
                                      next[vectors + j]);
          }
          return next;
        });
    SmallVector<Value> deltas;
    for (int64_t j = 0; j < vectors; ++j) {
      deltas.push_back(k.div(sums[vectors + j], sums[j]));
      k.store(deltas[j], rowDelta, {k.add(first, k.index(j * block.lanes))});
    }
    k.loop(k.index(0), limit, 1, [&](Value key) {
      for (int64_t j = 0; j < vectors; ++j)
        k.store(k.mul(k.load(weights, at(panel, key, j)),
                      k.sub(k.load(scores, at(panel, key, j)), deltas[j])),
                scores, at(panel, key, j));
    });
  }

  SmallVector<Value> at(Value panel, Value key, int64_t j) {
    return {panel, key, k.index(j * block.lanes)};
  }

  KernelBuilder &k;
  const AttentionShape &shape;
  bool softmax;
  Value dout, q, keys, values, cacheK, cacheV, count, lse, positions, dq, delta;
  AttentionBlock block;
  /// Scratch: transposed rows of q and dout, P, dP and then dS, and two numbers
  /// a query.
  Value queries, gradients, weights, scores, rowLse, rowDelta;
};

/// dk and dv of the call's own tokens; those of the cache are detached.
class KeyGradKernel {
public:
  KeyGradKernel(KernelBuilder &k, ChunkAttentionGradOp op, Value deltaTensor,
                const AttentionShape &shape)
      : k(k), shape(shape),
        softmax(op.getFunction() == AttentionFunction::Softmax),
        dout(k.read(op.getDout(), View::Rows)),
        q(k.read(op.getQ(), View::Rows)), keys(k.read(op.getK(), View::Rows)),
        values(k.read(op.getV(), View::Rows)), count(readCount(k, op)),
        lse(softmax ? k.read(op.getLse(), View::Rows) : Value()),
        delta(softmax ? k.read(deltaTensor, View::Rows) : Value()),
        positions(readPositions(k, op)),
        dk(k.write(op.getDk().getType(), View::Rows)),
        dv(k.write(op.getDv().getType(), View::Rows)),
        block(k, shape, count, positions) {}

  void emit() {
    keyPanels = block.transposedPanels(k, shape.keyWidth);
    valuePanels = block.transposedPanels(k, shape.valueWidth);
    weights = block.scores(k, 528 * 4);
    scores = block.scores(k, 264 * 4);
    block.forSegments(k, [&](const Segment &segment) { keysOf(segment); });
  }

private:
  void keysOf(const Segment &segment) {
    Value zero = k.index(0), width = k.index(block.panelWidth);
    Value rows = k.sub(segment.end, segment.begin);
    // The queries that see some of these keys: from the first key to the end of
    // the chunk.
    Value queryCount = k.sub(segment.chunkEnd, segment.begin);
    MatrixView queryRows = block.keyColumns(k, q, segment.begin),
               gradientRows = block.valueColumns(k, dout, segment.begin);
    k.loop(zero, k.ceilDiv(rows, block.panelWidth), 1, [&](Value panel) {
      Value first = k.mul(panel, width);
      packTransposed(k, block.tile.vectors,
                     block.keyColumns(k, keys, segment.begin), first, rows,
                     zero, k.index(shape.keyWidth),
                     shape.keyWidth % block.lanes == 0, keyPanels, {panel});
      packTransposed(k, block.tile.vectors,
                     block.valueColumns(k, values, segment.begin), first, rows,
                     zero, k.index(shape.valueWidth),
                     shape.valueWidth % block.lanes == 0, valuePanels, {panel});
      k.loop(first, queryCount, block.tile.rows, [&](Value query) {
        scoreGradients(queryRows, gradientRows, query, queryCount, panel, first,
                       k.add(block.tokenBase, segment.begin));
      });
    });
    emitProduct(weights, block.valueColumns(k, dv, segment.begin), gradientRows,
                shape.valueWidth, rows, queryCount);
    emitProduct(scores, block.keyColumns(k, dk, segment.begin), queryRows,
                shape.keyWidth, rows, queryCount);
  }

  /// weights and scores [query, key] = P and dS of one tile of queries and one
  /// panel of keys.
  void scoreGradients(const MatrixView &queryRows,
                      const MatrixView &gradientRows, Value query,
                      Value queryCount, Value panel, Value first,
                      Value tokenBase) {
    const int64_t vectors = block.tile.vectors;
    Value zeros = k.constant(0.0, k.vectorType(shape.element)),
          last = k.sub(queryCount, k.index(1));
    auto at = [&](int64_t i, int64_t j) {
      return SmallVector<Value>{panel, k.add(query, k.index(i)),
                                k.index(j * block.lanes)};
    };
    auto token = [&](int64_t i) {
      return k.add(tokenBase, k.min(k.add(query, k.index(i)), last));
    };
    SmallVector<Value> sums = block.scoreTile(k, queryRows, query, queryCount,
                                              shape.keyWidth, keyPanels, panel);
    for (int64_t i = 0; i < block.tile.rows; ++i) {
      Value lseOf = softmax ? k.splat(k.loadScalar(lse, {token(i), block.head}))
                            : Value();
      for (int64_t j = 0; j < vectors; ++j) {
        Value seen =
            block.lanesUpTo(k, j, k.sub(k.add(query, k.index(i)), first));
        Value score = sums[i * vectors + j];
        Value weight =
            softmax ? k.exp(k.sub(score, lseOf)) : laplaceWeight(k, score);
        k.store(k.select(seen, weight, zeros), weights, at(i, j));
        if (!softmax)
          k.store(k.select(seen, laplaceDerivative(k, score), zeros), scores,
                  at(i, j));
      }
    }
    sums = block.scoreTile(k, gradientRows, query, queryCount, shape.valueWidth,
                           valuePanels, panel);
    for (int64_t i = 0; i < block.tile.rows; ++i) {
      Value deltaOf = softmax
                          ? k.splat(k.loadScalar(delta, {token(i), block.head}))
                          : Value();
      for (int64_t j = 0; j < vectors; ++j) {
        Value dweight = sums[i * vectors + j];
        k.store(softmax
                    ? k.mul(k.load(weights, at(i, j)), k.sub(dweight, deltaOf))
                    : k.mul(k.load(scores, at(i, j)), dweight),
                scores, at(i, j));
      }
    }
  }

  /// out[key] = sum over queries of left[query, key] * right[query].
  void emitProduct(Value left, const MatrixView &result,
                   const MatrixView &right, int64_t columns, Value rows,
                   Value queryCount) {
    Value zero = k.index(0);
    BlockProduct product;
    product.rows = rows;
    product.columnBegin = zero;
    product.columnEnd = k.index(columns);
    product.wholePanels = columns % block.panelWidth == 0;
    product.depth = queryCount;
    product.out = result;
    product.left = block.scoreColumns(k, left);
    product.pack = [&](Value t, Value count, Value column, Value panel) {
      packRows(k, block.tile.vectors, right, t, count, column,
               product.wholePanels ? Value() : product.columnEnd, panel, zero,
               zero);
    };
    // A key is seen by no query before its own.
    product.terms = [&](Value row, Value t, Value count) {
      return std::make_pair(k.min(k.sub(k.max(row, t), t), count), count);
    };
    product.emit(k, shape.element);
  }

  KernelBuilder &k;
  const AttentionShape &shape;
  bool softmax;
  Value dout, q, keys, values, count, lse, delta, positions, dk, dv;
  AttentionBlock block;
  /// Scratch: transposed rows of k and v, P and dS.
  Value keyPanels, valuePanels, weights, scores;
};

struct ChunkAttentionGradLowering : OpRewritePattern<ChunkAttentionGradOp> {
  const LoweringOptions &options;
  ChunkAttentionGradLowering(MLIRContext *context,
                             const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(ChunkAttentionGradOp op,
                                PatternRewriter &rewriter) const override {
    AttentionShape shape(op.getQ(), op.getK(), op.getV(), op.getCacheK(),
                         op.getHeads());
    const Grid grid = AttentionBlock::grid(shape, options);
    const double z = double(shape.keyWidth) * shape.heads,
                 v = double(shape.valueWidth) * shape.heads,
                 pairs = shape.pairs();
    const double tokens = double(shape.batch) * shape.length;

    KernelBuilder queries(rewriter, options, op, "chunk_attention_grad_q");
    QueryGradKernel(queries, op, shape).emit();
    SmallVector<Value> results =
        queries.finish(grid, 2.0 * pairs * (2.0 * z + v),
                       shape.bytes(tokens * (3.0 * z + 2.0 * v)));

    KernelBuilder keys(rewriter, options, op, "chunk_attention_grad_kv");
    const bool softmax = op.getFunction() == AttentionFunction::Softmax;
    KeyGradKernel(keys, op, softmax ? results[1] : Value(), shape).emit();
    SmallVector<Value> ofKeys =
        keys.finish(grid, 2.0 * pairs * (2.0 * z + 2.0 * v),
                    shape.bytes(tokens * (3.0 * z + 3.0 * v)));
    rewriter.replaceOp(op, {results[0], ofKeys[0], ofKeys[1]});
    return success();
  }
};

} // namespace

void populateAttentionGradLowering(RewritePatternSet &patterns,
                                   const LoweringOptions &options) {
  patterns.add<ChunkAttentionGradLowering>(patterns.getContext(), options);
}

} // namespace mlir::megalodon
