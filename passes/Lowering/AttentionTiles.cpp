#include "passes/Lowering/AttentionTiles.h"
#include "llvm/Support/MathExtras.h"
#include <cmath>

namespace mlir::megalodon {

/// Tokens of a workgroup: enough to repay the packing of what they are
/// multiplied with, few enough for the scores to stay in the second cache.
static constexpr int64_t kBlockTokens = 64;

AttentionShape::AttentionShape(Value q, Value k, Value v, Value cacheK,
                               int64_t heads)
    : heads(heads) {
  auto typeQ = cast<RankedTensorType>(q.getType());
  auto typeK = cast<RankedTensorType>(k.getType());
  auto typeV = cast<RankedTensorType>(v.getType());
  batch = typeQ.getDimSize(0);
  length = typeQ.getDimSize(1);
  chunk = cast<RankedTensorType>(cacheK.getType()).getDimSize(1);
  keyWidth = typeQ.getDimSize(2) / heads;
  keyHeads = typeK.getDimSize(2) / keyWidth;
  valueWidth = typeV.getDimSize(2) / keyHeads;
  stored = typeQ.getElementType();
  element = computeType(stored);
}

Value AttentionShape::headIn(KernelBuilder &k, Value buffer, Value head,
                             int64_t width) const {
  const int64_t columns = cast<MemRefType>(buffer.getType()).getShape().back();
  if (columns == heads * width)
    return head;
  assert(columns == keyHeads * width && "neither of queries nor of keys");
  return k.div(head, k.index(heads / keyHeads));
}

double AttentionShape::pairs() const {
  // A single token meets half a chunk on average. Longer calls are counted
  // from the start of a chunk.
  if (length == 1)
    return batch * (chunk + 1) / 2.0;
  const double whole = double(length / chunk), rest = double(length % chunk);
  return batch * (whole * chunk * (chunk + 1.0) + rest * (rest + 1.0)) / 2.0;
}

double AttentionShape::bytes(double elements) const {
  return elements * (stored.getIntOrFloatBitWidth() / 8);
}

int64_t AttentionBlock::tokens(const AttentionShape &shape,
                               const LoweringOptions &options) {
  const int64_t width = TileShape::of(options).vectors * options.vectorBytes /
                        (shape.element.getIntOrFloatBitWidth() / 8);
  return llvm::alignTo(std::min({kBlockTokens, shape.length, shape.chunk}),
                       width);
}

Grid AttentionBlock::grid(const AttentionShape &shape,
                          const LoweringOptions &options) {
  return {shape.heads, plan::Outer::Batch, plan::Inner::Length,
          tokens(shape, options)};
}

AttentionBlock::AttentionBlock(KernelBuilder &k, const AttentionShape &shape,
                               Value count, Value positions)
    : shape(shape), tile(TileShape::of(k.getOptions())),
      lanes(k.lanes(shape.element)), panelWidth(tile.vectors * lanes),
      documents(k, positions) {
  const int64_t blockTokens = tokens(shape, k.getOptions());
  panels = blockTokens / panelWidth;
  length = k.length();
  Value blocks = k.ceilDiv(length, blockTokens);
  head = k.rem(k.workgroup(), k.index(shape.heads));
  Value rest = k.div(k.workgroup(), k.index(shape.heads));
  row = k.div(rest, blocks);
  begin = k.mul(k.rem(rest, blocks), k.index(blockTokens));
  end = k.min(length, k.add(begin, k.index(blockTokens)));
  tokenBase = k.mul(row, length);
  documents.setRow(row);
  if (documents)
    return;
  Value seen = arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                          k.loadScalar(count, {row}));
  position = k.rem(seen, k.index(shape.chunk));
}

void AttentionBlock::forSegments(
    KernelBuilder &k, function_ref<void(const Segment &)> body) const {
  if (documents)
    return forDocumentSegments(k, body);
  Value size = k.index(shape.chunk), one = k.index(1), zero = k.index(0);
  Value first = k.div(k.add(position, begin), size);
  Value last = k.div(k.sub(k.add(position, end), one), size);
  k.loop(first, k.add(last, one), 1, [&](Value chunk) {
    Value isOpen = k.less(chunk, one);
    Value start = k.mul(chunk, size);
    Segment segment;
    segment.chunkBegin = k.select(isOpen, zero, k.sub(start, position));
    segment.chunkEnd = k.min(length, k.sub(k.add(start, size), position));
    segment.begin = k.max(begin, segment.chunkBegin);
    segment.end = k.min(end, segment.chunkEnd);
    segment.cached = k.select(isOpen, position, zero);
    body(segment);
  });
}

