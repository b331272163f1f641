// Channel tiles and layout changes of the CEMA kernels, and the list of their
// lowerings.
#include "passes/Lowering/CemaKernel.h"
#include "passes/Lowering/Lowerings.h"

using namespace mlir;
using namespace mlir::megalodon;

Complex mlir::megalodon::multiply(KernelBuilder &k, Complex a, Complex b) {
  return {k.sub(k.mul(a.re, b.re), k.mul(a.im, b.im)),
          k.add(k.mul(a.re, b.im), k.mul(a.im, b.re))};
}

CemaTile::CemaTile(const LoweringOptions &options, Type element,
                   int64_t channels, int64_t states)
    : channels(channels), states(states),
      width(options.vectorBytes * 8 / element.getIntOrFloatBitWidth()),
      groups(llvm::divideCeil(channels, width)),
      groupsPerWorkgroup(
          std::min<int64_t>(std::max<int64_t>(64 / width, 1), groups)),
      element(element) {}

void CemaTile::begin(KernelBuilder &k, Value channelBlock) {
  kernel = &k;
  coefficientScratch = {};
  firstGroup = k.mul(channelBlock, k.index(groupsPerWorkgroup));
  groupCount = k.index(groupsPerWorkgroup);
  if (groups % groupsPerWorkgroup)
    groupCount = k.min(groupCount, k.sub(k.index(groups), firstGroup));
}

void CemaTile::forGroups(function_ref<void(Value, Value)> body) {
  KernelBuilder &k = *kernel;
  k.loop(k.index(0), groupCount, 1, [&](Value group) {
    body(group, k.mul(k.add(firstGroup, group), k.index(width)));
  });
}

Value CemaTile::mask(Value channel) {
  if (channels % width == 0)
    return {};
  KernelBuilder &k = *kernel;
  // vector.create_mask clamps at the width.
  return vector::CreateMaskOp::create(
      k.b, VectorType::get(width, k.b.getI1Type()),
      ValueRange{k.sub(k.index(channels), channel)});
}

void CemaTile::forLanes(Value channel, bool repeat,
                        function_ref<void(Value, Value)> body) {
  KernelBuilder &k = *kernel;
  Value end = k.index(width);
  bool partial = channels % width != 0;
  if (partial && !repeat)
    end = k.min(end, k.sub(k.index(channels), channel));
  k.loop(k.index(0), end, 1, [&](Value lane) {
    Value laneChannel = k.add(channel, lane);
    if (partial && repeat)
      laneChannel = k.min(laneChannel, k.index(channels - 1));
    body(lane, laneChannel);
  });
}

Value CemaTile::load(Value memref, ValueRange indices) {
  auto type = cast<MemRefType>(memref.getType()).getElementType();
  return vector::LoadOp::create(kernel->b, VectorType::get(width, type), memref,
                                indices);
}

void CemaTile::store(Value vector, Value memref, ValueRange indices) {
  vector::StoreOp::create(kernel->b, vector, memref, indices);
}

void CemaTile::prefetch(Value activation, Value token, Value channel) {
  memref::PrefetchOp::create(kernel->b, activation, ValueRange{token, channel},
                             /*isWrite=*/false, /*localityHint=*/2,
                             /*isDataCache=*/true);
}

void CemaTile::forCoefficients(
    Value channel, Value p, Value q, Value g,
    function_ref<void(Value, const Coefficients &)> body) {
  KernelBuilder &k = *kernel;
  if (!coefficientScratch)
    coefficientScratch = k.scratch({states, 5, width}, k.b.getF64Type());
  Value zero = k.index(0), one = k.index(1);
  forLanes(channel, /*repeat=*/true, [&](Value lane, Value from) {
    k.loop(zero, k.index(states), 1, [&](Value state) {
      Value values[5];
      if (p)
        values[0] = k.loadScalar(p, {from, state});
      for (int64_t part : {0, 1}) {
        Value at = part ? one : zero;
        if (q)
          values[1 + part] = k.loadScalar(q, {from, state, at});
        if (g)
          values[3 + part] = k.loadScalar(g, {from, state, at});
      }
      for (auto [part, value] : llvm::enumerate(values))
        if (value)
          k.storeScalar(value, coefficientScratch,
                        {state, k.index(part), lane});
    });
  });
  const bool given[] = {bool(p), bool(q), bool(q), bool(g), bool(g)};
  k.loop(zero, k.index(states), 1, [&](Value state) {
    Value parts[5];
    for (auto [part, value] : llvm::enumerate(parts))
      if (given[part])
        value = load(coefficientScratch, {state, k.index(part), zero});
    body(state, {parts[0], parts[1], parts[2], parts[3], parts[4]});
  });
}

