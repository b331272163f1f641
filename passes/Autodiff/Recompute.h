// What the backward pass of a called function recomputes instead of keeping.
#pragma once

namespace mlir::megalodon {

enum class Recompute {
  Config, ///< Full if the config says `layerwise_ckpt`, else Selective
  None,
  Selective,
  Full
};

} // namespace mlir::megalodon
