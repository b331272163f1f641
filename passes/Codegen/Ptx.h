// From LLVM modules of kernels to PTX text, and by ptxas to cubins.
#pragma once
#include "mlir/IR/Operation.h"
#include "passes/Codegen/GpuTarget.h"
#include <map>
#include <memory>
#include <optional>

namespace llvm {
class Module;
}

namespace mlir::megalodon {

/// Optimizes (O3) a module with one kernel and prints it as PTX. Reports, at
/// `location`, functions that nobody defines: PTX with them is accepted by
/// ptxas and fails when it is loaded. With `assemblyStem` writes
/// STEM.ARCH.ll and STEM.ARCH.ptx.
FailureOr<std::string> emitPtx(Location location, llvm::Module &module,
                               const GpuArch &arch,
                               llvm::StringRef assemblyStem);

/// One PTX module with the kernels of all. Their local names differ (see
/// makeNamesUnique).
std::string joinPtx(llvm::ArrayRef<std::string> modules);

/// Puts a prefix in front of the names that are local to a module of one
/// kernel.
void makeNamesUnique(llvm::Module &module, llvm::StringRef prefix);

/// What ptxas says of a kernel.
struct KernelResources {
  std::string kernel;
  unsigned registers = 0, stack = 0, spillStores = 0, spillLoads = 0;
};

/// Path of ptxas in a CUDA toolkit, or without one in the PATH, the folders
/// that CUDA_HOME, CUDA_PATH and CUDA_ROOT name, and the usual places.
std::optional<std::string> findPtxas(llvm::StringRef cudaPath);

struct Cubin {
  llvm::SmallVector<char, 0> data;
  std::vector<KernelResources> resources;
  /// This ptxas is older than the architecture: there is no data.
  bool unknownArch = false;
};

/// Assembles PTX. Reports what ptxas says when it fails.
FailureOr<Cubin> assemble(Location location, llvm::StringRef ptxas,
                          llvm::StringRef ptx, const GpuArch &arch);

/// Reads the output of ptxas --verbose.
std::vector<KernelResources> parseResources(llvm::StringRef output);

} // namespace mlir::megalodon
