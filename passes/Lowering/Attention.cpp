// Chunk attention: a workgroup holds the scores of one head and a block of
// queries against all keys they see, transposed ([key][query]), so that the
// softmax runs lane by lane and its result is already the left operand of the
// product with the values. Laplace weights take the place of the softmax and
// need no sums.
#include "passes/Lowering/AttentionTiles.h"
#include "passes/Lowering/Lowerings.h"
#include "passes/Lowering/RowKernel.h"
#include <limits>

namespace mlir::megalodon {

void populateAttentionGradLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // AttentionGrad.cpp

namespace {

/// Queries of a segment that are cheaper one by one than as a tile.
constexpr int64_t kFewQueries = 4;

class ForwardKernel {
public:
  ForwardKernel(KernelBuilder &k, ChunkAttentionOp op,
                const AttentionShape &shape)
      : k(k), shape(shape),
        softmax(op.getFunction() == AttentionFunction::Softmax),
        q(k.read(op.getQ(), View::Rows)), keys(k.read(op.getK(), View::Rows)),
        values(k.read(op.getV(), View::Rows)), cacheK(k.read(op.getCacheK())),
        cacheV(k.read(op.getCacheV())), count(readCount(k, op)),
        positions(readPositions(k, op)),
        out(k.write(op.getResult().getType(), View::Rows)),
        lse(softmax ? k.write(op.getLse().getType(), View::Rows) : Value()),
        block(k, shape, count, positions) {}

  void emit() {
    weights = k.scratch({shape.chunk + block.lanes}, shape.element);
    if (shape.length <= kFewQueries)
      return block.forSegments(k, [&](const Segment &segment) {
        queryByQuery(segment, k.sub(segment.end, segment.begin));
      });
    const int64_t blockTokens = block.panels * block.panelWidth;
    queries = block.transposedPanels(k, shape.keyWidth);
    scores = block.scores(k, 528 * 4);
    if (softmax) {
      inverse = k.scratch({blockTokens}, shape.element);
      logs = k.scratch({blockTokens}, shape.element);
    }
    block.forSegments(k, [&](const Segment &segment) {
      Value rows = k.sub(segment.end, segment.begin);
      k.when(
          k.less(k.index(kFewQueries), rows), [&] { tiles(segment, rows); },
          [&] { queryByQuery(segment, rows); });
    });
  }

private:
  /// Keys before the segment's first query: they are seen by all queries.
  Value keysBefore(const Segment &segment) {
    return k.add(segment.cached, k.sub(segment.begin, segment.chunkBegin));
  }
  Value outRow(const Segment &segment, Value row) {
    return k.add(block.tokenBase, k.add(segment.begin, row));
  }

  void tiles(const Segment &segment, Value rows) {
    Value before = keysBefore(segment), keyCount = k.add(before, rows);
    Value zero = k.index(0), width = k.index(block.panelWidth);
    k.loop(zero, k.ceilDiv(rows, block.panelWidth), 1, [&](Value panel) {
      Value first = k.mul(panel, width);
      packTransposed(k, block.tile.vectors,
                     block.keyColumns(k, q, segment.begin), first, rows, zero,
                     k.index(shape.keyWidth), shape.keyWidth % block.lanes == 0,
                     queries, {panel});
      // All queries of the panel see the keys before `common`, none those from
      // `limit` on.
      Value common = k.add(before, first);
      Value limit = k.min(keyCount, k.add(common, width));
      scoreRows(block.cachedKeys(k, cacheK), segment.cached, panel, zero);
      scoreRows(block.keyColumns(k, keys, segment.chunkBegin),
                k.sub(limit, segment.cached), panel, segment.cached);
      if (softmax)
        normalize(panel, first, common, limit);
      else
        weigh(panel, common, limit);
    });
    if (softmax)
      k.loop(zero, rows, 1, [&](Value row) {
        k.storeScalar(k.loadScalar(logs, {row}), lse,
                      {outRow(segment, row), block.head});
      });

    BlockProduct product;
    product.rows = rows;
    product.columnBegin = zero;
    product.columnEnd = k.index(shape.valueWidth);
    product.wholePanels = shape.valueWidth % block.panelWidth == 0;
    product.depth = keyCount;
    product.out = block.valueColumns(k, out, segment.begin);
    product.left = block.scoreColumns(k, scores);
    product.pack = block.packCachedThenOwn(
        k, block.cachedValues(k, cacheV),
        block.valueColumns(k, values, segment.chunkBegin), segment.cached,
        shape.valueWidth);
    product.terms = [&](Value row, Value t, Value count) {
      Value seen = k.add(before, k.add(row, k.index(block.tile.rows)));
      return std::make_pair(zero, k.min(count, k.sub(k.max(seen, t), t)));
    };
    if (softmax)
      product.finish = [&](Value sums, Value row, Value, Value) {
        return k.mul(sums, k.splat(k.loadScalar(inverse, {row})));
      };
    product.emit(k, shape.element);
  }

