// The matrix form of megalodon.cema for GPUs: blocks of 32 tokens, whose
// outputs are products on tensor cores. With H_b the state before block b,
//   E_b = sum over j of p q^(31-j) x_j               [2N, 32] times block b
//   H_{b+1} = q^32 H_b + E_b                         a scan over blocks
//   y_j = sum over i <= j of K_{j-i} x_i             [32, 32], Toeplitz
//       + Re(sum over states of g q^(j+1) H_b)       [32, 2N] times H_b
// with K_j = Re(sum g p q^j), plus omega for j = 0. Each state's own scan
// disappears: of 16 states' multiply-adds a token, done one by one, remain
// products of 16 x 16 x 8.
//
// A warp has one channel and 16 blocks at a time: x as the left operand [16
// blocks, 32 tokens], so that E comes out as the left operand that the outputs
// need, and the coefficients as right operands that stay in registers for the
// whole segment. The Toeplitz matrix is four registers a term: what a lane
// holds of a tile only depends on the distance from the diagonal. Eight warps
// take eight neighbouring channels; x and y pass through shared memory, which
// turns them from [tokens, channels] into [channel, tokens].
//
// Numbers are sums of bf16 terms, as in GpuTiles.h; bf16 activations are one
// term. Coefficients are powers formed in f64 and rounded once to f32 before
// they are split.
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/Gpu/GpuTiles.h"
#include "passes/Lowering/RowKernel.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Tokens of a block, and blocks that a warp handles at a time.
constexpr int64_t kBlock = 32, kBlocks = 16, kTokens = kBlock * kBlocks;
/// Channels of a workgroup, each with a warp.
constexpr int64_t kChannels = 8, kThreads = kChannels * kWarpThreads;
/// Numbers between blocks and between channels in shared memory, so that the
/// lanes of a warp meet different banks in both views.
constexpr int64_t kBlockPitch = kBlock + 4,
                  kChannelPitch = kBlocks * kBlockPitch + 4;
/// Channels that a thread moves at once, and times it does so for all tokens.
constexpr int64_t kPiece = 4,
                  kPieces = kTokens * kChannels / (kPiece * kThreads);

class MatrixKernel {
public:
  MatrixKernel(KernelBuilder &k, CemaOp op, int64_t segment,
               Value segmentStates)
      : k(k), channels(tensorOf(op.getP()).getDimSize(0)),
        states(tensorOf(op.getP()).getDimSize(1)), tiles(states / 4),
        block(op.getBlockStates().use_empty()
                  ? 0
                  : static_cast<int64_t>(op.getBlock())),
        segment(segment), f32(k.b.getF32Type()), f64(k.b.getF64Type()) {
    const bool narrow = tensorOf(op.getX()).getElementType().isBF16();
    terms = narrow ? 2 : 3;
    inputTerms = narrow ? 1 : 3;
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    omega = k.read(op.getOmega(), View::Flat);
    if (segment)
      starts = k.read(segmentStates, View::Flat);
    y = k.write(op.getResult().getType(), View::Rows);
    newState =
        segment ? k.write(op.getNewState().getType()) : k.update(op.getState());
    if (block)
      blockStates = k.write(op.getBlockStates().getType(), View::Flat);
    xs = k.scratch({kChannels * kChannelPitch}, f32);
    ys = k.scratch({kChannels * kChannelPitch}, f32);
    impulse = k.scratch({kChannels, kBlock + 1}, f32);
    powers = k.scratch({kChannels, 4 * tiles, 8}, f32);
    finals = k.scratch({kChannels, 2 * states}, f32);
    if (block)
      kept = k.scratch({kChannels * keptPitch()}, f32);
  }

