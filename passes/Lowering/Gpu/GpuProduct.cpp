// Products of tiles in shared memory: fragments for tensor cores, or values for
// multiply-adds.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/NVGPU/IR/NVGPUDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "passes/Lowering/Gpu/GpuTiles.h"

namespace mlir::megalodon {

// One tensor-core instruction (mma.sync m16n8k16) multiplies 16 x 16 by 16 x 8.
// Of its sums, lane 4 g + t holds columns 2 t, 2 t + 1 of rows g and g + 8.
static constexpr int64_t kMmaRows = 16, kMmaColumns = 8, kMmaDepth = 16;
// The lanes of a warp that multiply scalars: 4 rows of 8.
static constexpr int64_t kLaneRows = 4, kLaneColumns = 8;
// Terms whose operands a thread loads at once.
static constexpr int64_t kScalarDepth = 4;

GpuProduct::GpuProduct(KernelBuilder &k, TileMath math, Shape shape)
    : k(k), math(math), shape(shape), warpRows(shape.m / shape.warpsM),
      warpColumns(shape.n / shape.warpsN) {
  assert(shape.warpsM * shape.warpsN * kWarpThreads == k.threadCount() &&
         "expected a rectangle for every warp");
  assert(shape.m % shape.warpsM == 0 && shape.n % shape.warpsN == 0);
  assert(warpRows % 16 == 0 && warpColumns % 16 == 0 &&
         "expected rectangles of whole fragments");
  lane = k.lane();
  Value warp = k.warp();
  warpM = k.div(warp, k.index(shape.warpsN));
  warpN = k.rem(warp, k.index(shape.warpsN));
  Value inRows, inColumns;
  if (onTensorCores()) {
    inRows = k.div(lane, k.index(4));
    inColumns = k.mul(k.rem(lane, k.index(4)), k.index(2));
  } else {
    // What lies side by side in shared memory is loaded at once. The lanes'
    // addresses are then neighbours either way.
    if (shape.leftTransposed)
      rowGroup = std::min<int64_t>(kScalarDepth, warpRows / kLaneRows);
    if (!shape.rightTransposed)
      columnGroup = std::min<int64_t>(kScalarDepth, warpColumns / kLaneColumns);
    inRows = k.mul(k.div(lane, k.index(kLaneColumns)), k.index(rowGroup));
    inColumns = k.mul(k.rem(lane, k.index(kLaneColumns)), k.index(columnGroup));
  }
  firstRow = k.add(k.mul(warpM, k.index(warpRows)), inRows);
  firstColumn = k.add(k.mul(warpN, k.index(warpColumns)), inColumns);
}

int64_t GpuProduct::depthStep(TileMath math) {
  return math == TileMath::Fma ? kScalarDepth : kMmaDepth;
}

int64_t GpuProduct::terms() const {
  return math == TileMath::Bf16x6 ? 3 : math == TileMath::Bf16x3 ? 2 : 1;
}

int64_t GpuProduct::rowsHeld() const {
  return warpRows / (onTensorCores() ? 8 : kLaneRows);
}

int64_t GpuProduct::columnsHeld() const {
  return warpColumns / (onTensorCores() ? 4 : kLaneColumns);
}

SmallVector<Value> GpuProduct::zeros() {
  return SmallVector<Value>(size(), k.constant(0.0, k.b.getF32Type()));
}

Value GpuProduct::row(int64_t i) {
  const int64_t offset =
      onTensorCores() ? i * 8
                      : i / rowGroup * (kLaneRows * rowGroup) + i % rowGroup;
  return k.add(firstRow, k.index(offset));
}

/// Of column group j: the first column.
Value GpuProduct::column(int64_t j) {
  return k.add(firstColumn,
               k.index(j * (onTensorCores() ? kMmaColumns
                                            : kLaneColumns * columnGroup)));
}

int64_t GpuProduct::width() const { return onTensorCores() ? 2 : columnGroup; }

void GpuProduct::visit(SmallVectorImpl<Value> &sums, Visit body) {
  const int64_t groups = columnsHeld() / width();
  for (int64_t i = 0; i < rowsHeld(); ++i)
    for (int64_t j = 0; j < groups; ++j) {
      // On tensor cores rows i and i + 1 of an instruction are one fragment.
      const int64_t at = onTensorCores()
                             ? ((i / 2) * groups + j) * 4 + (i % 2) * 2
                             : i * columnsHeld() + j * columnGroup;
      body(i, row(i), column(j),
           MutableArrayRef<Value>(sums).slice(at, width()));
    }
}

Value GpuProduct::combineRow(Value value,
                             function_ref<Value(Value, Value)> combine) {
  for (int64_t mask = 1; mask < (onTensorCores() ? 4 : kLaneColumns); mask *= 2)
    value = combine(value, k.shuffleXor(value, mask));
  return value;
}

Value GpuProduct::isRowLeader() {
  Value inRow = k.rem(lane, k.index(onTensorCores() ? 4 : kLaneColumns));
  return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, inRow,
                               k.index(0));
}

