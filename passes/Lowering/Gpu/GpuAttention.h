// Chunk attention on a GPU: what the kernels of forward and backward share.
//
// Chunks are cut into blocks of positions, and so the causal half of a chunk
// into tiles of `block` queries by `block` keys. A workgroup owns a block of
// queries (or of keys, for dk and dv) and a block of columns of its result, and
// walks over the tiles of its row (column) of the half: nothing above the
// diagonal is computed. Tiles do not care where a call begins: rows of a tile
// that are no tokens of the call come from the cache or are zero.
//
// A weight is exp(q k - lse) with lse known beforehand, so tiles do not depend
// on each other. Two strategies differ in where the tiles of weights P (and of
// score gradients dS) live:
//
//   stored      a kernel writes the tiles of the causal half to a workspace, in
//               the type of the products' operands; each result is then a
//               product with those tiles as left operand
//   recomputed  the kernel of a result makes each tile in shared memory, from q
//               and k (dS: from dout and v too), once per block of columns
//
// Multiply-adds a pair (query, key) and head, with K columns of keys, V of
// values, in n blocks:
//
//              stored                       recomputed
//   forward    2 K + V                      (1 + n) K + V
//   backward   3 K + 2 V                    (4 + n) K + 3 V
//   bytes      written once, read n times   none
//
// Laplace weights are a function of the score alone: there is no lse, no delta
// and no sum to take out, and dS = P'(score) dP. They have the recomputed
// strategy.
//
// The chunks of packed documents begin anywhere, and how many there are is
// known from the positions alone: a workgroup then takes the blocks that begin
// among its own tokens, in the recomputed strategy, which keeps nothing a
// chunk.
//
// dS = P (dP - delta), where delta is the mean of dP by the weights P, so that
// a row of dS has the sum 0. dout * out is that mean but for the roundings of
// `out` and P. In bf16 these are not small beside dS and, being the same for
// all keys of a row, do not average out; so there dout * out is only the first
// guess, and the sum r that it leaves in a row of dS is taken out: dS - P r.
//
//   stored      the tiles' kernel also writes the sums of their rows; a kernel
//               then corrects the tiles of dS in the workspace
//   recomputed  the kernel of dq sums dS k and P k side by side (K more) and r,
//               gives dS k - r P k, and delta + r for the kernel of dk
#pragma once
#include "passes/Lowering/AttentionTiles.h"
#include "passes/Lowering/Gpu/GpuTiles.h"

namespace mlir::megalodon {

/// Sizes of the kernels of one attention op.
struct GpuAttentionForm {
  bool stored = false;
  TileMath math = TileMath::Fma;
  /// Positions of a block, threads of a workgroup.
  int64_t block = 64, threads = 128;
  /// Columns of a result that one workgroup makes, at most.
  int64_t columns = 256;
  /// Terms copied at a time, of scores and of products with tiles; copies in
  /// flight.
  int64_t scoreSlice = 32, productSlice = 32, stages = 2;
  int64_t scoreWarpsM = 2, scoreWarpsN = 2, warpsM = 1, warpsN = 4;

  /// `recomputes` forces that strategy over the option --attention.
  static GpuAttentionForm choose(const AttentionShape &shape,
                                 const LoweringOptions &options, Type element,
                                 bool recomputes, bool backward);

  int64_t blocksPerChunk(const AttentionShape &shape) const;
  int64_t columnBlock(int64_t width) const;
  int64_t columnBlocks(int64_t width) const;
  /// Tokens a workgroup answers for: the divisor of a grid over the length.
  int64_t gridTokens(const AttentionShape &shape) const;
  /// Tiles of one matrix of the size of the scores: [tiles, block, block].
  RankedTensorType workspace(const AttentionShape &shape, Type element) const;
  /// Tiles of a head and chunk.
  int64_t tilesPerChunk(const AttentionShape &shape) const;
  /// Chunks that a row of a call may touch.
  static int64_t chunks(const AttentionShape &shape);
};

/// Whether this op's types and sizes are for these kernels.
bool fitsGpuAttention(const AttentionShape &shape);

/// {result, lse} of a call of one token (GpuAttentionDecode.cpp).
bool fitsDecodeAttention(const AttentionShape &shape,
                         const LoweringOptions &options);
SmallVector<Value> decodeAttention(PatternRewriter &rewriter,
                                   const LoweringOptions &options,
                                   ChunkAttentionOp op,
                                   const AttentionShape &shape);

/// A block of positions of one chunk in one row of the batch. Positions count
/// from the chunk's start.
struct ChunkBlock {
  /// 0 is the chunk that was open before the call; null with packed documents,
  /// whose chunks nobody counts.
  Value chunk;
  Value number; ///< of the block, in the chunk
  Value first;  ///< its first position
  /// The row of position 0 in a Rows view (may be negative).
  Value origin;
  /// Positions before `cached` lie in the cache, [cached, end) in the call.
  Value cached, end;
};

/// A workgroup of attention kernels.
class GpuAttentionBlocks {
public:
  /// `inner` numbers the workgroups of one head and block: blocks of columns,
  /// say. `heavyLast`: later blocks of a chunk have more work, so they start
  /// first. Of `count` and `positions`, the kernel's views of the op's
  /// operands, one says where tokens stand; the other is null.
  GpuAttentionBlocks(KernelBuilder &k, const AttentionShape &shape,
                     const GpuAttentionForm &form, Value count, Value positions,
                     int64_t inner, bool heavyLast);
  static Grid grid(const AttentionShape &shape, const GpuAttentionForm &form,
                   int64_t inner);

