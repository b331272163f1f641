// The GPU architectures that kernels are compiled for.
#pragma once
#include "mlir/Support/LogicalResult.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include <memory>
#include <string>
#include <vector>

namespace llvm {
class TargetMachine;
}

namespace mlir::megalodon {

/// What --gpu-arch means when it is not given: the data centre GPUs from A100
/// on.
inline constexpr llvm::StringLiteral kDefaultGpuArchs = "sm_80,sm_90a,sm_100a";

struct GpuArch {
  llvm::StringLiteral name; ///< as ptxas and LLVM call it
  /// Shared memory that one block may have.
  unsigned sharedBytes;
  /// Its PTX runs on later GPUs too; that of architectures ending in `a` does
  /// not.
  bool forwardCompatible;

  /// For PTX of the lowest version that knows the architecture, so that old
  /// drivers accept it.
  std::unique_ptr<llvm::TargetMachine> createMachine() const;
};

/// All that are known, in ascending order.
llvm::ArrayRef<GpuArch> gpuArchs();

/// Reads `sm_80,sm_90a`; the result is in ascending order and without
/// duplicates. Calls `error` with a message about anything else.
FailureOr<std::vector<GpuArch>>
resolveGpuArchs(llvm::StringRef list,
                llvm::function_ref<void(const std::string &)> error);

/// Shared memory that a block may have on every one of them.
unsigned sharedBytes(llvm::ArrayRef<GpuArch> archs);

} // namespace mlir::megalodon
