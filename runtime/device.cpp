#include "runtime/device.h"
#include "runtime/cpu/Executor.h"
#include "runtime/cuda/CudaDevice.h"
#include "runtime/plan/Header.h"
#include "runtime/session.h"

namespace megalodon {

std::vector<int64_t> parameterBlock(const plan::Dispatch &dispatch,
                                    const SegmentCall &call) {
  std::vector<int64_t> words(plan::kFirstImmediate);
  words[plan::kBatch] = call.batch;
  words[plan::kLength] = call.length;
  words[plan::kTokens] = call.batch * call.length;
  words[plan::kAccumulate] = call.accumulate;
  words[plan::kDataRank] = call.place.data;
  words[plan::kPipelineRank] = call.place.pipeline;
  words[plan::kChunkRank] = call.place.chunk;
  words[plan::kTensorRank] = call.place.tensor;
  words.insert(words.end(), dispatch.immediates.begin(),
               dispatch.immediates.end());
  return words;
}

Device::~Device() = default;

std::unique_ptr<Device> openDevice(std::shared_ptr<const plan::LoadedPlan> plan,
                                   const SessionOptions &options,
                                   World &world) {
  if (plan->isCuda())
    return cuda::openCuda(std::move(plan), options, world);
  return std::make_unique<cpu::Executor>(std::move(plan), options.threads);
}

} // namespace megalodon
