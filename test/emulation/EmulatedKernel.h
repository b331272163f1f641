// The steps that make a gpu.func a function of the cpu device.
#pragma once
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/IR/Module.h"
#include <string>
#include <vector>

namespace mlir::megalodon {

/// What is known about a kernel besides its code.
struct EmulatedKernel {
  std::string name;
  int64_t threads = 0, words = 0, sharedBytes = 0;
  SmallVector<int64_t> sharedOffsets; ///< of each workgroup attribution
  SmallVector<int64_t> bufferBytes;
  bool meets = false;             ///< whether threads ever wait for each other
  std::vector<std::string> sites; ///< places that messages name

  /// The number of a new place in the code.
  int64_t addSite(Operation *op);
  std::string threadFunction() const { return name + ".thread"; }
};

/// Gives every op of the kernel a name in its location, so that messages of the
/// emulation can say which it was: `vector.store #12`.
void nameOps(gpu::GPUFuncOp function);

/// Adds to `unit` the code of one thread as function NAME.thread of (thread,
/// workgroup attributions..., the kernel's arguments...), in which ops of a GPU
/// are calls of the emulation's runtime and memory has no spaces.
LogicalResult makeThreadFunction(gpu::GPUFuncOp function, ModuleOp unit,
                                 EmulatedKernel &kernel);

/// Puts a call of the runtime before every access to memory that other threads
/// may see. `unit` is in the LLVM dialect.
LogicalResult instrumentAccesses(ModuleOp unit, EmulatedKernel &kernel);

/// Adds the function NAME that the cpu device calls for a workgroup.
void addEmulatedEntry(llvm::Module &module, const EmulatedKernel &kernel);

/// A function of the runtime, declared in `unit`.
LLVM::CallOp callRuntime(OpBuilder &builder, Location loc, ModuleOp unit,
                         StringRef name, Type result, ValueRange operands);

} // namespace mlir::megalodon
