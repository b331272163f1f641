// From one module of the LLVM dialect to object bytes, and from objects to a
// shared object, all in this process.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "passes/Codegen/Target.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/SmallVector.h"

namespace llvm {
class Module;
}

namespace mlir::megalodon {

/// The pipeline from scf, vector, memref, arith and math to the LLVM dialect.
/// Memory references are bare pointers: every kernel argument has a static
/// shape.
std::string kernelLoweringPipeline(unsigned vectorBytes);

/// Makes each kernel internal and exports a function with the one signature the
/// runtime calls: every non-private function NAME becomes `void NAME(void
/// *const *args, int64_t workgroup)` around the body. The kernel's arguments
/// are (parameters, workgroup, scratch, buffers...); the argument table holds
/// parameters, buffers..., scratch.
void addEntryPoints(llvm::Module &module);

/// Translates, lets `addEntries` add what the runtime calls, optimizes (O3) and
/// assembles. When `assemblyStem` is not empty, writes STEM.ll and STEM.s.
LogicalResult emitObject(ModuleOp module, const CpuTarget &target,
                         llvm::StringRef assemblyStem,
                         llvm::function_ref<void(llvm::Module &)> addEntries,
                         llvm::SmallVectorImpl<char> &object);

/// Links objects to one ELF shared object that needs only the C library, libm
/// and libmvec, and those of `libraries` (file names) that are used.
LogicalResult linkShared(Location location,
                         llvm::ArrayRef<llvm::SmallVector<char, 0>> objects,
                         llvm::ArrayRef<llvm::StringRef> libraries,
                         llvm::SmallVectorImpl<char> &shared);

/// Puts the shared object of the kernels and what it needs of a machine where
/// the plan's writer finds them.
void attachObject(ModuleOp module, ModuleOp kernels, const CpuTarget &target,
                  llvm::ArrayRef<char> shared);

} // namespace mlir::megalodon
