// The timestep norm's kernels over tokens and channels, for GPUs: a warp's 32
// lanes hold 128 channels of a token, so whole groups, and sum them with
// shuffles. (The scans over time are in vector form: TimestepScan.cpp.)
#pragma once
#include "passes/Lowering/TimestepNorm.h"

namespace mlir::megalodon {

/// Whether groups are a power of two of channels, 4 to 128, and 128 divides all
/// channels. Else the vector form serves.
bool suitsWarps(const LoweringOptions &options, const TimestepShape &shape);

/// As the functions of the same purpose in TimestepNorm.cpp; operands and
/// results are theirs.
SmallVector<Value> buildGpuStatistics(PatternRewriter &rewriter,
                                      const LoweringOptions &options,
                                      TimestepNormOp op,
                                      const TimestepShape &shape);
Value buildGpuApply(PatternRewriter &rewriter, const LoweringOptions &options,
                    TimestepNormOp op, const TimestepShape &shape,
                    Value meanInF64, Value rstd);
SmallVector<Value> buildGpuGradStatistics(PatternRewriter &rewriter,
                                          const LoweringOptions &options,
                                          TimestepNormGradOp op,
                                          const TimestepShape &shape);
Value buildGpuGradApply(PatternRewriter &rewriter,
                        const LoweringOptions &options, TimestepNormGradOp op,
                        const TimestepShape &shape, Value meanTerm,
                        Value varTerm);

} // namespace mlir::megalodon
