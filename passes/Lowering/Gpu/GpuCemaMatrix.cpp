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
// Backwards in time it is the same sum with other coefficients: dx of dy and
// the cotangents M behind the blocks, where conj(q) has q's place,
//   F_b = sum over j of conj(g q^(j+1)) dy_j,   M_b = conj(q)^32 M_{b+1} + F_b
//   dx_j = sum over i >= j of K_{i-j} dy_i + Re(sum of p conj(q)^(31-j) M)
// so megalodon.cema_grad has dx from this kernel too, which then puts tokens
// into shared memory last first. The states of chunks that it keeps are where
// the gradients of the coefficients start (GpuCemaCorrelations.cpp).
#include "passes/Lowering/Gpu/GpuCemaBlocks.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// One direction of time, by the tensors that it reads.
struct Flow {
  bool reverse;
  Value activation, p, q, g, omega;
  Value state;         ///< that it starts from; null for 0
  Value segmentStates; ///< of all segments, where there are some
  Type resultType, newStateType;
  int64_t kept; ///< tokens between the states that it keeps (0: none)
  Type keptType;
};

class MatrixKernel : CemaBlockKernel {
public:
  MatrixKernel(KernelBuilder &k, const Flow &flow, int64_t segment)
      : CemaBlockKernel(k, flow.activation, flow.p, segment),
        reverse(flow.reverse), tailed(flow.reverse && flow.state),
        tiles(states / 4), block(flow.kept) {
    x = k.read(flow.activation, View::Rows);
    p = k.read(flow.p);
    q = k.read(flow.q);
    g = k.read(flow.g);
    omega = k.read(flow.omega, View::Flat);
    if (segment)
      starts = k.read(flow.segmentStates, View::Flat);
    // A row's states are read before they are written, so one buffer does.
    const bool tied = !segment && !reverse;
    if (!segment && reverse && flow.state)
      state = k.read(flow.state);
    y = k.write(flow.resultType, View::Rows);
    newState = tied ? k.update(flow.state) : k.write(flow.newStateType);
    if (tied)
      state = newState;
    if (block)
      blockStates = k.write(flow.keptType, View::Flat);
    xs = chunkScratch();
    ys = chunkScratch();
    impulse = k.scratch({kChannels, kBlock + 1}, f32);
    powers = k.scratch({kChannels, 4 * tiles, 8}, f32);
    if (!reverse)
      finals = k.scratch({kChannels, 2 * states}, f32);
    if (tailed) {
      tail = k.scratch({kChannels, 2 * states}, f32);
      tailOutputs = k.scratch({kChannels, kBlock}, f32);
    }
    if (block && !reverse)
      kept = k.scratch({kChannels * keptPitch()}, f32);
  }

  void build() {
    begin();
    prepareInputs();
    prepareOutputs();
    if (tailed)
      prepareTail();
    k.barrier();
    prepareImpulse();

    SmallVector<Value> carried = loadStates();
    const size_t stateCount = carried.size();
    Value chunks = k.ceilDiv(k.sub(end, first), kChunk);
    auto chunkAt = [&](Value number) {
      if (reverse)
        number = k.sub(k.sub(chunks, k.index(1)), number);
      return k.add(first, k.mul(number, k.index(kChunk)));
    };
    llvm::append_range(carried, loadTokens(x, chunkAt(k.index(0))));
    carried = k.loop(
        k.index(0), chunks, 1, carried, [&](Value number, ValueRange before) {
          Value from = chunkAt(number);
          storeShared(before.drop_front(stateCount), xs, reverse);
          k.barrier();
          // After the last chunk something that is not used.
          Value next = reverse ? k.select(k.less(first, from),
                                          k.sub(from, k.index(kChunk)), from)
                               : k.add(from, k.index(kChunk));
          SmallVector<Value> coming = loadTokens(x, next);
          SmallVector<Value> after = run(from, before.take_front(stateCount));
          k.barrier();
          if (tailed)
            addTail(from);
          storeTokens(ys, y, from, reverse);
          if (block && !reverse)
            storeBlockStates(from);
          llvm::append_range(after, coming);
          return after;
        });

    auto finish = [&] {
      if (reverse)
        storeStates(ValueRange(carried).take_front(stateCount));
      else
        storeFinalStates();
    };
    if (!segment)
      finish();
    else if (reverse)
      k.when(k.less(segmentIndex, k.index(1)), finish);
    else
      k.when(k.less(k.sub(k.length(), k.index(1)), end), finish);
  }

private:
  //===-- Coefficients
  //---------------------------------------------------------------------------------------------------===//

