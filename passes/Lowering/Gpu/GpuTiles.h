// Tiles of matrices on a GPU, for kernels in thread form: copies from buffers
// into shared memory that run while the threads compute, and products of tiles,
// on tensor cores or by fused multiply-adds. An algorithm is written once and
// gets its arithmetic as an argument.
#pragma once
#include "passes/Lowering/TileProduct.h"

namespace mlir::megalodon {

/// How products of tiles are computed. Sums are always f32.
enum class TileMath {
  Fma,    ///< f32 tiles, f32 multiply-adds
  Bf16,   ///< bf16 tiles, tensor cores
  Bf16x3, ///< f32 tiles, each number as a sum of two bf16: three products on
          ///< tensor cores, relative error of a term about 2^-16
  Bf16x6  ///< three bf16 a number, six products: about 2^-23, f32's own
};

/// What a tile of this arithmetic holds in shared memory.
Type tileElement(KernelBuilder &k, TileMath math);

/// The terms of a pair of f32 numbers (vector<2xf32>): pairs of bf16 numbers
/// whose sum they are, the largest first, as 32-bit registers.
SmallVector<Value> splitTerms(KernelBuilder &k, Value pair, int64_t terms);
/// sums += left right: nvvm.mma.sync of [16, 16] by [16, 8] bf16, on the lanes'
/// four, two and four registers.
void multiplyFragments(KernelBuilder &k, ArrayRef<Value> left,
                       ArrayRef<Value> right, MutableArrayRef<Value> sums);

/// A matrix in shared memory, or several of one size (stages). Rows are padded
/// by 16 bytes, so that the same 16 bytes of eight neighbouring rows lie in
/// different banks.
struct SharedTile {
  Value memref; ///< [stages, rows, pitch]
  int64_t rows = 0, columns = 0;
  Value stage;                 ///< null: stage 0
  Value firstRow, firstColumn; ///< null: 0

  static SharedTile create(KernelBuilder &k, int64_t rows, int64_t columns,
                           Type element, int64_t stages = 1);
  static int64_t bytes(int64_t rows, int64_t columns, Type element,
                       int64_t stages = 1);

  SharedTile at(Value stage) const;
  /// The part that starts at this place.
  SharedTile from(KernelBuilder &k, Value row, Value column) const;
  SmallVector<Value, 4> indices(KernelBuilder &k, Value row,
                                Value column) const;
  Type element() const;
};

/// Where the elements of a tile come from.
struct TileSource {
  MatrixView matrix;
  /// Rows outside [rowBegin, rowEnd) and columns from `columns` on are zero in
  /// the tile; nothing is read for them. Null or negative: no bound.
  Value rowBegin, rowEnd;
  int64_t columns = -1;
  /// The row length of the buffer, `columns` and the first column are multiples
  /// of this many elements: what may be copied at once.
  int64_t granule = 1;
  /// With `split`, rows before it are rows of `before` instead.
  MatrixView before;
  Value split;
};

/// tile[r, c] = source[row + r, column + c], by all threads of the workgroup:
/// asynchronously in pieces of up to 16 bytes where the types agree, through
/// registers otherwise. The tile may be read after pipeline()'s wait, or after
/// closeCopies(), waitForCopies(0) and a barrier. Rows are signed: a row
/// before `rowBegin` may be negative.
void copyTile(KernelBuilder &k, const SharedTile &tile,
              const TileSource &source, Value row, Value column);
/// Ends a group of copies.
void closeCopies(KernelBuilder &k);
/// Waits for this thread's groups except the last `running` ones.
void waitForCopies(KernelBuilder &k, int64_t running);

/// Computes slices 0 .. count - 1 while the copies of the next `stages` - 1
/// ones run; `stage` = slice % stages. The shared memory must not be in use by
/// any thread that is not yet here: the loop starts with a barrier, and has one
/// a slice. All threads must come here with one `count`.
SmallVector<Value>
pipeline(KernelBuilder &k, Value count, int64_t stages, ValueRange carried,
         function_ref<void(Value slice, Value stage)> copy,
         function_ref<SmallVector<Value>(Value slice, Value stage, ValueRange)>
             compute);

/// left [m, depth] times right [depth, n], summed in the registers of the
/// workgroup's threads. Each of warpsM x warpsN warps owns one rectangle.
class GpuProduct {
public:
  /// Whether an operand lies in shared memory as the product reads it, [m,
  /// depth] and [depth, n], or transposed.
  struct Shape {
    int64_t m, n, warpsM, warpsN;
    bool leftTransposed = false, rightTransposed = false;
  };
  GpuProduct(KernelBuilder &k, TileMath math, Shape shape);