  void build() {
    Value zero = k.index(0), groups = k.index(channels / kChannels),
          pair = k.div(k.workgroup(), groups), length = k.length();
    firstChannel = k.mul(k.rem(k.workgroup(), groups), k.index(kChannels));
    channel = k.add(firstChannel, k.warp());
    group = k.div(k.lane(), k.index(4));
    member = k.rem(k.lane(), k.index(4));
    row = segment ? k.rem(pair, k.batch()) : pair;
    rowToken = k.mul(row, length);
    first = zero;
    end = length;
    Value index = zero;
    if (segment) {
      index = k.div(pair, k.batch());
      first = k.mul(index, k.index(segment));
      end = k.add(first, segmentLength(k, index, segment));
    }
    prepareInputs();
    prepareOutputs();
    k.barrier();
    prepareImpulse();

    SmallVector<Value> carried =
        loadStates(k.add(k.mul(index, k.batch()), row));
    const size_t stateCount = carried.size();
    llvm::append_range(carried, loadTokens(first));
    k.loop(first, end, kTokens, carried, [&](Value from, ValueRange before) {
      storeShared(before.drop_front(stateCount));
      k.barrier();
      SmallVector<Value> coming = loadTokens(k.add(from, k.index(kTokens)));
      SmallVector<Value> after = run(from, before.take_front(stateCount));
      k.barrier();
      storeOutputs(from);
      llvm::append_range(after, coming);
      return after;
    });

    // The last tokens that are no whole block, from the state before them.
    auto finish = [&] { storeFinalStates(); };
    if (segment)
      k.when(k.less(k.sub(length, k.index(1)), end), finish);
    else
      finish();
  }

private:
  using Registers = SmallVector<Value>; ///< one a term
  using Operand = SmallVector<Value>;   ///< registers of one term

  //===-- Coefficients
  //---------------------------------------------------------------------------------------------------===//

  Complex load(Value from, Value state) {
    auto [re, im] = loadPair(k, from, {channel, state, k.index(0)});
    return {re, im};
  }
  Complex choose(Value condition, Complex a, Complex b) {
    return {k.select(condition, a.re, b.re), k.select(condition, a.im, b.im)};
  }
  Complex scale(Complex a, Value by) {
    return {k.mul(a.re, by), k.mul(a.im, by)};
  }
  Complex rounded(Complex a) {
    return {k.toFloat(a.re, f32), k.toFloat(a.im, f32)};
  }
  Value isSet(Value number, int64_t bit) {
    Value masked = arith::AndIOp::create(k.b, number, k.index(bit));
    return k.less(k.index(0), masked);
  }
  Registers split(Value a, Value b, int64_t count) {
    Value pair = vector::FromElementsOp::create(
        k.b, VectorType::get({2}, f32),
        ValueRange{k.toFloat(a, f32), k.toFloat(b, f32)});
    return splitTerms(k, pair, count);
  }

  /// p q^(31-j) as right operands [tokens, (state, part)]: of tile i a lane has
  /// the column of state 4 i + group / 2, part group % 2, and tokens 2 member,
  /// 2 member + 1 of every eight.
  void prepareInputs() {
    Value part = isSet(group, 1), half = k.div(group, k.index(2));
    for (int64_t i = 0; i < tiles; ++i) {
      Value state = k.add(k.index(4 * i), half);
      Complex q1 = load(q, state), q2 = multiply(k, q1, q1),
              q4 = multiply(k, q2, q2), q8 = multiply(k, q4, q4);
      // q^(6 - 2 member)
      Complex one = {k.constant(1, f64), k.constant(0, f64)};
      Complex low = choose(isSet(member, 1), one, q2),
              high = choose(isSet(member, 2), one, q4);
      Complex u0 = scale(multiply(k, low, high),
                         k.loadScalar(p, {channel, state})),
              u1 = multiply(k, u0, q1);
      inputs.emplace_back();
      for (int64_t m = 0; m < kBlock / 8; ++m) {
        if (m) {
          u0 = multiply(k, u0, q8);
          u1 = multiply(k, u1, q8);
        }
        inputs.back().push_back(split(k.select(part, u1.im, u1.re),
                                      k.select(part, u0.im, u0.re), terms));
      }
    }
  }

