// Delta debugging: applies edits to ever smaller groups of sites and keeps what
// a test still finds interesting.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"

namespace mlir::megalodon {

struct Reduction {
  OwningOpRef<ModuleOp> module;
  unsigned tests = 0; ///< how often the test was asked
};

/// Reduces a module that is interesting until no single edit leaves it so.
Reduction reduce(ModuleOp module,
                 llvm::function_ref<bool(ModuleOp)> isInteresting);

} // namespace mlir::megalodon