SmallVector<Value> GpuProduct::multiply(ValueRange sums, const SharedTile &left,
                                        const SharedTile &right,
                                        int64_t depth) {
  const int64_t step = depthStep(math);
  assert(depth % step == 0 && "expected whole steps");
  auto once = [&](ValueRange sums, Value at) {
    return onTensorCores() ? multiplyTensor(sums, left, right, at)
                           : multiplyScalar(sums, left, right, at);
  };
  // Two steps a turn: the second's operands are loaded while the first is
  // multiplied.
  const int64_t unrolled =
      onTensorCores() && depth % (2 * step) == 0 ? 2 * step : step;
  auto turn = [&](Value at, ValueRange sums) {
    SmallVector<Value> next(sums);
    for (int64_t offset = 0; offset < unrolled; offset += step)
      next = once(next, k.add(at, k.index(offset)));
    return next;
  };
  if (depth == unrolled)
    return turn(k.index(0), sums);
  return k.loop(k.index(0), k.index(depth), unrolled, sums, turn);
}

//===-- Tensor cores
//---------------------------------------------------------------------------------------------------===//

/// Two bf16 as the 32-bit register that an instruction takes.
static Value packed(KernelBuilder &k, Value pair) {
  auto type = VectorType::get({1}, k.b.getI32Type());
  return vector::ExtractOp::create(
      k.b, vector::BitCastOp::create(k.b, type, pair), int64_t(0));
}

SmallVector<Value> splitTerms(KernelBuilder &k, Value pair, int64_t terms) {
  SmallVector<Value> registers;
  for (int64_t term = 0; term < terms; ++term) {
    Value rounded = k.toFloat(pair, k.b.getBF16Type());
    registers.push_back(packed(k, rounded));
    if (term + 1 < terms)
      pair = k.sub(pair, k.toFloat(rounded, k.b.getF32Type()));
  }
  return registers;
}

/// Four 8 x 8 matrices of bf16 for the lanes of a warp. Lane l names row l % 8
/// of matrix l / 8.
static SmallVector<Value> loadMatrices(KernelBuilder &k, const SharedTile &tile,
                                       Value row, Value column,
                                       bool transposed) {
  auto type = VectorType::get({4, 2}, k.b.getBF16Type());
  Value matrices = nvgpu::LdMatrixOp::create(
      k.b, type, tile.memref, tile.indices(k, row, column), transposed, 4);
  SmallVector<Value> registers;
  for (int64_t i = 0; i < 4; ++i)
    registers.push_back(packed(k, vector::ExtractOp::create(k.b, matrices, i)));
  return registers;
}

/// The two f32 numbers at [row, column] and [row, column + 1], or, transposed,
/// at [column, row] and [column + 1, row].
static Value loadPair(KernelBuilder &k, const SharedTile &tile, Value row,
                      Value column, bool transposed) {
  auto type = VectorType::get({2}, k.b.getF32Type());
  if (!transposed)
    return vector::LoadOp::create(k.b, type, tile.memref,
                                  tile.indices(k, row, column),
                                  /*nontemporal=*/false, llvm::Align(8));
  Value next = k.add(column, k.index(1));
  SmallVector<Value> values = {
      k.loadScalar(tile.memref, tile.indices(k, column, row)),
      k.loadScalar(tile.memref, tile.indices(k, next, row))};
  return vector::FromElementsOp::create(k.b, type, values);
}

