#include "passes/Pipeline/Registration.h"
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/InitAllDialects.h"
#include "mlir/InitAllExtensions.h"
#include "mlir/InitAllPasses.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"
#include "passes/Pipeline/Phases.h"

using namespace mlir;

void mlir::megalodon::registerDialects(DialectRegistry &registry) {
  registerAllDialects(registry);
  registerAllExtensions(registry);
  registerAllToLLVMIRTranslations(registry);
  registry.insert<MegalodonDialect, plan::PlanDialect>();
}

void mlir::megalodon::registerAllPasses() {
  mlir::registerAllPasses();
  registerPasses();
}
