// Threads and segments of the GPU's CEMA kernels, and the list of their
// lowerings.
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/RowKernel.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::megalodon;

/// Processors of the GPU that the rule has in mind.
static constexpr int64_t kProcessors = 132;
/// Threads that let a GPU hide its latencies, where a thread runs a whole row.
static constexpr int64_t kEnoughThreads = kProcessors * 256;
/// Threads that segments are cut for: several workgroups a processor more than
/// run at once, so that the last ones do not run alone.
static constexpr int64_t kManyThreads = kProcessors * 1024;
/// Shorter segments would carry more bytes of states than of activations.
static constexpr int64_t kShortestSegment = 64;
/// From this length on a segment's coefficients cost next to nothing, and it is
/// better to have fewer threads with more states.
static constexpr int64_t kLongSegment = 256;

GpuCemaForm mlir::megalodon::chooseGpuCemaForm(StringRef fixedForm,
                                               int64_t batch, int64_t length,
                                               int64_t channels, int64_t states,
                                               int64_t perThread,
                                               int64_t unit) {
  auto threadsOf = [&](int64_t parts) { return batch * channels * parts; };
  int64_t fewest = 1;
  while (fewest < kWarpThreads &&
         llvm::divideCeilSigned(states, fewest) > perThread)
    fewest *= 2;
  // More lanes a channel cost shuffles, segments cost another pass over x. So
  // first lanes, down to two states each.
  int64_t parts = fewest;
  while (parts < kWarpThreads && threadsOf(parts) < kEnoughThreads &&
         llvm::divideCeilSigned(states, 2 * parts) >= 2)
    parts *= 2;
  const bool forced = fixedForm == "two-level";
  if (fixedForm == "sequential" ||
      (!forced && threadsOf(parts) >= kEnoughThreads))
    return {parts, 0};

  auto segmentOf = [&](int64_t lanes) {
    int64_t wanted = std::max<int64_t>(
        2, llvm::divideCeilSigned(kManyThreads, threadsOf(lanes)));
    int64_t segment = llvm::divideCeilSigned(length, wanted);
    if (!forced)
      segment = std::max(segment, kShortestSegment);
    return static_cast<int64_t>(llvm::alignTo(segment, unit));
  };
  int64_t lanes = fewest;
  while (lanes < parts && segmentOf(lanes) < kLongSegment)
    lanes *= 2;
  int64_t segment = segmentOf(lanes);
  return segment < length ? GpuCemaForm{lanes, segment} : GpuCemaForm{parts, 0};
}

/// Less work than this is bound by how many threads there are, not by
/// multiply-adds.
static constexpr int64_t kMatrixElements = int64_t(1) << 21;

bool mlir::megalodon::usesGpuCemaMatrix(const LoweringOptions &options,
                                        Value activation, Value p,
                                        Value positions, int64_t block) {
  auto type = tensorOf(activation);
  if (positions || !hasGpuCemaMatrixForm(activation, p) ||
      (block && !keepsGpuCemaStates(block)))
    return false;
  if (options.cema != "auto")
    return options.cema == "matrix";
  return type.getDimSize(1) >= 2 * gpuCemaChunk() &&
         type.getNumElements() >= kMatrixElements;
}

int64_t mlir::megalodon::gpuCemaMatrixSegment(RankedTensorType activation) {
  // Only where whole rows give less than a workgroup of eight channels for
  // every processor.
  int64_t length = activation.getDimSize(1),
          workgroups = activation.getDimSize(0) * activation.getDimSize(2) / 8;
  if (4 * workgroups >= 3 * kProcessors)
    return 0;
  int64_t segment = llvm::alignTo(
      llvm::divideCeilSigned(length,
                             llvm::divideCeilSigned(kProcessors, workgroups)),
      gpuCemaChunk());
  return segment < length ? segment : 0;
}

//===-- Threads
//----------------------------------------------------------------------------------------------------------===//

GpuCemaThreads::GpuCemaThreads(int64_t channels, int64_t states, int64_t parts)
    : channels(channels), states(states), parts(parts),
      perThread(llvm::divideCeilSigned(states, parts)) {}

int64_t GpuCemaThreads::workgroups() const {
  return llvm::divideCeilSigned(channels, kThreads / parts);
}

void GpuCemaThreads::begin(KernelBuilder &k, Value channelBlock) {
  kernel = &k;
  const int64_t perWarp = kWarpThreads / parts, perWorkgroup = kThreads / parts;
  Value lane = k.lane();
  channel = k.add(
      k.mul(channelBlock, k.index(perWorkgroup)),
      k.add(k.mul(k.warp(), k.index(perWarp)), k.rem(lane, k.index(perWarp))));
  part = parts > 1 ? k.div(lane, k.index(perWarp)) : Value();
  owns = {};
  if (channels % perWorkgroup) {
    owns = k.less(channel, k.index(channels));
    channel = k.min(channel, k.index(channels - 1));
  }
}

