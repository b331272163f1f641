#include "passes/Lowering/TileProduct.h"

namespace mlir::megalodon {

TileShape TileShape::of(const LoweringOptions &options) {
  // Accumulators, one vector a column of the tile and one broadcast must fit
  // the registers; the latency of fma (4 cycles, 2 a cycle) wants at least 8
  // accumulators.
  return options.vectorRegisters >= 32 ? TileShape{8, 2} : TileShape{4, 2};
}

SmallVector<Value, 4> MatrixView::at(KernelBuilder &k, Value row,
                                     Value column) const {
  SmallVector<Value, 4> indices(prefix.begin(), prefix.end());
  indices.push_back(firstRow ? k.add(firstRow, row) : row);
  indices.push_back(firstColumn ? k.add(firstColumn, column) : column);
  return indices;
}

SmallVector<Value>
multiplyTile(KernelBuilder &k, TileShape tile, Value from, Value to,
             ValueRange accumulators,
             function_ref<Value(int64_t row, Value t)> left,
             function_ref<Value(int64_t vector, Value t)> right) {
  return k.loop(from, to, 1, accumulators,
                [&](Value t, ValueRange carried) -> SmallVector<Value> {
                  SmallVector<Value> vectors, sums;
                  for (int64_t j = 0; j < tile.vectors; ++j)
                    vectors.push_back(right(j, t));
                  for (int64_t i = 0; i < tile.rows; ++i) {
                    Value scalar = k.splat(left(i, t));
                    for (int64_t j = 0; j < tile.vectors; ++j)
                      sums.push_back(k.fma(scalar, vectors[j],
                                           carried[i * tile.vectors + j]));
                  }
                  return sums;
                });
}

SmallVector<Value>
multiplyTile(KernelBuilder &k, TileShape tile, Type element, Value from,
             Value to, function_ref<Value(int64_t row, Value t)> left,
             function_ref<Value(int64_t vector, Value t)> right) {
  SmallVector<Value> zeros(tile.rows * tile.vectors,
                           k.constant(0.0, k.vectorType(element)));
  return multiplyTile(k, tile, from, to, zeros, left, right);
}

/// The lanes of vector `j` of a panel at `column` that lie before `columnEnd`.
static Value columnMask(KernelBuilder &k, Type element, Value column,
                        Value columnEnd, int64_t j) {
  if (!columnEnd)
    return {};
  // A negative number of lanes is none.
  Value left = k.sub(columnEnd, k.add(column, k.index(j * k.lanes(element))));
  return vector::CreateMaskOp::create(
      k.b, VectorType::get(k.lanes(element), k.b.getI1Type()), left);
}

static Type elementOf(Value memref) {
  return cast<MemRefType>(memref.getType()).getElementType();
}

void packRows(KernelBuilder &k, int64_t vectors, const MatrixView &source,
              Value row, Value count, Value column, Value columnEnd,
              Value panel, Value panelRow, Value panelColumn) {
  Type element = elementOf(panel);
  int64_t lanes = k.lanes(element);
  SmallVector<Value> masks;
  for (int64_t j = 0; j < vectors; ++j)
    masks.push_back(columnMask(k, element, column, columnEnd, j));
  k.loop(k.index(0), count, 1, [&](Value t) {
    for (int64_t j = 0; j < vectors; ++j) {
      Value offset = k.index(j * lanes);
      Value value =
          k.load(source.memref,
                 source.at(k, k.add(row, t), k.add(column, offset)), masks[j]);
      k.store(value, panel, {k.add(panelRow, t), k.add(panelColumn, offset)});
    }
  });
}

/// Transposes a square of vectors in place by swapping ever larger blocks.
static void transposeSquare(KernelBuilder &k, MutableArrayRef<Value> rows) {
  const int64_t lanes = rows.size();
  for (int64_t block = 1; block < lanes; block *= 2) {
    SmallVector<int64_t> low, high;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      low.push_back(lane & block ? lanes + lane - block : lane);
      high.push_back(lane & block ? lanes + lane : lane + block);
    }
    for (int64_t i = 0; i < lanes; ++i) {
      if (i & block)
        continue;
      Value first = rows[i], second = rows[i + block];
      rows[i] = vector::ShuffleOp::create(k.b, first, second, low);
      rows[i + block] = vector::ShuffleOp::create(k.b, first, second, high);
    }
  }
}

