#include "mlir/Dialect/Arith/IR/Arith.h"
#include "passes/Lowering/Gpu/GpuAttention.h"
#include "llvm/ADT/bit.h"
#include "llvm/Support/MathExtras.h"
#include <numeric>

namespace mlir::megalodon {

//===-- Form
//---------------------------------------------------------------------------------------------------===//

bool fitsGpuAttention(const AttentionShape &shape) {
  return shape.element.isF32() || shape.element.isBF16();
}

int64_t GpuAttentionForm::blocksPerChunk(const AttentionShape &shape) const {
  return llvm::divideCeil(shape.chunk, block);
}

int64_t GpuAttentionForm::columnBlock(int64_t width) const {
  return std::min<int64_t>(columns, llvm::alignTo(width, 64));
}

int64_t GpuAttentionForm::columnBlocks(int64_t width) const {
  return llvm::divideCeil(width, columnBlock(width));
}

int64_t GpuAttentionForm::gridTokens(const AttentionShape &shape) const {
  return std::min(block, shape.chunk);
}

int64_t GpuAttentionForm::chunks(const AttentionShape &shape) {
  return llvm::divideCeil(shape.length - 1, shape.chunk) + 1;
}

int64_t GpuAttentionForm::tilesPerChunk(const AttentionShape &shape) const {
  const int64_t blocks = blocksPerChunk(shape);
  return blocks * (blocks + 1) / 2;
}

RankedTensorType GpuAttentionForm::workspace(const AttentionShape &shape,
                                             Type element) const {
  return RankedTensorType::get(
      {shape.batch * shape.heads * chunks(shape) * tilesPerChunk(shape), block,
       block},
      element);
}

/// Seconds of an op's kernels, by rates that a GPU of the Hopper generation
/// reaches with mma.sync, or with multiply-adds. Only their ratios matter.
static double modelledSeconds(const AttentionShape &shape,
                              const GpuAttentionForm &form, bool backward) {
  const double flopRate = form.math == TileMath::Bf16 ? 350e12 : 40e12,
               byteRate = 2.5e12,
               elementBytes = form.math == TileMath::Bf16 ? 2 : 4;
  const double keys = shape.keyWidth, values = shape.valueWidth,
               columnBlocks = form.columnBlocks(shape.valueWidth),
               keyBlocks = form.columnBlocks(shape.keyWidth);
  double terms, tileAccesses = 0;
  if (form.stored) {
    terms = backward ? 3 * keys + 2 * values : 2 * keys + values;
    tileAccesses = 1 + columnBlocks;
    // P twice (a thread's own weights come back), dS for dq and dk.
    if (backward)
      tileAccesses += 2 + 2 * keyBlocks;
  } else {
    terms = backward ? 2 * (keyBlocks * (keys + values) + keys) +
                           columnBlocks * keys + values
                     : (1 + columnBlocks) * keys + values;
  }
  const double pairs = shape.pairs() * shape.heads;
  return pairs *
         (2 * terms / flopRate + tileAccesses * elementBytes / byteRate);
}

GpuAttentionForm GpuAttentionForm::choose(const AttentionShape &shape,
                                          const LoweringOptions &options,
                                          Type element, bool recomputes,
                                          bool backward) {
  const bool bf16 = element.isBF16();
  // A workspace may take this much of a GPU's memory.
  constexpr int64_t kWorkspaceBytes = int64_t(2) << 30;
  GpuAttentionForm recomputed, stored;
  recomputed.math = stored.math = bf16 ? TileMath::Bf16 : TileMath::Fma;
  recomputed.threads = 256;
  recomputed.scoreWarpsN = 4;
  recomputed.warpsM = 2;
  if (bf16)
    recomputed.scoreSlice = 64;
  else
    recomputed.scoreSlice = recomputed.productSlice = 16;
  stored.stored = true;
  stored.block = 128;
  stored.threads = 256;
  stored.scoreWarpsN = 4;
  stored.warpsM = 2;
  stored.stages = 3;
  if (!bf16) {
    stored.columns = 128;
    stored.scoreSlice = stored.productSlice = 16;
  }
  if (recomputes || options.attention == "recomputed")
    return recomputed;
  if (options.attention == "stored")
    return stored;
  const int64_t bytes =
      stored.workspace(shape, element).getNumElements() * (bf16 ? 2 : 4);
  // Short calls would leave most of the workspace unused.
  if (shape.length < 2 * stored.block || shape.chunk < 2 * stored.block ||
      bytes * (backward ? 2 : 1) > kWorkspaceBytes)
    return recomputed;
  return modelledSeconds(shape, stored, backward) <
                 modelledSeconds(shape, recomputed, backward)
             ? stored
             : recomputed;
}

//===-- Blocks
//---------------------------------------------------------------------------------------------------===//

Grid GpuAttentionBlocks::grid(const AttentionShape &shape,
                              const GpuAttentionForm &form, int64_t inner) {
  return {inner * shape.heads, plan::Outer::Batch, plan::Inner::Length,
          form.gridTokens(shape)};
}

GpuAttentionBlocks::GpuAttentionBlocks(KernelBuilder &k,
                                       const AttentionShape &shape,
                                       const GpuAttentionForm &form,
                                       Value count, Value positions,
                                       int64_t inner, bool heavyLast)
    : k(k), shape(shape), form(form), documents(k, positions),
      heavyLast(heavyLast) {
  length = k.length();
  parts = k.ceilDiv(length, form.gridTokens(shape));
  innerValue = k.rem(k.workgroup(), k.index(inner));
  Value rest = k.div(k.workgroup(), k.index(inner));
  headValue = k.rem(rest, k.index(shape.heads));
  rest = k.div(rest, k.index(shape.heads));
  rowValue = k.div(rest, parts);
  part = k.rem(rest, parts);
  documents.setRow(rowValue);
  if (documents)
    return;
  Value seen = arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                          k.loadScalar(count, {rowValue}));
  position = k.rem(seen, k.index(shape.chunk));
}

