// What the kernels of the timestep norm share, and its scans over time.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "passes/Lowering/Lowerings.h"

namespace mlir::megalodon {

/// Sizes of one op and what its kernels share.
struct TimestepShape {
  /// Tokens of one workgroup of the kernels that are parallel in time.
  static constexpr int64_t kTokens = 32;

  explicit TimestepShape(RankedTensorType x, RankedTensorType running)
      : batch(x.getDimSize(0)), length(x.getDimSize(1)),
        channels(x.getDimSize(2)), groups(running.getDimSize(2)),
        groupSize(channels / groups), element(computeType(x.getElementType())),
        stored(x.getElementType()), f64(Float64Type::get(x.getContext())),
        wideStatistics(RankedTensorType::get({batch, length, groups}, f64)) {}

  double tokens() const { return double(batch) * length; }
  double elementBytes() const { return stored.getIntOrFloatBitWidth() / 8; }
  /// Bytes of `activations` tensors [B, L, D] and `statistics` tensors [B, L,
  /// G] in f64.
  double bytes(double activations, double statistics) const {
    return tokens() *
           (activations * channels * elementBytes() + statistics * groups * 8);
  }
  Grid tokenGrid() const {
    return {.inner = plan::Inner::Tokens, .divisor = kTokens};
  }

  int64_t batch, length, channels, groups, groupSize;
  Type element, stored, f64; ///< element: of the numbers in kernels
  RankedTensorType wideStatistics;
};

/// Running statistics of every token, from those of each token alone (f64, [B,
/// L, G]). Returns (running mean in f64, new_mean, new_var, new_count,
/// running_mean, running_rstd).
SmallVector<Value> buildTimestepScan(PatternRewriter &rewriter,
                                     const LoweringOptions &options,
                                     TimestepNormOp op,
                                     const TimestepShape &shape,
                                     Value tokenMean, Value tokenVariance);

/// The gradient's scan, from the last token to the first. With s the group
/// size, returns c2 du / s and 2 c2 dv / s of every token (in place of sumU and
/// sumUD), dmean and dvar.
SmallVector<Value> buildTimestepGradScan(PatternRewriter &rewriter,
                                         const LoweringOptions &options,
                                         TimestepNormGradOp op,
                                         const TimestepShape &shape, Value sumU,
                                         Value sumUD, Value meanD);

} // namespace mlir::megalodon
