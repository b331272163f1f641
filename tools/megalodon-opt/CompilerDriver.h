// Drives a compilation through the phases, from a config or a dump to a plan or
// a dump.
#pragma once
#include "mlir/IR/MLIRContext.h"
#include "mlir/Support/LogicalResult.h"
#include "llvm/ADT/StringRef.h"

namespace mlir::megalodon {

/// Registers the options of the driver with LLVM's command line; call before it
/// is parsed.
void registerDriverOptions();

/// Whether the command line asks for a compilation, and not just for a pass
/// pipeline over a file.
bool isCompilation(llvm::StringRef input, llvm::StringRef output);

LogicalResult compile(MLIRContext &context, llvm::StringRef input,
                      llvm::StringRef output);

} // namespace mlir::megalodon
