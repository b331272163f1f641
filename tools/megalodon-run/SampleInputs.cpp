#include "tools/megalodon-run/SampleInputs.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Tensors.h"

namespace megalodon {

void fillSampleInputs(Session &session, size_t function, CallShape shape) {
  const plan::LoadedPlan &plan = session.plan();
  session.resetState(function);
  session.resetOptionalInputs(function);
  for (const TensorView &input : session.inputs(function, shape)) {
    const int64_t range = input.name == "tokens"    ? plan.vocabSize
                          : input.name == "targets" ? plan.outputSize
                                                    : 0;
    if (range > 0 && input.type == ElementType::I32) {
      auto *ids = reinterpret_cast<int32_t *>(input.overwrite());
      for (size_t i = 0; i < input.bytes / 4; ++i)
        ids[i] = int32_t((i * 2654435761u + 12345u) % uint64_t(range));
    } else if (input.name == plan::kResets) {
      // Documents of 1 to 255 tokens.
      auto *begins = reinterpret_cast<int32_t *>(input.overwrite());
      int64_t left = 0;
      for (size_t i = 0; i < input.bytes / 4; ++i) {
        begins[i] = left == 0;
        left = left == 0 ? int64_t(i * 2654435761u % 255) : left - 1;
      }
    } else if (input.name == "step") {
      storeNumber(input, 0, 1);
    } else if (input.name == "lr") {
      storeNumber(input, 0, 1e-4);
    }
  }
}

} // namespace megalodon
