// What must be gone after each phase.
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "passes/Pipeline/Phases.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {
struct BorderVerifier : PassWrapper<BorderVerifier, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(BorderVerifier)
  explicit BorderVerifier(Phase phase) : phase(phase) {}
  StringRef getName() const override { return "BorderVerifier"; }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    WalkResult result = WalkResult::advance();
    for (Operation &op : *module.getBody()) {
      if (auto function = dyn_cast<func::FuncOp>(op))
        result = verifyFunction(function);
      if (result.wasInterrupted())
        return signalPassFailure();
    }
    if (phase >= Phase::Codegen)
      if (auto kernels = module.lookupSymbol<ModuleOp>(plan::kKernelsModule);
          kernels && !kernels->hasAttr(plan::kObjectAttr) &&
          !kernels->hasAttr(plan::kImagesAttr)) {
        leftover(kernels, "megalodon-compile-kernels");
        signalPassFailure();
      }
  }

private:
  void leftover(Operation *op, StringRef pass) {
    op->emitOpError() << "must not be left after phase '" << phaseName(phase)
                      << "'; pass '" << pass << "' should have removed it";
  }

  /// An entry that asks for gradients has at least one result of that role once
  /// it is differentiated.
  bool lacksGradients(func::FuncOp function) {
    auto entry = function->getAttrOfType<StringAttr>(kEntryAttr);
    if (!entry || (entry.getValue() != "grad" && entry.getValue() != "train"))
      return false;
    for (unsigned i = 0; i < function.getNumResults(); ++i)
      if (auto role = function.getResultAttrOfType<RoleAttr>(i, kRoleAttr);
          role && (role.getValue() == Role::Gradient ||
                   role.getValue() == Role::Residual))
        return false;
    return true;
  }

  WalkResult verifyFunction(func::FuncOp function) {
    if (phase >= Phase::Differentiate && lacksGradients(function)) {
      function.emitOpError()
          << "has no gradients after phase '" << phaseName(phase)
          << "'; pass 'megalodon-differentiate' should have added them";
      return WalkResult::interrupt();
    }
    if (phase < Phase::Lower)
      return WalkResult::advance();
    return function.walk([&](Operation *op) {
      bool fine = isa<plan::PlanDialect>(op->getDialect()) ||
                  isa<func::FuncDialect>(op->getDialect());
      if (fine)
        return WalkResult::advance();
      leftover(op, "megalodon-lower-to-kernels");
      return WalkResult::interrupt();
    });
  }

  Phase phase;
};
} // namespace

std::unique_ptr<Pass> mlir::megalodon::createBorderVerifier(Phase phase) {
  return std::make_unique<BorderVerifier>(phase);
}
