// Drives a compilation through the phases, from a config or a dump to a plan or
// a dump.
#pragma once
#include "mlir/IR/MLIRContext.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Support/LogicalResult.h"
#include "llvm/ADT/StringRef.h"
#include <functional>

namespace mlir::megalodon {

/// Registers the options of the driver with LLVM's command line; call before it
/// is parsed.
void registerDriverOptions();

/// Whether the command line asks for a compilation, and not just for a pass
/// pipeline over a file.
bool isCompilation(llvm::StringRef input, llvm::StringRef output);

/// `gpuBackend`: PipelineOptions.
LogicalResult
compile(MLIRContext &context, llvm::StringRef input, llvm::StringRef output,
        std::function<std::unique_ptr<Pass>()> gpuBackend = nullptr);

} // namespace mlir::megalodon
