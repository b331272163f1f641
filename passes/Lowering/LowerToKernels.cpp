// The lower phase: every megalodon op becomes dispatches of generated kernels
// or a library product.
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/NVGPU/IR/NVGPUDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/WalkPatternRewriteDriver.h"
#include "passes/Lowering/Lowerings.h"
#include "passes/Lowering/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_LOWERTOKERNELS
#include "passes/Lowering/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {
struct LowerToKernels
    : mlir::megalodon::impl::LowerToKernelsBase<LowerToKernels> {
  using LowerToKernelsBase::LowerToKernelsBase;

  void runOnOperation() override {
    LoweringOptions options;
    options.target = target == "cuda" ? Target::Cuda : Target::Cpu;
    options.vectorBytes = vectorBytes;
    options.vectorRegisters = vectorRegisters;
    options.cema = cema;
    options.timestepNorm = timestepNorm;
    options.attention = attention;
    options.gemm = gemm;
    options.cores = cores;
    options.sharedBytes = sharedBytes;

    RewritePatternSet patterns(&getContext());
    populateCemaLowering(patterns, options);
    populateTimestepNormLowering(patterns, options);
    populateTimestepSummaryLowering(patterns, options);
    populateAttentionLowering(patterns, options);
    populatePositionLowering(patterns, options);
    populateProductLowering(patterns, options);
    populateRowLowering(patterns, options);
    populateLossLowering(patterns, options);
    populateEmbeddingLowering(patterns, options);
    populateSliceLowering(patterns, options);
    populateOptimizerLowering(patterns, options);
    populateCollectiveLowering(patterns);
    if (options.target == Target::Cuda)
      populateGpuLowering(patterns, options);
    FrozenRewritePatternSet frozen(std::move(patterns));

    // One visit an op is enough: no pattern creates megalodon ops.
    ModuleOp module = getOperation();
    for (auto function :
         llvm::make_early_inc_range(module.getOps<func::FuncOp>()))
      walkAndApplyPatterns(function, frozen);

    if (auto kernels = module.lookupSymbol<ModuleOp>(plan::kKernelsModule))
      numKernels += llvm::range_size(kernels.getOps<func::FuncOp>());
    module.walk([&](plan::DispatchOp) { ++numDispatches; });
  }
};
} // namespace
