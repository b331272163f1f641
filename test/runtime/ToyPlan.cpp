#include "test/runtime/ToyPlan.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "runtime/train/Random.h"
#include <filesystem>

namespace megalodon::test {

using namespace plan::fb;
using plan::fb::ElementType;

std::vector<uint8_t> buildToyPlan(bool untouched, int ranks) {
  flatbuffers::FlatBufferBuilder builder;
  std::vector<flatbuffers::Offset<Variable>> variables;
  std::vector<std::pair<std::string, uint64_t>> names; // and bytes
  auto variable = [&](const char *name, ElementType type, Role role,
                      std::vector<int64_t> shape, Dynamic dynamic,
                      int parameter = -1,
                      flatbuffers::Offset<Initializer> init = 0,
                      bool optional = false, double value = 0) {
    uint64_t bytes =
        type == ElementType::F32 || type == ElementType::I32 ? 4 : 8;
    for (int64_t extent : shape)
      bytes *= static_cast<uint64_t>(extent);
    names.emplace_back(name, bytes);
    variables.push_back(CreateVariableDirect(builder, name, type, role, &shape,
                                             dynamic, init, parameter, optional,
                                             value));
  };
  const int64_t V = 256, B = 2, L = 8;
  auto normal =
      CreateInitializer(builder, InitKind::TruncatedNormal, 0.05, 0.15);
  auto other = CreateInitializer(builder, untouched ? InitKind::Untouched
                                                    : InitKind::Zero);
  variable("table", ElementType::F32, Role::Parameter, {V, V}, Dynamic::None,
           -1, normal);
  variable("scale", ElementType::F32, Role::Parameter, {V}, Dynamic::None, -1,
           other);
  for (auto [prefix, role] : {std::pair("exp_avg.", Role::FirstMoment),
                              std::pair("exp_avg_sq.", Role::SecondMoment),
                              std::pair("grad.", Role::Gradient)}) {
    variable(str(prefix, "table").c_str(), ElementType::F32, role, {V, V},
             Dynamic::None, 0);
    variable(str(prefix, "scale").c_str(), ElementType::F32, role, {V},
             Dynamic::None, 1);
  }
  variable("tokens", ElementType::I32, Role::Input, {B, L},
           Dynamic::BatchLength);
  variable("targets", ElementType::I32, Role::Input, {B, L},
           Dynamic::BatchLength);
  variable("step", ElementType::I64, Role::Input, {}, Dynamic::None);
  variable("lr", ElementType::F32, Role::Input, {}, Dynamic::None);
  variable("loss_scale", ElementType::F32, Role::Input, {}, Dynamic::None, -1,
           0, true, 1);
  variable("loss", ElementType::F32, Role::Output, {}, Dynamic::None);
  variable("grad_norm", ElementType::F32, Role::Output, {}, Dynamic::None);
  variable("nll", ElementType::F32, Role::Output, {B, L}, Dynamic::BatchLength);
  variable("nll_sum", ElementType::F32, Role::Output, {}, Dynamic::None);
  variable("count", ElementType::I64, Role::Output, {}, Dynamic::None);
  variable("logits", ElementType::F32, Role::Output, {B, V}, Dynamic::Batch);
  variable("state.mean", ElementType::F32, Role::State, {B}, Dynamic::Batch);
  variable("state.count", ElementType::I64, Role::State, {B}, Dynamic::Batch);

  auto indexOf = [&](const std::string &name) {
    uint32_t index = 0;
    while (names.at(index).first != name)
      ++index;
    return index;
  };
  struct Step {
    uint32_t kernel;
    std::vector<std::string> args;
  };
  auto function = [&](const char *name, std::vector<std::string> inputs,
                      std::vector<std::string> outputs, bool exact,
                      const std::vector<Step> &steps, uint32_t updateBegin) {
    std::vector<flatbuffers::Offset<Buffer>> buffers;
    std::vector<flatbuffers::Offset<Command>> compute, update;
    Grid grid(1, 1, Outer::One, Inner::One);
    for (const Step &step : steps) {
      std::vector<uint32_t> args;
      for (const std::string &arg : step.args) {
        args.push_back(static_cast<uint32_t>(buffers.size()));
        uint32_t index = indexOf(arg);
        buffers.push_back(CreateBuffer(builder, static_cast<int>(index), 0,
                                       names[index].second));
      }
      auto dispatch = CreateDispatchDirect(builder, step.kernel, &args, nullptr,
                                           &grid, 100, 100);
      (compute.size() < updateBegin ? compute : update)
          .push_back(CreateCommandDirect(builder, Operation::Dispatch,
                                         dispatch.Union()));
    }
    std::vector<uint32_t> in, out;
    for (const std::string &input : inputs)
      in.push_back(indexOf(input));
    for (const std::string &output : outputs)
      out.push_back(indexOf(output));
    std::vector<flatbuffers::Offset<Segment>> segments = {
        CreateSegmentDirect(builder, "compute", &compute)};
    std::vector<flatbuffers::Offset<Action>> actions = {
        CreateAction(builder, ActionKind::Run, 0)};
    std::vector<flatbuffers::Offset<Action>> updateActions;
    if (!update.empty()) {
      segments.push_back(CreateSegmentDirect(builder, "update", &update));
      updateActions.push_back(CreateAction(builder, ActionKind::Run, 1));
    }
    std::vector<flatbuffers::Offset<Program>> programs = {CreateProgramDirect(
        builder, 0, &buffers, 0, 1, 1, &segments, &actions, &updateActions)};
    return CreateFunctionDirect(builder, name, &in, &out, B, L, exact,
                                &programs, 1e6);
  };
  const std::vector<flatbuffers::Offset<Function>> functions = {
      function("train_step",
               {"table", "scale", "exp_avg.table", "exp_avg.scale",
                "exp_avg_sq.table", "exp_avg_sq.scale", "tokens", "targets",
                "step", "lr", "loss_scale", "state.mean", "state.count"},
               {"table", "scale", "exp_avg.table", "exp_avg.scale",
                "exp_avg_sq.table", "exp_avg_sq.scale", "loss", "grad_norm",
                "state.mean", "state.count"},
               true,
               {{0,
                 {"table", "scale", "tokens", "targets", "loss_scale", "loss",
                  "grad.table", "grad.scale", "state.mean", "state.count"}},
                {1,
                 {"table", "scale", "grad.table", "grad.scale", "exp_avg.table",
                  "exp_avg.scale", "exp_avg_sq.table", "exp_avg_sq.scale",
                  "step", "lr", "grad_norm"}}},
               1),
      function(
          "score",
          {"table", "scale", "tokens", "targets", "state.mean", "state.count"},
          {"nll", "nll_sum", "count", "state.mean", "state.count"}, false,
          {{2,
            {"table", "scale", "tokens", "targets", "nll", "nll_sum", "count",
             "state.mean", "state.count"}}},
          1),
      function("generate",
               {"table", "scale", "tokens", "state.mean", "state.count"},
               {"logits", "state.mean", "state.count"}, false,
               {{3,
                 {"table", "scale", "tokens", "logits", "state.mean",
                  "state.count"}}},
               1)};
  const std::vector<TestKernel> list = {{"toy_compute", 0, 8, 10},
                                        {"toy_update", 0, 8, 11},
                                        {"toy_score", 0, 8, 9},
                                        {"toy_generate", 0, 8, 6}};
  std::vector<flatbuffers::Offset<Kernel>> kernels;
  for (const TestKernel &kernel : list)
    kernels.push_back(CreateKernelDirect(builder, kernel.symbol, 0, nullptr,
                                         kTestThreads, uint32_t(kernel.words)));
  const TestCode code = testCode(TOY_KERNELS, list);
  std::vector<flatbuffers::Offset<GpuImage>> images;
  if (!code.image.empty())
    images.push_back(
        CreateGpuImageDirect(builder, "sm_80", false, &code.image));
  const std::vector<flatbuffers::Offset<flatbuffers::String>> features;
  const plan::fb::Mesh mesh(1, 1, 1, uint32_t(ranks));
  FinishPlanBuffer(builder,
                   CreatePlanDirect(builder, "test", "{}", "toy", "f32",
                                    code.target, "native", &features, V, V, 4,
                                    1, &variables, &kernels, &functions,
                                    &code.object, &mesh, nullptr, &images));
  return plan::sealPlan(builder.GetBufferPointer(), builder.GetSize(),
                        onCuda() ? plan::kFeatureCuda : 0);
}

Session toySession(World &world) {
  const std::vector<uint8_t> bytes = buildToyPlan(false, world.size());
  return Session(
      plan::LoadedPlan::parse("toy.plan", bytes.data(), bytes.size()), {1},
      world);
}

Session toySession(int threads, bool untouched) {
  const std::vector<uint8_t> bytes = buildToyPlan(untouched);
  return Session(
      plan::LoadedPlan::parse("toy.plan", bytes.data(), bytes.size()),
      {threads});
}

std::string toyPlanFile() {
  const std::vector<uint8_t> bytes = buildToyPlan(false);
  std::string path = temporaryPath("plan");
  writeText(path, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  return path;
}

std::string temporaryFolder(const std::string &name) {
  std::string path = temporaryPath(name);
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

std::string toyText(size_t bytes, uint64_t seed) {
  CounterRandom random(seed, 0);
  std::string text;
  const char *words[] = {"carry ", "scan ", "tile ", "chunk ", "state ", "\n"};
  for (uint64_t i = 0; text.size() < bytes; ++i)
    text += words[random.below(6, i)];
  text.resize(bytes);
  return text;
}

std::string parameterDigest(Session &session) {
  Sha256 sha;
  for (const TensorView &tensor : session.parameters())
    sha.update(tensor.read(), tensor.bytes);
  return Sha256::hex(sha.finish());
}

} // namespace megalodon::test