void CemaTile::loadStates(Value outside, Value row, Value inside) {
  KernelBuilder &k = *kernel;
  forGroups([&](Value group, Value channel) {
    forLanes(channel, /*repeat=*/true, [&](Value lane, Value from) {
      k.loop(k.index(0), k.index(states), 1, [&](Value state) {
        for (int64_t part : {0, 1})
          k.storeScalar(
              k.loadScalar(outside, {row, from, state, k.index(part)}), inside,
              {group, state, k.index(part), lane});
      });
    });
  });
}

void CemaTile::storeStates(Value inside, Value outside, Value row) {
  KernelBuilder &k = *kernel;
  forGroups([&](Value group, Value channel) {
    forLanes(channel, /*repeat=*/false, [&](Value lane, Value to) {
      k.loop(k.index(0), k.index(states), 1, [&](Value state) {
        for (int64_t part : {0, 1})
          k.storeScalar(
              k.loadScalar(inside, {group, state, k.index(part), lane}),
              outside, {row, to, state, k.index(part)});
      });
    });
  });
}

void CemaTile::clearStates(Value inside) {
  KernelBuilder &k = *kernel;
  Value zero = k.constant(0, vector());
  forGroups([&](Value group, Value) {
    k.loop(k.index(0), k.index(states), 1, [&](Value state) {
      for (int64_t part : {0, 1})
        store(zero, inside, {group, state, k.index(part), k.index(0)});
    });
  });
}

Value CemaTile::blockStateOffset(Value block, Value row, Value rows,
                                 Value channel, Value state, int64_t part) {
  KernelBuilder &k = *kernel;
  Value groupWidth = k.index(width);
  if (channels % width)
    groupWidth = k.min(groupWidth, k.sub(k.index(channels), channel));
  Value first = k.mul(
      k.add(k.mul(k.add(k.mul(block, rows), row), k.index(channels)), channel),
      k.index(2 * states));
  return k.add(
      first, k.mul(k.add(k.mul(state, k.index(2)), k.index(part)), groupWidth));
}

Value CemaTile::segmentStateOffset(Value segment, Value row, Value rows,
                                   Value channel, Value state, int64_t part) {
  KernelBuilder &k = *kernel;
  Value group = k.add(k.mul(k.add(k.mul(segment, rows), row), k.index(groups)),
                      k.div(channel, k.index(width)));
  return k.mul(
      k.add(k.mul(k.add(k.mul(group, k.index(states)), state), k.index(2)),
            k.index(part)),
      k.index(width));
}

void CemaTile::forStateGroups(int64_t size,
                              function_ref<void(Value, int64_t)> body) {
  KernelBuilder &k = *kernel;
  int64_t whole = states - states % size;
  if (whole)
    k.loop(k.index(0), k.index(whole), size,
           [&](Value first) { body(first, size); });
  if (whole != states)
    body(k.index(whole), states - whole);
}

void mlir::megalodon::replaceUsedResults(PatternRewriter &rewriter,
                                         Operation *op,
                                         ArrayRef<Value> values) {
  for (auto [result, value] : llvm::zip_equal(op->getResults(), values))
    if (value)
      rewriter.replaceAllUsesWith(result, value);
  rewriter.eraseOp(op);
}

void mlir::megalodon::populateCemaLowering(RewritePatternSet &patterns,
                                           const LoweringOptions &options) {
  populateCemaCoefficientLowering(patterns, options);
  populateCemaForwardLowering(patterns, options);
  populateCemaGradLowering(patterns, options);
  populateCemaSummaryLowering(patterns, options);
}
