// The gradients of CEMA's coefficients in matrix form: sums over blocks of 32
// tokens of what is multiplied by a coefficient in the forward matrix form
// (GpuCemaMatrix.cpp). With H_b the state before block b and M_b the cotangent
// behind it,
//   c_l = sum over b, j of dy_j x_{j-l}              by K_l, 32 lags
//   C_j = sum over b of dy_j conj(H_b)               by g q^(j+1)
//   V_j = sum over b of M_b x_j                      by p q^(31-j)
//   S   = sum over b of M_b conj(H_b)                by q^32
// c, C and V are products whose inner dimension is blocks. What remains is done
// once a segment in f64: with z = conj(q) and the polynomials
//   K(z) = sum c_l z^l,  O(z) = sum C_j z^j,  I(z) = sum V_j z^(31-j)
// the op's sums over tokens are
//   dg = z O + p K,  dp = Re(I + conj(g) K),
//   dq = conj(g) (z O)' + p I' + p conj(g) K' + 32 z^31 S.
//
// A warp has one channel, and 16 blocks at a time. Here what blocks leave
// behind is the product with the activations on the right, [(state, part),
// blocks]: it then is the left operand of a product over blocks as it stands in
// a lane's registers. A lane has state 8 i + lane / 4 and blocks 4 (lane % 4)
// .. 4 (lane % 4) + 3, so the scan over blocks takes two steps of shuffles. Its
// row `group` of 16 is the real part, row group + 8 the imaginary part; block 2
// c + t is column c of tile t.
#include "passes/Lowering/Gpu/GpuCemaBlocks.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

class CorrelationKernel : CemaBlockKernel {
public:
  CorrelationKernel(KernelBuilder &k, CemaGradOp op, int64_t segment,
                    Value chunkCotangents, Type partialType)
      : CemaBlockKernel(k, op.getX(), op.getP(), segment), tiles(states / 8),
        block(op.getBlock()), tailed(bool(op.getDnewState())),
        heldCount(terms == 3 ? 0 : weightCount() - 1) {
    dy = k.read(op.getDy(), View::Rows);
    x = k.read(op.getX(), View::Rows);
    p = k.read(op.getP());
    q = k.read(op.getQ());
    g = k.read(op.getG());
    blockStates = k.read(op.getBlockStates(), View::Flat);
    cotangents = k.read(chunkCotangents, View::Flat);
    if (tailed)
      dnewState = k.read(op.getDnewState());
    partial = k.write(partialType, View::Flat);
    xs = chunkScratch();
    dys = chunkScratch();
    powers = k.scratch({kChannels, kPowers * states, 2}, f32);
    lags = k.scratch({kChannels, kDistances, 16, 8}, f32);
    lagSums = k.scratch({kChannels, kBlock}, f64);
    if (tailed)
      tails = k.scratch({kChannels, states, kTailSums}, f64);
    const int64_t sums = llvm::divideCeil(sumCount(), 4);
    slots = k.scratch(
        {std::max(heldCount ? 0 : weightCount(), sums), kThreads, 4}, f32);
  }

  void build() {
    begin();
    prepareWeights();
    preparePowers();
    if (tailed)
      sumTail();
    // Of the workgroup: powers. Weights are read by who wrote them.
    k.barrier();
    SmallVector<Value> carried(sumCount(), k.constant(0, f32));
    for (Value activation : {x, dy})
      llvm::append_range(carried, loadTokens(activation, first));
    const size_t pieces = (carried.size() - sumCount()) / 2;
    carried =
        k.loop(first, end, kChunk, carried, [&](Value from, ValueRange before) {
          ValueRange loaded = before.drop_front(sumCount());
          storeShared(loaded.take_front(pieces), xs, /*mirrored=*/false);
          storeShared(loaded.drop_front(pieces), dys, /*mirrored=*/false);
          k.barrier();
          SmallVector<Value> coming;
          for (Value activation : {x, dy})
            llvm::append_range(
                coming, loadTokens(activation, k.add(from, k.index(kChunk))));
          SmallVector<Value> sums(before.take_front(sumCount()));
          run(from, sums);
          k.barrier();
          llvm::append_range(sums, coming);
          return sums;
        });
    carried.resize(sumCount());
    store(carried);
  }

private:
  /// q^32, q^128 and q^256: of a block and of the steps of the scan.
  static constexpr int64_t kPowers = 3;
  /// Tiles of c by their distance from the diagonal: 16, 8, 0 and -8 tokens.
  static constexpr int64_t kDistances = 4;
  /// What a tail adds: dp and dq.
  enum TailSum { kTailP, kTailQRe, kTailQIm, kTailSums };

