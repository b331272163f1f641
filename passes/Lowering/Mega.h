// Row kernels that only MEGA has; a part of populateRowLowering.
#pragma once
#include "passes/Lowering/Lowerings.h"

namespace mlir::megalodon {

void populateMegaLowering(RewritePatternSet &patterns,
                          const LoweringOptions &options);

} // namespace mlir::megalodon
