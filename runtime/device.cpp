#include "runtime/device.h"
#include "runtime/cpu/Executor.h"
#include "runtime/cuda/CudaDevice.h"
#include "runtime/session.h"

namespace megalodon {

Device::~Device() = default;

std::unique_ptr<Device> openDevice(std::shared_ptr<const plan::LoadedPlan> plan,
                                   const SessionOptions &options,
                                   World &world) {
  if (plan->isCuda())
    return cuda::openCuda(std::move(plan), options, world);
  return std::make_unique<cpu::Executor>(std::move(plan), options.threads);
}

} // namespace megalodon