void GpuCemaThreads::whenOwned(function_ref<void()> body) {
  if (owns)
    kernel->when(owns, body);
  else
    body();
}

void GpuCemaThreads::whenFirstPart(function_ref<void()> body) {
  KernelBuilder &k = *kernel;
  if (!part)
    return whenOwned(body);
  Value condition = k.less(part, k.index(1));
  if (owns)
    condition = arith::AndIOp::create(k.b, condition, owns);
  k.when(condition, body);
}

Value GpuCemaThreads::stateIndex(int64_t s) {
  KernelBuilder &k = *kernel;
  if (!part)
    return k.index(s);
  return k.add(k.mul(part, k.index(perThread)), k.index(s));
}

Value GpuCemaThreads::hasState(int64_t s) {
  KernelBuilder &k = *kernel;
  if (parts * perThread == states)
    return {};
  return k.less(stateIndex(s), k.index(states));
}

Value GpuCemaThreads::sameChannel() {
  KernelBuilder &k = *kernel;
  Value number = arith::IndexCastOp::create(k.b, k.b.getI32Type(), channel);
  return arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                    k.shuffleXor(number, 0));
}

void GpuCemaThreads::forStates(function_ref<void(int64_t, Value)> body) {
  for (int64_t s = 0; s < perThread; ++s) {
    Value n = stateIndex(s);
    if (Value has = hasState(s))
      kernel->when(has, [&] { body(s, n); });
    else
      body(s, n);
  }
}

CemaTile::Coefficients GpuCemaThreads::coefficients(int64_t s, Value p, Value q,
                                                    Value g, Value channel) {
  KernelBuilder &k = *kernel;
  Value has = hasState(s), n = stateIndex(s);
  Value zero = k.constant(0, k.b.getF64Type());
  if (has)
    n = k.min(n, k.index(states - 1));
  auto orZero = [&](Value value) {
    return has ? k.select(has, value, zero) : value;
  };
  CemaTile::Coefficients c;
  if (p)
    c.p = orZero(k.loadScalar(p, {channel, n}));
  for (auto [from, re, im] : {std::tuple(q, &c.qr, &c.qi), {g, &c.gr, &c.gi}}) {
    if (!from)
      continue;
    auto [first, second] = loadPair(k, from, {channel, n, k.index(0)});
    *re = orZero(first);
    *im = orZero(second);
  }
  return c;
}