  /// Scores of `count` keys against one panel of queries.
  void scoreRows(const MatrixView &matrix, Value keyCount, Value panel,
                 Value offset) {
    k.loop(k.index(0), keyCount, block.tile.rows, [&](Value key) {
      SmallVector<Value> sums = block.scoreTile(k, matrix, key, keyCount,
                                                shape.keyWidth, queries, panel);
      for (int64_t i = 0; i < block.tile.rows; ++i)
        for (int64_t j = 0; j < block.tile.vectors; ++j)
          k.store(sums[i * block.tile.vectors + j], scores,
                  {panel, k.add(offset, k.add(key, k.index(i))),
                   k.index(j * block.lanes)});
    });
  }

  /// Replaces the scores of a panel by their exponentials over the maximum of
  /// each query; keeps 1 / sum and log of the sum.
  void normalize(Value panel, Value first, Value common, Value limit) {
    Type vector = k.vectorType(shape.element);
    const int64_t vectors = block.tile.vectors;
    Value lowest = k.constant(-std::numeric_limits<double>::infinity(), vector);
    auto at = [&](Value key, int64_t j) {
      return SmallVector<Value>{panel, key, k.index(j * block.lanes)};
    };
    SmallVector<Value> maxima(vectors, lowest);
    maxima = k.loop(
        k.index(0), common, 1, maxima, [&](Value key, ValueRange carried) {
          SmallVector<Value> next;
          for (int64_t j = 0; j < vectors; ++j)
            next.push_back(k.max(carried[j], k.load(scores, at(key, j))));
          return next;
        });
    maxima =
        k.loop(common, limit, 1, maxima, [&](Value key, ValueRange carried) {
          SmallVector<Value> next;
          for (int64_t j = 0; j < vectors; ++j) {
            Value seen = block.lanesFrom(k, j, k.sub(key, common));
            Value score = k.select(seen, k.load(scores, at(key, j)), lowest);
            k.store(score, scores, at(key, j));
            next.push_back(k.max(carried[j], score));
          }
          return next;
        });
    SmallVector<Value> sums(vectors, k.constant(0.0, vector));
    sums =
        k.loop(k.index(0), limit, 1, sums, [&](Value key, ValueRange carried) {
          SmallVector<Value> next;
          for (int64_t j = 0; j < vectors; ++j) {
            Value weight = k.exp(k.sub(k.load(scores, at(key, j)), maxima[j]));
            k.store(weight, scores, at(key, j));
            next.push_back(k.add(carried[j], weight));
          }
          return next;
        });
    for (int64_t j = 0; j < vectors; ++j) {
      Value row = k.add(first, k.index(j * block.lanes));
      k.store(k.div(k.constant(1.0, vector), sums[j]), inverse, {row});
      k.store(k.add(maxima[j], k.log(sums[j])), logs, {row});
    }
  }