// Register i of the left fragment of lane 4 g + t: row g + 8 (i % 2), terms 2 t
// and 2 t + 1 from 8 (i / 2) on.
void GpuProduct::leftFragments(const SharedTile &tile, Value depth,
                               SmallVectorImpl<Fragments> &split) {
  Value warpRow = k.mul(warpM, k.index(warpRows));
  split.resize(terms());
  for (int64_t first = 0; first < warpRows; first += kMmaRows) {
    Value row = k.add(warpRow, k.index(first));
    if (math == TileMath::Bf16) {
      Value low = k.rem(lane, k.index(8)), high = k.div(lane, k.index(16)),
            middle = k.rem(k.div(lane, k.index(8)), k.index(2));
      Value inRows = k.add(low, k.mul(middle, k.index(8))),
            inDepth = k.mul(high, k.index(8));
      if (shape.leftTransposed) {
        inDepth = k.add(low, k.mul(high, k.index(8)));
        inRows = k.mul(middle, k.index(8));
        split[0].push_back(loadMatrices(k, tile, k.add(depth, inDepth),
                                        k.add(row, inRows), true));
      } else {
        split[0].push_back(loadMatrices(k, tile, k.add(row, inRows),
                                        k.add(depth, inDepth), false));
      }
      continue;
    }
    for (Fragments &fragments : split)
      fragments.emplace_back();
    Value inRows = k.add(row, k.div(lane, k.index(4))),
          inDepth = k.add(depth, k.mul(k.rem(lane, k.index(4)), k.index(2)));
    for (int64_t i = 0; i < 4; ++i) {
      Value pair =
          loadPair(k, tile, k.add(inRows, k.index(8 * (i % 2))),
                   k.add(inDepth, k.index(8 * (i / 2))), shape.leftTransposed);
      for (auto [term, value] : llvm::enumerate(splitTerms(k, pair, terms())))
        split[term].back().push_back(value);
    }
  }
}

// Register i of the right fragment of lane 4 g + t: column g, terms 2 t and 2 t
// + 1 from 8 i on.
void GpuProduct::rightFragments(const SharedTile &tile, Value depth,
                                SmallVectorImpl<Fragments> &split) {
  Value warpColumn = k.mul(warpN, k.index(warpColumns));
  split.resize(terms());
  for (int64_t first = 0; first < warpColumns; first += 2 * kMmaColumns) {
    Value column = k.add(warpColumn, k.index(first));
    if (math == TileMath::Bf16) {
      // Two fragments at once.
      Value low = k.rem(lane, k.index(8)), high = k.div(lane, k.index(16)),
            middle = k.rem(k.div(lane, k.index(8)), k.index(2));
      SmallVector<Value> registers;
      if (shape.rightTransposed) {
        Value inColumns = k.add(low, k.mul(high, k.index(8))),
              inDepth = k.mul(middle, k.index(8));
        registers = loadMatrices(k, tile, k.add(column, inColumns),
                                 k.add(depth, inDepth), false);
      } else {
        Value inDepth = k.add(low, k.mul(middle, k.index(8))),
              inColumns = k.mul(high, k.index(8));
        registers = loadMatrices(k, tile, k.add(depth, inDepth),
                                 k.add(column, inColumns), true);
      }
      split[0].push_back({registers[0], registers[1]});
      split[0].push_back({registers[2], registers[3]});
      continue;
    }
    for (int64_t half = 0; half < 2; ++half) {
      for (Fragments &fragments : split)
        fragments.emplace_back();
      Value inColumns = k.add(
          column, k.add(k.index(half * kMmaColumns), k.div(lane, k.index(4))));
      Value inDepth = k.add(depth, k.mul(k.rem(lane, k.index(4)), k.index(2)));
      for (int64_t i = 0; i < 2; ++i) {
        Value pair =
            loadPair(k, tile, inColumns, k.add(inDepth, k.index(8 * i)),
                     !shape.rightTransposed);
        for (auto [term, value] : llvm::enumerate(splitTerms(k, pair, terms())))
          split[term].back().push_back(value);
      }
    }
  }
}