  /// g q^(j+1) as right operands [(state, part), tokens]: a lane has token 8 m
  /// + group and states 4 i + member. Also the impulse response, and powers of
  /// q^32 for the scan over blocks.
  void prepareOutputs() {
    Value sums[1 + kBlock / 8];
    for (Value &sum : sums)
      sum = k.constant(0, f64);
    for (int64_t i = 0; i < tiles; ++i) {
      Value state = k.add(k.index(4 * i), member);
      Complex q1 = load(q, state), gain = load(g, state);
      Value weight = k.loadScalar(p, {channel, state});
      sums[0] = k.fma(gain.re, weight, sums[0]);
      Complex power = multiply(k, q1, gain), square = q1;
      for (int64_t bit : {1, 2, 4}) {
        power = choose(isSet(group, bit), multiply(k, power, square), power);
        square = multiply(k, square, square);
      }
      // square is q^8.
      outputs.emplace_back();
      for (int64_t m = 0; m < kBlock / 8; ++m) {
        if (m)
          power = multiply(k, power, square);
        sums[1 + m] = k.fma(power.re, weight, sums[1 + m]);
        outputs.back().push_back(
            split(power.re, arith::NegFOp::create(k.b, power.im), terms));
      }
      Complex q16 = multiply(k, square, square), q32 = multiply(k, q16, q16);
      // Every group of lanes has the same.
      k.when(k.less(group, k.index(1)), [&] {
        Complex power = q32;
        for (int64_t step = 0; step < 4; ++step) {
          storePair(
              k, power.re, power.im, powers,
              {k.warp(), k.index(4 * i + step), k.mul(member, k.index(2))});
          if (step < 3)
            power = multiply(k, power, power);
        }
      });
    }
    for (auto [m, sum] : llvm::enumerate(sums)) {
      Value total = k.toFloat(sum, f32);
      for (int64_t mask : {1, 2})
        total = k.add(total, k.shuffleXor(total, mask));
      Value writes =
          m ? k.less(member, k.index(1)) : k.less(k.lane(), k.index(1));
      Value lag = m ? k.add(group, k.index(1 + 8 * (m - 1))) : k.index(0);
      if (!m)
        total = k.add(total, k.loadScalar(omega, {channel}));
      k.when(writes, [&] { k.storeScalar(total, impulse, {k.warp(), lag}); });
    }
  }

  /// The Toeplitz matrix as right operands: 8 m + group - 2 member tokens from
  /// the diagonal, and one less.
  void prepareImpulse() {
    for (int64_t m = 0; m < kBlock / 8; ++m) {
      Value to = k.add(group, k.index(8 * m)), from = k.mul(member, k.index(2));
      auto at = [&](Value token) {
        Value lag = k.sub(to, token), before = k.less(to, token);
        Value value = k.loadScalar(
            impulse, {k.warp(), k.select(before, k.index(0), lag)});
        return k.select(before, k.constant(0, f32), value);
      };
      Value here = at(from), next = at(k.add(from, k.index(1)));
      diagonals.push_back(split(here, next, terms));
    }
  }

  //===-- Activations
  //----------------------------------------------------------------------------------------------------===//

  /// The token in a chunk and the first channel of this thread's piece.
  std::pair<Value, Value> piece(int64_t i) {
    Value number = k.add(k.thread(), k.index(i * kThreads));
    constexpr int64_t perToken = kChannels / kPiece;
    return {k.div(number, k.index(perToken)),
            k.mul(k.rem(number, k.index(perToken)), k.index(kPiece))};
  }
  Value sharedIndex(Value inChannel, Value token) {
    Value inBlock = k.rem(token, k.index(kBlock)),
          blockIndex = k.div(token, k.index(kBlock));
    return k.add(k.mul(inChannel, k.index(kChannelPitch)),
                 k.add(k.mul(blockIndex, k.index(kBlockPitch)), inBlock));
  }
  llvm::MaybeAlign alignmentOf(Type element) {
    return llvm::MaybeAlign(kPiece * element.getIntOrFloatBitWidth() / 8);
  }

