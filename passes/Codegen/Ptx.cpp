#include "passes/Codegen/Ptx.h"
#include "mlir/IR/Diagnostics.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/Regex.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"

using namespace mlir;
using namespace mlir::megalodon;

static void writeText(const llvm::Twine &path, StringRef text) {
  std::error_code error;
  llvm::raw_fd_ostream out(path.str(), error);
  if (!error)
    out << text;
}

void mlir::megalodon::makeNamesUnique(llvm::Module &module, StringRef prefix) {
  for (llvm::GlobalValue &value : module.global_values())
    if (value.hasLocalLinkage())
      value.setName(prefix + "_" + value.getName());
}

//===----------------------------------------------------------------------===//
// PTX
//===----------------------------------------------------------------------===//

/// Intrinsics for which LLVM knows no instruction, only a library that a GPU
/// does not have: it would end the process.
static bool needsLibrary(const llvm::IntrinsicInst &call) {
  switch (call.getIntrinsicID()) {
  case llvm::Intrinsic::acos:
  case llvm::Intrinsic::asin:
  case llvm::Intrinsic::atan:
  case llvm::Intrinsic::atan2:
  case llvm::Intrinsic::cosh:
  case llvm::Intrinsic::exp:
  case llvm::Intrinsic::exp10:
  case llvm::Intrinsic::log:
  case llvm::Intrinsic::log10:
  case llvm::Intrinsic::pow:
  case llvm::Intrinsic::powi:
  case llvm::Intrinsic::sinh:
  case llvm::Intrinsic::tan:
    return true;
  case llvm::Intrinsic::cos:
  case llvm::Intrinsic::exp2:
  case llvm::Intrinsic::log2:
  case llvm::Intrinsic::sin:
  case llvm::Intrinsic::tanh:
    // There are approximate instructions for f32.
    return !call.hasApproxFunc() ||
           !call.getType()->getScalarType()->isFloatTy();
  default:
    return false;
  }
}

/// Reports calls that nothing resolves.
static LogicalResult checkCalls(Location location, llvm::Module &module,
                                StringRef kernel) {
  auto unresolved = [&](StringRef symbol) {
    return emitError(location)
           << "kernel '" << kernel << "' calls '" << symbol
           << "', which a GPU does not have; expected "
              "megalodon-expand-gpu-math to have expanded it";
  };
  for (llvm::Function &function : module) {
    if (function.isDeclaration() && !function.isIntrinsic() &&
        !function.use_empty())
      return unresolved(function.getName());
    for (llvm::Instruction &instruction : llvm::instructions(function))
      if (auto *call = llvm::dyn_cast<llvm::IntrinsicInst>(&instruction))
        if (needsLibrary(*call))
          return unresolved(call->getCalledFunction()->getName());
  }
  return success();
}

/// Functions that only PTX names: what instruction selection added.
static LogicalResult checkExterns(Location location, StringRef ptx,
                                  StringRef kernel) {
  llvm::Regex pattern("\\.extern[ \t]+\\.func[ \t]+(\\([^)]*\\)[ \t]*)?"
                      "([A-Za-z_$][A-Za-z0-9_$]*)");
  SmallVector<StringRef> groups;
  if (!pattern.match(ptx, &groups))
    return success();
  return emitError(location)
         << "the PTX of kernel '" << kernel << "' calls the function '"
         << groups[2] << "', which nobody defines";
}

static void optimize(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3)
      .run(module, modules);
}

/// Keeps ptxas from unrolling loops of large bodies: it would do so until the
/// registers run out and spill. LLVM has unrolled what is worth it.
static void limitUnrolling(llvm::Module &module) {
  constexpr unsigned kLargeBody = 32; // operations of a thread
  for (llvm::Function &function : module) {
    if (function.isDeclaration())
      continue;
    llvm::DominatorTree dominators(function);
    llvm::LoopInfo loops(dominators);
    for (llvm::Loop *loop : loops.getLoopsInPreorder()) {
      unsigned operations = 0;
      for (llvm::BasicBlock *block : loop->blocks())
        for (llvm::Instruction &instruction : *block) {
          auto *vector =
              llvm::dyn_cast<llvm::FixedVectorType>(instruction.getType());
          operations += vector ? vector->getNumElements() : 1;
        }
      if (operations > kLargeBody)
        loop->setLoopAlreadyUnrolled();
    }
  }
}

FailureOr<std::string> mlir::megalodon::emitPtx(Location location,
                                                llvm::Module &module,
                                                const GpuArch &arch,
                                                StringRef assemblyStem) {
  auto machine = arch.createMachine();
  if (!machine)
    return emitError(location) << "this LLVM cannot generate PTX";
  StringRef kernel;
  for (llvm::Function &function : module)
    if (!function.isDeclaration() && !function.hasLocalLinkage())
      kernel = function.getName();
  module.setDataLayout(machine->createDataLayout());
  module.setTargetTriple(machine->getTargetTriple());
  for (llvm::Function &function : module)
    if (!function.isDeclaration())
      function.addFnAttr(llvm::Attribute::NoUnwind);
  optimize(module, *machine);
  limitUnrolling(module);
  if (!assemblyStem.empty()) {
    std::string text;
    llvm::raw_string_ostream out(text);
    module.print(out, nullptr);
    writeText(assemblyStem + "." + arch.name + ".ll", text);
  }
  if (failed(checkCalls(location, module, kernel)))
    return failure();
  std::string name = kernel.str();
  SmallString<0> ptx;
  llvm::raw_svector_ostream out(ptx);
  llvm::legacy::PassManager emit;
  if (machine->addPassesToEmitFile(emit, out, nullptr,
                                   llvm::CodeGenFileType::AssemblyFile))
    return emitError(location) << "this LLVM cannot print PTX";
  emit.run(module);
  if (!assemblyStem.empty())
    writeText(assemblyStem + "." + arch.name + ".ptx", ptx);
  if (failed(checkExterns(location, ptx, name)))
    return failure();
  return ptx.str().str();
}

