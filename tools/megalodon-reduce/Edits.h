// The ways megalodon-reduce makes a module smaller. An edit need not keep what
// the module computes, only that it verifies.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/ArrayRef.h"

namespace mlir::megalodon {

/// One kind of edit. Where it applies is decided anew for every module; sites
/// of a clone have the order of the sites of the original.
struct Edit {
  llvm::StringLiteral name;
  bool (*applies)(Operation *op);
  void (*apply)(Operation *op);
};

/// All kinds, those that remove most first.
llvm::ArrayRef<Edit> edits();

/// Ops to which an edit applies, in the order of a walk.
llvm::SmallVector<Operation *> sites(ModuleOp module, const Edit &edit);

/// Erases ops whose results nothing uses.
void eraseDeadCode(ModuleOp module);

} // namespace mlir::megalodon