SmallVector<Value> GpuCemaThreads::loadStates(Value outside, Value row) {
  KernelBuilder &k = *kernel;
  Type element = cast<MemRefType>(outside.getType()).getElementType();
  SmallVector<Value> result;
  for (int64_t s = 0; s < perThread; ++s) {
    SmallVector<Value> indices = {row, channel, stateIndex(s), k.index(0)};
    Value has = hasState(s);
    if (has && owns)
      has = arith::AndIOp::create(k.b, has, owns);
    else if (owns)
      has = owns;
    if (!has) {
      auto [re, im] = loadPair(k, outside, indices);
      result.append({re, im});
      continue;
    }
    // Not another thread's state: that thread may be storing it already.
    auto ifOp = scf::IfOp::create(k.b, TypeRange{element, element}, has,
                                  /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(k.b);
    k.b.setInsertionPointToStart(ifOp.thenBlock());
    auto [re, im] = loadPair(k, outside, indices);
    scf::YieldOp::create(k.b, ValueRange{re, im});
    k.b.setInsertionPointToStart(ifOp.elseBlock());
    Value zero = k.constant(0, element);
    scf::YieldOp::create(k.b, ValueRange{zero, zero});
    llvm::append_range(result, ifOp.getResults());
  }
  return result;
}

void GpuCemaThreads::storeStates(ValueRange values, Value outside, Value row) {
  KernelBuilder &k = *kernel;
  whenOwned([&] {
    forStates([&](int64_t s, Value n) {
      storePair(k, values[2 * s], values[2 * s + 1], outside,
                {row, channel, n, k.index(0)});
    });
  });
}

Value GpuCemaThreads::innerOffset(Value index, Value state, int64_t half) {
  KernelBuilder &k = *kernel;
  Value pair = k.add(k.mul(index, k.index(states)), state);
  return k.add(
      k.mul(k.add(k.mul(pair, k.index(2)), k.index(half)), k.index(channels)),
      channel);
}

SmallVector<Value> GpuCemaThreads::loadInnerStates(Value inside, Value index) {
  KernelBuilder &k = *kernel;
  SmallVector<Value> result;
  for (int64_t s = 0; s < perThread; ++s) {
    Value has = hasState(s), n = stateIndex(s);
    if (has)
      n = k.min(n, k.index(states - 1));
    for (int64_t half : {0, 1}) {
      Value value = k.loadScalar(inside, {innerOffset(index, n, half)});
      result.push_back(
          has ? k.select(has, value, k.constant(0, value.getType())) : value);
    }
  }
  return result;
}

void GpuCemaThreads::storeInnerStates(ValueRange values, Value inside,
                                      Value index) {
  KernelBuilder &k = *kernel;
  whenOwned([&] {
    forStates([&](int64_t s, Value n) {
      for (int64_t half : {0, 1})
        k.storeScalar(values[2 * s + half], inside,
                      {innerOffset(index, n, half)});
    });
  });
}

void GpuCemaThreads::sumOverParts(
    ArrayRef<Value> values, function_ref<void(ArrayRef<Value>, Value)> body) {
  KernelBuilder &k = *kernel;
  SmallVector<Value> sums(values);
  Value first = k.index(0), keeps;
  // The highest bit of the part decides which half of the tokens a lane keeps
  // and which it gives away, the next bit which quarter, and so on. Once one
  // token is left both lanes add and the upper one gives up.
  for (int64_t step = parts / 2; step >= 1; step /= 2) {
    const int64_t mask = step * (kWarpThreads / parts);
    Value bit = arith::AndIOp::create(k.b, part, k.index(step));
    Value lower = k.less(bit, k.index(1));
    if (sums.size() == 1) {
      sums[0] = k.add(sums[0], k.shuffleXor(sums[0], mask));
      keeps = keeps ? arith::AndIOp::create(k.b, keeps, lower) : lower;
      continue;
    }
    size_t half = sums.size() / 2;
    SmallVector<Value> next;
    for (size_t i = 0; i < half; ++i) {
      Value given = k.select(lower, sums[half + i], sums[i]),
            kept = k.select(lower, sums[i], sums[half + i]);
      next.push_back(k.add(kept, k.shuffleXor(given, mask)));
    }
    first = k.add(first, k.select(lower, k.index(0), k.index(half)));
    sums = std::move(next);
  }
  if (owns)
    keeps = keeps ? arith::AndIOp::create(k.b, keeps, owns) : owns;
  if (keeps)
    k.when(keeps, [&] { body(sums, first); });
  else
    body(sums, first);
}

//===-- Small builders
//---------------------------------------------------------------------------------------------------===//

std::pair<Value, Value>
mlir::megalodon::loadPair(KernelBuilder &k, Value memref, ValueRange indices) {
  Type element = cast<MemRefType>(memref.getType()).getElementType();
  Value pair = vector::LoadOp::create(
      k.b, VectorType::get({2}, element), memref, indices,
      /*nontemporal=*/false,
      llvm::MaybeAlign(2 * element.getIntOrFloatBitWidth() / 8));
  return {vector::ExtractOp::create(k.b, pair, 0),
          vector::ExtractOp::create(k.b, pair, 1)};
}

void mlir::megalodon::storePair(KernelBuilder &k, Value first, Value second,
                                Value memref, ValueRange indices) {
  Type element = cast<MemRefType>(memref.getType()).getElementType();
  Value pair = vector::FromElementsOp::create(
      k.b, VectorType::get({2}, element),
      ValueRange{k.toFloat(first, element), k.toFloat(second, element)});
  vector::StoreOp::create(
      k.b, pair, memref, indices, /*nontemporal=*/false,
      llvm::MaybeAlign(2 * element.getIntOrFloatBitWidth() / 8));
}

SmallVector<Value> mlir::megalodon::zeroWhere(KernelBuilder &k, Value ends,
                                              ValueRange states) {
  SmallVector<Value> result;
  for (Value state : states)
    result.push_back(k.select(ends, k.constant(0, state.getType()), state));
  return result;
}

Complex mlir::megalodon::advance(KernelBuilder &k, Complex q, Complex h,
                                 Complex input) {
  Value minusIm = arith::NegFOp::create(k.b, q.im);
  Value re = input.re ? k.fma(minusIm, h.im, input.re) : k.mul(minusIm, h.im),
        im = input.im ? k.fma(q.im, h.re, input.im) : k.mul(q.im, h.re);
  return {k.fma(q.re, h.re, re), k.fma(q.re, h.im, im)};
}

Value mlir::megalodon::segmentLength(KernelBuilder &k, Value index,
                                     int64_t segment) {
  return k.min(k.sub(k.length(), k.mul(index, k.index(segment))),
               k.index(segment));
}

void mlir::megalodon::populateGpuCemaLowering(RewritePatternSet &patterns,
                                              const LoweringOptions &options) {
  populateGpuCemaForwardLowering(patterns, options);
  populateGpuCemaGradLowering(patterns, options);
  populateGpuCemaSummaryLowering(patterns, options);
  populateGpuCemaCoefficientLowering(patterns, options);
}
