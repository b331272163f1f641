// Matrix products inside kernels: register tiles of broadcast scalars times
// vectors, over operands packed into scratch. The products of linear layers and
// both halves of attention are made of these pieces.
#pragma once
#include "passes/Lowering/KernelBuilder.h"
#include <functional>

namespace mlir::megalodon {

/// A register tile: `rows` x `vectors` accumulators.
struct TileShape {
  int64_t rows = 0, vectors = 0;
  static TileShape of(const LoweringOptions &options);
};

/// Terms (the summed index) of a product that are packed at a time. A panel of
/// them stays in the first cache.
inline constexpr int64_t kDepthBlock = 256;

/// A matrix in memory: `memref` indexed by [prefix..., row + firstRow, column +
/// firstColumn].
struct MatrixView {
  Value memref;
  SmallVector<Value, 1> prefix;
  Value firstRow, firstColumn;

  SmallVector<Value, 4> at(KernelBuilder &k, Value row, Value column) const;
};

/// accumulators[i * vectors + j] + sum over t in [from, to) of left(i, t) *
/// right(j, t); left gives scalars, right vectors.
SmallVector<Value>
multiplyTile(KernelBuilder &k, TileShape tile, Value from, Value to,
             ValueRange accumulators,
             function_ref<Value(int64_t row, Value t)> left,
             function_ref<Value(int64_t vector, Value t)> right);

/// The same, starting at zero.
SmallVector<Value>
multiplyTile(KernelBuilder &k, TileShape tile, Type element, Value from,
             Value to, function_ref<Value(int64_t row, Value t)> left,
             function_ref<Value(int64_t vector, Value t)> right);

/// panel[panelRow + t, panelColumn ...] = source[row + t, column ...] for t <
/// count, `vectors` vectors wide. Columns from `columnEnd` on are zero; a null
/// `columnEnd` says that there are none.
void packRows(KernelBuilder &k, int64_t vectors, const MatrixView &source,
              Value row, Value count, Value column, Value columnEnd,
              Value panel, Value panelRow, Value panelColumn);

/// panel[panelPrefix..., t, r] = source[row + r, column + t] for t < depth and
/// all r of one panel. Rows from `rowEnd` on repeat the last one. Without
/// `wholeDepth` depth need not be a multiple of the lanes; the panel has room
/// for the next one.
void packTransposed(KernelBuilder &k, int64_t vectors, const MatrixView &source,
                    Value row, Value rowEnd, Value column, Value depth,
                    bool wholeDepth, Value panel, ValueRange panelPrefix);

/// out[r, c] = sum over t < depth of left(r, t) * right(t, c), for r < rows and
/// columnBegin <= c < columnEnd.
struct BlockProduct {
  Value rows;
  Value columnBegin, columnEnd;
  /// Whether columnEnd - columnBegin is known to be a multiple of the panel's
  /// width.
  bool wholePanels = false;
  Value depth;
  MatrixView out;
  /// Called once a depth block [t, t + count), before it is multiplied.
  std::function<void(Value t, Value count)> enterDepthBlock;
  /// Fills `panel` [kDepthBlock, width] with right(t + i, column + j); i <
  /// count.
  std::function<void(Value t, Value count, Value column, Value panel)> pack;
  /// The left operand of the rows [row, row + tile rows) in the depth block at
  /// t: a function of (i, s) that gives left(row + i, t + s). Rows from `rows`
  /// on may be read (their products are dropped) and must lie in memory.
  std::function<std::function<Value(int64_t i, Value s)>(Value row, Value t)>
      left;
  /// Terms [from, to) that a row tile needs, of those of the depth block [t, t
  /// + count), relative to t. All when empty.
  std::function<std::pair<Value, Value>(Value row, Value t, Value count)> terms;
  /// Applied to the finished sums before they are stored. Nothing when empty.
  std::function<Value(Value sums, Value row, Value column, Value mask)> finish;

  void emit(KernelBuilder &k, Type element) const;
};

} // namespace mlir::megalodon
