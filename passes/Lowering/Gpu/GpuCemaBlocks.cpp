// Activations in shared memory and operands of tensor cores for CEMA's kernels
// in matrix form.
#include "passes/Lowering/Gpu/GpuCemaBlocks.h"

using namespace mlir;
using namespace mlir::megalodon;

CemaBlockKernel::CemaBlockKernel(KernelBuilder &k, Value activation, Value p,
                                 int64_t segment)
    : k(k), channels(tensorOf(p).getDimSize(0)),
      states(tensorOf(p).getDimSize(1)), segment(segment),
      f32(k.b.getF32Type()), f64(k.b.getF64Type()) {
  const bool narrow = tensorOf(activation).getElementType().isBF16();
  terms = narrow ? 2 : 3;
  inputTerms = narrow ? 1 : 3;
}

void CemaBlockKernel::begin() {
  Value groups = k.index(channels / kChannels),
        pair = k.div(k.workgroup(), groups);
  firstChannel = k.mul(k.rem(k.workgroup(), groups), k.index(kChannels));
  channel = k.add(firstChannel, k.warp());
  group = k.div(k.lane(), k.index(4));
  member = k.rem(k.lane(), k.index(4));
  row = segment ? k.rem(pair, k.batch()) : pair;
  rowToken = k.mul(row, k.length());
  segmentIndex = first = k.index(0);
  end = k.length();
  if (!segment)
    return;
  segmentIndex = k.div(pair, k.batch());
  first = k.mul(segmentIndex, k.index(segment));
  end = k.add(first, segmentLength(k, segmentIndex, segment));
}

//===-- Activations
//----------------------------------------------------------------------------------------------------===//

Value CemaBlockKernel::chunkScratch() {
  return k.scratch({kChannels * kChannelPitch}, f32);
}

std::pair<Value, Value> CemaBlockKernel::piece(int64_t i) {
  Value number = k.add(k.thread(), k.index(i * kThreads));
  constexpr int64_t perToken = kChannels / kPiece;
  return {k.div(number, k.index(perToken)),
          k.mul(k.rem(number, k.index(perToken)), k.index(kPiece))};
}

Value CemaBlockKernel::sharedIndex(Value inChannel, Value token) {
  Value inBlock = k.rem(token, k.index(kBlock)),
        block = k.div(token, k.index(kBlock)),
        upper = k.div(token, k.index(kChunk / 2));
  return k.add(k.add(k.mul(inChannel, k.index(kChannelPitch)),
                     k.mul(upper, k.index(kShift))),
               k.add(k.mul(block, k.index(kBlockPitch)), inBlock));
}

// Constants are added last, where they become part of an access instead of an
// address in registers of its own.

Value CemaBlockKernel::pairIndex(int64_t odd, int64_t token) {
  Value place =
      k.add(k.mul(group, k.index(2 * kBlockPitch)), k.mul(member, k.index(2)));
  Value upper = k.mul(k.div(group, k.index(4)), k.index(kShift));
  Value base =
      k.add(k.mul(k.warp(), k.index(kChannelPitch)), k.add(place, upper));
  return k.add(base, k.index(odd * kBlockPitch + token));
}

Value CemaBlockKernel::columnIndex(int64_t inLane, int64_t token) {
  Value place = k.add(k.mul(member, k.index(4 * kBlockPitch)), group);
  Value upper = k.mul(k.div(member, k.index(2)), k.index(kShift));
  Value base =
      k.add(k.mul(k.warp(), k.index(kChannelPitch)), k.add(place, upper));
  return k.add(base, k.index(inLane * kBlockPitch + token));
}

Value CemaBlockKernel::pieceIndex(int64_t i, bool mirrored) {
  auto [token, inChannel] = piece(0);
  if (mirrored) {
    token = k.sub(k.index(kPieceTokens - 1), token);
    i = kPieces - 1 - i;
  }
  const int64_t first = i * kPieceTokens;
  return k.add(
      sharedIndex(inChannel, token),
      k.index(first / kBlock * kBlockPitch + first / (kChunk / 2) * kShift));
}

static llvm::MaybeAlign alignmentOf(Type element, int64_t count) {
  return llvm::MaybeAlign(count * element.getIntOrFloatBitWidth() / 8);
}

SmallVector<Value> CemaBlockKernel::loadTokens(Value activation, Value from) {
  Type element = cast<MemRefType>(activation.getType()).getElementType();
  SmallVector<Value> result;
  for (int64_t i = 0; i < kPieces; ++i) {
    auto [token, inChannel] = piece(i);
    Value at = k.add(from, token), inside = k.less(at, end);
    at = k.min(at, k.sub(end, k.index(1)));
    Value values = vector::LoadOp::create(
        k.b, VectorType::get({kPiece}, element), activation,
        ValueRange{k.add(rowToken, at), k.add(firstChannel, inChannel)},
        /*nontemporal=*/false, alignmentOf(element, kPiece));
    // As registers: bf16 numbers are only widened once they are needed.
    auto registers = VectorType::get(
        {kPiece * element.getIntOrFloatBitWidth() / 32}, k.b.getI32Type());
    values = vector::BitCastOp::create(k.b, registers, values);
    Value zero = arith::ConstantOp::create(k.b, k.b.getZeroAttr(registers));
    result.push_back(k.select(inside, values, zero));
  }
  return result;
}

