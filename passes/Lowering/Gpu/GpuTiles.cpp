#include "passes/Lowering/Gpu/GpuTiles.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/NVGPU/IR/NVGPUDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {

/// Bytes of one access, and of the padding of a row in shared memory.
static constexpr int64_t kAccessBytes = 16;

static int64_t byteWidth(Type element) {
  return element.getIntOrFloatBitWidth() / 8;
}

static Value signedLess(KernelBuilder &k, Value x, Value y) {
  return arith::CmpIOp::create(k.b, arith::CmpIPredicate::slt, x, y);
}

static Value both(KernelBuilder &k, Value x, Value y) {
  if (!x || !y)
    return x ? x : y;
  return arith::AndIOp::create(k.b, x, y);
}

Type tileElement(KernelBuilder &k, TileMath math) {
  return math == TileMath::Bf16 ? Type(k.b.getBF16Type())
                                : Type(k.b.getF32Type());
}

//===-- Shared memory
//---------------------------------------------------------------------------------------------------===//

static int64_t pitchOf(int64_t columns, Type element) {
  return columns + kAccessBytes / byteWidth(element);
}

SharedTile SharedTile::create(KernelBuilder &k, int64_t rows, int64_t columns,
                              Type element, int64_t stages) {
  SharedTile tile;
  tile.memref = k.scratch({stages, rows, pitchOf(columns, element)}, element);
  tile.rows = rows;
  tile.columns = columns;
  return tile;
}

int64_t SharedTile::bytes(int64_t rows, int64_t columns, Type element,
                          int64_t stages) {
  // scratch() aligns to 128 bytes.
  return llvm::alignTo(
      stages * rows * pitchOf(columns, element) * byteWidth(element), 128);
}

SharedTile SharedTile::at(Value stage) const {
  SharedTile tile = *this;
  tile.stage = stage;
  return tile;
}

SharedTile SharedTile::from(KernelBuilder &k, Value row, Value column) const {
  SharedTile tile = *this;
  tile.firstRow = firstRow ? k.add(firstRow, row) : row;
  tile.firstColumn = firstColumn ? k.add(firstColumn, column) : column;
  return tile;
}

SmallVector<Value, 4> SharedTile::indices(KernelBuilder &k, Value row,
                                          Value column) const {
  return {stage ? stage : k.index(0), firstRow ? k.add(firstRow, row) : row,
          firstColumn ? k.add(firstColumn, column) : column};
}

Type SharedTile::element() const {
  return cast<MemRefType>(memref.getType()).getElementType();
}

//===-- Copies
//---------------------------------------------------------------------------------------------------===//

namespace {
/// The pieces of which a tile is made.
struct PieceCopy {
  KernelBuilder &k;
  const SharedTile &tile;
  const TileSource &source;
  Value row, column;
  int64_t elements;
  bool async;

  void copy(Value piece) const {
    const int64_t piecesPerRow = tile.columns / elements;
    Value inRow = k.rem(piece, k.index(piecesPerRow));
    Value tileRow = k.div(piece, k.index(piecesPerRow)),
          tileColumn = k.mul(inRow, k.index(elements));
    Value sourceRow = k.add(row, tileRow),
          sourceColumn = k.add(column, tileColumn), valid;
    if (source.rowBegin)
      valid = arith::CmpIOp::create(k.b, arith::CmpIPredicate::sge, sourceRow,
                                    source.rowBegin);
    if (source.rowEnd)
      valid = both(k, valid, signedLess(k, sourceRow, source.rowEnd));
    if (source.columns >= 0)
      valid = both(k, valid, k.less(sourceColumn, k.index(source.columns)));
    auto from = [&](const MatrixView &matrix) {
      SmallVector<Value, 4> at = matrix.at(k, sourceRow, sourceColumn);
      // A piece that is not there reads nothing, but its address must lie in
      // the buffer.
      if (valid)
        for (Value &index : MutableArrayRef(at).take_back(2))
          index = k.select(valid, index, k.index(0));
      move(matrix.memref, at, tile.indices(k, tileRow, tileColumn), valid);
    };
    if (source.split)
      k.when(
          signedLess(k, sourceRow, source.split), [&] { from(source.before); },
          [&] { from(source.matrix); });
    else
      from(source.matrix);
  }

  void move(Value memref, ValueRange from, ValueRange to, Value valid) const {
    Type element = cast<MemRefType>(memref.getType()).getElementType();
    if (async) {
      Value count =
          valid ? k.select(valid, k.index(elements), k.index(0)) : Value();
      // Only 16 bytes can pass by the first cache.
      const bool whole = elements * byteWidth(element) == kAccessBytes;
      nvgpu::DeviceAsyncCopyOp::create(k.b, tile.memref, to, memref, from,
                                       k.b.getIndexAttr(elements), count,
                                       whole ? k.b.getUnitAttr() : UnitAttr());
      return;
    }
    auto type = VectorType::get({elements}, element);
    Value loaded =
        vector::LoadOp::create(k.b, type, memref, from, /*nontemporal=*/false,
                               llvm::Align(elements * byteWidth(element)));
    if (valid) {
      Value zero = arith::ConstantOp::create(k.b, k.b.getZeroAttr(type));
      loaded = k.select(valid, loaded, zero);
    }
    Type wanted = tile.element();
    if (wanted != element)
      loaded = k.toFloat(loaded, wanted);
    vector::StoreOp::create(k.b, loaded, tile.memref, to, /*nontemporal=*/false,
                            llvm::Align(elements * byteWidth(wanted)));
  }
};
} // namespace

