// The CPU that kernels are compiled for.
#pragma once
#include "mlir/Support/LogicalResult.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace llvm {
class TargetMachine;
}

namespace mlir::megalodon {

struct CpuTarget {
  std::string cpu;      ///< LLVM's name of the CPU
  std::string features; ///< feature string for LLVM, empty for a named CPU
  std::vector<std::string> required; ///< features a machine must have to run
                                     ///< the object, of those that matter
  unsigned vectorBytes = 16;
  unsigned vectorRegisters = 16;

  std::unique_ptr<llvm::TargetMachine> createMachine() const;
};

/// Resolves "native" or a CPU's name; calls `error` with a message when there
/// is no such CPU.
FailureOr<CpuTarget>
resolveCpu(llvm::StringRef name,
           llvm::function_ref<void(const std::string &)> error);

} // namespace mlir::megalodon