  //===-- The sums that a lane carries
  //-----------------------------------------------------------------------------------===//

  /// [tile][8 tokens][4] of C and V, [distance][4] of c, [tile][2] of S.
  int64_t mapSums() const { return tiles * (kBlock / 8) * 4; }
  int64_t sumCount() const {
    return 2 * mapSums() + kDistances * 4 + 2 * tiles;
  }
  int64_t outputSum(int64_t i, int64_t n) const { return 4 * (4 * i + n); }
  int64_t inputSum(int64_t i, int64_t n) const {
    return mapSums() + outputSum(i, n);
  }
  int64_t lagSum(int64_t distance) const {
    return 2 * mapSums() + 4 * distance;
  }
  int64_t stateSum(int64_t i) const {
    return 2 * mapSums() + 4 * kDistances + 2 * i;
  }
  Value stateOf(int64_t i) { return k.add(k.index(8 * i), group); }

  //===-- Coefficients
  //---------------------------------------------------------------------------------------------------===//

  /// Registers of one map's operands.
  int64_t operandCount() const { return tiles * (kBlock / 16) * 4 * terms; }
  int64_t weightCount() const { return 2 * operandCount() / 4; }

  /// p q^(31-j) and conj(g q^(j+1)) as left operands [(state, part), tokens]: a
  /// lane has tokens 2 member, 2 member + 1 of every eight.
  void prepareWeights() {
    for (int64_t i = 0; i < tiles; ++i) {
      Value state = stateOf(i);
      Complex q1 = load(q, state), q2 = multiply(k, q1, q1),
              q4 = multiply(k, q2, q2), q8 = multiply(k, q4, q4),
              one = {k.constant(1, f64), k.constant(0, f64)};
      auto power = [&](bool falling) {
        Complex low = falling ? choose(isSet(member, 1), one, q2)
                              : choose(isSet(member, 1), q2, one);
        Complex high = falling ? choose(isSet(member, 2), one, q4)
                               : choose(isSet(member, 2), q4, one);
        return multiply(k, low, high);
      };
      // Of the last (first) eight tokens: even and odd ones.
      Complex last1 = scale(power(true), k.loadScalar(p, {channel, state})),
              last0 = multiply(k, last1, q1);
      Complex first0 = conjugate(
                  multiply(k, power(false), multiply(k, load(g, state), q1))),
              first1 = multiply(k, first0, conjugate(q1)), c8 = conjugate(q8);
      // Real and imaginary parts of every eight tokens.
      SmallVector<std::pair<Registers, Registers>> inputs(4), outputs(4);
      for (int64_t m = 0; m < 4; ++m) {
        if (m) {
          last0 = multiply(k, last0, q8);
          last1 = multiply(k, last1, q8);
          first0 = multiply(k, first0, c8);
          first1 = multiply(k, first1, c8);
        }
        inputs[3 - m] = {split(last0.re, last1.re, terms),
                         split(last0.im, last1.im, terms)};
        outputs[m] = {split(first0.re, first1.re, terms),
                      split(first0.im, first1.im, terms)};
      }
      for (int64_t step = 0; step < kBlock / 16; ++step) {
        auto operand = [&](ArrayRef<std::pair<Registers, Registers>> of) {
          auto &[re0, im0] = of[2 * step];
          auto &[re1, im1] = of[2 * step + 1];
          return byTerm({re0, im0, re1, im1});
        };
        keepWeights(0, i, step, operand(inputs));
        keepWeights(1, i, step, operand(outputs));
      }
    }
  }
  int64_t weightIndex(int64_t map, int64_t i, int64_t step, int64_t term) {
    return ((map * tiles + i) * (kBlock / 16) + step) * terms + term;
  }
  void keepWeights(int64_t map, int64_t i, int64_t step,
                   ArrayRef<Operand> operand) {
    held.resize(heldCount);
    for (auto [term, registers] : llvm::enumerate(operand)) {
      int64_t index = weightIndex(map, i, step, term);
      if (index < heldCount)
        held[index] = registers;
      else
        storeSlot(index - heldCount, registers);
    }
  }
  SmallVector<Operand> loadWeights(int64_t map, int64_t i, int64_t step) {
    SmallVector<Operand> result;
    for (int64_t term = 0; term < terms; ++term) {
      int64_t index = weightIndex(map, i, step, term);
      result.push_back(index < heldCount ? held[index]
                                         : loadSlot(k.index(index - heldCount),
                                                    k.b.getI32Type()));
    }
    return result;
  }
  /// Four numbers of 32 bits that this thread keeps in shared memory.
  void storeSlot(int64_t index, ValueRange values) {
    auto four = VectorType::get({4}, values.front().getType());
    Value vector = vector::FromElementsOp::create(k.b, four, values);
    vector = vector::BitCastOp::create(k.b, VectorType::get({4}, f32), vector);
    vector::StoreOp::create(k.b, vector, slots,
                            ValueRange{k.index(index), k.thread(), k.index(0)},
                            /*nontemporal=*/false, llvm::MaybeAlign(16));
  }
  SmallVector<Value> loadSlot(Value index, Type type) {
    Value vector =
        vector::LoadOp::create(k.b, VectorType::get({4}, f32), slots,
                               ValueRange{index, k.thread(), k.index(0)},
                               /*nontemporal=*/false, llvm::MaybeAlign(16));
    vector = vector::BitCastOp::create(k.b, VectorType::get({4}, type), vector);
    SmallVector<Value> values;
    for (int64_t i = 0; i < 4; ++i)
      values.push_back(vector::ExtractOp::create(k.b, vector, i));
    return values;
  }

