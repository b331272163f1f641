#include "runtime/cpu/KernelLibrary.h"
#include "runtime/core/Error.h"
#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

namespace megalodon::cpu {

KernelLibrary::KernelLibrary(const plan::LoadedPlan &plan) {
  if (plan.kernels.empty())
    return;
  int descriptor = ::memfd_create("megalodon-kernels", MFD_CLOEXEC);
  if (descriptor < 0)
    throw Error(str(plan.path, ": cannot create memory for the kernels: ",
                    std::strerror(errno)));
  size_t written = 0;
  while (written < plan.object.size()) {
    ssize_t piece = ::write(descriptor, plan.object.data() + written,
                            plan.object.size() - written);
    if (piece < 0 && errno == EINTR)
      continue;
    if (piece <= 0) {
      ::close(descriptor);
      throw Error(str(plan.path, ": cannot store the kernels in memory: ",
                      std::strerror(errno)));
    }
    written += size_t(piece);
  }
  handle = ::dlopen(str("/proc/self/fd/", descriptor).c_str(),
                    RTLD_NOW | RTLD_LOCAL);
  const char *message = handle ? nullptr : ::dlerror();
  const std::string reason = message ? message : "";
  ::close(descriptor);
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
