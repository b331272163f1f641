// The codegen phase: @kernels becomes an ELF shared object.
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/Threading.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "passes/Codegen/ObjectFile.h"
#include "passes/Codegen/Passes.h"
#include "llvm/Support/FileSystem.h"
#include <atomic>

namespace mlir::megalodon {
#define GEN_PASS_DEF_COMPILEKERNELS
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

std::string mlir::megalodon::kernelLoweringPipeline(unsigned vectorBytes) {
  return "canonicalize,cse,megalodon-vectorize-math{vector-bytes=" +
         std::to_string(vectorBytes) +
         "},megalodon-expand-bf16,loop-invariant-code-motion,canonicalize,cse,"
         "convert-vector-to-scf,convert-scf-to-cf,expand-strided-metadata,"
         "lower-affine,"
         // reassociated reductions become vector shuffles and adds in one fixed
         // order
         "convert-vector-to-llvm{reassociate-fp-reductions=1},finalize-memref-"
         "to-llvm,"
         "convert-math-to-llvm{approximate-log1p=0},convert-math-to-libm,"
         "convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},convert-arith-"
         "to-llvm,convert-cf-to-llvm,convert-index-to-llvm,"
         "convert-to-llvm,reconcile-unrealized-casts,canonicalize,cse";
}

namespace {
struct CompileKernels
    : mlir::megalodon::impl::CompileKernelsBase<CompileKernels> {
  using CompileKernelsBase::CompileKernelsBase;

  // The inner pipelines run while the context is multi-threaded, so their
  // dialects must be loaded before.
  void getDependentDialects(DialectRegistry &registry) const override {
    CompileKernelsBase::getDependentDialects(registry);
    OpPassManager passes("builtin.module");
    if (succeeded(parsePassPipeline(kernelLoweringPipeline(64), passes)))
      passes.getDependentDialects(registry);
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto kernels = module.lookupSymbol<ModuleOp>(plan::kKernelsModule);
    if (!kernels)
      return;
    auto target = resolveCpu(
        cpu, [&](const std::string &message) { module.emitError(message); });
    if (failed(target))
      return signalPassFailure();
    if (!saveAssembly.empty())
      llvm::sys::fs::create_directories(saveAssembly);

    // One module a kernel, so that workers share nothing but the MLIR context.
    SmallVector<func::FuncOp> functions(kernels.getOps<func::FuncOp>());
    SmallVector<OwningOpRef<ModuleOp>> units;
    OpBuilder builder(&getContext());
    // Variables and places in the arena begin at multiples of 64 bytes; the
    // rows of a pipeline's microbatch begin anywhere in a variable.
    const bool aligned = module.getOps<plan::PipelineOp>().empty();
    for (func::FuncOp function : functions) {
      units.push_back(ModuleOp::create(function.getLoc()));
      auto copy = cast<func::FuncOp>(function->clone());
      for (unsigned i = 0; i < copy.getNumArguments(); ++i) {
        if (!isa<MemRefType>(copy.getArgument(i).getType()))
          continue;
        copy.setArgAttr(i, "llvm.noalias", builder.getUnitAttr());
        if (aligned)
          copy.setArgAttr(i, "llvm.align", builder.getI64IntegerAttr(64));
      }
      units.back()->push_back(copy);
    }

    std::vector<SmallVector<char, 0>> objects(units.size());
    std::atomic<bool> broken = false;
    std::string pipeline = kernelLoweringPipeline(target->vectorBytes);
    auto compile = [&](size_t i) {
      PassManager passes(&getContext());
      std::string stem =
          saveAssembly.empty()
              ? ""
              : (saveAssembly + "/" + functions[i].getName()).str();
      if (failed(parsePassPipeline(pipeline, passes)) ||
          failed(passes.run(*units[i])) ||
          failed(
              emitObject(*units[i], *target, stem, addEntryPoints, objects[i])))
        broken = true;
    };
    parallelFor(&getContext(), 0, units.size(), compile);
    if (broken)
      return signalPassFailure();

    SmallVector<char, 0> shared;
    if (failed(linkShared(module.getLoc(), objects, {}, shared)))
      return signalPassFailure();
    objectBytes += shared.size();

    attachObject(module, kernels, *target, shared);
    for (func::FuncOp function : functions) {
      function.eraseBody();
      function.setPrivate();
    }
  }
};
} // namespace
