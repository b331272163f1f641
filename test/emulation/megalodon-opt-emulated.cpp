// megalodon-opt whose kernels for a GPU run on the CPU: with --target=cuda it
// makes plans for the cpu device.
#include "test/emulation/EmulateGpuKernels.h"
#include "tools/megalodon-opt/Main.h"

int main(int argc, char **argv) {
  mlir::megalodon::registerEmulateGpuKernels();
  return mlir::megalodon::runMegalodonOpt(
      argc, argv, mlir::megalodon::createEmulateGpuKernels);
}