  void preparePowers() {
    k.loop(k.thread(), k.index(kChannels * states), kThreads, [&](Value pair) {
      Value inChannel = k.div(pair, k.index(states)),
            state = k.rem(pair, k.index(states));
      auto [re, im] =
          loadPair(k, q, {k.add(firstChannel, inChannel), state, k.index(0)});
      Complex power = {re, im};
      for (int64_t exponent = 1; exponent <= 256; exponent *= 2) {
        constexpr std::array<int64_t, kPowers> kept = {32, 128, 256};
        if (const auto *found = llvm::find(kept, exponent);
            found != kept.end()) {
          Value at = k.add(k.mul(state, k.index(kPowers)),
                           k.index(found - kept.begin()));
          storePair(k, power.re, power.im, powers, {inChannel, at, k.index(0)});
        }
        if (exponent < 256)
          power = multiply(k, power, power);
      }
    });
  }
  Complex loadPower(int64_t i, int64_t which, bool conjugated) {
    Value at = k.add(k.mul(stateOf(i), k.index(kPowers)), k.index(which));
    auto [re, im] = loadPair(k, powers, {k.warp(), at, k.index(0)});
    return conjugated ? conjugate({re, im}) : Complex{re, im};
  }

  //===-- One chunk
  //------------------------------------------------------------------------------------------------------===//

  using Blocks = std::array<Complex, 4>; ///< of a lane's four blocks

