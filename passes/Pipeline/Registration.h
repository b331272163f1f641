// What every tool that reads our IR registers, so that all read the same files.
#pragma once
#include "mlir/IR/DialectRegistry.h"

namespace mlir::megalodon {

/// All dialects of MLIR, with their extensions and translations, and ours.
void registerDialects(DialectRegistry &registry);

/// All passes of MLIR and ours, for pass pipelines by name.
void registerAllPasses();

} // namespace mlir::megalodon