  /// Replaces the scores of a panel by their Laplace weights.
  void weigh(Value panel, Value common, Value limit) {
    Value zeros = k.constant(0.0, k.vectorType(shape.element));
    auto replace = [&](Value from, Value to, bool masked) {
      k.loop(from, to, 1, [&](Value key) {
        for (int64_t j = 0; j < block.tile.vectors; ++j) {
          SmallVector<Value> at{panel, key, k.index(j * block.lanes)};
          Value weight = laplaceWeight(k, k.load(scores, at));
          if (masked)
            weight = k.select(block.lanesFrom(k, j, k.sub(key, common)), weight,
                              zeros);
          k.store(weight, scores, at);
        }
      });
    };
    replace(k.index(0), common, /*masked=*/false);
    replace(common, limit, /*masked=*/true);
  }

  /// One query at a time against its keys: what a call of one token needs is
  /// the speed of memory.
  void queryByQuery(const Segment &segment, Value rows) {
    k.loop(k.index(0), rows, 1, [&](Value row) {
      Value own = k.add(k.sub(k.add(segment.begin, row), segment.chunkBegin),
                        k.index(1));
      Value keyCount = k.add(segment.cached, own), zero = k.index(0);
      MatrixView query = block.keyColumns(k, q, segment.begin);
      auto score = [&](const MatrixView &matrix, Value from, Value to,
                       Value offset, Value highest) {
        return k.loop(
            from, to, 1, highest,
            [&](Value key, ValueRange carried) -> SmallVector<Value> {
              SmallVector<Value> sum = k.forLanes(
                  shape.keyWidth, shape.element,
                  k.constant(0.0, k.vectorType(shape.element)),
                  [&](Value d, Value mask,
                      ValueRange partial) -> SmallVector<Value> {
                    return {
                        k.fma(k.load(query.memref, query.at(k, row, d), mask),
                              k.load(matrix.memref, matrix.at(k, key, d), mask),
                              partial[0])};
                  });
              Value value = k.sum(sum[0]);
              k.storeScalar(value, weights, {k.add(offset, key)});
              return {k.max(carried[0], value)};
            })[0];
      };
      Value highest =
          k.constant(-std::numeric_limits<double>::infinity(), shape.element);
      highest = score(block.cachedKeys(k, cacheK), zero, segment.cached, zero,
                      highest);
      highest = score(block.keyColumns(k, keys, segment.chunkBegin), zero, own,
                      segment.cached, highest);

      if (!softmax) {
        k.loop(zero, keyCount, block.lanes, [&](Value key) {
          k.store(laplaceWeight(k, k.load(weights, {key})), weights, {key});
        });
        return weightedValues(segment, row, own, /*factor=*/{});
      }
      auto maskType = VectorType::get(block.lanes, k.b.getI1Type());
      Value zeros = k.constant(0.0, k.vectorType(shape.element));
      Value sum = k.sum(k.loop(
          zero, keyCount, block.lanes, zeros,
          [&](Value key, ValueRange carried) -> SmallVector<Value> {
            Value mask = vector::CreateMaskOp::create(k.b, maskType,
                                                      k.sub(keyCount, key));
            Value weight = k.select(
                mask, k.exp(k.sub(k.load(weights, {key}), k.splat(highest))),
                zeros);
            k.store(weight, weights, {key});
            return {k.add(carried[0], weight)};
          })[0]);
      k.storeScalar(k.add(highest, k.log(sum)), lse,
                    {outRow(segment, row), block.head});
      weightedValues(segment, row, own,
                     k.div(k.constant(1.0, shape.element), sum));
    });
  }

