// Whether a model fits a mesh: asked before anything is compiled.
#pragma once
#include "passes/Import/Config.h"
#include "passes/Import/Entries.h"
#include "passes/Partition/Layout.h"

namespace mlir::megalodon {

/// Success, or an error that lists every constraint that `mesh` breaks, one a
/// line as "expected N, got M", and the nearest mesh that would work.
llvm::Error checkMesh(const ::megalodon::Config &config,
                      ArrayRef<::megalodon::EntrySpec> entries,
                      const MeshShape &mesh);

} // namespace mlir::megalodon