  /// q, or in reverse its conjugate.
  Complex loadFactor(Value state) {
    Complex q1 = load(q, state);
    return reverse ? conjugate(q1) : q1;
  }
  /// What the last input of a block is weighted with in its state: p, or in
  /// reverse conj(g q), of which `factor` is conj(q).
  Complex inputWeight(Value state, Complex factor) {
    if (reverse)
      return multiply(k, conjugate(load(g, state)), factor);
    return {k.loadScalar(p, {channel, state}), k.constant(0, f64)};
  }
  /// What the state before a block is weighted with in its first output: g q,
  /// or in reverse p.
  Complex outputWeight(Value state, Complex factor) {
    if (!reverse)
      return multiply(k, load(g, state), factor);
    return {k.loadScalar(p, {channel, state}), k.constant(0, f64)};
  }

  /// Weights q^(31-j) as right operands [tokens, (state, part)]: of tile i a
  /// lane has the column of state 4 i + group / 2, part group % 2, and tokens 2
  /// member, 2 member + 1 of every eight.
  void prepareInputs() {
    Value part = isSet(group, 1), half = k.div(group, k.index(2));
    for (int64_t i = 0; i < tiles; ++i) {
      Value state = k.add(k.index(4 * i), half);
      Complex q1 = loadFactor(state), q2 = multiply(k, q1, q1),
              q4 = multiply(k, q2, q2), q8 = multiply(k, q4, q4);
      // q^(6 - 2 member)
      Complex one = {k.constant(1, f64), k.constant(0, f64)};
      Complex low = choose(isSet(member, 1), one, q2),
              high = choose(isSet(member, 2), one, q4);
      Complex u0 = multiply(k, multiply(k, low, high), inputWeight(state, q1)),
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

  /// Weights q^j as right operands [(state, part), tokens]: a lane has token 8
  /// m + group and states 4 i + member. Also the impulse response, and powers
  /// of q^32 for the scan over blocks.
  void prepareOutputs() {
    Value sums[1 + kBlock / 8];
    for (Value &sum : sums)
      sum = k.constant(0, f64);
    for (int64_t i = 0; i < tiles; ++i) {
      Value state = k.add(k.index(4 * i), member);
      Complex q1 = loadFactor(state), weight = inputWeight(state, q1);
      sums[0] = k.fma(k.loadScalar(g, {channel, state, k.index(0)}),
                      k.loadScalar(p, {channel, state}), sums[0]);
      Complex power = outputWeight(state, q1), square = q1;
      for (int64_t bit : {1, 2, 4}) {
        power = choose(isSet(group, bit), multiply(k, power, square), power);
        square = multiply(k, square, square);
      }
      // square is q^8.
      outputs.emplace_back();
      for (int64_t m = 0; m < kBlock / 8; ++m) {
        if (m)
          power = multiply(k, power, square);
        sums[1 + m] = k.add(sums[1 + m], multiply(k, power, weight).re);
        outputs.back().push_back(
            split(power.re, arith::NegFOp::create(k.b, power.im), terms));
      }
      Complex q32 = blockPower(square);
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

  //===-- One chunk
  //------------------------------------------------------------------------------------------------------===//

  /// The chunk that starts at `from`, given the states before it; returns those
  /// after it. Rows of the left operands are blocks: row `group` is block 2
  /// group, row group + 8 the block after it.
  SmallVector<Value> run(Value from, ValueRange before) {
    if (reverse)
      keepChunkStates(from, before);
    SmallVector<SmallVector<Operand>> left;
    for (int64_t step = 0; step < kBlock / 16; ++step) {
      SmallVector<Registers> registers;
      for (int64_t half : {0, 8})
        for (int64_t odd : {0, 1})
          registers.push_back(loadTerms(xs, odd, 16 * step + half));
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
      if (tailed)
        putTail(from, i, ends);
      Complex start = {before[2 * i], before[2 * i + 1]}, last;
      h.push_back(
          scanBlocks(i, {ends[0], ends[1]}, {ends[2], ends[3]}, start, last));
      if (!reverse)
        keepFinals(from, i, h.back(), last);
      Complex next = fromLane(last, k.add(k.index(28), member));
      after.append({next.re, next.im});
    }
    if (block && !reverse)
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
      for (int64_t odd : {0, 1})
        storePair(k, sums[2 * odd], sums[2 * odd + 1], ys,
                  {pairIndex(odd, 8 * m)});
    }
    return after;
  }

  Value zeroRegister() {
    return arith::ConstantOp::create(k.b, k.b.getI32IntegerAttr(0));
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
  SmallVector<Value> loadStates() {
    SmallVector<Value> result;
    for (int64_t i = 0; i < tiles; ++i) {
      Complex h = loadStart(channel, k.add(k.index(4 * i), member));
      // Behind the tail, which has it already, nothing comes.
      if (tailed)
        h = choose(endsInBlock(), {k.constant(0, f32), k.constant(0, f32)}, h);
      result.append({h.re, h.im});
    }
    return result;
  }
  /// A state that the segment starts from.
  Complex loadStart(Value ofChannel, Value ofState) {
    if (segment) {
      Value index = k.add(k.mul(segmentIndex, k.batch()), row);
      return {
          k.loadScalar(starts, {innerOffset(index, ofState, 0, ofChannel)}),
          k.loadScalar(starts, {innerOffset(index, ofState, 1, ofChannel)})};
    }
    if (!state)
      return {k.constant(0, f32), k.constant(0, f32)};
    auto [re, im] = loadPair(k, state, {row, ofChannel, ofState, k.index(0)});
    return {re, im};
  }
  void storeStates(ValueRange values) {
    k.when(k.less(group, k.index(1)), [&] {
      for (int64_t i = 0; i < tiles; ++i)
        storePair(k, values[2 * i], values[2 * i + 1], newState,
                  {row, channel, k.add(k.index(4 * i), member), k.index(0)});
    });
  }

  int64_t keptPerChunk() const { return kChunk / block; }
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
    k.when(k.less(left, k.index(kChunk + 1)), [&] {
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

  //===-- Backwards
  //-------------------------------------------------------------------------------------------------------===//

  /// Where the segment ends inside a chunk, a cotangent behind it does not
  /// belong behind the chunk's last block. It is carried through the tokens
  /// that are no whole block one by one (the tail), and what comes out is what
  /// the block in which the segment ends leaves behind.
  Value endsInBlock() {
    return k.less(k.index(0), k.rem(end, k.index(kChunk)));
  }
  /// The block of the chunk at `from` in which the segment ends, or kBlocks.
  Value lastBlock(Value from) {
    return k.min(k.div(k.sub(end, from), k.index(kBlock)), k.index(kBlocks));
  }

  void prepareTail() {
    Value rest = k.rem(end, k.index(kBlock)), last = k.sub(end, k.index(1)),
          zero = k.constant(0, f32);
    auto weights = [&](Value ofChannel, Value ofState) {
      auto [qRe, qIm] = loadPair(k, q, {ofChannel, ofState, k.index(0)});
      auto [gRe, gIm] = loadPair(k, g, {ofChannel, ofState, k.index(0)});
      return std::pair(rounded(conjugate({qRe, qIm})),
                       rounded(conjugate({gRe, gIm})));
    };
    k.loop(k.thread(), k.index(kChannels * states), kThreads, [&](Value pair) {
      Value inChannel = k.div(pair, k.index(states)),
            ofState = k.rem(pair, k.index(states)),
            here = k.add(firstChannel, inChannel);
      auto [factor, gain] = weights(here, ofState);
      Complex m = loadStart(here, ofState), by = factor, input = gain;
      SmallVector<Value> values = {m.re, m.im};
      values = k.loop(
          k.index(0), rest, 1, values,
          [&](Value i, ValueRange before) -> SmallVector<Value> {
            Value dy = k.toFloat(
                k.loadScalar(x, {k.add(rowToken, k.sub(last, i)), here}), f32);
            Complex l = {k.fma(input.re, dy, before[0]),
                         k.fma(input.im, dy, before[1])},
                    next = advance(k, by, l, {});
            return {next.re, next.im};
          });
      Value at = k.mul(ofState, k.index(2));
      k.storeScalar(values[0], tail, {inChannel, at});
      k.storeScalar(values[1], tail, {inChannel, k.add(at, k.index(1))});
    });
    // What the cotangent behind the segment adds to dx of lane's token.
    k.when(k.less(k.lane(), rest), [&] {
      Value steps = k.sub(k.sub(rest, k.index(1)), k.lane());
      Value sum = k.loop(
          k.index(0), k.index(states), 1, zero,
          [&](Value ofState, ValueRange before) -> SmallVector<Value> {
            Complex by = weights(channel, ofState).first,
                    m = loadStart(channel, ofState);
            SmallVector<Value> values = {m.re, m.im};
            values =
                k.loop(k.index(0), steps, 1, values,
                       [&](Value, ValueRange current) -> SmallVector<Value> {
                         Complex next =
                             advance(k, by, {current[0], current[1]}, {});
                         return {next.re, next.im};
                       });
            Value weight = k.toFloat(k.loadScalar(p, {channel, ofState}), f32);
            return {k.fma(weight, values[0], before[0])};
          })[0];
      k.storeScalar(sum, tailOutputs, {k.warp(), k.lane()});
    });
  }
  Complex loadTail(int64_t i) {
    Value at = k.mul(k.add(k.index(4 * i), member), k.index(2));
    return {k.loadScalar(tail, {k.warp(), at}),
            k.loadScalar(tail, {k.warp(), k.add(at, k.index(1))})};
  }
  /// The tail in place of what the block leaves behind in which the segment
  /// ends; mirrored, blocks are counted from the last.
  void putTail(Value from, int64_t i, MutableArrayRef<Value> ends) {
    Value even = k.mul(group, k.index(2)), odd = k.add(even, k.index(1));
    Value here = k.sub(k.index(kBlocks - 1), lastBlock(from));
    Complex behind = loadTail(i);
    for (auto [at, number] : {std::pair(0, even), {2, odd}}) {
      Complex value =
          choose(equal(number, here), behind, {ends[at], ends[at + 1]});
      ends[at] = value.re;
      ends[at + 1] = value.im;
    }
  }
  void addTail(Value from) {
    Value rest = k.rem(end, k.index(kBlock)), lane = k.lane();
    Value isLast = k.less(lastBlock(from), k.index(kBlocks));
    k.when(isLast, [&] {
      k.when(k.less(lane, rest), [&] {
        Value token = k.add(k.sub(k.sub(end, rest), from), lane);
        Value at = sharedIndex(k.warp(), k.sub(k.index(kChunk - 1), token));
        Value sum = k.add(k.loadScalar(ys, {at}),
                          k.loadScalar(tailOutputs, {k.warp(), lane}));
        k.storeScalar(sum, ys, {at});
      });
      k.barrier();
    });
  }

  /// Keeps the cotangents behind the chunk, or the tail's.
  void keepChunkStates(Value from, ValueRange before) {
    Value index = k.add(k.mul(k.div(from, k.index(kChunk)), k.batch()), row);
    k.when(k.less(group, k.index(1)), [&] {
      for (int64_t i = 0; i < tiles; ++i) {
        Complex m = {before[2 * i], before[2 * i + 1]};
        if (tailed)
          m = choose(k.less(lastBlock(from), k.index(kBlocks)), loadTail(i), m);
        Value ofState = k.add(k.index(4 * i), member);
        k.storeScalar(m.re, blockStates,
                      {innerOffset(index, ofState, 0, channel)});
        k.storeScalar(m.im, blockStates,
                      {innerOffset(index, ofState, 1, channel)});
      }
    });
  }

  bool reverse, tailed;
  int64_t tiles; ///< of eight (state, part)
  int64_t block; ///< tokens between saved states (0: they are not wanted)
  Value x, p, q, g, omega, starts, state, y, newState, blockStates;
  Value xs, ys, impulse, powers, finals, kept, tail, tailOutputs;
  SmallVector<SmallVector<Registers>> inputs, outputs; // [tile][eight tokens]
  SmallVector<Registers> diagonals;
};

} // namespace

int64_t mlir::megalodon::gpuCemaChunk() { return CemaBlockKernel::kChunk; }

bool mlir::megalodon::hasGpuCemaMatrixForm(Value activation, Value p) {
  int64_t states = tensorOf(p).getDimSize(1);
  return tensorOf(p).getDimSize(0) % CemaBlockKernel::kChannels == 0 &&
         (states == 8 || states == 16);
}

bool mlir::megalodon::keepsGpuCemaStates(int64_t block) {
  return block % (2 * CemaBlockKernel::kBlock) == 0 &&
         CemaBlockKernel::kChunk % block == 0;
}

static SmallVector<Value> buildMatrix(PatternRewriter &rewriter,
                                      const LoweringOptions &options,
                                      Operation *op, StringRef name,
                                      const Flow &flow, int64_t segment,
                                      double bytes) {
  auto type = tensorOf(flow.activation);
  int64_t channels = type.getDimSize(2),
          states = tensorOf(flow.p).getDimSize(1);
  KernelBuilder k(rewriter, options, op, name, CemaBlockKernel::kThreads);
  MatrixKernel(k, flow, segment).build();
  Grid grid = {.factor = channels / CemaBlockKernel::kChannels,
               .outer = plan::Outer::Batch};
  if (segment) {
    grid.inner = plan::Inner::Length;
    grid.divisor = segment;
  }
  // As many as the scan's: what the model asks for, not what this form does.
  return k.finish(grid, /*flops=*/12.0 * type.getNumElements() * states, bytes);
}

SmallVector<Value> mlir::megalodon::buildGpuCemaMatrix(
    PatternRewriter &rewriter, const LoweringOptions &options, CemaOp op,
    int64_t segment, Value segmentStates, double bytes) {
  const bool saves = !op.getBlockStates().use_empty();
  Flow flow = {.reverse = false,
               .activation = op.getX(),
               .p = op.getP(),
               .q = op.getQ(),
               .g = op.getG(),
               .omega = op.getOmega(),
               .state = op.getState(),
               .segmentStates = segmentStates,
               .resultType = op.getResult().getType(),
               .newStateType = op.getNewState().getType(),
               .kept = saves ? static_cast<int64_t>(op.getBlock()) : 0,
               .keptType = op.getBlockStates().getType()};
  return buildMatrix(rewriter, options, op,
                     segment ? "cema_matrix_segment" : "cema_matrix", flow,
                     segment, bytes);
}

SmallVector<Value> mlir::megalodon::buildGpuCemaGradMatrix(
    PatternRewriter &rewriter, const LoweringOptions &options, CemaGradOp op,
    int64_t segment, Value segmentStates) {
  auto type = tensorOf(op.getDy());
  int64_t states = tensorOf(op.getP()).getDimSize(1);
  auto keptType = RankedTensorType::get(
      {llvm::divideCeilSigned(type.getDimSize(1), CemaBlockKernel::kChunk),
       type.getDimSize(0), states, 2, type.getDimSize(2)},
      rewriter.getF32Type());
  Flow flow = {.reverse = true,
               .activation = op.getDy(),
               .p = op.getP(),
               .q = op.getQ(),
               .g = op.getG(),
               .omega = op.getOmega(),
               .state = op.getDnewState(),
               .segmentStates = segmentStates,
               .resultType = op.getDx().getType(),
               .newStateType = op.getDstate().getType(),
               .kept = CemaBlockKernel::kChunk,
               .keptType = keptType};
  double bytes = 2 * bytesOf(type) + 2 * bytesOf(op.getDstate().getType()) +
                 40.0 * type.getDimSize(2) * states + bytesOf(keptType);
  return buildMatrix(rewriter, options, op,
                     segment ? "cema_grad_matrix_segment" : "cema_grad_matrix",
                     flow, segment, bytes);
}
