// What the GPU's CEMA kernels share: which thread owns which states of which
// channel, and how time is cut into segments that run side by side.
//
// A channel belongs to `parts` lanes of one warp, each of which keeps
// `perThread` of its N states in registers. Neighbouring lanes have
// neighbouring channels, so that a token of an activation, and the states
// [.., N, 2, D] that kernels pass to each other, are read and written without
// gaps and without shared memory. The lanes of a channel read the same x, which
// costs one access; their shares of y meet in shuffles, several tokens at a
// time so that each lane ends up with the sum of some of them.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/CemaKernel.h"
#include "passes/Lowering/Lowerings.h"
#include "passes/Lowering/PackedDocuments.h"

namespace mlir::megalodon {

/// Tokens that a scan handles in one piece: their activations are loaded while
/// those before them are computed.
inline constexpr int64_t kGpuCemaTokens = 8;

/// How a scan is spread over a GPU.
struct GpuCemaForm {
  int64_t parts;   ///< lanes of a channel: 1, 2, 4, .. 32
  int64_t segment; ///< tokens of a segment, or 0: a thread runs a whole row
};

/// The cost rule. `perThread` is how many states a thread's registers hold,
/// segments are a multiple of `unit` tokens. `fixedForm` is the option --cema.
GpuCemaForm chooseGpuCemaForm(StringRef fixedForm, int64_t batch,
                              int64_t length, int64_t channels, int64_t states,
                              int64_t perThread, int64_t unit);

class GpuCemaThreads {
public:
  /// Threads of a workgroup.
  static constexpr int64_t kThreads = 128;

  GpuCemaThreads(int64_t channels, int64_t states, int64_t parts);

  /// Workgroups that cover all channels once.
  int64_t workgroups() const;
  /// Starts the body of kernel `k`; `channelBlock` is which of the workgroups()
  /// this one is.
  void begin(KernelBuilder &k, Value channelBlock);

  /// Runs `body` where this thread has a channel; the others only follow along
  /// with the last channel.
  void whenOwned(function_ref<void()> body);
  /// The same for the first part of a channel.
  void whenFirstPart(function_ref<void()> body);

  /// p, q, g of this thread's state `s` in f64; null ones stay null. A state
  /// past the last has 0.
  CemaTile::Coefficients coefficients(int64_t s, Value p, Value q, Value g) {
    return coefficients(s, p, q, g, channel);
  }
  CemaTile::Coefficients coefficients(int64_t s, Value p, Value q, Value g,
                                      Value channel);
  /// `channel`, by a way that no compiler follows: coefficients loaded with it
  /// are loaded anew. It would otherwise keep those that only the last few
  /// tokens need in registers from the beginning.
  Value sameChannel();
  /// A row's carried state [B, D, N, 2] of this thread's channel, (re, im) by
  /// (re, im); states past the last are 0 and are not stored.
  SmallVector<Value> loadStates(Value outside, Value row);
  void storeStates(ValueRange states, Value outside, Value row);
  /// The same in the kernels' own layout [M, N, 2, D], seen flat.
  SmallVector<Value> loadInnerStates(Value inside, Value index);
  void storeInnerStates(ValueRange states, Value inside, Value index);

  /// Visits this thread's states that there are: their place in the thread and
  /// among all.
  void forStates(function_ref<void(int64_t s, Value state)> body);

  /// Adds over the parts of a channel. `values` are those of a power of two of
  /// consecutive tokens; calls body(offset, sum) for those tokens whose sum
  /// ends up in this thread, in threads that own them.
  void
  sumOverParts(ArrayRef<Value> values,
               function_ref<void(ArrayRef<Value> sums, Value firstToken)> body);

  int64_t channels, states, parts, perThread;
  Value channel; ///< this thread's, or the last one
  Value part;    ///< index among the channel's lanes; null when there is one

private:
  /// i1: whether this thread has state `s`; null when it always has.
  Value hasState(int64_t s);
  Value stateIndex(int64_t s);
  Value innerOffset(Value index, Value state, int64_t half);

