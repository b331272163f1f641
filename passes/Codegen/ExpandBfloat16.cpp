// Conversions between bf16 and f32 in integer arithmetic, for CPUs.
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "passes/Codegen/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_EXPANDBFLOAT16
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;

namespace {
struct ExpandBfloat16
    : mlir::megalodon::impl::ExpandBfloat16Base<ExpandBfloat16> {
  using ExpandBfloat16Base::ExpandBfloat16Base;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    arith::populateExpandBFloat16Patterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