  /// One thing after the other, so that little is in registers at a time: all
  /// that h takes part in, then what m and x do.
  void run(Value from, MutableArrayRef<Value> sums) {
    SmallVector<Blocks> h, m;
    for (int64_t i = 0; i < tiles; ++i)
      h.push_back(statesBefore(i, from));
    SmallVector<SmallVector<Registers>> cotangent;
    for (int64_t n = 0; n < kBlock / 8; ++n)
      cotangent.push_back(loadBlocks(dys, n));
    for (int64_t i = 0; i < tiles; ++i) {
      SmallVector<Operand> left = leftOperand(h[i]);
      for (int64_t n = 0; n < kBlock / 8; ++n)
        multiplyTerms(left, byTerm(cotangent[n]),
                      sums.slice(outputSum(i, n), 4));
    }

    SmallVector<SmallVector<Operand>> left;
    for (int64_t i = 0; i < tiles; ++i) {
      m.push_back(cotangentsBehind(i, from));
      for (int64_t b = 0; b < 4; ++b)
        addProduct(m[i][b], h[i][b], sums.slice(stateSum(i), 2));
      left.push_back(leftOperand(m[i]));
    }
    // dy as the left operand [tokens, blocks] has the registers of the right.
    SmallVector<SmallVector<Operand>> rows;
    for (int64_t r = 0; r < kBlock / 16; ++r) {
      auto &upper = cotangent[2 * r], &lower = cotangent[2 * r + 1];
      rows.push_back(byTerm({upper[0], lower[0], upper[1], lower[1]}));
    }
    for (int64_t n = 0; n < kBlock / 8; ++n) {
      SmallVector<Operand> right = byTerm(loadBlocks(xs, n));
      for (int64_t i = 0; i < tiles; ++i)
        multiplyTerms(left[i], right, sums.slice(inputSum(i, n), 4));
      for (int64_t r = n / 2; r < kBlock / 16; ++r)
        multiplyTerms(rows[r], right, sums.slice(lagSum(2 - 2 * r + n), 4));
    }
  }
  /// sum += a conj(b).
  void addProduct(Complex a, Complex b, MutableArrayRef<Value> sum) {
    Value minusRe = arith::NegFOp::create(k.b, a.re);
    sum[0] = k.fma(a.re, b.re, k.fma(a.im, b.im, sum[0]));
    sum[1] = k.fma(a.im, b.re, k.fma(minusRe, b.im, sum[1]));
  }

  /// The states before the lane's blocks.
  Blocks statesBefore(int64_t i, Value from) {
    Blocks ends = leftBehind(0, i, xs);
    Value index = k.add(k.mul(k.div(from, k.index(block)), k.batch()), row);
    return scan(i, ends, loadInner(blockStates, index, stateOf(i)),
                /*reverse=*/false);
  }
  /// The cotangents behind them. Where the tokens end inside the chunk, the
  /// stored one belongs behind the last whole block.
  Blocks cotangentsBehind(int64_t i, Value from) {
    Blocks ends = leftBehind(1, i, dys);
    Value index = k.add(k.mul(k.div(from, k.index(kChunk)), k.batch()), row);
    Complex start = loadInner(cotangents, index, stateOf(i)),
            zero = {k.constant(0, f32), k.constant(0, f32)};
    if (tailed) {
      Value last = k.div(k.sub(end, from), k.index(kBlock));
      for (int64_t b = 0; b < 4; ++b) {
        Value number = k.add(k.mul(member, k.index(4)), k.index(b));
        ends[b] = choose(equal(number, last), start, ends[b]);
      }
      start = choose(k.less(last, k.index(kBlocks)), zero, start);
    }
    return scan(i, ends, start, /*reverse=*/true);
  }
  Complex loadInner(Value from, Value index, Value state) {
    return {k.loadScalar(from, {innerOffset(index, state, 0, channel)}),
            k.loadScalar(from, {innerOffset(index, state, 1, channel)})};
  }