  /// This thread's pieces of the chunk that starts at `from`, f32; tokens past
  /// the end are 0.
  SmallVector<Value> loadTokens(Value from) {
    Type element = cast<MemRefType>(x.getType()).getElementType();
    SmallVector<Value> result;
    for (int64_t i = 0; i < kPieces; ++i) {
      auto [token, inChannel] = piece(i);
      Value at = k.add(from, token), inside = k.less(at, end);
      at = k.min(at, k.sub(end, k.index(1)));
      Value values = vector::LoadOp::create(
          k.b, VectorType::get({kPiece}, element), x,
          ValueRange{k.add(rowToken, at), k.add(firstChannel, inChannel)},
          /*nontemporal=*/false, alignmentOf(element));
      values = k.toFloat(values, f32);
      Value zero = k.constant(0, VectorType::get({kPiece}, f32));
      result.push_back(k.select(inside, values, zero));
    }
    return result;
  }
  void storeShared(ValueRange pieces) {
    for (int64_t i = 0; i < kPieces; ++i) {
      auto [token, inChannel] = piece(i);
      for (int64_t j = 0; j < kPiece; ++j)
        k.storeScalar(vector::ExtractOp::create(k.b, pieces[i], j), xs,
                      {sharedIndex(k.add(inChannel, k.index(j)), token)});
    }
  }
  void storeOutputs(Value from) {
    Type element = cast<MemRefType>(y.getType()).getElementType();
    for (int64_t i = 0; i < kPieces; ++i) {
      auto [token, inChannel] = piece(i);
      Value at = k.add(from, token), in = inChannel, inChunk = token;
      k.when(k.less(at, end), [&] {
        SmallVector<Value> values;
        for (int64_t j = 0; j < kPiece; ++j)
          values.push_back(
              k.loadScalar(ys, {sharedIndex(k.add(in, k.index(j)), inChunk)}));
        Value vector = vector::FromElementsOp::create(
            k.b, VectorType::get({kPiece}, f32), values);
        vector::StoreOp::create(
            k.b, k.toFloat(vector, element), y,
            ValueRange{k.add(rowToken, at), k.add(firstChannel, in)},
            /*nontemporal=*/false, alignmentOf(element));
      });
    }
    if (block)
      storeBlockStates(from);
  }

  //===-- One chunk
  //------------------------------------------------------------------------------------------------------===//

  /// sums += left right, from the smallest products of terms to the largest.
  /// Products below the last term's error are left out.
  void multiplyTerms(ArrayRef<Operand> left, ArrayRef<Operand> right,
                     MutableArrayRef<Value> sums) {
    for (int64_t order = terms - 1; order >= 0; --order)
      for (int64_t i = order; i >= 0; --i)
        if (i < int64_t(left.size()))
          multiplyFragments(k, left[i], right[order - i], sums);
  }
  /// The operand of each term, of registers with all terms.
  SmallVector<Operand> byTerm(ArrayRef<Registers> registers) {
    SmallVector<Operand> result(registers.front().size());
    for (const Registers &each : registers)
      for (auto [term, value] : llvm::enumerate(each))
        result[term].push_back(value);
    return result;
  }
  SmallVector<Value> zeros() {
    return SmallVector<Value>(4, k.constant(0, f32));
  }

  Value sharedPair(Value inBlock, int64_t token) {
    Value at = k.add(k.add(k.mul(k.warp(), k.index(kChannelPitch)),
                           k.mul(inBlock, k.index(kBlockPitch))),
                     k.add(k.mul(member, k.index(2)), k.index(token)));
    return at;
  }