  KernelBuilder *kernel = nullptr;
  Value owns; ///< null when all threads own channels
};

/// Loads two neighbouring numbers at once.
std::pair<Value, Value> loadPair(KernelBuilder &k, Value memref,
                                 ValueRange indices);
void storePair(KernelBuilder &k, Value first, Value second, Value memref,
               ValueRange indices);

/// Carries `states` through `count` > 0 tokens from `firstToken` on, or in
/// `reverse` from the last of them down. `piece` takes kGpuCemaTokens tokens,
/// `single` one of those that are left; both get the number of tokens behind
/// them, the activations in the order of the scan, and the states. States do
/// not pass from one of the `documents` (of row 0) to the next: a piece in
/// which one begins is taken by `single`.
SmallVector<Value> scanGpuTokens(
    KernelBuilder &k, GpuCemaThreads &threads, Value activation,
    Value firstToken, Value count, bool reverse, PackedDocuments &documents,
    ValueRange states,
    function_ref<SmallVector<Value>(Value, ArrayRef<Value>, ValueRange)> piece,
    function_ref<SmallVector<Value>(Value, Value, ValueRange)> single);

/// `states`, or zeros where `ends`.
SmallVector<Value> zeroWhere(KernelBuilder &k, Value ends, ValueRange states);

/// q h + input; a null part of the input is 0.
Complex advance(KernelBuilder &k, Complex q, Complex h, Complex input);

/// The ends of segments: what their tokens leave behind from a state of zero,
/// forwards h = q h + p u_t, or in `reverse`, the gradient's direction,
/// h = conj(q) (h + conj(g) u_t). [S, B, N, 2, D] with S = ceil(L / segment).
/// With `all` also those of the last (in reverse the first) segment, which
/// else are undefined. `positions` (null: none) are those of packed documents.
Value buildGpuSegmentEnds(PatternRewriter &rewriter,
                          const LoweringOptions &options, Operation *op,
                          Value activation, Value q, Value pOrG,
                          Value positions, int64_t parts, int64_t segment,
                          bool reverse, bool all);
/// In place: segments' ends become the states they start from, given the
/// `state` [B, D, N, 2] that the first (in reverse the last) starts from; null
/// for zero.
Value buildGpuSegmentCarry(PatternRewriter &rewriter,
                           const LoweringOptions &options, Operation *op,
                           Value ends, Value q, Value state, Value positions,
                           int64_t segment, bool reverse);
/// Length of a call's segment, which only for the last is not `segment`.
Value segmentLength(KernelBuilder &k, Value index, int64_t segment);

/// The matrix form: whether an op takes it, by the cost rule or by the option
/// --cema; `block` is the distance of the states that it keeps or reads (0:
/// none); packed documents have no matrix form. The tokens of which its
/// segments are a multiple, and those of a segment (0: whole rows).
bool usesGpuCemaMatrix(const LoweringOptions &options, Value activation,
                       Value p, Value positions, int64_t block);
bool hasGpuCemaMatrixForm(Value activation, Value p);
bool keepsGpuCemaStates(int64_t block);
int64_t gpuCemaChunk();
int64_t gpuCemaMatrixSegment(RankedTensorType activation);

/// The forward kernel, whose results are those of the op that are used
/// (GpuCemaMatrix.cpp).
SmallVector<Value> buildGpuCemaMatrix(PatternRewriter &rewriter,
                                      const LoweringOptions &options, CemaOp op,
                                      int64_t segment, Value segmentStates,
                                      double bytes);
/// The same kernel backwards: dx, dstate, and the cotangents behind every chunk
/// [ceil(L / chunk), B, N, 2, D].
SmallVector<Value> buildGpuCemaGradMatrix(PatternRewriter &rewriter,
                                          const LoweringOptions &options,
                                          CemaGradOp op, int64_t segment,
                                          Value segmentStates);
/// From these the partial sums of dp, dq, dg and domega, one a segment and row:
/// [ceil(L / segment) * B, gpuCemaPartialRows(N), D], domega last
/// (GpuCemaCorrelations.cpp).
Value buildGpuCemaCorrelations(PatternRewriter &rewriter,
                               const LoweringOptions &options, CemaGradOp op,
                               int64_t segment, Value chunkCotangents);
int64_t gpuCemaPartialRows(int64_t states);

void populateGpuCemaForwardLowering(RewritePatternSet &patterns,
                                    const LoweringOptions &options);
void populateGpuCemaGradLowering(RewritePatternSet &patterns,
                                 const LoweringOptions &options);
void populateGpuCemaSummaryLowering(RewritePatternSet &patterns,
                                    const LoweringOptions &options);
void populateGpuCemaCoefficientLowering(RewritePatternSet &patterns,
                                        const LoweringOptions &options);

} // namespace mlir::megalodon