Value GpuAttentionBlocks::tokensBehind(Value token, Value place) {
  // Binary search: documents.goesOn holds up to some count and for none beyond.
  Value last = k.sub(length, k.index(1)),
        most =
            k.min(k.sub(last, token), k.sub(k.index(shape.chunk - 1), place)),
        found = k.index(0);
  for (int64_t bit = llvm::bit_floor(uint64_t(shape.chunk)); bit > 0;
       bit /= 2) {
    Value more = k.add(found, k.index(bit)),
          goesOn = documents.goesOn(k.min(k.add(token, more), last), more),
          inside = k.less(more, k.add(most, k.index(1)));
    found = k.select(arith::AndIOp::create(k.b, goesOn, inside), more, found);
  }
  return found;
}

void GpuAttentionBlocks::forDocumentBlocks(
    function_ref<void(const ChunkBlock &)> body) {
  Value block = k.index(form.block), one = k.index(1),
        from = k.mul(part, k.index(form.gridTokens(shape))),
        to = k.min(length, k.add(from, k.index(form.gridTokens(shape))));
  k.loop(from, to, 1, [&](Value token) {
    Value place = k.rem(documents.position(token), k.index(shape.chunk)),
          inside = k.rem(place, block);
    // A block opens at its first position, or at the call's first token if it
    // began before the call.
    Value begins =
        arith::OrIOp::create(k.b, k.less(inside, one), k.less(token, one));
    k.when(begins, [&] {
      ChunkBlock own;
      own.number = k.div(place, block);
      own.first = k.sub(place, inside);
      own.origin = k.add(k.mul(rowValue, length), k.sub(token, place));
      own.cached = k.sub(place, k.min(place, token));
      own.end = k.add(k.add(place, tokensBehind(token, place)), one);
      body(own);
    });
  });
}

