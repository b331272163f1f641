#include "passes/Codegen/GpuTarget.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Triple.h"
#include <mutex>

using namespace mlir;
using namespace mlir::megalodon;

llvm::ArrayRef<GpuArch> mlir::megalodon::gpuArchs() {
  static constexpr GpuArch list[] = {
      {"sm_80", 163 << 10, true},  {"sm_86", 99 << 10, true},
      {"sm_87", 163 << 10, true},  {"sm_89", 99 << 10, true},
      {"sm_90", 227 << 10, true},  {"sm_90a", 227 << 10, false},
      {"sm_100", 227 << 10, true}, {"sm_100a", 227 << 10, false},
      {"sm_103", 227 << 10, true}, {"sm_103a", 227 << 10, false},
      {"sm_120", 99 << 10, true},  {"sm_120a", 99 << 10, false},
  };
  return list;
}

FailureOr<std::vector<GpuArch>> mlir::megalodon::resolveGpuArchs(
    llvm::StringRef list, llvm::function_ref<void(const std::string &)> error) {
  llvm::SmallVector<llvm::StringRef> names;
  list.split(names, ',');
  auto nameOf = [](const GpuArch &arch) { return arch.name.str(); };
  for (llvm::StringRef name : names)
    if (llvm::none_of(gpuArchs(),
                      [&](const GpuArch &arch) { return arch.name == name; })) {
      error(
          "expected " + llvm::join(llvm::map_range(gpuArchs(), nameOf), ", ") +
          ", or several of them separated by commas, got '" + name.str() + "'");
      return failure();
    }
  std::vector<GpuArch> result;
  for (const GpuArch &arch : gpuArchs())
    if (llvm::is_contained(names, arch.name))
      result.push_back(arch);
  return result;
}

unsigned mlir::megalodon::sharedBytes(llvm::ArrayRef<GpuArch> archs) {
  unsigned bytes = ~0u;
  for (const GpuArch &arch : archs)
    bytes = std::min(bytes, arch.sharedBytes);
  return bytes;
}

std::unique_ptr<llvm::TargetMachine> GpuArch::createMachine() const {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  });
  llvm::Triple triple("nvptx64-nvidia-cuda");
  std::string message;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return nullptr;
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Fast;
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, name, /*Features=*/"", options, std::nullopt, std::nullopt,
      llvm::CodeGenOptLevel::Aggressive));
}