/// The first token from `from` to `to` at which a document begins, else `to`;
/// there is a token before `from`.
static Value nextDocument(KernelBuilder &k, PackedDocuments &documents,
                          Value from, Value to) {
  Value one = k.index(1), zero = k.index(0), last = k.sub(to, one);
  auto loop = scf::WhileOp::create(k.b, TypeRange{from.getType()}, from);
  OpBuilder::InsertionGuard guard(k.b);
  Value token =
      k.b.createBlock(&loop.getBefore(), {}, from.getType(), k.b.getLoc())
          ->getArgument(0);
  Value continues =
      arith::CmpIOp::create(k.b, arith::CmpIPredicate::ne,
                            documents.position(k.min(token, last)), zero);
  scf::ConditionOp::create(
      k.b, arith::AndIOp::create(k.b, k.less(token, to), continues), token);
  token = k.b.createBlock(&loop.getAfter(), {}, from.getType(), k.b.getLoc())
              ->getArgument(0);
  scf::YieldOp::create(k.b, k.add(token, one));
  return loop.getResult(0);
}

void AttentionBlock::forDocumentSegments(
    KernelBuilder &k, function_ref<void(const Segment &)> body) const {
  Value size = k.index(shape.chunk), one = k.index(1), zero = k.index(0);
  auto equal = [&](Value x, Value y) -> Value {
    return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, x, y);
  };
  k.loop(begin, end, 1, [&](Value token) {
    Value place = k.rem(documents.position(token), size);
    Value isFirst =
        arith::OrIOp::create(k.b, equal(token, begin), equal(place, zero));
    k.when(isFirst, [&] {
      Value own = k.min(place, token);
      Segment segment;
      segment.chunkBegin = k.sub(token, own);
      segment.cached = k.sub(place, own);
      segment.begin = token;
      // A chunk ends when it is full, or where the next document begins. Of
      // kernels that ask for segment ends only, the second search is dead code.
      Value full = k.min(length, k.sub(k.add(token, size), place));
      segment.end =
          nextDocument(k, documents, k.add(token, one), k.min(end, full));
      segment.chunkEnd = nextDocument(k, documents, segment.end, full);
      body(segment);
    });
  });
}

MatrixView AttentionBlock::keyColumns(KernelBuilder &k, Value tensor,
                                      Value first) const {
  return {tensor,
          {},
          k.add(tokenBase, first),
          k.mul(shape.headIn(k, tensor, head, shape.keyWidth),
                k.index(shape.keyWidth))};
}

MatrixView AttentionBlock::valueColumns(KernelBuilder &k, Value tensor,
                                        Value first) const {
  return {tensor,
          {},
          k.add(tokenBase, first),
          k.mul(shape.headIn(k, tensor, head, shape.valueWidth),
                k.index(shape.valueWidth))};
}

MatrixView AttentionBlock::cachedKeys(KernelBuilder &k, Value cache) const {
  return {cache,
          {row},
          {},
          k.mul(shape.headIn(k, cache, head, shape.keyWidth),
                k.index(shape.keyWidth))};
}

MatrixView AttentionBlock::cachedValues(KernelBuilder &k, Value cache) const {
  return {cache,
          {row},
          {},
          k.mul(shape.headIn(k, cache, head, shape.valueWidth),
                k.index(shape.valueWidth))};
}

Value AttentionBlock::transposedPanels(KernelBuilder &k, int64_t depth) const {
  return k.scratch({panels, int64_t(llvm::alignTo(depth, lanes)), panelWidth},
                   shape.element);
}

Value AttentionBlock::scores(KernelBuilder &k, int64_t skewBytes) const {
  return k.scratch({panels, shape.chunk + tile.rows, panelWidth}, shape.element,
                   skewBytes);
}