void CemaBlockKernel::storeShared(ValueRange pieces, Value shared,
                                  bool mirrored) {
  Type element = inputTerms == 1 ? k.b.getBF16Type() : f32;
  for (int64_t i = 0; i < kPieces; ++i) {
    Value at = pieceIndex(i, mirrored),
          values =
              k.toFloat(vector::BitCastOp::create(
                            k.b, VectorType::get({kPiece}, element), pieces[i]),
                        f32);
    for (int64_t j = 0; j < kPiece; ++j)
      k.storeScalar(vector::ExtractOp::create(k.b, values, j), shared,
                    {k.add(at, k.index(j * kChannelPitch))});
  }
}

void CemaBlockKernel::storeTokens(Value shared, Value result, Value from,
                                  bool mirrored) {
  Type element = cast<MemRefType>(result.getType()).getElementType();
  for (int64_t i = 0; i < kPieces; ++i) {
    auto [token, inChannel] = piece(i);
    Value at = k.add(from, token), in = inChannel;
    Value place = pieceIndex(i, mirrored);
    k.when(k.less(at, end), [&] {
      SmallVector<Value> values;
      for (int64_t j = 0; j < kPiece; ++j)
        values.push_back(
            k.loadScalar(shared, {k.add(place, k.index(j * kChannelPitch))}));
      Value vector = vector::FromElementsOp::create(
          k.b, VectorType::get({kPiece}, f32), values);
      vector::StoreOp::create(
          k.b, k.toFloat(vector, element), result,
          ValueRange{k.add(rowToken, at), k.add(firstChannel, in)},
          /*nontemporal=*/false, alignmentOf(element, kPiece));
    });
  }
}

CemaBlockKernel::Registers CemaBlockKernel::loadTerms(Value shared, int64_t odd,
                                                      int64_t token) {
  return splitTerms(
      k,
      vector::LoadOp::create(k.b, VectorType::get({2}, f32), shared,
                             ValueRange{pairIndex(odd, token)},
                             /*nontemporal=*/false, llvm::MaybeAlign(8)),
      inputTerms);
}

//===-- Products
//-------------------------------------------------------------------------------------------------------===//

void CemaBlockKernel::multiplyTerms(ArrayRef<Operand> left,
                                    ArrayRef<Operand> right,
                                    MutableArrayRef<Value> sums) {
  for (int64_t order = terms - 1; order >= 0; --order)
    for (int64_t i = order; i >= 0; --i)
      if (i < int64_t(left.size()) && order - i < int64_t(right.size()))
        multiplyFragments(k, left[i], right[order - i], sums);
}

SmallVector<CemaBlockKernel::Operand>
CemaBlockKernel::byTerm(ArrayRef<Registers> registers) {
  SmallVector<Operand> result(registers.front().size());
  for (const Registers &each : registers)
    for (auto [term, value] : llvm::enumerate(each))
      result[term].push_back(value);
  return result;
}

SmallVector<Value> CemaBlockKernel::zeros() {
  return SmallVector<Value>(4, k.constant(0, f32));
}

CemaBlockKernel::Registers CemaBlockKernel::split(Value a, Value b,
                                                  int64_t count) {
  Value pair = vector::FromElementsOp::create(
      k.b, VectorType::get({2}, f32),
      ValueRange{k.toFloat(a, f32), k.toFloat(b, f32)});
  return splitTerms(k, pair, count);
}

//===-- States and coefficients
//----------------------------------------------------------------------------------------===//

Complex CemaBlockKernel::load(Value from, Value state) {
  auto [re, im] = loadPair(k, from, {channel, state, k.index(0)});
  return {re, im};
}

Complex CemaBlockKernel::choose(Value condition, Complex a, Complex b) {
  return {k.select(condition, a.re, b.re), k.select(condition, a.im, b.im)};
}

Value CemaBlockKernel::isSet(Value number, int64_t bit) {
  Value masked = arith::AndIOp::create(k.b, number, k.index(bit));
  return k.less(k.index(0), masked);
}

Value CemaBlockKernel::innerOffset(Value index, Value state, int64_t half,
                                   Value ofChannel) {
  Value pair = k.add(k.mul(index, k.index(states)), state);
  return k.add(
      k.mul(k.add(k.mul(pair, k.index(2)), k.index(half)), k.index(channels)),
      ofChannel);
}