  /// What the lane's blocks leave behind from a state of zero.
  Blocks leftBehind(int64_t map, int64_t i, Value activation) {
    Blocks ends;
    for (int64_t t : {0, 1}) {
      SmallVector<Value> sums = zeros();
      for (int64_t step = 0; step < kBlock / 16; ++step)
        multiplyTerms(loadWeights(map, i, step),
                      byTerm({loadTerms(activation, t, 16 * step),
                              loadTerms(activation, t, 16 * step + 8)}),
                      sums);
      ends[t] = {sums[0], sums[2]};
      ends[t + 2] = {sums[1], sums[3]};
    }
    return ends;
  }

  /// The states before the lane's blocks, in the direction of the scan.
  Blocks scan(int64_t i, const Blocks &ends, Complex start, bool reverse) {
    Complex step = loadPower(i, 0, reverse);
    auto at = [&](int64_t b) { return reverse ? 3 - b : b; };
    Complex last = ends[at(0)];
    for (int64_t b = 1; b < 4; ++b)
      last = advance(k, step, last, ends[at(b)]);
    Value place = reverse ? k.sub(k.index(3), member) : member;
    Value isFirst = k.less(place, k.index(1));
    auto behind = [&](int64_t distance, Value reaches) {
      Value offset = k.select(reaches, k.index(distance), k.index(0));
      return fromLane(last, reverse ? k.add(k.lane(), offset)
                                    : k.sub(k.lane(), offset));
    };
    last = choose(isFirst, advance(k, loadPower(i, 1, reverse), start, last),
                  last);
    for (int64_t distance : {1, 2}) {
      Value reaches = k.less(k.index(distance - 1), place);
      last = choose(reaches,
                    advance(k, loadPower(i, distance, reverse),
                            behind(distance, reaches), last),
                    last);
    }
    Value follows = k.less(k.index(0), place);
    Complex current = choose(follows, behind(1, follows), start);
    Blocks before;
    for (int64_t b = 0; b < 4; ++b) {
      before[at(b)] = current;
      if (b < 3)
        current = advance(k, step, current, ends[at(b)]);
    }
    return before;
  }

  /// [(state, part), blocks].
  SmallVector<Operand> leftOperand(const Blocks &blocks) {
    return byTerm({split(blocks[0].re, blocks[2].re, terms),
                   split(blocks[0].im, blocks[2].im, terms),
                   split(blocks[1].re, blocks[3].re, terms),
                   split(blocks[1].im, blocks[3].im, terms)});
  }
  /// Tokens 8 n .. 8 n + 7 as the right operand [blocks, tokens].
  SmallVector<Registers> loadBlocks(Value activation, int64_t n) {
    auto load = [&](int64_t b) {
      return k.loadScalar(activation, {columnIndex(b, 8 * n)});
    };
    return {split(load(0), load(2), inputTerms),
            split(load(1), load(3), inputTerms)};
  }

  //===-- Tails
  //----------------------------------------------------------------------------------------------------------===//

