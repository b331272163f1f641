// The phases of compilation: one list drives --compile-to, --compile-from,
// --dump-phases and the border verifiers.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"
#include "passes/Autodiff/Recompute.h"
#include "passes/Codegen/GpuTarget.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include <functional>
#include <string>

namespace mlir::megalodon {

/// In order. A phase's name is also the name of the IR after it.
enum class Phase {
  Import,
  Differentiate,
  Optimize,
  Partition,
  Lower,
  Codegen,
  Plan
};

/// All phases in order, with their names on the command line.
struct PhaseInfo {
  Phase phase;
  llvm::StringLiteral name;
  llvm::StringLiteral description;
};
llvm::ArrayRef<PhaseInfo> phases();
llvm::StringRef phaseName(Phase phase);

/// Every choice of a compilation that is not in the IR.
struct PipelineOptions {
  std::string cpu = "native";
  Recompute recompute = Recompute::Selective;
  std::string mesh; ///< dp=2,tp=2; empty: one rank
  unsigned zero = 0;
  std::string pipelineSchedule = "1f1b";
  unsigned pipelineChunks = 1; ///< stages of each pipeline rank
  std::string cema = "auto";
  std::string attention = "auto"; ///< on cuda: auto, stored, recomputed
  std::string gemm = "auto";
  unsigned cores = 2;
  std::string saveAssembly;
  std::string timestepNorm = "auto";
  std::string target = "cpu"; ///< "cpu" or "cuda"
  std::string gpuArch = kDefaultGpuArchs.str();
  std::string cudaPath; ///< CUDA toolkit; empty: look for one; none: PTX only
  /// What turns the outlined kernels of a cuda compilation into code; null: the
  /// compiler's own way to PTX. Tests put an emulation here, which makes plans
  /// for the cpu device.
  std::function<std::unique_ptr<Pass>()> gpuBackend;
};

/// Adds the passes of one phase and its border verifier. Import makes the
/// module itself and plan consumes it: they add only the verifier.
LogicalResult addPhase(OpPassManager &passes, Phase phase,
                       const PipelineOptions &options,
                       llvm::function_ref<void(const std::string &)> error);

/// Rejects ops and attributes that the phase should have removed, naming the
/// op, its place and the pass that should have removed it.
std::unique_ptr<Pass> createBorderVerifier(Phase phase);

void registerPasses();

} // namespace mlir::megalodon
