// The last IR before PTX: kernels of scf, vector, memref, arith and gpu become
// functions of the NVVM and LLVM dialects.
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVM.h"
#include "mlir/Conversion/GPUCommon/GPUCommonPass.h"
#include "mlir/Conversion/GPUToNVVM/GPUToNVVMPass.h"
#include "mlir/Conversion/IndexToLLVM/IndexToLLVM.h"
#include "mlir/Conversion/LLVMCommon/ConversionTarget.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h"
#include "mlir/Conversion/NVGPUToNVVM/NVGPUToNVVM.h"
#include "mlir/Conversion/NVVMToLLVM/NVVMToLLVM.h"
#include "mlir/Conversion/UBToLLVM/UBToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/GPU/Transforms/Passes.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/NVGPU/IR/NVGPUDialect.h"
#include "mlir/Dialect/Vector/Transforms/LoweringPatterns.h"
#include "mlir/Dialect/Vector/Transforms/VectorRewritePatterns.h"
#include "mlir/Transforms/DialectConversion.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "passes/Codegen/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_GPUTONVVM
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;

namespace {

/// Alignment of dynamic shared memory; the hardware's copies want at most 128.
constexpr uint64_t kSharedAlignment = 128;

/// Vector ops without a form in the LLVM dialect, and shuffles of 64 bits.
LogicalResult prepare(gpu::GPUModuleOp module) {
  RewritePatternSet patterns(module.getContext());
  vector::populateVectorBroadcastLoweringPatterns(patterns);
  vector::populateVectorContractLoweringPatterns(
      patterns, vector::VectorContractLowering::OuterProduct);
  vector::populateVectorOuterProductLoweringPatterns(patterns);
  vector::populateVectorMultiReductionLoweringPatterns(
      patterns, vector::VectorMultiReductionLowering::InnerParallel);
  vector::populateVectorMaskOpLoweringPatterns(patterns);
  vector::populateVectorShapeCastLoweringPatterns(patterns);
  vector::populateVectorInterleaveLoweringPatterns(patterns);
  vector::populateVectorTransposeLoweringPatterns(
      patterns, vector::VectorTransposeLowering::EltWise);
  vector::populateVectorMaskMaterializationPatterns(
      patterns, /*force32BitVectorIndices=*/true);
  vector::populateVectorInsertExtractStridedSliceTransforms(patterns);
  vector::populateVectorStepLoweringPatterns(patterns);
  vector::populateVectorRankReducingFMAPattern(patterns);
  vector::populateVectorGatherLoweringPatterns(patterns);
  vector::populateVectorTransferLoweringPatterns(patterns,
                                                 /*maxTransferRank=*/1);
  populateGpuShufflePatterns(patterns);
  return applyPatternsGreedily(module, std::move(patterns));
}

/// A block of one warp needs no barrier of the block: its threads meet, and see
/// each other's writes, at a barrier of the warp.
void useWarpBarriers(gpu::GPUFuncOp kernel) {
  std::optional<ArrayRef<int32_t>> block = kernel.getKnownBlockSize();
  if (!block || llvm::product_of(*block) != 32)
    return;
  kernel.walk([](gpu::BarrierOp barrier) {
    OpBuilder builder(barrier);
    Value all = arith::ConstantOp::create(builder, barrier.getLoc(),
                                          builder.getI32IntegerAttr(-1));
    NVVM::SyncWarpOp::create(builder, barrier.getLoc(), all);
    barrier.erase();
  });
}

/// Shared memory of a size that the launch gives: `.extern .shared`, which may
/// exceed the 48 KiB of static shared memory.
void makeSharedMemoryDynamic(gpu::GPUModuleOp module) {
  constexpr unsigned shared =
      static_cast<unsigned>(NVVM::NVVMMemorySpace::Shared);
  for (auto global : module.getOps<LLVM::GlobalOp>()) {
    if (global.getAddrSpace() != shared)
      continue;
    auto bytes =
        LLVM::LLVMArrayType::get(IntegerType::get(module.getContext(), 8), 0);
    global.setGlobalType(bytes);
    global.setLinkage(LLVM::Linkage::External);
    global.setAlignment(kSharedAlignment);
    global.removeValueAttr();
    global.getInitializerRegion().getBlocks().clear();
  }
}

struct GpuToNvvm : mlir::megalodon::impl::GpuToNvvmBase<GpuToNvvm> {
  void runOnOperation() override {
    gpu::GPUModuleOp module = getOperation();
    MLIRContext *context = &getContext();
    for (auto kernel : module.getOps<gpu::GPUFuncOp>()) {
      if (kernel.getNumWorkgroupAttributions() > 1) {
        kernel.emitOpError()
            << "expected at most one piece of workgroup memory, got "
            << kernel.getNumWorkgroupAttributions();
        return signalPassFailure();
      }
      useWarpBarriers(kernel);
    }
    if (failed(prepare(module)))
      return signalPassFailure();

    LowerToLLVMOptions options(context);
    options.overrideIndexBitwidth(64);
    // Every buffer has a static shape: a kernel takes one pointer a buffer.
    options.useBarePtrCallConv = true;
    LLVMTypeConverter converter(context, options);
    configureGpuToNVVMTypeConverter(converter);
    converter.addConversion([&](nvgpu::DeviceAsyncTokenType) -> Type {
      return converter.convertType(IntegerType::get(context, 32));
    });

    RewritePatternSet patterns(context);
    // Upstream's patterns for the GPU would call libdevice; LLVM's intrinsics
    // for the same ops come first.
    populateMathToLLVMConversionPatterns(converter, patterns,
                                         /*approximateLog1p=*/false,
                                         /*benefit=*/2);
    populateGpuToNVVMConversionPatterns(converter, patterns);
    populateNVGPUToNVVMConversionPatterns(converter, patterns);
    arith::populateArithToLLVMConversionPatterns(converter, patterns);
    cf::populateControlFlowToLLVMConversionPatterns(converter, patterns);
    populateFuncToLLVMConversionPatterns(converter, patterns);
    populateFinalizeMemRefToLLVMConversionPatterns(converter, patterns);
    index::populateIndexToLLVMConversionPatterns(converter, patterns);
    ub::populateUBToLLVMConversionPatterns(converter, patterns);
    // Reductions inside a thread: adds in one fixed tree.
    populateVectorToLLVMConversionPatterns(converter, patterns,
                                           /*reassociateFPReductions=*/true,
                                           /*force32BitVectorIndices=*/true);
    LLVMConversionTarget target(*context);
    target.addLegalDialect<NVVM::NVVMDialect>();
    target.addIllegalDialect<gpu::GPUDialect, nvgpu::NVGPUDialect>();
    target.addLegalOp<gpu::GPUModuleOp>();
    if (failed(applyPartialConversion(module, target, std::move(patterns))))
      return signalPassFailure();
    makeSharedMemoryDynamic(module);
  }
};
} // namespace
