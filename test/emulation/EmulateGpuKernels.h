// Kernels for a GPU as code for the CPU, for tests without a GPU.
#pragma once
#include "mlir/Pass/Pass.h"
#include <memory>

namespace mlir::megalodon {

/// Replaces the gpu.module inside @kernels by an ELF shared object for the cpu
/// device, in which a workgroup's threads take turns. The rest of the module is
/// as megalodon-compile-kernels leaves it.
std::unique_ptr<Pass> createEmulateGpuKernels();

void registerEmulateGpuKernels();

} // namespace mlir::megalodon
