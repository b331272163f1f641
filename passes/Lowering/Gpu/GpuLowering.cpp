// The list of lowerings made for GPUs. Each is a file of this folder.
#include "passes/Lowering/Lowerings.h"

void mlir::megalodon::populateGpuLowering(RewritePatternSet &patterns,
                                          const LoweringOptions &options) {
  populateGpuAttentionLowering(patterns, options);
  populateGpuCemaLowering(patterns, options);
}