  /// out[row] = factor * sum of weights[key] * values[key], a few vectors of
  /// columns at a time; without a factor, the sum.
  void weightedValues(const Segment &segment, Value row, Value own,
                      Value factor) {
    const int64_t vectors = std::min<int64_t>(
                      8, llvm::divideCeil(shape.valueWidth, block.lanes)),
                  step = vectors * block.lanes;
    const bool whole = shape.valueWidth % step == 0;
    auto maskType = VectorType::get(block.lanes, k.b.getI1Type());
    MatrixView result = block.valueColumns(k, out, segment.begin);
    k.loop(k.index(0), k.index(shape.valueWidth), step, [&](Value column) {
      SmallVector<Value> columns, masks;
      for (int64_t j = 0; j < vectors; ++j) {
        columns.push_back(k.add(column, k.index(j * block.lanes)));
        masks.push_back(
            whole ? Value()
                  : vector::CreateMaskOp::create(
                        k.b, maskType,
                        k.sub(k.index(shape.valueWidth), columns[j])));
      }
      auto accumulate = [&](const MatrixView &matrix, Value keyCount,
                            Value offset, ValueRange start) {
        return k.loop(
            k.index(0), keyCount, 1, start, [&](Value key, ValueRange carried) {
              Value weight =
                  k.splat(k.loadScalar(weights, {k.add(offset, key)}));
              SmallVector<Value> next;
              for (int64_t j = 0; j < vectors; ++j)
                next.push_back(
                    k.fma(weight,
                          k.load(matrix.memref, matrix.at(k, key, columns[j]),
                                 masks[j]),
                          carried[j]));
              return next;
            });
      };
      SmallVector<Value> sums(vectors,
                              k.constant(0.0, k.vectorType(shape.element)));
      sums = accumulate(block.cachedValues(k, cacheV), segment.cached,
                        k.index(0), sums);
      sums = accumulate(block.valueColumns(k, values, segment.chunkBegin), own,
                        segment.cached, sums);
      for (int64_t j = 0; j < vectors; ++j)
        k.store(factor ? k.mul(sums[j], k.splat(factor)) : sums[j],
                result.memref, result.at(k, row, columns[j]), masks[j]);
    });
  }