  /// The chunk that starts at `from`, given the states before it; returns those
  /// after it. Rows of the left operands are blocks: row `group` is block 2
  /// group, row group + 8 the block after it.
  SmallVector<Value> run(Value from, ValueRange before) {
    Value even = k.mul(group, k.index(2)), odd = k.add(even, k.index(1));
    SmallVector<SmallVector<Operand>> left;
    for (int64_t step = 0; step < kBlock / 16; ++step) {
      SmallVector<Registers> registers;
      for (int64_t half : {0, 8})
        for (Value inBlock : {even, odd})
          registers.push_back(
              splitTerms(k,
                         vector::LoadOp::create(
                             k.b, VectorType::get({2}, f32), xs,
                             ValueRange{sharedPair(inBlock, 16 * step + half)},
                             /*nontemporal=*/false, llvm::MaybeAlign(8)),
                         inputTerms));
      left.push_back(byTerm(registers));
    }

    // What every block leaves behind, and from that the states before it.
    SmallVector<Value> after;
    SmallVector<std::pair<Complex, Complex>> h; // before even and odd blocks
    for (int64_t i = 0; i < tiles; ++i) {
      SmallVector<Value> ends = zeros();
      for (int64_t step = 0; step < kBlock / 16; ++step)
        multiplyTerms(
            left[step],
            byTerm({inputs[i][3 - 2 * step], inputs[i][2 - 2 * step]}), ends);
      Complex start = {before[2 * i], before[2 * i + 1]}, last;
      h.push_back(
          scanBlocks(i, {ends[0], ends[1]}, {ends[2], ends[3]}, start, last));
      keepFinals(from, i, h.back(), last);
      Complex next = fromLane(last, k.add(k.index(28), member));
      after.append({next.re, next.im});
    }
    if (block)
      keepBlockStates(h);

    SmallVector<SmallVector<Operand>> stateOperands;
    for (int64_t i = 0; i < tiles; i += 2) {
      SmallVector<Registers> registers;
      for (int64_t j : {i, i + 1})
        for (Complex value : {h[j].first, h[j].second})
          registers.push_back(split(value.re, value.im, terms));
      stateOperands.push_back(byTerm(registers));
    }
    for (int64_t m = 0; m < kBlock / 8; ++m) {
      SmallVector<Value> sums = zeros();
      for (int64_t i = 0; i < tiles; i += 2)
        multiplyTerms(stateOperands[i / 2],
                      byTerm({outputs[i][m], outputs[i + 1][m]}), sums);
      for (int64_t step = 0; 2 * step <= m; ++step) {
        int64_t distance = m - 2 * step;
        Registers above(terms, zeroRegister());
        multiplyTerms(left[step],
                      byTerm({diagonals[distance],
                              distance ? diagonals[distance - 1] : above}),
                      sums);
      }
      for (auto [i, inBlock] : {std::pair(0, even), {2, odd}}) {
        Value pair = vector::FromElementsOp::create(
            k.b, VectorType::get({2}, f32), ValueRange{sums[i], sums[i + 1]});
        vector::StoreOp::create(k.b, pair, ys,
                                ValueRange{sharedPair(inBlock, 8 * m)},
                                /*nontemporal=*/false, llvm::MaybeAlign(8));
      }
    }
    return after;
  }

  Value zeroRegister() {
    return arith::ConstantOp::create(k.b, k.b.getI32IntegerAttr(0));
  }
  Complex fromLane(Complex value, Value lane) {
    return {k.shuffleFrom(value.re, lane), k.shuffleFrom(value.im, lane)};
  }

  /// The states before the lane's two blocks, of state 4 i + member; `last` is
  /// the state after both.
  std::pair<Complex, Complex> scanBlocks(int64_t i, Complex even, Complex odd,
                                         Complex start, Complex &last) {
    Complex power[4]; // q^32, q^64, q^128, q^256
    for (int64_t step = 0; step < 4; ++step) {
      auto [re, im] = loadPair(
          k, powers,
          {k.warp(), k.index(4 * i + step), k.mul(member, k.index(2))});
      power[step] = {re, im};
    }
    last = advance(k, power[0], even, odd);
    Value isFirst = k.less(group, k.index(1));
    last = choose(isFirst, advance(k, power[1], start, last), last);
    for (int64_t step = 1; step < 8; step *= 2) {
      Value reaches = k.less(k.index(step - 1), group);
      Value lane =
          k.select(reaches, k.sub(k.lane(), k.index(4 * step)), k.lane());
      Complex behind = fromLane(last, lane);
      last = choose(reaches,
                    advance(k, power[1 + llvm::Log2_64(step)], behind, last),
                    last);
    }
    Complex behind = fromLane(
        last, k.select(isFirst, k.lane(), k.sub(k.lane(), k.index(4))));
    Complex first = choose(isFirst, start, behind);
    return {first, advance(k, power[0], first, even)};
  }

