// Makes of a plan for the cpu one for GPUs whose kernels are the same code,
// which only the stand-in of the driver runs: so whole models run on the cuda
// device without a GPU.
//
//   megalodon-fake-gpu-plan IN.plan OUT.plan
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/Header.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/PlanFile.h"
#include "test/runtime/cuda/FakeCuda.h"
#include "test/runtime/cuda/Plan_object.h"
#include <algorithm>
#include <cstdio>

using namespace megalodon;
namespace fb = megalodon::plan::fb;

/// Of a compute capability that every image below runs on.
static constexpr const char *kArch = "sm_80";

static void convert(const std::string &from, const std::string &to) {
  plan::LoadedPlan::open(from); // checks it
  const std::string file = readText(from);
  fb::PlanT plan;
  fb::GetPlan(file.data() + sizeof(plan::Header))->UnPackTo(&plan);
  std::vector<size_t> buffers(plan.kernels.size());
  bool multiplies = false;
  for (auto &kernel : plan.kernels) {
    kernel->threads = std::max(kernel->threads, 32u);
    kernel->words = plan::kFirstImmediate;
    // The cpu's kernels have larger scratch than a GPU has shared memory.
    if (kernel->scratch_bytes > 163 << 10)
      throw Error(str(from, ": kernel '", kernel->symbol, "' needs ",
                      kernel->scratch_bytes, " bytes of scratch"));
  }
  for (auto &function : plan.functions)
    for (auto &program : function->programs)
      for (auto &segment : program->segments)
        for (auto &command : segment->commands) {
          if (fb::DispatchT *dispatch = command->operation.AsDispatch()) {
            fb::KernelT &kernel = *plan.kernels[dispatch->kernel];
            kernel.words =
                std::max(kernel.words, uint32_t(plan::kFirstImmediate +
                                                dispatch->immediates.size()));
            buffers[dispatch->kernel] = dispatch->args.size();
          } else if (fb::ProductT *product = command->operation.AsProduct()) {
            product->library = "cublaslt";
            multiplies = true;
          }
        }
  std::string lines = str("arch ", kArch, "\n");
  for (size_t i = 0; i < plan.kernels.size(); ++i)
    lines += str("kernel ", plan.kernels[i]->symbol, " ",
                 plan.kernels[i]->words, " ", buffers[i], "\n");
  const uint64_t length = lines.size();
  lines.append(reinterpret_cast<const char *>(&length), sizeof(length));
  lines.append(kFakeImageMagic, sizeof(kFakeImageMagic));
  auto image = std::make_unique<fb::GpuImageT>();
  image->arch = kArch;
  image->data = std::move(plan.object);
  image->data.insert(image->data.end(), lines.begin(), lines.end());
  plan.object.clear();
  plan.images.clear();
  plan.images.push_back(std::move(image));
  plan.cpu_features.clear();
  plan.target = "cuda";
  flatbuffers::FlatBufferBuilder builder;
  fb::FinishPlanBuffer(builder, fb::Plan::Pack(builder, &plan));
  const std::vector<uint8_t> bytes = plan::sealPlan(
      builder.GetBufferPointer(), builder.GetSize(),
      plan::kFeatureCuda | (multiplies ? uint64_t(plan::kFeatureCublasLt) : 0));
  writeText(to, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
}

int main(int argc, char **argv) {
  try {
    if (argc != 3)
      throw Error("expected IN.plan OUT.plan");
    convert(argv[1], argv[2]);
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "megalodon-fake-gpu-plan: error: %s\n", error.what());
    return 1;
  }
}
