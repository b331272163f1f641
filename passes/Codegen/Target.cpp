#include "passes/Codegen/Target.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/SubtargetFeature.h"
#include "llvm/TargetParser/Triple.h"
#include <mutex>

using namespace mlir;
using namespace mlir::megalodon;

static void initializeTargets() {
  static std::once_flag once;
  std::call_once(once, [] {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    llvm::InitializeNativeTargetAsmParser();
  });
}

std::unique_ptr<llvm::TargetMachine> CpuTarget::createMachine() const {
  initializeTargets();
  llvm::Triple triple(llvm::sys::getDefaultTargetTriple());
  std::string message;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return nullptr;
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Fast;
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, cpu, features, options, llvm::Reloc::PIC_, std::nullopt,
      llvm::CodeGenOptLevel::Aggressive));
}

FailureOr<CpuTarget> mlir::megalodon::resolveCpu(
    llvm::StringRef name, llvm::function_ref<void(const std::string &)> error) {
  initializeTargets();
  CpuTarget result;
  result.cpu = name.str();
  if (name == "native") {
    result.cpu = llvm::sys::getHostCPUName().str();
    llvm::SubtargetFeatures features;
    for (const auto &feature : llvm::sys::getHostCPUFeatures())
      features.AddFeature(feature.first(), feature.second);
    result.features = features.getString();
  }
  auto machine = result.createMachine();
  if (!machine) {
    error("no code generator for this machine's architecture");
    return failure();
  }
  const llvm::MCSubtargetInfo &subtarget = *machine->getMCSubtargetInfo();
  if (!subtarget.isCPUStringValid(result.cpu)) {
    error("unknown cpu '" + result.cpu +
          "'; expected native or a name such as x86-64-v3, x86-64-v4, znver4");
    return failure();
  }
  // The features whose instructions kernels are likely to contain; the loader
  // refuses a machine that lacks one.
  static const char *const interesting[] = {
      "sse4.2", "avx",     "avx2",     "fma",      "f16c",     "bmi",
      "bmi2",   "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"};
  for (const char *feature : interesting)
    if (subtarget.checkFeatures(std::string("+") + feature))
      result.required.push_back(feature);
  if (subtarget.checkFeatures("+avx512f,+avx512vl,+avx512dq")) {
    result.vectorBytes = 64;
    result.vectorRegisters = 32;
  } else if (subtarget.checkFeatures("+avx2,+fma")) {
    result.vectorBytes = 32;
  }
  return result;
}
