#include "test/runtime/TestPlan.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "test/runtime/cuda/FakeCuda.h"
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <sys/wait.h>

namespace megalodon::test {

bool onCuda() {
  static const bool standIn = [] {
    void *driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return driver && ::dlsym(driver, "fakeCudaCounts");
  }();
  return standIn;
}

TestCode testCode(const std::string &object,
                  const std::vector<TestKernel> &kernels) {
  TestCode code{onCuda() ? "cuda" : "cpu",
                onCuda() ? "cublaslt" : "onednn",
                onCuda() ? plan::kFeatureCuda | plan::kFeatureCublasLt
                         : uint64_t(plan::kFeatureOneDnn),
                {},
                {}};
  if (object.empty())
    return code;
  std::string bytes = readText(object);
  if (!onCuda()) {
    code.object.assign(bytes.begin(), bytes.end());
    return code;
  }
  std::string lines = "arch sm_80\n";
  for (const TestKernel &kernel : kernels)
    lines += str("kernel ", kernel.symbol, " ", kernel.words, " ",
                 kernel.buffers, " ", kTestThreads, " ", kernel.symbol, "\n");
  const uint64_t length = lines.size();
  bytes += lines;
  bytes.append(reinterpret_cast<const char *>(&length), sizeof(length));
  bytes.append(kFakeImageMagic, sizeof(kFakeImageMagic));
  code.image.assign(bytes.begin(), bytes.end());
  return code;
}

using namespace plan::fb;
using plan::fb::ElementType; // rather than the one of host tensors

static flatbuffers::Offset<GpuImage>
createPtx(flatbuffers::FlatBufferBuilder &builder, const std::string &text) {
  std::vector<uint8_t> bytes(text.begin(), text.end());
  bytes.push_back(0);
  const std::string target = text.substr(text.find("sm_"));
  return CreateGpuImageDirect(
      builder, target.substr(0, target.find('\n')).c_str(), true, &bytes);
}

std::vector<uint8_t> buildPlan(const Damage &damage) {
  flatbuffers::FlatBufferBuilder builder;
  auto variable = [&](const char *name, ElementType type, Role role,
                      std::vector<int64_t> shape, Dynamic dynamic,
                      int parameter = -1, bool optional = false,
                      double value = 0) {
    return CreateVariableDirect(builder, name, type, role, &shape, dynamic, 0,
                                parameter, optional, value);
  };
  const std::vector<flatbuffers::Offset<Variable>> variables = {
      variable("w", ElementType::F32, Role::Parameter, {8, 8}, Dynamic::None),
      variable("in", ElementType::F32, Role::Input, {2, 16, 8},
               Dynamic::BatchLength),
      variable("out", ElementType::F32, Role(damage.role),
               {damage.outShape0, 16, 8}, Dynamic::BatchLength),
      variable("state.count", ElementType::I64, Role::State, {2},
               Dynamic::Batch),
      variable("grad.bias", ElementType::F32, Role::Gradient, {8},
               Dynamic::None, 5),
      variable("bias", ElementType::F32, Role::Parameter, {8}, Dynamic::None),
      variable("loss_scale", ElementType::F32, Role::Input, {}, Dynamic::None,
               -1, true, 0.25),
      variable("tokens", ElementType::I32, Role::Input, {2, 16},
               Dynamic::BatchLength)};
  const std::vector<TestKernel> list = {
      {damage.symbol, damage.scratchBytes, 9, 2},
      {"gather", 0, 8, 2},
      {"advance", 0, 8, 1},
      {"update", 0, 8, 2}};
  const TestCode code = testCode(damage.object ? TEST_KERNELS : "", list);
  std::vector<flatbuffers::Offset<Kernel>> kernels;
  for (const TestKernel &kernel : list)
    kernels.push_back(CreateKernelDirect(builder, kernel.symbol,
                                         kernel.scratchBytes, nullptr,
                                         kTestThreads, uint32_t(kernel.words)));

  auto dispatch = [&](uint32_t kernel, std::vector<uint32_t> args,
                      std::vector<int64_t> immediates, const Grid &grid) {
    auto operation = CreateDispatchDirect(builder, kernel, &args, &immediates,
                                          damage.grid ? &grid : nullptr);
    return CreateCommandDirect(builder, Operation::Dispatch, operation.Union());
  };
  auto command = [&](Operation type, auto operation, uint32_t queue = 0) {
    return CreateCommandDirect(builder, type, operation.Union(), queue);
  };

  // forward. Buffers: 0 in, 1 arena (3 in + 1), 2 w, 3 arena product, 4 out, 5
  // state.count
  const std::vector<flatbuffers::Offset<Buffer>> forwardBuffers = {
      CreateBuffer(builder, 1, 0, 1024),
      CreateBuffer(builder, -1, 0, 1024),
      CreateBuffer(builder, 0, 0, 256),
      CreateBuffer(builder, -1, damage.arenaOffset, 1024),
      CreateBuffer(builder, 2, 0, 1024),
      CreateBuffer(builder, 3, 0, 16)};
  const std::vector<flatbuffers::Offset<Command>> forwardCommands = {
      dispatch(damage.kernel, {damage.argument, 1}, {3},
               Grid(1, damage.divisor, Outer::One, Inner::Tokens)),
      command(
          Operation::Product,
          CreateProductDirect(builder, damage.productA, 2, 3, false, true, -1,
                              damage.productN, 8, damage.tileM, 5, false,
                              damage.library ? damage.library : code.library)),
      command(Operation::CopyStart,
              CreateCopyStart(builder, 3, 4, damage.copyBytes,
                              Dynamic::BatchLength, 7),
              damage.copyQueue),
      dispatch(2, {5}, {}, Grid(1, 1, Outer::Batch, Inner::One)),
      command(Operation::Wait, CreateWait(builder, damage.waitEvent),
              damage.waitQueue)};
  const std::vector<uint32_t> forwardInputs = {0, 1, 3, 7},
                              forwardOutputs = {damage.outputVariable, 3};

  // step. Buffers: 0 in, 1 grad.bias, 2 bias
  const std::vector<flatbuffers::Offset<Buffer>> stepBuffers = {
      CreateBuffer(builder, 1, 0, 1024), CreateBuffer(builder, 4, 0, 32),
      CreateBuffer(builder, 5, 0, 32)};
  const std::vector<flatbuffers::Offset<Command>> computeCommands = {
      dispatch(1, {0, 1}, {}, Grid(8, 1, Outer::One, Inner::One))};
  const std::vector<flatbuffers::Offset<Command>> updateCommands = {
      dispatch(3, {2, 1}, {}, Grid(8, 1, Outer::One, Inner::One))};
  const std::vector<uint32_t> stepInputs = {1, 5, 6}, stepOutputs = {5};

  const std::vector<flatbuffers::Offset<Segment>> forwardSegments = {
      CreateSegmentDirect(builder, "compute", &forwardCommands)};
  const std::vector<flatbuffers::Offset<Segment>> stepSegments = {
      CreateSegmentDirect(builder, "compute", &computeCommands),
      CreateSegmentDirect(builder, "update", &updateCommands)};
  auto run = [&](uint32_t segment) {
    return std::vector<flatbuffers::Offset<Action>>{
        CreateAction(builder, ActionKind::Run, segment)};
  };
  const std::vector<flatbuffers::Offset<Action>> compute = run(0),
                                                 update =
                                                     run(damage.updateSegment),
                                                 none;
  const std::vector<flatbuffers::Offset<Program>> forward = {
      CreateProgramDirect(builder, 0, &forwardBuffers, 2048, 1, 1,
                          &forwardSegments, &compute, &none)};
  const std::vector<flatbuffers::Offset<Program>> step = {CreateProgramDirect(
      builder, 0, &stepBuffers, 0, 1, 1, &stepSegments, &compute, &update)};
  const std::vector<flatbuffers::Offset<Function>> functions = {
      CreateFunctionDirect(builder, "forward", &forwardInputs, &forwardOutputs,
                           2, 16, false, &forward),
      CreateFunctionDirect(builder, "step", &stepInputs, &stepOutputs, 2, 16,
                           true, &step)};
  std::vector<flatbuffers::Offset<flatbuffers::String>> features;
  for (const std::string &name : damage.cpuFeatures)
    features.push_back(builder.CreateString(name));
  std::vector<flatbuffers::Offset<GpuImage>> images;
  if (!code.image.empty())
    images.push_back(
        CreateGpuImageDirect(builder, damage.arch, false, &code.image));
  if (damage.ptx)
    images = {createPtx(builder, *damage.ptx)};
  FinishPlanBuffer(builder,
                   CreatePlanDirect(builder, "test", "{}", "megalodon", "f32",
                                    damage.target ? damage.target : code.target,
                                    "native", &features, 8, 8, 4, 1, &variables,
                                    &kernels, &functions, &code.object, nullptr,
                                    nullptr, &images));
  return plan::sealPlan(builder.GetBufferPointer(), builder.GetSize(),
                        ~damage.features ? damage.features : code.features);
}

std::shared_ptr<const plan::LoadedPlan> loadPlan(const Damage &damage) {
  const std::vector<uint8_t> bytes = buildPlan(damage);
  return plan::LoadedPlan::parse("test.plan", bytes.data(), bytes.size());
}

std::pair<int, std::string> runTool(const std::string &arguments) {
  FILE *pipe = popen(
      (std::string(MEGALODON_RUN) + " " + arguments + " 2>&1").c_str(), "r");
  std::string text;
  for (int c; (c = fgetc(pipe)) != EOF;)
    text += char(c);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text};
}

std::string temporaryPath(const std::string &name) {
  /// One folder a process, so that tests can run side by side.
  struct Folder {
    std::string path = testing::TempDir() + "megalodon.XXXXXX";
    Folder() {
      if (!mkdtemp(path.data()))
        throw Error(str(path, ": cannot create"));
    }
    ~Folder() { std::filesystem::remove_all(path); }
  };
  static const Folder folder;
  return str(folder.path, "/",
             testing::UnitTest::GetInstance()->current_test_info()->name(), ".",
             name);
}

} // namespace megalodon::test
