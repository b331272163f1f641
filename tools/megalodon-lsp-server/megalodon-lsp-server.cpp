// Language server for dumps of every phase: diagnostics while typing, go to
// definition, hover with an op's documentation.
#include "mlir/Tools/mlir-lsp-server/MlirLspServerMain.h"
#include "passes/Pipeline/Registration.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  mlir::megalodon::registerDialects(registry);
  return mlir::failed(mlir::MlirLspServerMain(argc, argv, registry));
}
