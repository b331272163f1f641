// The plan's kernels on a GPU: which of its images runs there, and the module
// that the driver makes of it.
#pragma once
#include "runtime/cuda/Driver.h"
#include "runtime/plan/LoadedPlan.h"

namespace megalodon::cuda {

/// The image that a GPU of this compute capability runs: a cubin made for it,
/// else one for an earlier GPU of the same major version, else PTX that the
/// driver compiles. Null: none.
const plan::GpuImage *chooseImage(const std::vector<plan::GpuImage> &images,
                                  int major, int minor);

/// "sm_80, sm_90a, PTX of sm_80"
std::string imageNames(const std::vector<plan::GpuImage> &images);

class Module {
public:
  /// Throws Error with a next step when the GPU or its driver cannot run the
  /// plan.
  Module(std::shared_ptr<Context> context, const plan::LoadedPlan &plan);
  ~Module();
  Module(const Module &) = delete;
  Module &operator=(const Module &) = delete;

  FunctionHandle operator[](uint32_t kernel) const { return functions[kernel]; }

private:
  const std::shared_ptr<Context> context;
  ModuleHandle handle = nullptr;
  std::vector<FunctionHandle> functions;
};

} // namespace megalodon::cuda