  Value inner() const { return innerValue; }
  Value head() const { return headValue; }
  Value row() const { return rowValue; }
  void forEach(function_ref<void(const ChunkBlock &)> body);

  /// The head's columns of the call's tokens (of grouped keys and values: of
  /// the head that serves it), by position; zero elsewhere.
  TileSource ofCall(Value tensor, const ChunkBlock &block, int64_t width) const;
  /// The same with the cache's rows before them.
  TileSource ofChunk(Value tensor, Value cache, const ChunkBlock &block,
                     int64_t width) const;
  /// A number of each query and head (lse, delta) at the positions first +
  /// product.row(i), `missing` where the call has no such token.
  SmallVector<Value> ofRows(GpuProduct &product, Value tensor,
                            const ChunkBlock &block, Value first,
                            double missing) const;
  /// i1: whether the call has a token at this position.
  Value isOfCall(const ChunkBlock &block, Value position) const;
  /// Stores a result's rows of this block, in the head's columns from inner() *
  /// `columns` on.
  void store(GpuProduct &product, ValueRange sums, const ChunkBlock &block,
             Value out, int64_t width, int64_t columns) const;
  /// The number of the first workspace tile of a row of tiles.
  Value firstTile(const ChunkBlock &block, Value queryBlock) const;

private:
  void forDocumentBlocks(function_ref<void(const ChunkBlock &)> body);
  /// The tokens behind `token` in its chunk, of which `place` is its position.
  Value tokensBehind(Value token, Value place);

  KernelBuilder &k;
  const AttentionShape &shape;
  const GpuAttentionForm &form;
  PackedDocuments documents;
  bool heavyLast;
  Value innerValue, headValue, rowValue, part, parts, position, length;
};

/// Tiles of scores of one block of queries and one of keys.
class ScoreTiles {
public:
  ScoreTiles(KernelBuilder &k, const AttentionShape &shape,
             const GpuAttentionForm &form);

  /// left rows times right rows, over `depth` columns.
  SmallVector<Value> multiply(const TileSource &left, Value leftRow,
                              const TileSource &right, Value rightRow,
                              int64_t depth);
  /// Calls the body with each score's value, and i1 whether its query sees its
  /// key; replaces the value.
  void forScores(SmallVectorImpl<Value> &sums, Value queryFirst, Value keyFirst,
                 function_ref<Value(int64_t i, Value score, Value seen)> body);
  /// Replaces scores by weights.
  void toWeights(SmallVectorImpl<Value> &sums, Value queryFirst, Value keyFirst,
                 ArrayRef<Value> lse);
  /// Replaces scores by what `function` makes of them, laplaceWeight or
  /// laplaceDerivative.
  void toWeights(SmallVectorImpl<Value> &sums, Value queryFirst, Value keyFirst,
                 function_ref<Value(KernelBuilder &, Value)> function);
  /// What weights add to the sums of this thread's rows, as tiles hold them:
  /// rounded.
  void addToRows(ArrayRef<Value> weights, MutableArrayRef<Value> rowSums);

  GpuProduct product;

private:
  KernelBuilder &k;
  const GpuAttentionForm &form;
  int64_t slice;
  SharedTile lefts, rights;
};

/// Keeps a tile of numbers a thread made, and gives them back to it.
struct TileStore {
  Value memref;
  SmallVector<Value, 2> prefix;
  int64_t granule;
  void store(KernelBuilder &k, GpuProduct &product, ValueRange sums) const;
  SmallVector<Value> load(KernelBuilder &k, int64_t count, Value row,
                          Value column) const;
  static TileStore of(KernelBuilder &k, const SharedTile &tile);
};

/// A product with tiles of P or dS as left operand.
struct TileRowProduct {
  /// Sums over the queries of a block of keys, instead of over its keys.
  bool transposed = false;
  int64_t width = 0; ///< columns of the result
  Value out;
  std::function<TileSource(const ChunkBlock &)> right;
  /// Stored: the workspace. Recomputed: makes the tile of these blocks in
  /// shared memory.
  Value workspace;
  std::function<void(const ChunkBlock &, Value queryFirst, Value keyFirst,
                     const TileStore &)>
      make;
  /// What a row of the result is divided by, if anything.
  std::function<Value(const ChunkBlock &, Value row)> divisor;

  void emit(KernelBuilder &k, const AttentionShape &shape,
            const GpuAttentionForm &form, GpuAttentionBlocks &blocks) const;
};

} // namespace mlir::megalodon