  //===-- States
  //---------------------------------------------------------------------------------------------------------===//

  /// States 4 i + member of the warp's channel.
  SmallVector<Value> loadStates(Value index) {
    SmallVector<Value> result;
    for (int64_t i = 0; i < tiles; ++i) {
      Value state = k.add(k.index(4 * i), member);
      if (!segment) {
        auto [re, im] =
            loadPair(k, newState, {row, channel, state, k.index(0)});
        result.append({re, im});
        continue;
      }
      for (int64_t half : {0, 1})
        result.push_back(
            k.loadScalar(starts, {innerOffset(index, state, half, channel)}));
    }
    return result;
  }
  /// Of [M, N, 2, D] seen flat.
  Value innerOffset(Value index, Value state, int64_t half, Value ofChannel) {
    Value pair = k.add(k.mul(index, k.index(states)), state);
    return k.add(
        k.mul(k.add(k.mul(pair, k.index(2)), k.index(half)), k.index(channels)),
        ofChannel);
  }

  int64_t keptPerChunk() const { return kTokens / block; }
  int64_t keptPitch() const { return keptPerChunk() * (2 * states + 8) + 4; }

  /// Puts the states before blocks of `block` tokens where all warps' can be
  /// stored together, neighbouring channels side by side.
  void keepBlockStates(ArrayRef<std::pair<Complex, Complex>> h) {
    Value even = k.mul(group, k.index(2)), spacing = k.index(block / kBlock);
    auto keep = [&] {
      Value base = k.add(k.mul(k.warp(), k.index(keptPitch())),
                         k.mul(k.div(even, spacing), k.index(2 * states + 8)));
      for (int64_t i = 0; i < tiles; ++i) {
        Value at =
            k.add(base, k.mul(k.add(k.index(4 * i), member), k.index(2)));
        k.storeScalar(h[i].first.re, kept, {at});
        k.storeScalar(h[i].first.im, kept, {k.add(at, k.index(1))});
      }
    };
    if (block > 2 * kBlock)
      k.when(k.less(k.rem(even, spacing), k.index(1)), keep);
    else
      keep();
  }
  void storeBlockStates(Value from) {
    const int64_t count = keptPerChunk() * 2 * states * kChannels;
    k.loop(k.thread(), k.index(count), kThreads, [&](Value number) {
      Value inChannel = k.rem(number, k.index(kChannels)),
            rest = k.div(number, k.index(kChannels));
      Value half = k.rem(rest, k.index(2 * states)),
            inChunk = k.div(rest, k.index(2 * states));
      Value token = k.add(from, k.mul(inChunk, k.index(block)));
      k.when(k.less(token, end), [&] {
        Value value = k.loadScalar(
            kept, {k.add(k.add(k.mul(inChannel, k.index(keptPitch())),
                               k.mul(inChunk, k.index(2 * states + 8))),
                         half)});
        Value index =
            k.add(k.mul(k.div(token, k.index(block)), k.batch()), row);
        Value to = k.add(k.mul(k.add(k.mul(index, k.index(2 * states)), half),
                               k.index(channels)),
                         k.add(firstChannel, inChannel));
        k.storeScalar(value, blockStates, {to});
      });
    });
  }

