// The codegen phase for GPUs: the outlined kernels become PTX and cubins.
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/IR/Threading.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "passes/Codegen/Passes.h"
#include "passes/Codegen/Ptx.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Transforms/Utils/Cloning.h"
#include <atomic>

namespace mlir::megalodon {
#define GEN_PASS_DEF_COMPILEGPUKERNELS
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

/// From kernels of one thread's code to the NVVM dialect.
static constexpr llvm::StringLiteral kLoweringPipeline =
    "gpu.module(canonicalize,cse,loop-invariant-code-motion,canonicalize,cse,"
    "convert-vector-to-scf,convert-scf-to-cf,expand-strided-metadata,"
    "lower-affine,megalodon-gpu-to-nvvm,reconcile-unrealized-casts,"
    "canonicalize,cse)";

/// The kernel's name in PTX, which has no dots in names. No kernel's own name
/// has a dollar sign.
static std::string ptxName(StringRef kernel) {
  std::string name = kernel.str();
  llvm::replace(name, '.', '$');
  return name;
}

/// The architecture whose PTX a GPU without a cubin of its own gets.
static const GpuArch &fallback(ArrayRef<GpuArch> archs) {
  for (const GpuArch &arch : archs)
    if (arch.forwardCompatible)
      return arch;
  return archs.front();
}

namespace {
struct CompileGpuKernels
    : mlir::megalodon::impl::CompileGpuKernelsBase<CompileGpuKernels> {
  using CompileGpuKernelsBase::CompileGpuKernelsBase;

  // The inner pipelines run while the context is multi-threaded, so their
  // dialects must be loaded before.
  void getDependentDialects(DialectRegistry &registry) const override {
    CompileGpuKernelsBase::getDependentDialects(registry);
    OpPassManager passes("builtin.module");
    if (succeeded(parsePassPipeline(kLoweringPipeline, passes)))
      passes.getDependentDialects(registry);
  }

  void runOnOperation() override {
    auto kernels = getOperation().lookupSymbol<ModuleOp>(plan::kKernelsModule);
    if (!kernels)
      return;
    auto device = kernels.lookupSymbol<gpu::GPUModuleOp>(plan::kKernelsModule);
    if (!device) {
      kernels.emitOpError() << "has no gpu.module; expected pass "
                               "'megalodon-outline-gpu-kernels' to have run";
      return signalPassFailure();
    }
    auto archs = resolveGpuArchs(gpuArch, [&](const std::string &message) {
      getOperation().emitError(message);
    });
    if (failed(archs))
      return signalPassFailure();
    if (!saveAssembly.empty())
      llvm::sys::fs::create_directories(saveAssembly);

    SmallVector<gpu::GPUFuncOp> functions(device.getOps<gpu::GPUFuncOp>());
    if (failed(checkSharedMemory(functions, *archs)))
      return signalPassFailure();
    std::vector<std::vector<std::string>> ptx;
    if (failed(emitKernels(functions, *archs, ptx)))
      return signalPassFailure();
    std::vector<std::string> joined;
    for (const std::vector<std::string> &modules : ptx)
      joined.push_back(joinPtx(modules));

    std::vector<Cubin> cubins(archs->size());
    if (!functions.empty() && failed(assembleAll(joined, *archs, cubins)))
      return signalPassFailure();
    if (!saveAssembly.empty())
      writeResources(functions, *archs, cubins);

    SmallVector<Attribute> images;
    const GpuArch &lowest = fallback(*archs);
    for (auto [arch, text, cubin] : llvm::zip(*archs, joined, cubins)) {
      if (!cubin.data.empty())
        images.push_back(image(arch, /*isPtx=*/false, cubin.data));
      if (cubin.data.empty() || arch.name == lowest.name)
        images.push_back(image(arch, /*isPtx=*/true,
                               ArrayRef(text.c_str(), text.size() + 1)));
    }
    kernels->setAttr(plan::kImagesAttr, ArrayAttr::get(&getContext(), images));
    for (auto kernel : kernels.getOps<func::FuncOp>())
      kernel->setAttr(
          plan::kSymbolAttr,
          StringAttr::get(&getContext(), ptxName(kernel.getName())));
    device.erase();
  }

private:
  LogicalResult checkSharedMemory(ArrayRef<gpu::GPUFuncOp> functions,
                                  ArrayRef<GpuArch> archs) {
    for (gpu::GPUFuncOp function : functions)
      for (const GpuArch &arch : archs)
        if (int64_t bytes = number(function, plan::kScratchAttr);
            bytes > arch.sharedBytes)
          return function.emitOpError()
                 << "expected at most " << arch.sharedBytes
                 << " bytes of shared memory, which is what " << arch.name
                 << " has, got " << bytes;
    return success();
  }

  /// PTX of every kernel for every architecture. A kernel is a task: what comes
  /// before LLVM is done once for all architectures.
  LogicalResult emitKernels(ArrayRef<gpu::GPUFuncOp> functions,
                            ArrayRef<GpuArch> archs,
                            std::vector<std::vector<std::string>> &ptx) {
    // One module a kernel, so that workers share nothing but the MLIR context.
    SmallVector<OwningOpRef<ModuleOp>> units;
    for (gpu::GPUFuncOp function : functions) {
      units.push_back(ModuleOp::create(function.getLoc()));
      OpBuilder builder = OpBuilder::atBlockEnd(units.back()->getBody());
      auto module = gpu::GPUModuleOp::create(builder, function.getLoc(),
                                             plan::kKernelsModule);
      // What kernels refer to comes with each of them.
      for (Operation &op : *function->getBlock())
        if (!isa<gpu::GPUFuncOp>(op))
          module.getBody()->push_back(op.clone());
      auto copy = cast<gpu::GPUFuncOp>(function->clone());
      copy.setName(ptxName(function.getName()));
      module.getBody()->push_back(copy);
      for (unsigned i = 0; i < copy.getNumArguments(); ++i) {
        if (!isa<MemRefType>(copy.getArgumentTypes()[i]))
          continue;
        copy.setArgAttr(i, "llvm.noalias", builder.getUnitAttr());
        copy.setArgAttr(i, "llvm.align", builder.getI64IntegerAttr(64));
      }
    }
    ptx.assign(archs.size(), std::vector<std::string>(units.size()));
    std::atomic<bool> broken = false;
    parallelFor(&getContext(), 0, units.size(), [&](size_t i) {
      gpu::GPUFuncOp function = functions[i];
      Location location = function.getLoc();
      StringRef name = function.getName();
      PassManager passes(&getContext());
      if (failed(parsePassPipeline(kLoweringPipeline, passes)) ||
          failed(passes.run(*units[i]))) {
        broken = true;
        return;
      }
      llvm::LLVMContext context;
      auto device = *units[i]->getOps<gpu::GPUModuleOp>().begin();
      std::unique_ptr<llvm::Module> module =
          translateModuleToLLVMIR(device, context);
      if (!module) {
        emitError(location) << "translation to LLVM IR failed";
        broken = true;
        return;
      }
      makeNamesUnique(*module, ptxName(name));
      std::string stem =
          saveAssembly.empty() ? "" : (saveAssembly + "/" + name).str();
      for (auto [arch, texts] : llvm::zip(archs, ptx)) {
        std::unique_ptr<llvm::Module> copy = llvm::CloneModule(*module);
        FailureOr<std::string> text = emitPtx(location, *copy, arch, stem);
        if (failed(text)) {
          broken = true;
          return;
        }
        texts[i] = std::move(*text);
      }
    });
    return failure(broken);
  }

  /// Cubins, or empty ones where there is no ptxas for an architecture.
  LogicalResult assembleAll(ArrayRef<std::string> ptx, ArrayRef<GpuArch> archs,
                            std::vector<Cubin> &cubins) {
    Location location = getOperation().getLoc();
    if (cudaPath == "none")
      return success();
    std::optional<std::string> ptxas = findPtxas(cudaPath);
    if (!ptxas) {
      if (!cudaPath.empty())
        return emitError(location)
               << "expected a CUDA toolkit with bin/ptxas, got '" << cudaPath
               << "'";
      emitRemark(location) << "no ptxas: the plan holds PTX only";
      return success();
    }
    std::atomic<bool> broken = false;
    parallelFor(&getContext(), 0, archs.size(), [&](size_t i) {
      FailureOr<Cubin> cubin = assemble(location, *ptxas, ptx[i], archs[i]);
      if (failed(cubin))
        broken = true;
      else
        cubins[i] = std::move(*cubin);
    });
    if (broken)
      return failure();
    for (auto [arch, cubin] : llvm::zip(archs, cubins)) {
      if (cubin.unknownArch)
        emitRemark(location) << *ptxas << " does not know " << arch.name
                             << ": the plan holds PTX of it";
      cubinBytes += cubin.data.size();
    }
    return success();
  }

  DictionaryAttr image(const GpuArch &arch, bool isPtx, ArrayRef<char> data) {
    Builder builder(&getContext());
    auto type = RankedTensorType::get({static_cast<int64_t>(data.size())},
                                      builder.getI8Type());
    NamedAttrList entries;
    entries.set("arch", builder.getStringAttr(arch.name));
    entries.set("data", DenseElementsAttr::getFromRawBuffer(type, data));
    if (isPtx)
      entries.set("ptx", builder.getUnitAttr());
    return entries.getDictionary(&getContext());
  }

  /// resources.txt: a line for each kernel and architecture.
  void writeResources(ArrayRef<gpu::GPUFuncOp> functions,
                      ArrayRef<GpuArch> archs, ArrayRef<Cubin> cubins) {
    std::error_code error;
    llvm::raw_fd_ostream out(saveAssembly + "/resources.txt", error);
    if (error)
      return;
    out << "arch kernel threads shared registers stack spill_stores "
           "spill_loads\n";
    for (auto [arch, cubin] : llvm::zip(archs, cubins))
      for (const KernelResources &kernel : cubin.resources)
        for (gpu::GPUFuncOp function : functions)
          if (ptxName(function.getName()) == kernel.kernel)
            out << llvm::formatv(
                "{0} {1} {2} {3} {4} {5} {6} {7}\n", arch.name,
                function.getName(), number(function, plan::kThreadsAttr),
                number(function, plan::kScratchAttr), kernel.registers,
                kernel.stack, kernel.spillStores, kernel.spillLoads);
  }

  static int64_t number(Operation *function, StringRef name) {
    auto attribute = function->getAttrOfType<IntegerAttr>(name);
    return attribute ? attribute.getInt() : 0;
  }
};
} // namespace