  /// depth of multiply() must be a multiple of this.
  static int64_t depthStep(TileMath math);
  /// Numbers a thread holds.
  int64_t size() const { return rowsHeld() * columnsHeld(); }
  int64_t rowsHeld() const;
  int64_t columnsHeld() const;

  SmallVector<Value> zeros();
  SmallVector<Value> multiply(ValueRange sums, const SharedTile &left,
                              const SharedTile &right, int64_t depth);

  /// The rows of which this thread holds sums.
  Value row(int64_t i);
  /// What a thread knows of a row, combined over the lanes of its warp that
  /// hold parts of the same row. All of them get the result.
  Value combineRow(Value value, function_ref<Value(Value, Value)> combine);
  /// i1: true in one of these lanes.
  Value isRowLeader();
  /// The rows' parts of this warp among those of the warps beside it: 0 ..
  /// warpsN - 1.
  Value warpColumn() const { return warpN; }

  /// Visits groups of `width()` sums that are neighbours in a row; `i` is the
  /// number of the row as in row().
  using Visit = function_ref<void(int64_t i, Value row, Value column,
                                  MutableArrayRef<Value> values)>;
  int64_t width() const;
  void visit(SmallVectorImpl<Value> &sums, Visit body);
  void visit(ValueRange sums, Visit body) {
    SmallVector<Value> copy(sums);
    visit(copy, body);
  }

private:
  bool onTensorCores() const { return math != TileMath::Fma; }
  /// Fragments of one 16-deep step: for each 16 rows (columns) the registers of
  /// nvvm.mma.sync, for each term of a split number.
  using Fragments = SmallVector<SmallVector<Value>>;
  void leftFragments(const SharedTile &tile, Value depth,
                     SmallVectorImpl<Fragments> &terms);
  void rightFragments(const SharedTile &tile, Value depth,
                      SmallVectorImpl<Fragments> &terms);
  SmallVector<Value> multiplyTensor(ValueRange sums, const SharedTile &left,
                                    const SharedTile &right, Value depth);
  SmallVector<Value> multiplyScalar(ValueRange sums, const SharedTile &left,
                                    const SharedTile &right, Value depth);
  /// Fma: operand values of four terms, [term][row or column].
  void scalarOperand(const SharedTile &tile, Value depth, bool depthInRow,
                     bool isLeft, SmallVector<SmallVector<Value>, 4> &values);
  int64_t terms() const;
  Value column(int64_t j);

  KernelBuilder &k;
  TileMath math;
  Shape shape;
  int64_t warpRows, warpColumns; ///< of a warp's rectangle
  int64_t rowGroup = 1, columnGroup = 1;
  Value lane, warpM, warpN, firstRow, firstColumn;
};

/// Stores neighbours of a row at the last index and behind it, those before
/// `end` (null: all), converted to the buffer's element type; in one access
/// where `granule` (as in TileSource) allows it.
void storeNeighbours(KernelBuilder &k, ArrayRef<Value> values, Value memref,
                     ValueRange indices, int64_t granule, Value end = {});
/// Loads neighbours as f32.
SmallVector<Value> loadNeighbours(KernelBuilder &k, int64_t count, Value memref,
                                  ValueRange indices, int64_t granule);

} // namespace mlir::megalodon
