// The plan's kernels: its ELF shared object loaded from memory, and the address
// of each kernel.
#pragma once
#include "runtime/plan/LoadedPlan.h"

namespace megalodon::cpu {

/// args[0] is the parameter block (runtime/plan/Header.h), then one pointer a
/// buffer, last the worker's scratch.
using KernelFunction = void (*)(void *const *args, int64_t workgroup);

class KernelLibrary {
public:
  explicit KernelLibrary(const plan::LoadedPlan &plan);
  ~KernelLibrary();
  KernelLibrary(const KernelLibrary &) = delete;
  KernelLibrary &operator=(const KernelLibrary &) = delete;

  KernelFunction operator[](uint32_t kernel) const { return functions[kernel]; }

private:
  void *handle = nullptr;
  std::vector<KernelFunction> functions;
};

} // namespace megalodon::cpu