void multiplyFragments(KernelBuilder &k, ArrayRef<Value> left,
                       ArrayRef<Value> right, MutableArrayRef<Value> sums) {
  Type f32 = k.b.getF32Type();
  auto result =
      LLVM::LLVMStructType::getLiteral(k.b.getContext(), {f32, f32, f32, f32});
  Value d = NVVM::MmaOp::create(
      k.b, result, left, right, ValueRange(sums),
      {kMmaRows, kMmaColumns, kMmaDepth}, std::nullopt, std::nullopt,
      std::array{NVVM::MMATypes::bf16, NVVM::MMATypes::bf16},
      std::array{NVVM::MMALayout::row, NVVM::MMALayout::col});
  for (int64_t i = 0; i < 4; ++i)
    sums[i] = LLVM::ExtractValueOp::create(k.b, d, i);
}

SmallVector<Value> GpuProduct::multiplyTensor(ValueRange sums,
                                              const SharedTile &left,
                                              const SharedTile &right,
                                              Value depth) {
  SmallVector<Fragments> lefts, rights;
  leftFragments(left, depth, lefts);
  rightFragments(right, depth, rights);
  // Products of split numbers from the smallest to the largest; those below the
  // last term's error are left out.
  SmallVector<std::pair<int64_t, int64_t>> pairs;
  for (int64_t order = terms() - 1; order >= 0; --order)
    for (int64_t i = order; i >= 0; --i)
      pairs.push_back({i, order - i});
  SmallVector<Value> next(sums);
  const int64_t columns = warpColumns / kMmaColumns;
  for (auto [l, r] : pairs)
    for (int64_t i = 0; i < warpRows / kMmaRows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        multiplyFragments(
            k, lefts[l][i], rights[r][j],
            MutableArrayRef<Value>(next).slice((i * columns + j) * 4, 4));
  return next;
}

//===-- Multiply-adds
//---------------------------------------------------------------------------------------------------===//

void GpuProduct::scalarOperand(const SharedTile &tile, Value depth,
                               bool depthInRow, bool isLeft,
                               SmallVector<SmallVector<Value>, 4> &values) {
  const int64_t held = isLeft ? rowsHeld() : columnsHeld(),
                group = isLeft ? rowGroup : columnGroup;
  Type f32 = k.b.getF32Type();
  values.assign(kScalarDepth, SmallVector<Value>(held));
  auto load = [&](int64_t count, Value row, Value column) -> Value {
    return vector::LoadOp::create(k.b, VectorType::get({count}, f32),
                                  tile.memref, tile.indices(k, row, column),
                                  /*nontemporal=*/false,
                                  llvm::Align(4 * count));
  };
  for (int64_t i = 0; i < held; i += group) {
    Value place = isLeft ? row(i) : column(i / group);
    if (depthInRow) {
      Value loaded = load(kScalarDepth, place, depth);
      for (int64_t t = 0; t < kScalarDepth; ++t)
        values[t][i] = vector::ExtractOp::create(k.b, loaded, t);
      continue;
    }
    for (int64_t t = 0; t < kScalarDepth; ++t) {
      Value loaded = load(group, k.add(depth, k.index(t)), place);
      for (int64_t j = 0; j < group; ++j)
        values[t][i + j] = vector::ExtractOp::create(k.b, loaded, j);
    }
  }
}

SmallVector<Value> GpuProduct::multiplyScalar(ValueRange sums,
                                              const SharedTile &left,
                                              const SharedTile &right,
                                              Value depth) {
  SmallVector<SmallVector<Value>, 4> lefts, rights;
  scalarOperand(left, depth, !shape.leftTransposed, true, lefts);
  scalarOperand(right, depth, shape.rightTransposed, false, rights);
  SmallVector<Value> next(sums);
  for (int64_t t = 0; t < kScalarDepth; ++t)
    for (int64_t i = 0; i < rowsHeld(); ++i)
      for (int64_t j = 0; j < columnsHeld(); ++j) {
        Value &sum = next[i * columnsHeld() + j];
        sum = k.fma(lefts[t][i], rights[t][j], sum);
      }
  return next;
}

} // namespace mlir::megalodon
