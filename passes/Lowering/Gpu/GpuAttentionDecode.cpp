// Chunk attention of one token a row on a GPU: a matrix of one row is read as
// fast as memory gives it. One kernel scores the chunk's keys, cut into splits;
// the next sums the weighted values, cut into blocks of columns, each of which
// makes the softmax again.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "passes/Lowering/Gpu/GpuAttention.h"
#include "passes/Lowering/Lowerings.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {
namespace {

/// Elements of a row that a thread loads at once.
int64_t pieceOf(const AttentionShape &shape, int64_t width) {
  int64_t piece = 16 / (shape.stored.getIntOrFloatBitWidth() / 8);
  while (width % piece)
    piece /= 2;
  return piece;
}

Value equal(KernelBuilder &k, Value x, Value y) {
  return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, x, y);
}

/// The number of the row's earlier tokens in the open chunk.
Value positionOf(KernelBuilder &k, Value count, Value row, int64_t chunk) {
  Value seen = arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                          k.loadScalar(count, {row}));
  return k.rem(seen, k.index(chunk));
}

/// scores[row, head, key] of all keys the token sees.
Value emitScores(PatternRewriter &rewriter, const LoweringOptions &options,
                 ChunkAttentionOp op, const AttentionShape &shape) {
  constexpr int64_t kWarps = 4, kSplitKeys = 64, kKeysAtOnce = 4;
  KernelBuilder k(rewriter, options, op, "attention_decode_scores",
                  kWarps * kWarpThreads);
  Value q = k.read(op.getQ(), View::Rows), keys = k.read(op.getK(), View::Rows),
        cache = k.read(op.getCacheK()), count = k.read(op.getCount());
  Type f32 = k.b.getF32Type();
  Value scores = k.write(
      RankedTensorType::get({shape.batch, shape.heads, shape.chunk}, f32));

  const int64_t splits = llvm::divideCeil(shape.chunk, kSplitKeys),
                width = shape.keyWidth, piece = pieceOf(shape, width);
  Value split = k.rem(k.workgroup(), k.index(splits)),
        rest = k.div(k.workgroup(), k.index(splits));
  Value head = k.rem(rest, k.index(shape.heads)),
        row = k.div(rest, k.index(shape.heads));
  Value position = positionOf(k, count, row, shape.chunk);
  Value firstColumn = k.mul(head, k.index(width)),
        firstKeyColumn =
            k.mul(shape.headIn(k, keys, head, width), k.index(width));
  Value lane = k.lane(), warp = k.warp(), zero = k.constant(0.0, f32);
  Value isFirstLane = equal(k, lane, k.index(0));

  // The products of q with some keys at once, so that their loads overlap.
  auto score = [&](int64_t number,
                   function_ref<SmallVector<Value>(int64_t, Value)> loadKey) {
    SmallVector<Value> sums = k.loop(
        k.mul(lane, k.index(piece)), k.index(width), piece * kWarpThreads,
        SmallVector<Value>(number, zero), [&](Value at, ValueRange carried) {
          SmallVector<Value> query =
              loadNeighbours(k, piece, q, {row, k.add(firstColumn, at)}, piece);
          Value column = k.add(firstKeyColumn, at);
          SmallVector<Value> next(carried);
          for (int64_t i = 0; i < number; ++i)
            for (auto [x, y] : llvm::zip(query, loadKey(i, column)))
              next[i] = k.fma(x, y, next[i]);
          return next;
        });
    for (Value &sum : sums)
      sum = k.warpSum(sum);
    return sums;
  };

  Value first = k.mul(split, k.index(kSplitKeys));
  Value end = k.min(position, k.add(first, k.index(kSplitKeys)));
  k.loop(k.add(first, k.mul(warp, k.index(kKeysAtOnce))), end,
         kWarps * kKeysAtOnce, [&](Value key) {
           SmallVector<Value> at;
           for (int64_t i = 0; i < kKeysAtOnce; ++i)
             at.push_back(k.add(key, k.index(i)));
           SmallVector<Value> sums =
               score(kKeysAtOnce, [&](int64_t i, Value column) {
                 Value known = k.select(k.less(at[i], end), at[i], key);
                 return loadNeighbours(k, piece, cache, {row, known, column},
                                       piece);
               });
           k.when(isFirstLane, [&] {
             for (int64_t i = 0; i < kKeysAtOnce; ++i)
               k.when(k.less(at[i], end), [&] {
                 k.storeScalar(sums[i], scores, {row, head, at[i]});
               });
           });
         });
  // The token's own key.
  Value here = equal(k, split, k.div(position, k.index(kSplitKeys)));
  here = arith::AndIOp::create(k.b, here, equal(k, warp, k.index(0)));
  k.when(here, [&] {
    SmallVector<Value> sums = score(1, [&](int64_t, Value column) {
      return loadNeighbours(k, piece, keys, {row, column}, piece);
    });
    k.when(isFirstLane,
           [&] { k.storeScalar(sums[0], scores, {row, head, position}); });
  });
  const double pairs = shape.pairs() * shape.heads;
  return k.finish({splits * shape.heads, plan::Outer::Batch},
                  2.0 * pairs * width, shape.bytes(pairs * width))[0];
}