void GpuAttentionBlocks::forEach(function_ref<void(const ChunkBlock &)> body) {
  if (documents)
    return forDocumentBlocks(body);
  Value size = k.index(shape.chunk), block = k.index(form.block),
        perChunk = k.index(form.blocksPerChunk(shape)), one = k.index(1);
  // Blocks are numbered through the chunks. The call begins in the block
  // `begin` and has `total` of them, at most one more a chunk than the grid
  // counts.
  Value begin = k.div(position, block);
  Value last = k.sub(k.add(position, length), one);
  Value end = k.add(k.mul(k.div(last, size), perChunk),
                    k.div(k.rem(last, size), block));
  Value total = k.add(k.sub(end, begin), one);
  Value rounds = k.div(k.sub(k.add(total, k.sub(parts, one)), part), parts);
  k.loop(k.index(0), rounds, 1, [&](Value round) {
    Value number = k.add(part, k.mul(round, parts));
    number = heavyLast ? k.sub(end, number) : k.add(begin, number);
    ChunkBlock own;
    own.chunk = k.div(number, perChunk);
    own.number = k.rem(number, perChunk);
    own.first = k.mul(own.number, block);
    Value start = k.sub(k.mul(own.chunk, size), position);
    own.origin = k.add(k.mul(rowValue, length), start);
    Value isOpen = k.less(own.chunk, one);
    own.cached = k.select(isOpen, position, k.index(0));
    own.end = k.min(size, k.sub(length, start));
    body(own);
  });
}

static int64_t granuleOf(const AttentionShape &shape, int64_t width) {
  return std::gcd(width, width * shape.heads);
}

TileSource GpuAttentionBlocks::ofCall(Value tensor, const ChunkBlock &block,
                                      int64_t width) const {
  TileSource source;
  Value head = shape.headIn(k, tensor, headValue, width);
  source.matrix = {tensor, {}, block.origin, k.mul(head, k.index(width))};
  source.rowBegin = block.cached;
  source.rowEnd = block.end;
  source.columns = width;
  source.granule = granuleOf(shape, width);
  return source;
}

TileSource GpuAttentionBlocks::ofChunk(Value tensor, Value cache,
                                       const ChunkBlock &block,
                                       int64_t width) const {
  TileSource source = ofCall(tensor, block, width);
  source.rowBegin = Value();
  source.before = {
      cache,
      {rowValue},
      {},
      k.mul(shape.headIn(k, cache, headValue, width), k.index(width))};
  source.split = block.cached;
  return source;
}

SmallVector<Value> GpuAttentionBlocks::ofRows(GpuProduct &product, Value tensor,
                                              const ChunkBlock &block,
                                              Value first,
                                              double missing) const {
  SmallVector<Value> values;
  Value absent = k.constant(missing, k.b.getF32Type());
  for (int64_t i = 0; i < product.rowsHeld(); ++i) {
    Value at = k.add(first, product.row(i));
    Value valid = isOfCall(block, at);
    Value token = k.select(valid, k.add(block.origin, at), k.index(0));
    values.push_back(
        k.select(valid, k.loadScalar(tensor, {token, headValue}), absent));
  }
  return values;
}

Value GpuAttentionBlocks::isOfCall(const ChunkBlock &block,
                                   Value position) const {
  return arith::AndIOp::create(k.b, k.less(position, block.end),
                               arith::CmpIOp::create(k.b,
                                                     arith::CmpIPredicate::uge,
                                                     position, block.cached));
}

void GpuAttentionBlocks::store(GpuProduct &product, ValueRange sums,
                               const ChunkBlock &block, Value out,
                               int64_t width, int64_t columns) const {
  Value head = k.mul(headValue, k.index(width)),
        columnFirst = k.mul(innerValue, k.index(columns));
  Value columnEnd = width % columns ? k.add(head, k.index(width)) : Value();
  product.visit(sums, [&](int64_t, Value row, Value column,
                          MutableArrayRef<Value> values) {
    Value at = k.add(block.first, row);
    k.when(isOfCall(block, at), [&] {
      storeNeighbours(
          k, values, out,
          {k.add(block.origin, at), k.add(head, k.add(columnFirst, column))},
          width, columnEnd);
    });
  });
}

Value GpuAttentionBlocks::firstTile(const ChunkBlock &block,
                                    Value queryBlock) const {
  Value head = k.add(k.mul(rowValue, k.index(shape.heads)), headValue);
  Value chunk =
      k.add(k.mul(head, k.index(GpuAttentionForm::chunks(shape))), block.chunk);
  Value half =
      k.div(k.mul(queryBlock, k.add(queryBlock, k.index(1))), k.index(2));
  return k.add(k.mul(chunk, k.index(form.tilesPerChunk(shape))), half);
}

