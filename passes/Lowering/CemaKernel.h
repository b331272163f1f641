// What the CEMA kernels share: which channels a workgroup owns, and moving
// rows, states and coefficients between their outside layouts (channel by
// channel) and the lane-wise layout of the inner loops (a vector holds the same
// state of consecutive channels).
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/KernelBuilder.h"

namespace mlir::megalodon {

/// A complex number: scalars or vectors.
struct Complex {
  Value re, im;
};
Complex multiply(KernelBuilder &k, Complex a, Complex b);

/// The channels of one workgroup: up to `groupsPerWorkgroup` lane groups of
/// `width` channels. Lanes past the last channel repeat it when they are read
/// and are masked when they are written.
class CemaTile {
public:
  CemaTile(const LoweringOptions &options, Type element, int64_t channels,
           int64_t states);

  /// Workgroups that cover all channels once.
  int64_t workgroups() const {
    return llvm::divideCeil(groups, groupsPerWorkgroup);
  }
  /// Starts the body of kernel `k`; `channelBlock` is which of the workgroups()
  /// this one is.
  void begin(KernelBuilder &k, Value channelBlock);

  /// Visits this workgroup's lane groups: their index in the workgroup and
  /// their first channel.
  void forGroups(function_ref<void(Value group, Value channel)> body);
  /// Mask of the lanes below the number of channels; null when every lane
  /// always is.
  Value mask(Value channel);
  /// Runs `body(lane, channel)` for the channels of one lane group; with
  /// `repeat` also for the lanes past the last channel.
  void forLanes(Value channel, bool repeat,
                function_ref<void(Value lane, Value laneChannel)> body);

  VectorType vector() const { return VectorType::get(width, element); }
  VectorType wideVector() const {
    return VectorType::get(width, Float64Type::get(element.getContext()));
  }
  /// Loads and stores of vector() or wideVector() at full width.
  Value load(Value memref, ValueRange indices);
  void store(Value vector, Value memref, ValueRange indices);

  /// Asks for one vector of a coming block of tokens: rows are too far apart
  /// for the hardware to foresee.
  void prefetch(Value activation, Value token, Value channel);

  /// p, q, g of one lane group as wide vectors, state by state. Those that are
  /// null stay null.
  struct Coefficients {
    Value p, qr, qi, gr, gi;
  };
  void
  forCoefficients(Value channel, Value p, Value q, Value g,
                  function_ref<void(Value state, const Coefficients &)> body);

  /// Copies [row, channel, state, 2] of `outside` [B, D, N, 2] into or out of
  /// `inside` [groups, N, 2, width].
  void loadStates(Value outside, Value row, Value inside);
  void storeStates(Value inside, Value outside, Value row);
  /// Fills `inside` with zeros.
  void clearStates(Value inside);

  /// Block states are the lowering's own layout of [S, B, D, N, 2]: lane group
  /// by lane group [N][2][its channels].
  Value blockStateOffset(Value block, Value row, Value rows, Value channel,
                         Value state, int64_t part);

  /// Segment states [S, B, groups, N, 2, width], seen flat: what the two-level
  /// form passes between its kernels.
  Value segmentStateOffset(Value segment, Value row, Value rows, Value channel,
                           Value state, int64_t part);
  int64_t segmentStateSize() const { return groups * states * 2 * width; }

  /// Visits the states in groups that fit the registers: `body(first, count)`.
  void forStateGroups(int64_t size,
                      function_ref<void(Value first, int64_t count)> body);

  int64_t channels, states, width, groups, groupsPerWorkgroup;
  Type element;

private:
  KernelBuilder *kernel = nullptr;
  Value firstGroup, groupCount, coefficientScratch;
};

/// Carries a workgroup's states through tokens and gives nothing out, four
/// tokens an iteration: h = q h + c u_t. In `reverse`, which is the gradient's
/// direction, h = conj(q) (h + conj(g) u_t) from the last token to the first.
class CemaStateScan {
public:
  CemaStateScan(KernelBuilder &k, CemaTile &tile, Value activation,
                bool reverse);

  /// Prepares for p (or in reverse g) and q, and sets the states to 0.
  void begin(Value q, Value pOrG);
  /// Tokens [first, end) of a row.
  void run(Value row, Value first, Value end);
  /// [groups, N, 2, width].
  Value states() const { return h; }

private:
  void scanStates(Value group, Value firstState, int64_t size, Value whole,
                  Value count);

  KernelBuilder &k;
  CemaTile &tile;
  bool reverse;
  Value u, table, h, us, zero, one;
};

/// The two-level form's first half: scans every segment of `segment` tokens
/// from a zero state, then carries the states from segment to segment. Returns
/// the segments' first states.
Value buildSegmentStates(PatternRewriter &rewriter,
                         const LoweringOptions &options, CemaOp op,
                         int64_t segment);

/// The CEMA lowerings; each adds its pattern.
void populateCemaForwardLowering(RewritePatternSet &patterns,
                                 const LoweringOptions &options);
void populateCemaGradLowering(RewritePatternSet &patterns,
                              const LoweringOptions &options);
void populateCemaCoefficientLowering(RewritePatternSet &patterns,
                                     const LoweringOptions &options);
void populateCemaSummaryLowering(RewritePatternSet &patterns,
                                 const LoweringOptions &options);

/// Replaces the uses of every result by the value of the same place (null: the
/// result has no use) and erases `op`.
void replaceUsedResults(PatternRewriter &rewriter, Operation *op,
                        ArrayRef<Value> values);

} // namespace mlir::megalodon