  KernelBuilder &k;
  const AttentionShape &shape;
  bool softmax;
  Value q, keys, values, cacheK, cacheV, count, positions, out, lse;
  AttentionBlock block;
  /// Scratch: transposed queries, scores, and a number a query.
  Value queries, scores, inverse, logs;
  /// Scratch: the scores of a single query.
  Value weights;
};

struct ChunkAttentionLowering : OpRewritePattern<ChunkAttentionOp> {
  const LoweringOptions &options;
  ChunkAttentionLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(ChunkAttentionOp op,
                                PatternRewriter &rewriter) const override {
    AttentionShape shape(op.getQ(), op.getK(), op.getV(), op.getCacheK(),
                         op.getHeads());
    KernelBuilder k(rewriter, options, op, "chunk_attention");
    ForwardKernel(k, op, shape).emit();
    const double columns =
        double(shape.keyWidth + shape.valueWidth) * shape.heads;
    // A single token reads the cache; of longer calls the operands count once.
    const double tokens =
        shape.length == 1 ? shape.pairs() : double(shape.batch * shape.length);
    rewriter.replaceOp(op, k.finish(AttentionBlock::grid(shape, options),
                                    2.0 * shape.pairs() * columns,
                                    shape.bytes(2.0 * tokens * columns)));
    return success();
  }
};

/// Writes the tokens of the chunk that is open after the call to their place in
/// the cache.
struct CacheAppendLowering : OpRewritePattern<CacheAppendOp> {
  const LoweringOptions &options;
  CacheAppendLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(CacheAppendOp op,
                                PatternRewriter &rewriter) const override {
    constexpr int64_t kTokens = 64;
    auto type = cast<RankedTensorType>(op.getCache().getType());
    const int64_t chunk = type.getDimSize(1), width = type.getDimSize(2);
    KernelBuilder k(rewriter, options, op, "cache_append");
    Value rows = k.read(op.getRows(), View::Rows), count = readCount(k, op),
          positions = readPositions(k, op), cache = k.update(op.getCache());
    Value length = k.length(), blocks = k.ceilDiv(length, kTokens);
    Value row = k.div(k.workgroup(), blocks),
          first = k.mul(k.rem(k.workgroup(), blocks), k.index(kTokens));
    // Token t goes to row position + t - closed, if it stands there: the open
    // chunk starts `closed` tokens after the one that was open before the call.
    Value position, closed;
    if (positions) {
      PackedDocuments documents(k, positions);
      documents.setRow(row);
      Value last = documents.position(k.sub(length, k.index(1)));
      position = k.rem(k.add(last, k.index(1)), k.index(chunk));
      closed = length;
    } else {
      Value seen = arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                              k.loadScalar(count, {row}));
      position = k.rem(seen, k.index(chunk));
      closed =
          k.mul(k.div(k.add(position, length), k.index(chunk)), k.index(chunk));
    }
    Value begin = k.max(first, k.sub(k.max(closed, position), position));
    Value end = k.min(length, k.add(first, k.index(kTokens)));
    k.loop(begin, end, 1, [&](Value token) {
      Value source = k.add(k.mul(row, length), token),
            target = k.sub(k.add(position, token), closed);
      k.forLanes(width, computeType(type.getElementType()),
                 [&](Value column, Value mask) {
                   k.store(k.load(rows, {source, column}, mask), cache,
                           {row, target, column}, mask);
                 });
    });
    const auto tokens = cast<RankedTensorType>(op.getRows().getType());
    const double moved = double(tokens.getDimSize(0)) *
                         std::min(tokens.getDimSize(1), chunk) * width;
    rewriter.replaceOp(
        op, k.finish({1, plan::Outer::Batch, plan::Inner::Length, kTokens}, 0.0,
                     2.0 * moved * (type.getElementTypeBitWidth() / 8)));
    return success();
  }
};

/// The sum of the parts that the query heads of a group have in the gradient of
/// its key or value head.
struct SumHeadGroupsLowering : OpRewritePattern<SumHeadGroupsOp> {
  const LoweringOptions &options;
  SumHeadGroupsLowering(MLIRContext *context, const LoweringOptions &options)
      : OpRewritePattern(context), options(options) {}

  LogicalResult matchAndRewrite(SumHeadGroupsOp op,
                                PatternRewriter &rewriter) const override {
    const int64_t heads = op.getHeads(), groups = op.getGroups(),
                  width = widthOf(op.getX()), head = width / heads,
                  share = heads / groups,
                  rows = rowsPerWorkgroup(options, width);
    KernelBuilder k(rewriter, options, op, "sum_head_groups");
    Value x = k.read(op.getX(), View::Rows),
          y = k.write(op.getType(), View::Rows);
    forTokens(k, rows, [&](Value t) {
      k.loop(k.index(0), k.index(groups), 1, [&](Value group) {
        Value first = k.mul(group, k.index(share * head)),
              target = k.mul(group, k.index(head));
        k.forLanes(head, elementOf(op.getX()), [&](Value i, Value mask) {
          Value column = k.add(first, i), sum = k.load(x, {t, column}, mask);
          for (int64_t r = 1; r < share; ++r)
            sum = k.add(sum,
                        k.load(x, {t, k.add(column, k.index(r * head))}, mask));
          k.store(sum, y, {t, k.add(target, i)}, mask);
        });
      });
    });
    rewriter.replaceOp(op,
                       k.finish(tokenGrid(rows),
                                double(tensorOf(op.getX()).getNumElements()),
                                bytesOf(op)));
    return success();
  }
};

} // namespace

void populateAttentionLowering(RewritePatternSet &patterns,
                               const LoweringOptions &options) {
  patterns
      .add<ChunkAttentionLowering, CacheAppendLowering, SumHeadGroupsLowering>(
          patterns.getContext(), options);
  populateAttentionGradLowering(patterns, options);
}

} // namespace mlir::megalodon
