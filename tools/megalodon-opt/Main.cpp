#include "tools/megalodon-opt/Main.h"
#include "mlir/Support/FileUtilities.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "passes/Pipeline/Registration.h"
#include "tools/megalodon-opt/CompilerDriver.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/ToolOutputFile.h"

using namespace mlir;

int mlir::megalodon::runMegalodonOpt(
    int argc, char **argv, std::function<std::unique_ptr<Pass>()> gpuBackend) {
  llvm::InitLLVM init(argc, argv);
  DialectRegistry registry;
  megalodon::registerDialects(registry);
  megalodon::registerAllPasses();
  megalodon::registerDriverOptions();

  auto [input, output] =
      registerAndParseCLIOptions(argc, argv, "MEGALODON compiler", registry);
  if (megalodon::isCompilation(input, output)) {
    MLIRContext context(registry);
    return asMainReturnCode(
        megalodon::compile(context, input, output, gpuBackend));
  }
  std::string message;
  auto file = openInputFile(input, &message);
  auto result = file ? openOutputFile(output, &message) : nullptr;
  if (!result) {
    llvm::errs() << message << "\n";
    return 1;
  }
  MlirOptMainConfig config = MlirOptMainConfig::createFromCLOptions();
  if (failed(MlirOptMain(result->os(), std::move(file), registry, config)))
    return 1;
  result->keep();
  return 0;
}
