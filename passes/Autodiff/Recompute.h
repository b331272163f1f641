// What the backward pass of a called function recomputes instead of keeping.
#pragma once

namespace mlir::megalodon {

enum class Recompute { None, Selective, Full };

} // namespace mlir::megalodon
