// From one module of the LLVM dialect to object bytes, and from objects to a
// shared object, all in this process.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "passes/Codegen/Target.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"

namespace mlir::megalodon {

/// Translates, optimizes (O3) and assembles. Every non-private function NAME
/// becomes the exported `void NAME(void *const *args, int64_t workgroup)`
/// around the body. When `assemblyStem` is not empty, writes STEM.ll and
/// STEM.s.
LogicalResult emitObject(ModuleOp module, const CpuTarget &target,
                         llvm::StringRef assemblyStem,
                         llvm::SmallVectorImpl<char> &object);

/// Links objects to one ELF shared object that needs only the C library, libm
/// and libmvec.
LogicalResult linkShared(Location location,
                         llvm::ArrayRef<llvm::SmallVector<char, 0>> objects,
                         llvm::SmallVectorImpl<char> &shared);

} // namespace mlir::megalodon
