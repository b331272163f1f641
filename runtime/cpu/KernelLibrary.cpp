#include "runtime/cpu/KernelLibrary.h"
#include "runtime/core/Error.h"
#include "runtime/core/MemoryLibrary.h"
#include <dlfcn.h>

namespace megalodon::cpu {

KernelLibrary::KernelLibrary(const plan::LoadedPlan &plan) {
  if (plan.kernels.empty())
    return;
  std::string reason;
  handle = openLibrary("megalodon-kernels", plan.object.data(),
                       plan.object.size(), reason);
  if (!handle)
    throw Error(str(plan.path, ": cannot load the kernels: ", reason));
  for (const plan::Kernel &kernel : plan.kernels) {
    auto function = reinterpret_cast<KernelFunction>(
        ::dlsym(handle, kernel.symbol.c_str()));
    if (!function) {
      ::dlclose(handle);
      throw Error(str(plan.path, ": corrupt plan: kernel '", kernel.symbol,
                      "' is not in the plan's object"));
    }
    functions.push_back(function);
  }
}

KernelLibrary::~KernelLibrary() {
  if (handle)
    ::dlclose(handle);
}

} // namespace megalodon::cpu