//===-- Scores
//---------------------------------------------------------------------------------------------------===//

ScoreTiles::ScoreTiles(KernelBuilder &k, const AttentionShape &shape,
                       const GpuAttentionForm &form)
    : product(k, form.math,
              {form.block, form.block, form.scoreWarpsM, form.scoreWarpsN,
               /*leftTransposed=*/false, /*rightTransposed=*/true}),
      k(k), form(form),
      slice(std::min<int64_t>(
          form.scoreSlice,
          llvm::alignTo(std::max(shape.keyWidth, shape.valueWidth), 16))) {
  Type element = tileElement(k, form.math);
  lefts = SharedTile::create(k, form.block, slice, element, form.stages);
  rights = SharedTile::create(k, form.block, slice, element, form.stages);
}

SmallVector<Value> ScoreTiles::multiply(const TileSource &left, Value leftRow,
                                        const TileSource &right, Value rightRow,
                                        int64_t depth) {
  return pipeline(
      k, k.index(llvm::divideCeil(depth, slice)), form.stages, product.zeros(),
      [&](Value number, Value stage) {
        Value column = k.mul(number, k.index(slice));
        copyTile(k, lefts.at(stage), left, leftRow, column);
        copyTile(k, rights.at(stage), right, rightRow, column);
      },
      [&](Value, Value stage, ValueRange sums) {
        return product.multiply(sums, lefts.at(stage), rights.at(stage), slice);
      });
}

void ScoreTiles::forScores(SmallVectorImpl<Value> &sums, Value queryFirst,
                           Value keyFirst,
                           function_ref<Value(int64_t, Value, Value)> body) {
  // A key is seen by queries at its position and behind it.
  Type i32 = k.b.getI32Type();
  Value ahead =
      arith::IndexCastOp::create(k.b, i32, k.sub(queryFirst, keyFirst));
  product.visit(sums, [&](int64_t i, Value row, Value column,
                          MutableArrayRef<Value> values) {
    Value limit = arith::AddIOp::create(
        k.b, arith::IndexCastOp::create(k.b, i32, row), ahead);
    for (auto [j, value] : llvm::enumerate(values)) {
      Value key =
          arith::IndexCastOp::create(k.b, i32, k.add(column, k.index(j)));
      Value seen =
          arith::CmpIOp::create(k.b, arith::CmpIPredicate::sle, key, limit);
      value = body(i, value, seen);
    }
  });
}

void ScoreTiles::toWeights(SmallVectorImpl<Value> &sums, Value queryFirst,
                           Value keyFirst, ArrayRef<Value> lse) {
  Value zero = k.constant(0.0, k.b.getF32Type());
  forScores(sums, queryFirst, keyFirst,
            [&](int64_t i, Value score, Value seen) {
              return k.select(seen, k.exp(k.sub(score, lse[i])), zero);
            });
}

void ScoreTiles::toWeights(
    SmallVectorImpl<Value> &sums, Value queryFirst, Value keyFirst,
    function_ref<Value(KernelBuilder &, Value)> function) {
  Value zero = k.constant(0.0, k.b.getF32Type());
  forScores(sums, queryFirst, keyFirst, [&](int64_t, Value score, Value seen) {
    return k.select(seen, function(k, score), zero);
  });
}

void ScoreTiles::addToRows(ArrayRef<Value> weights,
                           MutableArrayRef<Value> rowSums) {
  Type f32 = k.b.getF32Type(), element = tileElement(k, form.math);
  product.visit(ValueRange(weights),
                [&](int64_t i, Value, Value, MutableArrayRef<Value> values) {
                  for (Value value : values) {
                    if (element != f32)
                      value = k.toFloat(k.toFloat(value, element), f32);
                    rowSums[i] = k.add(rowSums[i], value);
                  }
                });
}

TileStore TileStore::of(KernelBuilder &k, const SharedTile &tile) {
  return {tile.memref, {k.index(0)}, 16};
}

void TileStore::store(KernelBuilder &k, GpuProduct &product,
                      ValueRange sums) const {
  product.visit(sums, [&](int64_t, Value row, Value column,
                          MutableArrayRef<Value> values) {
    SmallVector<Value> at(prefix.begin(), prefix.end());
    at.append({row, column});
    storeNeighbours(k, values, memref, at, granule);
  });
}