/// {result, lse}.
SmallVector<Value> emitValues(PatternRewriter &rewriter,
                              const LoweringOptions &options,
                              ChunkAttentionOp op, const AttentionShape &shape,
                              Value scoresTensor) {
  constexpr int64_t kThreads = 256, kPieces = 8, kKeyLanes = kThreads / kPieces,
                    kKeysAtOnce = 4, kWarps = kThreads / kWarpThreads;
  KernelBuilder k(rewriter, options, op, "attention_decode_values", kThreads);
  Value scores = k.read(scoresTensor), values = k.read(op.getV(), View::Rows),
        cache = k.read(op.getCacheV()), count = k.read(op.getCount());
  Value out = k.write(op.getResult().getType(), View::Rows),
        lse = k.write(op.getLse().getType(), View::Rows);
  Type f32 = k.b.getF32Type();
  const int64_t width = shape.valueWidth, piece = pieceOf(shape, width),
                columns = kPieces * piece,
                blocks = llvm::divideCeil(width, columns);
  Value weights = k.scratch({shape.chunk}, f32),
        parts = k.scratch({2, kWarps}, f32),
        partSums = k.scratch({kKeyLanes, columns}, f32);

  Value block = k.rem(k.workgroup(), k.index(blocks)),
        rest = k.div(k.workgroup(), k.index(blocks));
  Value head = k.rem(rest, k.index(shape.heads)),
        row = k.div(rest, k.index(shape.heads));
  Value position = positionOf(k, count, row, shape.chunk);
  Value seen = k.add(position, k.index(1));
  Value thread = k.thread(), isFirstLane = equal(k, k.lane(), k.index(0));
  Value zero = k.constant(0.0, f32);

  // Every thread gets the combination of all threads' values.
  auto ofAll = [&](int64_t slot, Value value,
                   function_ref<Value(Value, Value)> combine) {
    k.when(isFirstLane,
           [&] { k.storeScalar(value, parts, {k.index(slot), k.warp()}); });
    k.barrier();
    Value result = k.loadScalar(parts, {k.index(slot), k.index(0)});
    for (int64_t i = 1; i < kWarps; ++i)
      result =
          combine(result, k.loadScalar(parts, {k.index(slot), k.index(i)}));
    return result;
  };
  Value highest = k.loop(
      thread, seen, kThreads, k.constant(-1e30, f32),
      [&](Value key, ValueRange carried) -> SmallVector<Value> {
        return {k.max(carried[0], k.loadScalar(scores, {row, head, key}))};
      })[0];
  highest = ofAll(0, k.warpMaximum(highest),
                  [&](Value x, Value y) { return k.max(x, y); });
  Value sum = k.loop(thread, seen, kThreads, zero,
                     [&](Value key, ValueRange carried) -> SmallVector<Value> {
                       Value weight = k.exp(k.sub(
                           k.loadScalar(scores, {row, head, key}), highest));
                       k.storeScalar(weight, weights, {key});
                       return {k.add(carried[0], weight)};
                     })[0];
  // This barrier also makes the weights everybody's.
  sum = ofAll(1, k.warpSum(sum), [&](Value x, Value y) { return k.add(x, y); });

  Value inBlock = k.mul(k.rem(thread, k.index(kPieces)), k.index(piece)),
        keyLane = k.div(thread, k.index(kPieces));
  Value inHead = k.add(k.mul(block, k.index(columns)), inBlock);
  Value column = k.add(
      k.mul(shape.headIn(k, values, head, width), k.index(width)), inHead);
  k.when(k.less(inHead, k.index(width)), [&] {
    SmallVector<Value> sums = k.loop(
        keyLane, position, kKeyLanes * kKeysAtOnce,
        SmallVector<Value>(piece, zero), [&](Value key, ValueRange carried) {
          SmallVector<Value> next(carried);
          for (int64_t i = 0; i < kKeysAtOnce; ++i) {
            Value at = k.add(key, k.index(i * kKeyLanes));
            Value valid = k.less(at, position);
            at = k.select(valid, at, key);
            Value weight = k.select(valid, k.loadScalar(weights, {at}), zero);
            SmallVector<Value> loaded =
                loadNeighbours(k, piece, cache, {row, at, column}, piece);
            for (int64_t j = 0; j < piece; ++j)
              next[j] = k.fma(weight, loaded[j], next[j]);
          }
          return next;
        });
    SmallVector<Value> own =
        loadNeighbours(k, piece, values, {row, column}, piece);
    Value weight = k.select(equal(k, keyLane, k.index(0)),
                            k.loadScalar(weights, {position}), zero);
    for (int64_t j = 0; j < piece; ++j)
      sums[j] = k.fma(weight, own[j], sums[j]);
    storeNeighbours(k, sums, partSums, {keyLane, inBlock}, piece);
  });
  k.barrier();
  Value ownColumn = k.add(k.mul(block, k.index(columns)), thread);
  Value sums = arith::AndIOp::create(k.b, k.less(thread, k.index(columns)),
                                     k.less(ownColumn, k.index(width)));
  k.when(sums, [&] {
    Value total = k.loop(
        k.index(0), k.index(kKeyLanes), 1, zero,
        [&](Value lane, ValueRange carried) -> SmallVector<Value> {
          return {k.add(carried[0], k.loadScalar(partSums, {lane, thread}))};
        })[0];
    storeNeighbours(k, {k.div(total, sum)}, out,
                    {row, k.add(k.mul(head, k.index(width)), ownColumn)}, 1);
  });
  Value reports = arith::AndIOp::create(k.b, equal(k, thread, k.index(0)),
                                        equal(k, block, k.index(0)));
  k.when(reports,
         [&] { k.storeScalar(k.add(highest, k.log(sum)), lse, {row, head}); });
  const double pairs = shape.pairs() * shape.heads;
  return k.finish({blocks * shape.heads, plan::Outer::Batch},
                  2.0 * pairs * width, shape.bytes(pairs * width));
}

} // namespace

bool fitsDecodeAttention(const AttentionShape &shape,
                         const LoweringOptions &options) {
  // The weights of a chunk lie in shared memory.
  return shape.length == 1 && shape.chunk * 4 + 16384 <= options.sharedBytes;
}

SmallVector<Value> decodeAttention(PatternRewriter &rewriter,
                                   const LoweringOptions &options,
                                   ChunkAttentionOp op,
                                   const AttentionShape &shape) {
  Value scores = emitScores(rewriter, options, op, shape);
  return emitValues(rewriter, options, op, shape, scores);
}

} // namespace mlir::megalodon
