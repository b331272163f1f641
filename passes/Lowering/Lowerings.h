// The families of lowerings; each lives in files of its own and adds its
// patterns here.
#pragma once
#include "passes/Lowering/KernelBuilder.h"

namespace mlir::megalodon {

void populateCemaLowering(RewritePatternSet &patterns,
                          const LoweringOptions &options); // Cema*.cpp
void populateTimestepNormLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // TimestepNorm.cpp
void populateTimestepSummaryLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // TimestepSummaries.cpp
void populateAttentionLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // Attention*.cpp, cache_append
void populatePositionLowering(RewritePatternSet &patterns,
                              const LoweringOptions &options); // Positions.cpp
void populateProductLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // Product.cpp: linear and its gradients
void populateRowLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // RowNorm.cpp, Elementwise.cpp, ...
void populateLossLowering(RewritePatternSet &patterns,
                          const LoweringOptions &options); // Loss.cpp
void populateEmbeddingLowering(RewritePatternSet &patterns,
                               const LoweringOptions &options); // Embedding.cpp
void populateSliceLowering(RewritePatternSet &patterns,
                           const LoweringOptions &options); // Slices.cpp
void populateOptimizerLowering(RewritePatternSet &patterns,
                               const LoweringOptions &options); // Optimizer.cpp

void populateCollectiveLowering(RewritePatternSet &patterns); // Collectives.cpp

/// Gpu/: lowerings of their own for ops whose vector form suits a GPU badly.
/// They come before the others; an op that one of them leaves is lowered by
/// those.
void populateGpuLowering(RewritePatternSet &patterns,
                         const LoweringOptions &options);
inline constexpr unsigned kGpuBenefit = 2;
void populateGpuAttentionLowering(
    RewritePatternSet &patterns,
    const LoweringOptions &options); // Gpu/GpuAttention*.cpp
void populateGpuCemaLowering(RewritePatternSet &patterns,
                             const LoweringOptions &options); // GpuCema*.cpp

/// dst[n] = sum over the first `rows` rows of partial[rows, n], in f64 row
/// order when `inF64`; `rows` is ceil(tokens / divisor) at run time, or static
/// when divisor is 0. The second half of every reduction over tokens. Returns
/// the tensor of type `result` (its n elements, any shape).
Value reducePartialRows(PatternRewriter &rewriter,
                        const LoweringOptions &options, Operation *source,
                        Value partial, Type result, const Grid &rows);

} // namespace mlir::megalodon
