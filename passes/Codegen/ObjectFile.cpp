#include "passes/Codegen/ObjectFile.h"
#include "lld/Common/Driver.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "passes/Codegen/Passes.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Triple.h"
#include "llvm/Transforms/Utils/Cloning.h"
#include <sys/mman.h>
#include <unistd.h>

LLD_HAS_DRIVER(elf)

using namespace mlir;
using namespace mlir::megalodon;

void mlir::megalodon::addEntryPoints(llvm::Module &module) {
  llvm::LLVMContext &context = module.getContext();
  SmallVector<llvm::Function *> kernels;
  for (llvm::Function &function : module)
    if (!function.isDeclaration() && function.hasExternalLinkage())
      kernels.push_back(&function);
  auto *pointer = llvm::PointerType::get(context, 0);
  auto *word = llvm::Type::getInt64Ty(context);
  for (llvm::Function *kernel : kernels) {
    std::string name = kernel->getName().str();
    kernel->setName(name + ".body");
    auto *type = llvm::FunctionType::get(llvm::Type::getVoidTy(context),
                                         {pointer, word}, false);
    auto *entry = llvm::Function::Create(
        type, llvm::GlobalValue::ExternalLinkage, name, module);
    entry->addParamAttr(0, llvm::Attribute::NoAlias);
    entry->addParamAttr(0, llvm::Attribute::ReadOnly);
    llvm::IRBuilder<> builder(llvm::BasicBlock::Create(context, "", entry));
    auto slot = [&](unsigned index) {
      auto *load = builder.CreateLoad(
          pointer,
          builder.CreateConstGEP1_64(pointer, entry->getArg(0), index));
      load->setMetadata(llvm::LLVMContext::MD_invariant_load,
                        llvm::MDNode::get(context, {}));
      return load;
    };
    unsigned buffers = kernel->arg_size() - 3;
    SmallVector<llvm::Value *> arguments = {slot(0), entry->getArg(1),
                                            slot(buffers + 1)};
    for (unsigned i = 0; i < buffers; ++i)
      arguments.push_back(slot(i + 1));
    builder.CreateCall(kernel, arguments);
    builder.CreateRetVoid();
    kernel->setLinkage(llvm::GlobalValue::InternalLinkage);
  }
}

static void writeText(const llvm::Twine &path,
                      llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::error_code error;
  llvm::raw_fd_ostream out(path.str(), error);
  if (!error)
    print(out);
}

LogicalResult
mlir::megalodon::emitObject(ModuleOp module, const CpuTarget &target,
                            StringRef assemblyStem,
                            llvm::function_ref<void(llvm::Module &)> addEntries,
                            llvm::SmallVectorImpl<char> &object) {
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> llvmModule =
      translateModuleToLLVMIR(module, context);
  if (!llvmModule)
    return module.emitError("translation to LLVM IR failed");
  auto machine = target.createMachine();
  llvmModule->setDataLayout(machine->createDataLayout());
  llvmModule->setTargetTriple(machine->getTargetTriple());
  addEntries(*llvmModule);
  for (llvm::Function &function : *llvmModule) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", target.cpu);
    if (!target.features.empty())
      function.addFnAttr("target-features", target.features);
    // LLVM prefers 256-bit vectors on some CPUs; kernels are written for the
    // full width.
    function.addFnAttr("prefer-vector-width",
                       std::to_string(target.vectorBytes * 8));
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }

  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(machine.get());
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3)
      .run(*llvmModule, modules);

  if (!assemblyStem.empty()) {
    writeText(assemblyStem + ".ll",
              [&](llvm::raw_ostream &out) { llvmModule->print(out, nullptr); });
    auto copy = llvm::CloneModule(*llvmModule);
    llvm::SmallString<0> text;
    llvm::raw_svector_ostream out(text);
    llvm::legacy::PassManager emit;
    if (!machine->addPassesToEmitFile(emit, out, nullptr,
                                      llvm::CodeGenFileType::AssemblyFile))
      emit.run(*copy);
    writeText(assemblyStem + ".s",
              [&](llvm::raw_ostream &file) { file << text; });
  }

  llvm::raw_svector_ostream out(object);
  llvm::legacy::PassManager emit;
  if (machine->addPassesToEmitFile(emit, out, nullptr,
                                   llvm::CodeGenFileType::ObjectFile))
    return module.emitError("this target cannot emit object files");
  emit.run(*llvmModule);
  return success();
}