  /// In the last chunk: the state after its whole blocks.
  void keepFinals(Value from, int64_t i, std::pair<Complex, Complex> h,
                  Complex last) {
    Value left = k.sub(end, from);
    k.when(k.less(left, k.index(kTokens + 1)), [&] {
      Value whole = k.div(left, k.index(kBlock)),
            mine = k.sub(whole, k.mul(group, k.index(2)));
      Value at = k.mul(k.add(k.index(4 * i), member), k.index(2));
      auto keep = [&](Value condition, Complex value) {
        k.when(condition, [&] {
          k.storeScalar(value.re, finals, {k.warp(), at});
          k.storeScalar(value.im, finals, {k.warp(), k.add(at, k.index(1))});
        });
      };
      auto is = [&](int64_t number) -> Value {
        return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, mine,
                                     k.index(number));
      };
      keep(is(0), h.first);
      keep(is(1), h.second);
      Value isLast = k.less(k.index(kBlocks / 2 - 2), group);
      keep(arith::AndIOp::create(k.b, is(2), isLast), last);
    });
  }

  void storeFinalStates() {
    Value count = k.index(kChannels * states);
    Value rest = k.rem(k.sub(end, first), k.index(kBlock));
    k.loop(k.thread(), count, kThreads, [&](Value number) {
      Value inChannel = k.div(number, k.index(states)),
            state = k.rem(number, k.index(states)),
            here = k.add(firstChannel, inChannel);
      Value at = k.mul(state, k.index(2));
      SmallVector<Value> h = {
          k.loadScalar(finals, {inChannel, at}),
          k.loadScalar(finals, {inChannel, k.add(at, k.index(1))})};
      auto [qRe, qIm] = loadPair(k, q, {here, state, k.index(0)});
      Complex q1 = rounded({qRe, qIm});
      Value weight = k.toFloat(k.loadScalar(p, {here, state}), f32);
      Value token = k.sub(end, rest);
      h = k.loop(token, end, 1, h,
                 [&](Value t, ValueRange before) -> SmallVector<Value> {
                   Value u = k.loadScalar(x, {k.add(rowToken, t), here});
                   Complex next = advance(k, q1, {before[0], before[1]},
                                          {k.mul(weight, u), Value()});
                   return {next.re, next.im};
                 });
      storePair(k, h[0], h[1], newState, {row, here, state, k.index(0)});
    });
  }

  KernelBuilder &k;
  int64_t channels, states;
  int64_t tiles; ///< of eight (state, part)
  /// Tokens between saved states (0: they are not wanted) and tokens of a
  /// segment (0: whole rows).
  int64_t block, segment;
  int64_t terms, inputTerms;
  Type f32, f64;
  Value x, p, q, g, omega, starts, y, newState, blockStates;
  Value xs, ys, impulse, powers, finals, kept;
  Value firstChannel, channel, group, member, row, rowToken, first, end;
  SmallVector<SmallVector<Registers>> inputs, outputs; // [tile][eight tokens]
  SmallVector<Registers> diagonals;
};

} // namespace

int64_t mlir::megalodon::gpuCemaChunk() { return kTokens; }

bool mlir::megalodon::hasGpuCemaMatrixForm(CemaOp op) {
  int64_t channels = tensorOf(op.getP()).getDimSize(0),
          states = tensorOf(op.getP()).getDimSize(1), block = op.getBlock();
  return channels % kChannels == 0 && (states == 8 || states == 16) &&
         (op.getBlockStates().use_empty() ||
          (block % (2 * kBlock) == 0 && kTokens % block == 0));
}

SmallVector<Value> mlir::megalodon::buildGpuCemaMatrix(
    PatternRewriter &rewriter, const LoweringOptions &options, CemaOp op,
    int64_t segment, Value segmentStates, double bytes) {
  auto type = tensorOf(op.getX());
  int64_t channels = type.getDimSize(2),
          states = tensorOf(op.getP()).getDimSize(1);
  KernelBuilder k(rewriter, options, op,
                  segment ? "cema_matrix_segment" : "cema_matrix", kThreads);
  MatrixKernel(k, op, segment, segmentStates).build();
  Grid grid = {.factor = channels / kChannels, .outer = plan::Outer::Batch};
  if (segment) {
    grid.inner = plan::Inner::Length;
    grid.divisor = segment;
  }
  // As many as the scan's: what the model asks for, not what this form does.
  return k.finish(grid, /*flops=*/12.0 * type.getNumElements() * states, bytes);
}
