// Kernels of threads as the functions a GPU launches.
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "passes/Codegen/Passes.h"
#include "passes/Codegen/SharedAccesses.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_OUTLINEGPUKERNELS
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

/// How many words of the parameter block the kernel reads: one more than the
/// last it reads.
static int64_t countWords(Value parameters) {
  int64_t words = 0;
  for (Operation *user : parameters.getUsers()) {
    auto load = cast<memref::LoadOp>(user);
    words =
        std::max(words, *getConstantIntValue(load.getIndices().front()) + 1);
  }
  return words;
}

static gpu::GPUFuncOp outline(func::FuncOp kernel) {
  Location loc = kernel.getLoc();
  OpBuilder b(kernel.getContext());
  Block &old = kernel.getBody().front();
  BlockArgument parameters = old.getArgument(kParametersArgument),
                workgroup = old.getArgument(kWorkgroupArgument),
                scratch = old.getArgument(kScratchArgument);
  const int64_t words = countWords(parameters);
  SmallVector<Type> types(words, b.getI64Type());
  llvm::append_range(
      types,
      TypeRange(old.getArgumentTypes()).drop_front(kFirstBufferArgument));
  auto scratchType = cast<MemRefType>(scratch.getType());
  const bool shares = scratchType.getNumElements() > 0;
  SmallVector<Type> attributions;
  if (shares)
    attributions.push_back(scratchType);
  auto function = gpu::GPUFuncOp::create(
      b, loc, kernel.getName(), b.getFunctionType(types, {}), attributions);
  function->setAttr(gpu::GPUDialect::getKernelFuncAttrName(), b.getUnitAttr());
  for (StringRef name : {plan::kThreadsAttr, plan::kScratchAttr})
    function->setAttr(name, kernel->getAttr(name));
  function->setAttr(plan::kWordsAttr, b.getI64IntegerAttr(words));
  function.setKnownBlockSizeAttr(b.getDenseI32ArrayAttr(
      {int32_t(kernel->getAttrOfType<IntegerAttr>(plan::kThreadsAttr).getInt()),
       1, 1}));

  // What a lowering asks of the assembler.
  StringRef resident = NVVM::NVVMDialect::getMinctasmAttrName();
  if (Attribute workgroups = kernel->getAttr(resident))
    function->setAttr(resident, workgroups);

  Block &entry = function.getBody().front();
  b.setInsertionPointToStart(&entry);
  workgroup.replaceAllUsesWith(
      gpu::BlockIdOp::create(b, loc, gpu::Dimension::x));
  for (Operation *user : llvm::make_early_inc_range(parameters.getUsers())) {
    auto load = cast<memref::LoadOp>(user);
    load.replaceAllUsesWith(Value(
        entry.getArgument(*getConstantIntValue(load.getIndices().front()))));
    load.erase();
  }
  if (shares)
    scratch.replaceAllUsesWith(function.getWorkgroupAttributions().front());
  for (auto [i, buffer] :
       llvm::enumerate(old.getArguments().drop_front(kFirstBufferArgument)))
    buffer.replaceAllUsesWith(entry.getArgument(words + i));
  entry.getOperations().splice(entry.end(), old.getOperations());
  Operation *end = entry.getTerminator();
  b.setInsertionPoint(end);
  gpu::ReturnOp::create(b, loc);
  end->erase();
  return function;
}

namespace {
struct OutlineGpuKernels
    : mlir::megalodon::impl::OutlineGpuKernelsBase<OutlineGpuKernels> {
  using OutlineGpuKernelsBase::OutlineGpuKernelsBase;
  void runOnOperation() override {
    auto kernels = getOperation().lookupSymbol<ModuleOp>(plan::kKernelsModule);
    if (!kernels)
      return;
    OpBuilder b(&getContext());
    b.setInsertionPointToEnd(kernels.getBody());
    SmallVector<func::FuncOp> functions(kernels.getOps<func::FuncOp>());
    auto module =
        gpu::GPUModuleOp::create(b, kernels.getLoc(), plan::kKernelsModule);
    for (func::FuncOp kernel : functions) {
      if (!kernel->hasAttr(plan::kThreadsAttr)) {
        kernel.emitOpError()
            << "is in vector form; expected pass "
               "'megalodon-distribute-to-threads' to have run before";
        return signalPassFailure();
      }
      gpu::GPUFuncOp function = outline(kernel);
      // Behind the ones before it.
      module.getBody()->getOperations().insert(module.getBody()->end(),
                                               function);
      kernel->setAttr(plan::kWordsAttr, function->getAttr(plan::kWordsAttr));
      kernel.eraseBody();
      kernel.setPrivate();
    }
  }
};
} // namespace
