// What the kernels of chunk attention and of its gradient share: which tokens
// see which, tiles of scores, and the weights that are no softmax.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/PackedDocuments.h"
#include "passes/Lowering/TileProduct.h"

namespace mlir::megalodon {

/// Static sizes of one attention op.
struct AttentionShape {
  int64_t batch, length, heads, chunk;
  /// Heads of k, v and the caches: each serves heads / keyHeads of the queries.
  int64_t keyHeads;
  /// Columns of a head in q and k, and in v.
  int64_t keyWidth, valueWidth;
  /// Of the numbers in kernels, and of the tensors.
  Type element, stored;

  AttentionShape(Value q, Value k, Value v, Value cacheK, int64_t heads);

  /// The head of a buffer that belongs to the query head `head`, where a head
  /// has `width` columns of the buffer: another one if keys and values are
  /// grouped and the buffer holds those.
  Value headIn(KernelBuilder &k, Value buffer, Value head, int64_t width) const;

  /// Pairs (query, key) of one head over the whole batch, at the compiled
  /// shape.
  double pairs() const;
  /// Bytes of as many elements of activations.
  double bytes(double elements) const;
};

/// A run of tokens of a call, at most a block, that lie in one chunk. All
/// numbers are tokens of the call, counted in its row of the batch.
struct Segment {
  Value begin, end;
  /// The call's tokens of that chunk.
  Value chunkBegin, chunkEnd;
  /// Tokens of that chunk from before the call: rows [0, cached) of the cache.
  Value cached;
};

/// A workgroup's share: one head and a block of tokens of one row of the batch.
struct AttentionBlock {
  const AttentionShape &shape;
  TileShape tile;
  int64_t lanes, panelWidth, panels;
  Value row, head, length;
  Value begin, end;
  /// Index of the row's first token in a Rows view.
  Value tokenBase;

  /// Decodes the workgroup number. `count` and `positions` are the kernel's
  /// views of the op's operands; where the latter is given, the former is not
  /// read and may be null.
  AttentionBlock(KernelBuilder &k, const AttentionShape &shape, Value count,
                 Value positions);

  static int64_t tokens(const AttentionShape &shape,
                        const LoweringOptions &options);
  static Grid grid(const AttentionShape &shape, const LoweringOptions &options);

  /// Runs the body for each chunk the block touches. The chunks of packed
  /// documents begin anywhere; without documents they follow from `count`.
  void forSegments(KernelBuilder &k,
                   function_ref<void(const Segment &)> body) const;
  /// The columns of this workgroup's head (of queries), or of the head of
  /// grouped keys or values that serves it, in rows counted from token `first`
  /// of the call.
  MatrixView keyColumns(KernelBuilder &k, Value tensor, Value first) const;
  MatrixView valueColumns(KernelBuilder &k, Value tensor, Value first) const;
  /// The same of the cache, from its first row.
  MatrixView cachedKeys(KernelBuilder &k, Value cache) const;
  MatrixView cachedValues(KernelBuilder &k, Value cache) const;

  /// Scratch for all panels of one matrix, transposed: [panels, depth,
  /// panelWidth].
  Value transposedPanels(KernelBuilder &k, int64_t depth) const;
  /// Scratch for the tiles of one matrix of scores: [panels, chunk + tile rows,
  /// panelWidth].
  Value scores(KernelBuilder &k, int64_t skewBytes) const;

  /// Products of the rows [row, row + tile rows) of `scalars` (below `count`;
  /// later ones repeat the last) with the columns of a panel.
  SmallVector<Value> scoreTile(KernelBuilder &k, const MatrixView &scalars,
                               Value row, Value count, int64_t depth,
                               Value panels, Value panel) const;
  /// Lanes of vector j of a panel whose index is at least (or at most) `bound`,
  /// a signed index.
  Value lanesFrom(KernelBuilder &k, int64_t j, Value bound) const;
  Value lanesUpTo(KernelBuilder &k, int64_t j, Value bound) const;
  /// The left operand of BlockProduct: column `row` of the score panels.
  std::function<std::function<Value(int64_t, Value)>(Value, Value)>
  scoreColumns(KernelBuilder &k, Value scores) const;
  /// The right operand of BlockProduct: rows of the cache, then rows of the
  /// call.
  std::function<void(Value, Value, Value, Value)>
  packCachedThenOwn(KernelBuilder &k, const MatrixView &cache,
                    const MatrixView &own, Value cached, int64_t width) const;

private:
  void forDocumentSegments(KernelBuilder &k,
                           function_ref<void(const Segment &)> body) const;

  /// The position in its chunk at which the call begins, without documents.
  Value position;
  mutable PackedDocuments documents;
};

/// The Laplace weight of a score, and its derivative (chunk_attention's
/// description).
Value laplaceWeight(KernelBuilder &k, Value score);
Value laplaceDerivative(KernelBuilder &k, Value score);

/// Kernel's view of an op's count where it says where tokens stand: positions
/// do it alone.
template <typename Op> Value readCount(KernelBuilder &k, Op op) {
  return op.getPositions() ? Value() : k.read(op.getCount());
}

} // namespace mlir::megalodon
