// What CEMA's kernels in matrix form share: a workgroup's place, how
// activations pass through shared memory, and operands of tensor cores.
//
// A workgroup has eight neighbouring channels, each of which has a warp, and
// takes chunks of 16 blocks of 32 tokens. Activations come as [tokens,
// channels] and lie in shared memory as [channel, block, token]. Numbers are
// sums of bf16 terms, as in GpuTiles.h; bf16 activations are one term.
// Coefficients are powers formed in f64 and rounded once to f32 before they are
// split.
#pragma once
#include "passes/Lowering/Gpu/GpuCema.h"
#include "passes/Lowering/Gpu/GpuTiles.h"
#include "passes/Lowering/RowKernel.h"

namespace mlir::megalodon {

class CemaBlockKernel {
public:
  /// Tokens of a block, blocks of a chunk.
  static constexpr int64_t kBlock = 32, kBlocks = 16, kChunk = kBlock * kBlocks;
  /// Channels of a workgroup, each with a warp.
  static constexpr int64_t kChannels = 8, kThreads = kChannels * kWarpThreads;

protected:
  using Registers = SmallVector<Value>; ///< one a term
  using Operand = SmallVector<Value>;   ///< registers of one term

  /// `activation` decides how many terms numbers have, `p` how many channels
  /// and states there are. Segments have `segment` tokens (0: whole rows).
  CemaBlockKernel(KernelBuilder &k, Value activation, Value p, int64_t segment);

  /// Starts the body: finds this workgroup's channels, row and tokens.
  void begin();

  //===-- Activations
  //----------------------------------------------------------------------------------------------------===//

  /// Shared memory for a chunk of the workgroup's channels.
  Value chunkScratch();
  /// Where it has a token of a channel of the workgroup.
  Value sharedIndex(Value inChannel, Value token);
  /// Of the warp's channel: tokens 2 member + `token` and the one after it of
  /// block 2 group + `odd`.
  Value pairIndex(int64_t odd, int64_t token);
  /// And token group + `token` of block 4 member + `inLane`.
  Value columnIndex(int64_t inLane, int64_t token);
  /// This thread's pieces of the chunk that starts at `from`; tokens past the
  /// end of the segment are 0.
  SmallVector<Value> loadTokens(Value activation, Value from);
  /// Puts them into shared memory, `mirrored` with the last token first.
  void storeShared(ValueRange pieces, Value shared, bool mirrored);
  /// Stores a chunk of results, which lie in shared memory.
  void storeTokens(Value shared, Value result, Value from, bool mirrored);
  /// The tokens of pairIndex(), as registers of each term.
  Registers loadTerms(Value shared, int64_t odd, int64_t token);

  //===-- Products
  //-------------------------------------------------------------------------------------------------------===//

  /// sums += left right, from the smallest products of terms to the largest.
  /// Products below the last term's error are left out.
  void multiplyTerms(ArrayRef<Operand> left, ArrayRef<Operand> right,
                     MutableArrayRef<Value> sums);
  /// The operand of each term, of registers with all terms.
  SmallVector<Operand> byTerm(ArrayRef<Registers> registers);
  SmallVector<Value> zeros();
  /// Terms of two numbers, which share a register.
  Registers split(Value a, Value b, int64_t count);

  //===-- States and coefficients
  //----------------------------------------------------------------------------------------===//

  Complex load(Value from, Value state);
  Complex choose(Value condition, Complex a, Complex b);
  Complex scale(Complex a, Value by) {
    return {k.mul(a.re, by), k.mul(a.im, by)};
  }
  Complex rounded(Complex a) {
    return {k.toFloat(a.re, f32), k.toFloat(a.im, f32)};
  }
  Complex conjugate(Complex a) {
    return {a.re, arith::NegFOp::create(k.b, a.im)};
  }
  Complex fromLane(Complex value, Value lane) {
    return {k.shuffleFrom(value.re, lane), k.shuffleFrom(value.im, lane)};
  }
  /// q^32 of a q^8.
  Complex blockPower(Complex q8) {
    Complex q16 = multiply(k, q8, q8);
    return multiply(k, q16, q16);
  }
  Value equal(Value a, Value b) {
    return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, a, b);
  }
  Value isSet(Value number, int64_t bit);
  /// Of [M, N, 2, D] seen flat.
  Value innerOffset(Value index, Value state, int64_t half, Value ofChannel);

  KernelBuilder &k;
  int64_t channels, states, segment, terms, inputTerms;
  Type f32, f64;
  Value firstChannel, channel; ///< of the workgroup, of the warp
  Value group, member;         ///< lane / 4, lane % 4
  /// The row, its place among all tokens, the segment's index and its tokens.
  Value row, rowToken, segmentIndex, first, end;

private:
  /// Numbers between blocks and between channels in shared memory, and what the
  /// last eight blocks are shifted by, so that the lanes of a warp meet
  /// different banks in all views: eight channels of neighbouring tokens, pairs
  /// of tokens of every other block, and tokens of every fourth block.
  static constexpr int64_t kBlockPitch = kBlock + 4, kShift = 8,
                           kChannelPitch = kBlocks * kBlockPitch + kShift + 4;
  /// Channels that a thread moves at once, and times it does so for a chunk.
  static constexpr int64_t kPiece = 4,
                           kPieces = kChunk * kChannels / (kPiece * kThreads);
  /// Tokens from one piece to the next.
  static constexpr int64_t kPieceTokens = kChunk / kPieces;
  /// The token in a chunk and the first channel of this thread's piece, and
  /// where shared memory has its first channel.
  std::pair<Value, Value> piece(int64_t i);
  Value pieceIndex(int64_t i, bool mirrored);
};

} // namespace mlir::megalodon