SmallVector<Value> AttentionBlock::scoreTile(KernelBuilder &k,
                                             const MatrixView &scalars,
                                             Value row, Value count,
                                             int64_t depth, Value panels,
                                             Value panel) const {
  Value last = k.sub(count, k.index(1));
  SmallVector<Value> rows;
  for (int64_t i = 0; i < tile.rows; ++i)
    rows.push_back(k.min(k.add(row, k.index(i)), last));
  return multiplyTile(
      k, tile, shape.element, k.index(0), k.index(depth),
      [&](int64_t i, Value d) {
        return k.loadScalar(scalars.memref, scalars.at(k, rows[i], d));
      },
      [&](int64_t j, Value d) {
        return k.load(panels, {panel, d, k.index(j * lanes)});
      });
}

/// Compares the lane numbers of vector j with a signed index.
static Value compareLanes(KernelBuilder &k, int64_t lanes, int64_t j,
                          arith::CmpIPredicate predicate, Value bound) {
  auto type = VectorType::get(lanes, k.b.getI32Type());
  SmallVector<int32_t> numbers;
  for (int64_t lane = 0; lane < lanes; ++lane)
    numbers.push_back(j * lanes + lane);
  Value indices = arith::ConstantOp::create(
      k.b, DenseElementsAttr::get(type, ArrayRef<int32_t>(numbers)));
  Value narrow = arith::IndexCastOp::create(k.b, k.b.getI32Type(), bound);
  return arith::CmpIOp::create(k.b, predicate, indices,
                               vector::BroadcastOp::create(k.b, type, narrow));
}

Value AttentionBlock::lanesFrom(KernelBuilder &k, int64_t j,
                                Value bound) const {
  return compareLanes(k, lanes, j, arith::CmpIPredicate::sge, bound);
}

Value AttentionBlock::lanesUpTo(KernelBuilder &k, int64_t j,
                                Value bound) const {
  return compareLanes(k, lanes, j, arith::CmpIPredicate::sle, bound);
}

std::function<std::function<Value(int64_t, Value)>(Value, Value)>
AttentionBlock::scoreColumns(KernelBuilder &k, Value scores) const {
  return [&k, scores, width = panelWidth](Value row, Value t) {
    Value panel = k.div(row, k.index(width)), lane = k.rem(row, k.index(width));
    return [&k, scores, t, panel, lane](int64_t i, Value s) {
      return k.loadScalar(scores,
                          {panel, k.add(t, s), k.add(lane, k.index(i))});
    };
  };
}

std::function<void(Value, Value, Value, Value)>
AttentionBlock::packCachedThenOwn(KernelBuilder &k, const MatrixView &cache,
                                  const MatrixView &own, Value cached,
                                  int64_t width) const {
  Value columnEnd = width % panelWidth ? k.index(width) : Value();
  return [&k, cache, own, cached, columnEnd, vectors = tile.vectors](
             Value t, Value count, Value column, Value panel) {
    Value zero = k.index(0);
    Value split = k.min(k.max(cached, t), k.add(t, count));
    Value fromCache = k.sub(split, t);
    packRows(k, vectors, cache, t, fromCache, column, columnEnd, panel, zero,
             zero);
    packRows(k, vectors, own, k.sub(split, cached), k.sub(count, fromCache),
             column, columnEnd, panel, fromCache, zero);
  };
}

// With mu and sigma as described, (s - mu) / (sigma sqrt(2)) is
// sqrt(2 pi) s - sqrt(pi), and 1 / (sigma sqrt(2 pi)) is sqrt(2).
static Value laplaceArgument(KernelBuilder &k, Value score) {
  return k.fma(score, k.constant(-std::sqrt(2 * M_PI), score.getType()),
               k.constant(std::sqrt(M_PI), score.getType()));
}

Value laplaceWeight(KernelBuilder &k, Value score) {
  // Not 1 + erf: small weights keep their digits.
  return k.mul(k.constant(0.5, score.getType()),
               math::ErfcOp::create(k.b, laplaceArgument(k, score)));
}

Value laplaceDerivative(KernelBuilder &k, Value score) {
  Value x = laplaceArgument(k, score), minus = arith::NegFOp::create(k.b, x);
  return k.mul(k.constant(std::sqrt(2.0), score.getType()),
               k.exp(k.mul(minus, x)));
}

} // namespace mlir::megalodon