  /// What the tokens behind the last whole block and dnew_state add, token by
  /// token: with h the state before them and r tokens, of
  ///   dnew_state conj(q^r h + sum over j of p q^(r-1-j) x_j).
  void sumTail() {
    Value rest = k.rem(end, k.index(kBlock)), whole = k.sub(end, rest),
          saved = k.div(end, k.index(block));
    k.loop(k.thread(), k.index(kChannels * states), kThreads, [&](Value pair) {
      Value inChannel = k.div(pair, k.index(states)),
            state = k.rem(pair, k.index(states)),
            here = k.add(firstChannel, inChannel), zero = k.constant(0, f64);
      SmallVector<Value> sums(kTailSums, zero);
      auto ifOp = scf::IfOp::create(k.b, TypeRange{f64, f64, f64},
                                    k.less(k.index(0), rest), true);
      OpBuilder::InsertionGuard guard(k.b);
      k.b.setInsertionPointToStart(ifOp.elseBlock());
      scf::YieldOp::create(k.b, sums);
      k.b.setInsertionPointToStart(ifOp.thenBlock());
      auto [qRe, qIm] = loadPair(k, q, {here, state, k.index(0)});
      Complex q1 = {qRe, qIm}, z = conjugate(q1);
      Value weight = k.loadScalar(p, {here, state});
      auto [mRe, mIm] = loadPair(k, dnewState, {row, here, state, k.index(0)});
      Complex m = {k.toFloat(mRe, f64), k.toFloat(mIm, f64)};
      auto input = [&](Value token) {
        return k.toFloat(k.loadScalar(x, {k.add(rowToken, token), here}), f64);
      };
      Value index = k.add(k.mul(saved, k.batch()), row);
      SmallVector<Value> h;
      for (int64_t half : {0, 1})
        h.push_back(k.toFloat(
            k.loadScalar(blockStates, {innerOffset(index, state, half, here)}),
            f64));
      h = k.loop(k.mul(saved, k.index(block)), whole, 1, h,
                 [&](Value token, ValueRange before) -> SmallVector<Value> {
                   Complex next =
                       advance(k, q1, {before[0], before[1]},
                               {k.mul(weight, input(token)), Value()});
                   return {next.re, next.im};
                 });
      // The polynomial in z, its derivative, and the sum of dp.
      Complex start = multiply(k, m, conjugate({h[0], h[1]}));
      SmallVector<Value> carried = {start.re, start.im, zero, zero, zero, zero};
      carried = k.loop(
          whole, end, 1, carried,
          [&](Value token, ValueRange before) -> SmallVector<Value> {
            Value u = input(token), pu = k.mul(weight, u);
            Complex value = {before[0], before[1]},
                    slope = advance(k, z, {before[2], before[3]}, value),
                    next = advance(k, z, value, scale(m, pu)),
                    inputs = advance(k, z, {before[4], before[5]}, scale(m, u));
            return {next.re, next.im, slope.re, slope.im, inputs.re, inputs.im};
          });
      scf::YieldOp::create(k.b, ValueRange{carried[4], carried[2], carried[3]});
      k.b.setInsertionPointAfter(ifOp);
      for (int64_t i = 0; i < kTailSums; ++i)
        k.storeScalar(ifOp.getResult(i), tails, {inChannel, state, k.index(i)});
    });
  }

  //===-- The end of a segment
  //-------------------------------------------------------------------------------------------===//

  /// A polynomial and its derivative at z.
  struct Polynomial {
    Complex value, slope;
  };
  Complex plus(Complex a, Complex b) {
    return {k.add(a.re, b.re), k.add(a.im, b.im)};
  }

  /// Of z^(8 n + 2 place + e) for n < 4, e < 2, with coefficients [n][e].
  Polynomial evaluate(Complex z, Value place,
                      ArrayRef<std::array<Complex, 2>> coefficients) {
    Complex z2 = multiply(k, z, z), z3 = multiply(k, z2, z),
            z4 = multiply(k, z2, z2), z7 = multiply(k, z4, z3),
            z8 = multiply(k, z4, z4), z5 = multiply(k, z4, z);
    Polynomial sum;
    Complex slope8 = scale(z7, k.constant(8, f64));
    for (int64_t n = 3; n >= 0; --n) {
      auto [even, odd] = coefficients[n];
      Complex value = advance(k, z, odd, even);
      if (n == 3) {
        sum = {value, odd};
        continue;
      }
      sum.slope = advance(k, z8, sum.slope, advance(k, slope8, sum.value, odd));
      sum.value = advance(k, z8, sum.value, value);
    }
    // z^(2 place) and its derivative.
    Value zero = k.constant(0, f64), one = k.constant(1, f64);
    Complex z6 = multiply(k, z4, z2), factor = {one, zero},
            slope = {zero, zero};
    for (auto [number, power, before] :
         {std::tuple(1, z2, z), {2, z4, z3}, {3, z6, z5}}) {
      Value is = equal(place, k.index(number));
      factor = choose(is, power, factor);
      slope = choose(is, scale(before, k.constant(2 * number, f64)), slope);
    }
    return {multiply(k, factor, sum.value),
            advance(k, factor, sum.slope, multiply(k, slope, sum.value))};
  }