LogicalResult mlir::megalodon::linkShared(
    Location location, ArrayRef<SmallVector<char, 0>> objects,
    ArrayRef<StringRef> libraries, llvm::SmallVectorImpl<char> &shared) {
  // lld reads and writes files: the inputs are anonymous memory files, the
  // output a temporary one.
  SmallVector<int> descriptors;
  std::vector<std::string> inputs;
  llvm::scope_exit closeAll([&] {
    for (int descriptor : descriptors)
      close(descriptor);
  });
  for (const SmallVector<char, 0> &object : objects) {
    int descriptor = memfd_create("kernel.o", MFD_CLOEXEC);
    if (descriptor < 0)
      return emitError(location)
             << "cannot create a memory file for the linker";
    descriptors.push_back(descriptor);
    llvm::raw_fd_ostream out(descriptor, /*shouldClose=*/false);
    out.write(object.data(), object.size());
    out.flush();
    inputs.push_back("/proc/self/fd/" + std::to_string(descriptor));
  }
  SmallString<128> output;
  if (std::error_code error =
          llvm::sys::fs::createTemporaryFile("megalodon-kernels", "so", output))
    return emitError(location)
           << "cannot create a temporary file for the linker: "
           << error.message();
  llvm::scope_exit removeOutput([&] { llvm::sys::fs::remove(output); });

  for (StringRef library : libraries)
    inputs.push_back(("-l:" + library).str());
  std::vector<const char *> arguments = {"ld.lld",
                                         "-shared",
                                         "-z",
                                         "now",
                                         "--gc-sections",
                                         "--hash-style=gnu",
                                         "--build-id=none",
                                         "--strip-all",
                                         "--as-needed",
                                         "-L/lib/x86_64-linux-gnu",
                                         "-L/usr/lib/x86_64-linux-gnu",
                                         "-o",
                                         output.c_str()};
  for (const std::string &input : inputs)
    arguments.push_back(input.c_str());
  for (const char *library :
       {"-l:libm.so.6", "-l:libmvec.so.1", "-l:libc.so.6"})
    arguments.push_back(library);
  std::string messages;
  llvm::raw_string_ostream messageStream(messages);
  lld::Result result = lld::lldMain(arguments, messageStream, messageStream,
                                    {{lld::Gnu, &lld::elf::link}});
  if (result.retCode)
    return emitError(location) << "linking the kernels failed: " << messages;
  auto file = llvm::MemoryBuffer::getFile(output);
  if (!file)
    return emitError(location)
           << "cannot read the linked kernels: " << file.getError().message();
  shared.assign((*file)->getBufferStart(), (*file)->getBufferEnd());
  return success();
}

void mlir::megalodon::attachObject(ModuleOp module, ModuleOp kernels,
                                   const CpuTarget &target,
                                   ArrayRef<char> shared) {
  Builder builder(module.getContext());
  auto type = RankedTensorType::get({static_cast<int64_t>(shared.size())},
                                    builder.getI8Type());
  kernels->setAttr(plan::kObjectAttr,
                   DenseElementsAttr::getFromRawBuffer(type, shared));
  module->setAttr(kCpuAttr, builder.getStringAttr(target.cpu));
  SmallVector<Attribute> features;
  for (const std::string &feature : target.required)
    features.push_back(builder.getStringAttr(feature));
  module->setAttr(kCpuFeaturesAttr, builder.getArrayAttr(features));
}
