// Makes a plan for GPUs that only the stand-in of the driver runs, so that
// whole models run on the cuda device without a GPU: of a plan for the cpu one
// with the same kernels; or of a plan for GPUs the same plan, with the code of
// its kernels taken from their emulation on a cpu (docs/gpu-emulation.md).
//
//   megalodon-fake-gpu-plan CPU.plan OUT.plan
//   megalodon-fake-gpu-plan GPU.plan OUT.plan EMULATED.plan
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

static fb::PlanT read(const std::string &path) {
  plan::LoadedPlan::open(path); // checks it
  const std::string file = readText(path);
  fb::PlanT plan;
  fb::GetPlan(file.data() + sizeof(plan::Header))->UnPackTo(&plan);
  return plan;
}

static std::vector<fb::CommandT *> commandsOf(fb::PlanT &plan) {
  std::vector<fb::CommandT *> commands;
  for (auto &function : plan.functions)
    for (auto &program : function->programs)
      for (auto &segment : program->segments)
        for (auto &command : segment->commands)
          commands.push_back(command.get());
  return commands;
}

/// What a plan for the cpu does not say, or says otherwise, of the same work on
/// a GPU.
static void retarget(fb::PlanT &plan, const std::string &path) {
  for (auto &kernel : plan.kernels) {
    kernel->threads = std::max(kernel->threads, 32u);
    kernel->words = plan::kFirstImmediate;
    // The cpu's kernels have larger scratch than a GPU has shared memory.
    if (kernel->scratch_bytes > 163 << 10)
      throw Error(str(path, ": kernel '", kernel->symbol, "' needs ",
                      kernel->scratch_bytes, " bytes of scratch"));
  }
  for (fb::CommandT *command : commandsOf(plan)) {
    if (fb::DispatchT *dispatch = command->operation.AsDispatch()) {
      fb::KernelT &kernel = *plan.kernels[dispatch->kernel];
      kernel.words =
          std::max(kernel.words, uint32_t(plan::kFirstImmediate +
                                          dispatch->immediates.size()));
    } else if (fb::ProductT *product = command->operation.AsProduct()) {
      product->library = "cublaslt";
    }
  }
  plan.cpu_features.clear();
  plan.target = "cuda";
}

/// The names of the emulated kernels, in the order of the plan's. They are the
/// same but for the dots, which PTX has no place for.
static std::vector<std::string> emulatedNames(const fb::PlanT &plan,
                                              const fb::PlanT &emulated,
                                              const std::string &path) {
  if (emulated.target != "cpu" ||
      emulated.kernels.size() != plan.kernels.size())
    throw Error(str(path, ": expected the emulation of ", plan.kernels.size(),
                    " kernels, got ", emulated.kernels.size(), " for ",
                    emulated.target));
  std::vector<std::string> names;
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    names.push_back(emulated.kernels[i]->symbol);
    std::string name = names.back();
    std::replace(name.begin(), name.end(), '.', '$');
    if (name != plan.kernels[i]->symbol)
      throw Error(str(path, ": expected kernel '", plan.kernels[i]->symbol,
                      "', got '", names.back(), "'"));
  }
  return names;
}

static void convert(const std::string &from, const std::string &to,
                    const std::string &kernels) {
  fb::PlanT plan = read(from);
  std::vector<std::string> names;
  if (kernels.empty()) {
    retarget(plan, from);
    for (auto &kernel : plan.kernels)
      names.push_back(kernel->symbol);
  } else {
    fb::PlanT emulated = read(kernels);
    if (plan.target != "cuda")
      throw Error(
          str(from, ": expected a plan for cuda, got one for ", plan.target));
    names = emulatedNames(plan, emulated, kernels);
    plan.object = std::move(emulated.object);
  }
  std::vector<size_t> buffers(plan.kernels.size());
  uint64_t features = plan::kFeatureCuda;
  for (fb::CommandT *command : commandsOf(plan)) {
    if (fb::DispatchT *dispatch = command->operation.AsDispatch())
      buffers[dispatch->kernel] = dispatch->args.size();
    else if (command->operation.AsProduct())
      features |= plan::kFeatureCublasLt;
  }
  std::string lines = str("arch ", kArch, "\n");
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    const fb::KernelT &kernel = *plan.kernels[i];
    lines += str("kernel ", kernel.symbol, " ", kernel.words, " ", buffers[i],
                 " ", kernel.threads, " ", names[i], "\n");
  }
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
  flatbuffers::FlatBufferBuilder builder;
  fb::FinishPlanBuffer(builder, fb::Plan::Pack(builder, &plan));
  const std::vector<uint8_t> bytes =
      plan::sealPlan(builder.GetBufferPointer(), builder.GetSize(), features);
  writeText(to, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
}

int main(int argc, char **argv) {
  try {
    if (argc != 3 && argc != 4)
      throw Error("expected IN.plan OUT.plan [EMULATED.plan]");
    convert(argv[1], argv[2], argc == 4 ? argv[3] : "");
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "megalodon-fake-gpu-plan: error: %s\n", error.what());
    return 1;
  }
}
