#include "test/emulation/EmulateGpuKernels.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Threading.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "passes/Codegen/ObjectFile.h"
#include "passes/Codegen/Passes.h"
#include "test/emulation/EmulatedKernel.h"
#include "llvm/Support/FileSystem.h"
#include <atomic>

using namespace mlir;
using namespace mlir::megalodon;

// The emulation's runtime, relocatable (RuntimeObject.cpp).
extern "C" const char megalodon_emulation_runtime[],
    megalodon_emulation_runtime_end[];

static LogicalResult writeFile(const Twine &path,
                               function_ref<void(raw_ostream &)> print) {
  std::error_code error;
  llvm::raw_fd_ostream out(path.str(), error);
  if (!error)
    print(out);
  return success(!error);
}

namespace {
struct EmulateGpuKernels
    : PassWrapper<EmulateGpuKernels, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(EmulateGpuKernels)
  EmulateGpuKernels() = default;
  EmulateGpuKernels(const EmulateGpuKernels &other) : PassWrapper(other) {}

  StringRef getArgument() const override {
    return "megalodon-emulate-gpu-kernels";
  }
  StringRef getDescription() const override {
    return "make kernels for a GPU functions of the cpu device";
  }

  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<arith::ArithDialect, func::FuncDialect, LLVM::LLVMDialect,
                    memref::MemRefDialect, vector::VectorDialect,
                    plan::PlanDialect>();
    OpPassManager passes("builtin.module");
    if (succeeded(parsePassPipeline(kernelLoweringPipeline(64), passes)))
      passes.getDependentDialects(registry);
  }

  void runOnOperation() override {
    gpu::GPUModuleOp gpuModule;
    getOperation().walk([&](gpu::GPUModuleOp op) { gpuModule = op; });
    if (!gpuModule)
      return;
    if (failed(run(gpuModule)))
      signalPassFailure();
  }

private:
  LogicalResult run(gpu::GPUModuleOp gpuModule) {
    auto kernels = cast<ModuleOp>(gpuModule->getParentOp());
    auto target = resolveCpu("native", [&](const std::string &message) {
      kernels.emitError(message);
    });
    if (failed(target))
      return failure();
    SmallVector<gpu::GPUFuncOp> functions(gpuModule.getOps<gpu::GPUFuncOp>());
    SmallVector<OwningOpRef<ModuleOp>> units;
    for (gpu::GPUFuncOp function : functions) {
      nameOps(function);
      units.push_back(ModuleOp::create(function.getLoc()));
    }
    if (const char *folder = std::getenv("MEGALODON_EMULATION_SAVE"))
      save(functions, folder);

    std::vector<SmallVector<char, 0>> objects(units.size());
    std::atomic<bool> broken = false;
    parallelFor(&getContext(), 0, units.size(), [&](size_t i) {
      if (failed(compile(functions[i], *units[i], *target, objects[i])))
        broken = true;
    });
    if (broken)
      return failure();
    objects.emplace_back(megalodon_emulation_runtime,
                         megalodon_emulation_runtime_end);
    SmallVector<char, 0> shared;
    if (failed(
            linkShared(kernels.getLoc(), objects, {"libstdc++.so.6"}, shared)))
      return failure();
    attachObject(getOperation(), kernels, *target, shared);
    if (!object.empty() && failed(writeFile(object, [&](raw_ostream &out) {
          out.write(shared.data(), shared.size());
        })))
      return kernels.emitError() << object << ": cannot write";
    for (auto declaration : kernels.getOps<func::FuncOp>())
      makeDeclarationOfCpu(declaration);
    gpuModule.erase();
    return success();
  }

  LogicalResult compile(gpu::GPUFuncOp function, ModuleOp unit,
                        const CpuTarget &target,
                        SmallVector<char, 0> &compiled) {
    EmulatedKernel kernel;
    PassManager passes(&getContext());
    const char *checks = std::getenv("MEGALODON_EMULATION_CHECKS");
    const bool instrument = !checks || StringRef(checks) != "0";
    if (failed(makeThreadFunction(function, unit, kernel)) ||
        failed(parsePassPipeline(kernelLoweringPipeline(target.vectorBytes),
                                 passes)) ||
        failed(passes.run(unit)) ||
        (instrument && failed(instrumentAccesses(unit, kernel))))
      return failure();
    return emitObject(
        unit, target, "",
        [&](llvm::Module &module) { addEmulatedEntry(module, kernel); },
        compiled);
  }

  /// What the plan's writer reads of a kernel: threads and shared memory are
  /// the emulation's own affair.
  static void makeDeclarationOfCpu(func::FuncOp declaration) {
    for (StringRef name : {plan::kThreadsAttr, plan::kWordsAttr})
      declaration->removeAttr(name);
    if (declaration->hasAttr(plan::kScratchAttr))
      declaration->setAttr(
          plan::kScratchAttr,
          Builder(declaration.getContext()).getI64IntegerAttr(0));
  }

  /// The kernels with the numbers of their ops, to look up what messages name.
  static void save(ArrayRef<gpu::GPUFuncOp> functions, StringRef folder) {
    llvm::sys::fs::create_directories(folder);
    for (gpu::GPUFuncOp function : functions)
      (void)writeFile(
          folder + "/" + function.getName() + ".mlir", [&](raw_ostream &out) {
            function->print(
                out,
                OpPrintingFlags().enableDebugInfo(true, true).useLocalScope());
          });
  }

  Option<std::string> object{
      *this, "object", llvm::cl::desc("also write the shared object there")};
};
} // namespace

std::unique_ptr<Pass> mlir::megalodon::createEmulateGpuKernels() {
  return std::make_unique<EmulateGpuKernels>();
}

void mlir::megalodon::registerEmulateGpuKernels() {
  PassRegistration<EmulateGpuKernels>();
}