  void store(ArrayRef<Value> sums) {
    // Over the barriers they wait in shared memory: f64 needs the registers.
    for (int64_t i = 0; i < sumCount(); i += 4) {
      SmallVector<Value> values(
          sums.slice(i, std::min<int64_t>(4, sumCount() - i)));
      values.resize(4, k.constant(0, f32));
      storeSlot(i / 4, values);
    }
    sumLags(sums);
    Value index = k.add(k.mul(segmentIndex, k.batch()), row),
          base = k.mul(index, k.index(gpuCemaPartialRows(states))),
          mirror = k.sub(k.index(3), member);
    auto put = [&](Value value, Value line) {
      Value at = k.mul(k.add(base, line), k.index(channels));
      k.storeScalar(value, partial, {k.add(at, channel)});
    };
    auto wide = [&](Value value) { return k.toFloat(value, f64); };
    Value zero = k.constant(0, f64);
    // A loop, so that no more than one tile's numbers are in registers.
    k.loop(k.index(0), k.index(tiles), 1, [&](Value tile) {
      Value state = k.add(k.mul(tile, k.index(8)), group),
            firstSlot = k.mul(tile, k.index(kBlock / 8)),
            isFirst = k.less(tile, k.index(1));
      Complex z = conjugate(load(q, state)), gain = conjugate(load(g, state));
      Value weight = k.loadScalar(p, {channel, state});
      std::array<Complex, 2> ofLags[4], outputs[4], inputs[4];
      for (int64_t n = 0; n < 4; ++n) {
        SmallVector<Value> ofOutput = loadSlot(
                               k.add(firstSlot, k.index(outputSum(0, n) / 4)),
                               f32),
                           ofInput = loadSlot(
                               k.add(firstSlot, k.index(inputSum(0, n) / 4)),
                               f32);
        for (int64_t e : {0, 1}) {
          Value lag = k.add(k.mul(member, k.index(2)), k.index(8 * n + e));
          ofLags[n][e] = {k.loadScalar(lagSums, {k.warp(), lag}), zero};
          outputs[n][e] = conjugate({wide(ofOutput[e]), wide(ofOutput[2 + e])});
          inputs[3 - n][1 - e] = {wide(ofInput[e]), wide(ofInput[2 + e])};
        }
      }
      Polynomial lag = evaluate(z, member, ofLags),
                 output = evaluate(z, member, outputs),
                 input = evaluate(z, mirror, inputs);
      Complex ofGain = multiply(k, gain, lag.value);
      Complex dg = advance(k, z, output.value, scale(lag.value, weight));
      Complex slope = advance(k, z, output.slope, output.value);
      Complex dq =
          plus(multiply(k, gain, plus(slope, scale(lag.slope, weight))),
               scale(input.slope, weight));
      Complex power = z;
      for (int64_t step = 0; step < 4; ++step)
        power = multiply(k, multiply(k, power, power), z);
      // Of both tiles in one slot.
      SmallVector<Value> ofState = loadSlot(k.index(stateSum(0) / 4), f32);
      dq = advance(k, scale(power, k.constant(kBlock, f64)),
                   {wide(k.select(isFirst, ofState[0], ofState[2])),
                    wide(k.select(isFirst, ofState[1], ofState[3]))},
                   dq);
      SmallVector<Value> values = {k.add(input.value.re, ofGain.re), dq.re,
                                   dq.im, dg.re, dg.im};
      for (Value &value : values)
        for (int64_t mask : {1, 2})
          value = k.add(value, k.shuffleXor(value, mask));
      k.when(k.less(member, k.index(1)), [&] {
        if (tailed)
          for (auto [to, from] :
               {std::pair(0, kTailP), {1, kTailQRe}, {2, kTailQIm}})
            values[to] =
                k.add(values[to],
                      k.loadScalar(tails, {k.warp(), state, k.index(from)}));
        for (auto [number, value] : llvm::enumerate(values))
          put(value,
              k.add(k.mul(state, k.index(values.size())), k.index(number)));
      });
    });
    k.when(k.less(k.lane(), k.index(1)), [&] {
      put(k.loadScalar(lagSums, {k.warp(), k.index(0)}),
          k.index(gpuCemaPartialRows(states) - 1));
    });
  }

