// Makes a seed for the plan fuzzer from a plan: without its machine code, and
// with a slot for every number.
//
//   megalodon-fuzz-seed-plan IN.plan OUT
#include "runtime/core/File.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/PlanFile.h"
#include "test/runtime/cuda/Plan_object.h"
#include <cstdio>

using namespace megalodon;
namespace fb = megalodon::plan::fb;

int main(int argc, char **argv) {
  try {
    if (argc != 3)
      return 2;
    const uint64_t features = plan::LoadedPlan::open(argv[1])->features;
    const std::string file = readText(argv[1]);
    fb::PlanT plan;
    fb::GetPlan(file.data() + sizeof(plan::Header))->UnPackTo(&plan);
    plan.object.resize(plan.object.empty() ? 0 : 4);
    for (auto &image : plan.images)
      image->data = {1, 0};
    for (auto &function : plan.functions)
      for (auto &program : function->programs)
        for (auto &segment : program->segments)
          for (auto &command : segment->commands)
            command->location.clear();
    flatbuffers::FlatBufferBuilder builder;
    builder.ForceDefaults(true);
    fb::FinishPlanBuffer(builder, fb::Plan::Pack(builder, &plan));
    const std::vector<uint8_t> bytes =
        plan::sealPlan(builder.GetBufferPointer(), builder.GetSize(), features);
    writeText(argv[2],
              {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "megalodon-fuzz-seed-plan: %s\n", error.what());
    return 1;
  }
}