void packTransposed(KernelBuilder &k, int64_t vectors, const MatrixView &source,
                    Value row, Value rowEnd, Value column, Value depth,
                    bool wholeDepth, Value panel, ValueRange panelPrefix) {
  Type element = elementOf(panel);
  int64_t lanes = k.lanes(element);
  Value lastRow = k.sub(rowEnd, k.index(1));
  for (int64_t j = 0; j < vectors; ++j) {
    SmallVector<Value> sourceRows;
    for (int64_t i = 0; i < lanes; ++i)
      sourceRows.push_back(k.min(k.add(row, k.index(j * lanes + i)), lastRow));
    k.loop(k.index(0), depth, lanes, [&](Value t) {
      Value mask = columnMask(k, element, t, wholeDepth ? Value() : depth, 0);
      SmallVector<Value> square;
      for (Value sourceRow : sourceRows)
        square.push_back(k.load(
            source.memref, source.at(k, sourceRow, k.add(column, t)), mask));
      transposeSquare(k, square);
      for (int64_t i = 0; i < lanes; ++i) {
        SmallVector<Value, 3> indices(panelPrefix);
        indices.push_back(k.add(t, k.index(i)));
        indices.push_back(k.index(j * lanes));
        k.store(square[i], panel, indices);
      }
    });
  }
}

void BlockProduct::emit(KernelBuilder &k, Type element) const {
  const TileShape tile = TileShape::of(k.getOptions());
  const int64_t lanes = k.lanes(element), width = tile.vectors * lanes;
  Value zero = k.index(0);
  Value panel = k.scratch({kDepthBlock, width}, element);
  Value lastRow = k.sub(rows, k.index(1));
  Value zeros = k.constant(0.0, k.vectorType(element));

  k.loop(zero, depth, kDepthBlock, [&](Value t) {
    Value count = k.min(k.index(kDepthBlock), k.sub(depth, t));
    Value isFirst = k.less(t, k.index(1));
    Value isLast = k.less(depth, k.add(t, k.index(kDepthBlock + 1)));
    if (enterDepthBlock)
      enterDepthBlock(t, count);
    k.loop(columnBegin, columnEnd, width, [&](Value column) {
      pack(t, count, column, panel);
      SmallVector<Value> columns, masks;
      for (int64_t j = 0; j < tile.vectors; ++j) {
        columns.push_back(k.add(column, k.index(j * lanes)));
        masks.push_back(columnMask(k, element, column,
                                   wholePanels ? Value() : columnEnd, j));
      }
      k.loop(zero, rows, tile.rows, [&](Value row) {
        // The sums of earlier depth blocks wait in `out`.
        SmallVector<Value> sums;
        for (int64_t i = 0; i < tile.rows; ++i) {
          Value clamped = k.min(k.add(row, k.index(i)), lastRow);
          for (int64_t j = 0; j < tile.vectors; ++j)
            sums.push_back(k.select(
                isFirst, zeros,
                k.load(out.memref, out.at(k, clamped, columns[j]), masks[j])));
        }
        auto [from, to] =
            terms ? terms(row, t, count) : std::make_pair(zero, count);
        auto leftAt = left(row, t);
        sums = multiplyTile(
            k, tile, from, to, sums,
            [&](int64_t i, Value s) { return leftAt(i, s); },
            [&](int64_t j, Value s) {
              return k.load(panel, {s, k.index(j * lanes)});
            });
        if (finish)
          for (int64_t i = 0; i < tile.rows; ++i)
            for (int64_t j = 0; j < tile.vectors; ++j) {
              Value &sum = sums[i * tile.vectors + j];
              sum = k.select(isLast,
                             finish(sum, k.min(k.add(row, k.index(i)), lastRow),
                                    columns[j], masks[j]),
                             sum);
            }
        for (int64_t i = 0; i < tile.rows; ++i) {
          Value at = k.add(row, k.index(i));
          k.when(k.less(at, rows), [&] {
            for (int64_t j = 0; j < tile.vectors; ++j)
              k.store(sums[i * tile.vectors + j], out.memref,
                      out.at(k, at, columns[j]), masks[j]);
          });
        }
      });
    });
  });
}

} // namespace mlir::megalodon
