#include "passes/Pipeline/Phases.h"
#include "mlir/Transforms/Passes.h"
#include "passes/Autodiff/Passes.h"
#include "passes/Codegen/GpuTarget.h"
#include "passes/Codegen/Passes.h"
#include "passes/Codegen/Target.h"
#include "passes/Lowering/Passes.h"
#include "passes/Optimize/Passes.h"
#include "passes/Partition/Passes.h"

using namespace mlir;
using namespace mlir::megalodon;

/// Bytes of a vector that the 32 threads of a warp share: 16 each.
static constexpr unsigned kWarpVectorBytes = 512;
/// Shared memory for what one row kernel leaves for the next, bytes: more would
/// leave a multiprocessor too few warps to hide the latency of memory.
static constexpr int64_t kSharedIntermediates = 24 * 1024;

llvm::ArrayRef<PhaseInfo> mlir::megalodon::phases() {
  static constexpr PhaseInfo list[] = {
      {Phase::Import, "import",
       "the config as megalodon ops: one function an entry, one layer body"},
      {Phase::Differentiate, "differentiate",
       "grad and train_step contain their backward pass"},
      {Phase::Optimize, "optimize",
       "train_step clips and updates; canonical form"},
      {Phase::Partition, "partition",
       "what one rank of the mesh holds and sends; as before on one rank"},
      {Phase::Lower, "lower",
       "functions of dispatches and products; loops in @kernels"},
      {Phase::Codegen, "codegen",
       "@kernels is an ELF shared object, or images for GPUs"},
      {Phase::Plan, "plan", "command lists, memory plan, FlatBuffers file"},
  };
  return list;
}

llvm::StringRef mlir::megalodon::phaseName(Phase phase) {
  return phases()[static_cast<size_t>(phase)].name;
}

LogicalResult
mlir::megalodon::addPhase(OpPassManager &passes, Phase phase,
                          const PipelineOptions &options,
                          llvm::function_ref<void(const std::string &)> error) {
  switch (phase) {
  case Phase::Import:
  case Phase::Plan:
    break;
  case Phase::Differentiate:
    passes.addPass(createDifferentiate({options.recompute}));
    break;
  case Phase::Optimize:
    passes.addPass(createAppendOptimizer());
    passes.addPass(createCanonicalizerPass());
    // Layers of one shape share recomputed values and coefficients only inside
    // a function, so CSE is safe at any depth.
    passes.addPass(createCSEPass());
    passes.addPass(createSymbolDCEPass());
    break;
  case Phase::Partition:
    passes.addPass(createAssignLayouts({options.mesh, options.zero}));
    passes.addPass(createPartitionOps());
    // One gather serves all that read the gathered value.
    passes.addPass(createCSEPass());
    passes.addPass(
        createCutPipeline({options.pipelineSchedule, options.pipelineChunks}));
    passes.addNestedPass<func::FuncOp>(createOverlapCollectives());
    break;
  case Phase::Lower: {
    LowerToKernelsOptions lowering;
    lowering.target = options.target;
    lowering.cema = options.cema;
    lowering.timestepNorm = options.timestepNorm;
    lowering.attention = options.attention;
    lowering.gemm = options.gemm;
    if (options.target == "cuda") {
      lowering.vectorBytes = kWarpVectorBytes;
      lowering.vectorRegisters = 32;
      auto archs =
          resolveGpuArchs(options.gpuArch, [&](const std::string &message) {
            error("--gpu-arch: " + message);
          });
      if (failed(archs))
        return failure();
      lowering.sharedBytes = sharedBytes(*archs);
      if (options.gemm == "auto" && !options.gpuBackend)
        lowering.gemm = "cublaslt";
    } else {
      auto target = resolveCpu(options.cpu, [&](const std::string &message) {
        error("--cpu: " + message);
      });
      if (failed(target))
        return failure();
      lowering.vectorBytes = target->vectorBytes;
      lowering.vectorRegisters = target->vectorRegisters;
    }
    lowering.cores = options.cores;
    passes.addPass(createLowerToKernels(lowering));
    // Ops whose only purpose was another op's lowering are dead now.
    passes.addPass(createCSEPass());
    if (options.target == "cuda")
      passes.addPass(createFuseRows({kSharedIntermediates}));
    else
      passes.addPass(createFuseRows());
    passes.addNestedPass<func::FuncOp>(createBucketCollectives());
    break;
  }
  case Phase::Codegen:
    if (options.target != "cuda") {
      passes.addPass(createCompileKernels({options.cpu, options.saveAssembly}));
      break;
    }
    {
      OpPassManager &kernel = passes.nest<ModuleOp>().nest<func::FuncOp>();
      kernel.addPass(createDistributeToThreads());
      kernel.addPass(createExpandGpuMath());
      // A sine and a cosine of one angle share their reduction.
      kernel.addPass(createCSEPass());
    }
    passes.addPass(createOutlineGpuKernels());
    passes.addPass(options.gpuBackend ? options.gpuBackend()
                                      : createCompileGpuKernels(
                                            {options.gpuArch, options.cudaPath,
                                             options.saveAssembly}));
    break;
  }
  passes.addPass(createBorderVerifier(phase));
  return success();
}

void mlir::megalodon::registerPasses() {
  registerMegalodonAutodiffPasses();
  registerMegalodonOptimizePasses();
  registerMegalodonPartitionPasses();
  registerMegalodonLoweringPasses();
  registerMegalodonCodegenPasses();
}