std::string mlir::megalodon::joinPtx(ArrayRef<std::string> modules) {
  // Every module begins with .version, .target and .address_size.
  constexpr llvm::StringLiteral lastOfHeader = ".address_size 64\n";
  std::string joined;
  for (StringRef module : modules) {
    size_t end = module.find(lastOfHeader);
    assert(end != StringRef::npos && "PTX without a header");
    end += lastOfHeader.size();
    if (joined.empty())
      joined = module.take_front(end);
    joined += module.drop_front(end);
  }
  return joined;
}

//===----------------------------------------------------------------------===//
// ptxas
//===----------------------------------------------------------------------===//

std::optional<std::string> mlir::megalodon::findPtxas(StringRef cudaPath) {
  auto in = [](StringRef folder) -> std::optional<std::string> {
    SmallString<128> path(folder);
    llvm::sys::path::append(path, "bin", "ptxas");
    if (llvm::sys::fs::can_execute(path))
      return path.str().str();
    return std::nullopt;
  };
  if (!cudaPath.empty())
    return in(cudaPath);
  if (auto found = llvm::sys::findProgramByName("ptxas"))
    return *found;
  for (StringRef variable : {"CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"})
    if (auto folder = llvm::sys::Process::GetEnv(variable))
      if (auto found = in(*folder))
        return found;
  for (StringRef folder : {"/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda"})
    if (auto found = in(folder))
      return found;
  return std::nullopt;
}

std::vector<KernelResources> mlir::megalodon::parseResources(StringRef output) {
  std::vector<KernelResources> result;
  llvm::Regex entry("Compiling entry function '([^']+)'"),
      spills("([0-9]+) bytes stack frame, ([0-9]+) bytes spill stores, "
             "([0-9]+) bytes spill loads"),
      used("Used ([0-9]+) registers");
  SmallVector<StringRef> lines, groups;
  output.split(lines, '\n');
  auto number = [&](unsigned group) {
    unsigned value = 0;
    groups[group].getAsInteger(10, value);
    return value;
  };
  for (StringRef line : lines) {
    if (entry.match(line, &groups))
      result.push_back({groups[1].str()});
    if (result.empty())
      continue;
    KernelResources &kernel = result.back();
    if (spills.match(line, &groups)) {
      kernel.stack = number(1);
      kernel.spillStores = number(2);
      kernel.spillLoads = number(3);
    }
    if (used.match(line, &groups))
      kernel.registers = number(1);
  }
  // ptxas works in an order of its own.
  llvm::sort(result,
             [](const auto &a, const auto &b) { return a.kernel < b.kernel; });
  return result;
}

FailureOr<Cubin> mlir::megalodon::assemble(Location location, StringRef ptxas,
                                           StringRef ptx, const GpuArch &arch) {
  // ptxas reads and writes files.
  SmallString<128> input, output, messages;
  llvm::scope_exit removeAll([&] {
    for (StringRef path : {input.str(), output.str(), messages.str()})
      if (!path.empty())
        llvm::sys::fs::remove(path);
  });
  for (auto [path, suffix] :
       {std::pair(&input, "ptx"), {&output, "cubin"}, {&messages, "txt"}})
    if (std::error_code error = llvm::sys::fs::createTemporaryFile(
            "megalodon-kernels", suffix, *path))
      return emitError(location)
             << "cannot create a temporary file for ptxas: " << error.message();
  writeText(input.str(), ptx);
  std::string archOption = ("--gpu-name=" + arch.name).str();
  SmallVector<StringRef> arguments = {ptxas, "--verbose",     archOption,
                                      input, "--output-file", output};
  std::optional<StringRef> redirects[] = {std::nullopt, messages.str(),
                                          messages.str()};
  std::string problem;
  int status = llvm::sys::ExecuteAndWait(ptxas, arguments, std::nullopt,
                                         redirects, 0, 0, &problem);
  auto said = llvm::MemoryBuffer::getFile(messages);
  StringRef text = said ? (*said)->getBuffer() : StringRef();
  Cubin cubin;
  if (status != 0) {
    if (text.contains("is not defined for option 'gpu-name'")) {
      cubin.unknownArch = true;
      return cubin;
    }
    auto error = emitError(location)
                 << ptxas << " ends with " << status << " on the PTX for "
                 << arch.name << (problem.empty() ? "" : ": ") << problem;
    SmallVector<StringRef> lines;
    text.split(lines, '\n', 16, /*KeepEmpty=*/false);
    for (StringRef line : ArrayRef(lines).take_front(16))
      if (!line.contains("info "))
        error.attachNote() << line;
    return error;
  }
  auto file = llvm::MemoryBuffer::getFile(output);
  if (!file || (*file)->getBufferSize() == 0)
    return emitError(location) << ptxas << " leaves no cubin for " << arch.name;
  cubin.data.assign((*file)->getBufferStart(), (*file)->getBufferEnd());
  cubin.resources = parseResources(text);
  return cubin;
}