SmallVector<Value> TileStore::load(KernelBuilder &k, int64_t count, Value row,
                                   Value column) const {
  SmallVector<Value> at(prefix.begin(), prefix.end());
  at.append({row, column});
  return loadNeighbours(k, count, memref, at, granule);
}

//===-- Products with tiles
//---------------------------------------------------------------------------------------------------===//

void TileRowProduct::emit(KernelBuilder &k, const AttentionShape &shape,
                          const GpuAttentionForm &form,
                          GpuAttentionBlocks &blocks) const {
  Type element = tileElement(k, form.math);
  const int64_t columns = form.columnBlock(width), slice = form.productSlice,
                block = form.block;
  GpuProduct product(k, form.math,
                     {block, columns, form.warpsM, form.warpsN, transposed,
                      /*rightTransposed=*/false});
  SharedTile rights =
      SharedTile::create(k, slice, columns, element, form.stages);
  SharedTile lefts =
      workspace
          ? SharedTile::create(k, transposed ? slice : block,
                               transposed ? block : slice, element, form.stages)
          : SharedTile::create(k, block, block, element);
  Value columnFirst = k.mul(blocks.inner(), k.index(columns));

  blocks.forEach([&](const ChunkBlock &own) {
    TileSource from = right(own);
    Value size = k.index(block);
    // The positions that are summed over: keys up to the block's last query, or
    // queries from the block's first key on.
    Value begin = transposed ? own.first : k.index(0);
    Value end = transposed ? own.end : k.min(own.end, k.add(own.first, size));
    Value count = k.sub(end, begin);
    SmallVector<Value> sums;
    if (workspace) {
      sums = pipeline(
          k, k.ceilDiv(count, slice), form.stages, product.zeros(),
          [&](Value number, Value stage) {
            Value at = k.add(begin, k.mul(number, k.index(slice)));
            Value other = k.div(at, size), inner = k.rem(at, size);
            TileSource tile;
            tile.granule = block;
            Value first =
                blocks.firstTile(own, transposed ? other : own.number);
            tile.matrix = {workspace,
                           {k.add(first, transposed ? own.number : other)},
                           {},
                           {}};
            Value zero = k.index(0);
            copyTile(k, lefts.at(stage), tile, transposed ? inner : zero,
                     transposed ? zero : inner);
            copyTile(k, rights.at(stage), from, at, columnFirst);
          },
          [&](Value, Value stage, ValueRange sums) {
            return product.multiply(sums, lefts.at(stage), rights.at(stage),
                                    slice);
          });
    } else {
      sums = k.loop(
          k.index(0), k.ceilDiv(count, block), 1, product.zeros(),
          [&](Value number, ValueRange sums) {
            Value at = k.add(begin, k.mul(number, size));
            make(own, transposed ? at : own.first, transposed ? own.first : at,
                 TileStore::of(k, lefts));
            Value zero = k.index(0);
            Value here = k.min(size, k.sub(end, at));
            return pipeline(
                k, k.ceilDiv(here, slice), form.stages, sums,
                [&](Value part, Value stage) {
                  copyTile(k, rights.at(stage), from,
                           k.add(at, k.mul(part, k.index(slice))), columnFirst);
                },
                [&](Value part, Value stage, ValueRange sums) {
                  Value offset = k.mul(part, k.index(slice));
                  return product.multiply(
                      sums,
                      lefts.from(k, transposed ? offset : zero,
                                 transposed ? zero : offset),
                      rights.at(stage), slice);
                });
          });
    }
    if (divisor) {
      SmallVector<Value> factors;
      for (int64_t i = 0; i < product.rowsHeld(); ++i)
        factors.push_back(k.div(k.constant(1.0, k.b.getF32Type()),
                                divisor(own, product.row(i))));
      product.visit(
          sums, [&](int64_t i, Value, Value, MutableArrayRef<Value> values) {
            for (Value &value : values)
              value = k.mul(value, factors[i]);
          });
    }
    blocks.store(product, sums, own, out, width, columns);
  });
}

} // namespace mlir::megalodon