  /// c_l of lag `lane`: the diagonals of the tiles, in their order.
  void sumLags(ArrayRef<Value> sums) {
    for (int64_t distance = 0; distance < kDistances; ++distance)
      for (int64_t half : {0, 1}) {
        const Value *of = &sums[lagSum(distance) + 2 * half];
        storePair(k, of[0], of[1], lags,
                  {k.warp(), k.index(distance), k.add(group, k.index(8 * half)),
                   k.mul(member, k.index(2))});
      }
    k.barrier();
    Value total = k.constant(0, f64);
    for (int64_t distance = 0; distance < kDistances; ++distance)
      for (int64_t column = 0; column < 8; ++column) {
        // Row + 16 - 8 distance - column is the lag.
        Value row = k.sub(k.add(k.lane(), k.index(column + 8 * distance)),
                          k.index(16)),
              inside = k.less(row, k.index(16));
        row = k.select(inside, row, k.index(0));
        Value value = k.toFloat(k.loadScalar(lags, {k.warp(), k.index(distance),
                                                    row, k.index(column)}),
                                f64);
        total = k.add(total, k.select(inside, value, k.constant(0, f64)));
      }
    k.storeScalar(total, lagSums, {k.warp(), k.lane()});
    k.barrier();
  }

  int64_t tiles; ///< of eight states
  int64_t block; ///< tokens between the states that forward saved
  bool tailed;   ///< there is a cotangent behind the last token
  /// Weights in registers; the others lie in shared memory: all of them where
  /// numbers have three terms, and one where registers would just not do.
  int64_t heldCount;
  Value dy, x, p, q, g, blockStates, cotangents, dnewState, partial;
  Value xs, dys, powers, lags, lagSums, tails, slots;
  SmallVector<Operand> held;
};

} // namespace

Value mlir::megalodon::buildGpuCemaCorrelations(PatternRewriter &rewriter,
                                                const LoweringOptions &options,
                                                CemaGradOp op, int64_t segment,
                                                Value chunkCotangents) {
  auto type = tensorOf(op.getX());
  int64_t batch = type.getDimSize(0), length = type.getDimSize(1),
          channels = type.getDimSize(2),
          states = tensorOf(op.getP()).getDimSize(1);
  auto partialType =
      RankedTensorType::get({llvm::divideCeilSigned(length, segment) * batch,
                             gpuCemaPartialRows(states), channels},
                            rewriter.getF64Type());
  KernelBuilder k(rewriter, options, op, "cema_grad_correlations",
                  CemaBlockKernel::kThreads);
  CorrelationKernel(k, op, segment, chunkCotangents, partialType).build();
  double bytes = 2 * bytesOf(type) + bytesOf(chunkCotangents.getType()) +
                 40.0 * channels * states + bytesOf(partialType);
  return k.finish({.factor = channels / CemaBlockKernel::kChannels,
                   .outer = plan::Outer::Batch,
                   .inner = plan::Inner::Length,
                   .divisor = segment},
                  /*flops=*/30.0 * type.getNumElements() * states, bytes)[0];
}