void copyTile(KernelBuilder &k, const SharedTile &tile,
              const TileSource &source, Value row, Value column) {
  constexpr int64_t kUnrolledPieces = 1;
  Type from = cast<MemRefType>(source.matrix.memref.getType()).getElementType();
  int64_t elements =
      kAccessBytes / std::max(byteWidth(from), byteWidth(tile.element()));
  while (source.granule % elements || tile.columns % elements)
    elements /= 2;
  const bool async = from == tile.element() && elements * byteWidth(from) >= 4;
  const int64_t pieces = tile.rows * (tile.columns / elements),
                threads = k.threadCount();
  auto all = [&](const TileSource &source) {
    PieceCopy copy{k, tile, source, row, column, elements, async};
    if (pieces > kUnrolledPieces * threads || pieces % threads != 0)
      return k.loop(k.thread(), k.index(pieces), threads,
                    [&](Value piece) { copy.copy(piece); });
    for (int64_t i = 0; i < pieces; i += threads)
      copy.copy(k.add(k.thread(), k.index(i)));
  };
  if (!source.split)
    return all(source);
  TileSource without = source;
  without.split = Value();
  k.when(
      signedLess(k, row, source.split), [&] { all(source); },
      [&] { all(without); });
}

static Value closeGroup(KernelBuilder &k) {
  auto group = nvgpu::DeviceAsyncCreateGroupOp::create(
      k.b, nvgpu::DeviceAsyncTokenType::get(k.b.getContext()), ValueRange());
  // Printed without operands the op would swallow what begins the next line.
  group->setAttr("tiles", k.b.getUnitAttr());
  return group;
}

static void waitForGroups(KernelBuilder &k, Value group, int64_t running) {
  nvgpu::DeviceAsyncWaitOp::create(k.b, group, k.b.getI32IntegerAttr(running));
}

void closeCopies(KernelBuilder &k) { closeGroup(k); }

void waitForCopies(KernelBuilder &k, int64_t running) {
  // The op wants a group; which one does not matter, they end in order. An
  // empty one of its own counts as running.
  waitForGroups(k, closeGroup(k), running ? running + 1 : 0);
}

SmallVector<Value>
pipeline(KernelBuilder &k, Value count, int64_t stages, ValueRange carried,
         function_ref<void(Value, Value)> copy,
         function_ref<SmallVector<Value>(Value, Value, ValueRange)> compute) {
  assert(stages >= 2 && "expected a stage to compute from and one to fill");
  k.barrier();
  Value group;
  for (int64_t ahead = 0; ahead + 1 < stages; ++ahead) {
    k.when(k.less(k.index(ahead), count),
           [&] { copy(k.index(ahead), k.index(ahead)); });
    group = closeGroup(k);
  }
  auto step = [&](Value slice, ValueRange sums) {
    waitForGroups(k, group, stages - 2);
    // Everybody's copies are here, and nobody reads the stage that is filled
    // next.
    k.barrier();
    Value next = k.add(slice, k.index(stages - 1));
    k.when(k.less(next, count),
           [&] { copy(next, k.rem(next, k.index(stages))); });
    closeGroup(k);
    return compute(slice, k.rem(slice, k.index(stages)), sums);
  };
  SmallVector<Value> result;
  if (carried.empty())
    k.loop(k.index(0), count, 1, [&](Value slice) { step(slice, {}); });
  else
    result = k.loop(k.index(0), count, 1, carried, step);
  // The last groups are empty; no thread ends with a group under way.
  waitForGroups(k, group, 0);
  return result;
}

//===-- Neighbours in a row
//---------------------------------------------------------------------------------------------------===//

void storeNeighbours(KernelBuilder &k, ArrayRef<Value> values, Value memref,
                     ValueRange indices, int64_t granule, Value end) {
  Type element = cast<MemRefType>(memref.getType()).getElementType();
  const int64_t count = values.size();
  Value column = indices.back();
  auto guarded = [&](Value at, function_ref<void()> store) {
    if (end)
      k.when(k.less(at, end), store);
    else
      store();
  };
  if (granule % count == 0) {
    auto type = VectorType::get({count}, values[0].getType());
    Value together = vector::FromElementsOp::create(k.b, type, values);
    if (element != values[0].getType())
      together = k.toFloat(together, element);
    guarded(column, [&] {
      vector::StoreOp::create(k.b, together, memref, indices,
                              /*nontemporal=*/false,
                              llvm::Align(count * byteWidth(element)));
    });
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    SmallVector<Value> at(indices);
    at.back() = k.add(column, k.index(i));
    guarded(at.back(), [&] {
      Value value = element == values[i].getType()
                        ? values[i]
                        : k.toFloat(values[i], element);
      memref::StoreOp::create(k.b, value, memref, at);
    });
  }
}

SmallVector<Value> loadNeighbours(KernelBuilder &k, int64_t count, Value memref,
                                  ValueRange indices, int64_t granule) {
  Type element = cast<MemRefType>(memref.getType()).getElementType();
  Type f32 = k.b.getF32Type();
  SmallVector<Value> values;
  if (granule % count == 0) {
    Value together = vector::LoadOp::create(
        k.b, VectorType::get({count}, element), memref, indices,
        /*nontemporal=*/false, llvm::Align(count * byteWidth(element)));
    if (element != f32)
      together = k.toFloat(together, f32);
    for (int64_t i = 0; i < count; ++i)
      values.push_back(vector::ExtractOp::create(k.b, together, i));
    return values;
  }
  for (int64_t i = 0; i < count; ++i) {
    SmallVector<Value> at(indices);
    at.back() = k.add(at.back(), k.index(i));
    Value value = memref::LoadOp::create(k.b, memref, at);
    values.push_back(element == f32 ? value : k.toFloat(value, f32));
  }
  return values;
}

} // namespace mlir::megalodon
