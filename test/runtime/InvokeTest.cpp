// megalodon-run on the hand-built plan: what invoke accepts, what it refuses
// and how, and that inspect and bench run.
#include "runtime/core/File.h"
#include "runtime/io/Safetensors.h"
#include "test/runtime/TestPlan.h"
#include <cmath>
#include <cstdio>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

using namespace megalodon;
using namespace megalodon::test;

namespace {

struct Invoke : testing::Test {
  std::string plan = temporaryPath("plan"), in = temporaryPath("in"),
              out = temporaryPath("out");
  std::vector<float> w = std::vector<float>(64, 0.5f),
                     x = std::vector<float>(2 * 16 * 8, 1.0f),
                     bias = std::vector<float>(8);
  std::vector<int32_t> tokens = std::vector<int32_t>(32, 3);
  std::vector<int64_t> count = {5, 9};
  std::vector<TensorView> inputs;

  Invoke() {
    const std::vector<uint8_t> bytes = buildPlan();
    writeText(plan,
              {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
    inputs = {view("w", {8, 8}, w), view("in", {2, 16, 8}, x),
              view("tokens", {2, 16}, tokens)};
    unlink(out.c_str());
  }

  template <typename T>
  static TensorView view(const char *name, std::vector<int64_t> shape,
                         std::vector<T> &data) {
    const ElementType type = sizeof(T) == 8             ? ElementType::I64
                             : std::is_same_v<T, float> ? ElementType::F32
                                                        : ElementType::I32;
    return {name, type, std::move(shape),
            reinterpret_cast<std::byte *>(data.data()),
            data.size() * sizeof(T)};
  }

  std::pair<int, std::string> invoke(const std::string &function = "forward") {
    writeSafetensors(in, inputs);
    return runTool("invoke " + plan + " --function " + function + " --inputs " +
                   in + " --outputs " + out + " --threads 2");
  }

  void expectRefusal(const std::string &message,
                     const std::string &function = "forward") {
    auto [code, text] = invoke(function);
    EXPECT_EQ(code, 1);
    EXPECT_NE(text.find("megalodon-run: error: "), std::string::npos) << text;
    EXPECT_NE(text.find(message), std::string::npos)
        << "expected '" << message << "', got '" << text << "'";
    EXPECT_NE(access(out.c_str(), F_OK), 0) << "an output was written";
  }
};

} // namespace

TEST_F(Invoke, RunsWithFreshAndWithCarriedState) {
  auto [code, text] = invoke();
  ASSERT_EQ(code, 0) << text;
  {
    SafetensorsFile result(out);
    ASSERT_EQ(result.tensors().size(), 2u);
    float first;
    std::memcpy(&first, result.find("out")->data, 4);
    EXPECT_EQ(first, 16.0f);
    int64_t counts[2];
    std::memcpy(counts, result.find("state.count")->data, 16);
    EXPECT_EQ(counts[0], 16);
  }
  inputs.push_back(view("state.count", {2}, count));
  ASSERT_EQ(invoke().first, 0);
  SafetensorsFile result(out);
  int64_t counts[2];
  std::memcpy(counts, result.find("state.count")->data, 16);
  EXPECT_EQ(counts[1], 25);
}

TEST_F(Invoke, AcceptsShorterCallsAndOtherTypes) {
  std::vector<double> wide(64, 0.5);
  std::vector<int64_t> ids(3, 7);
  x.resize(3 * 8);
  inputs = {{"w",
             ElementType::F64,
             {8, 8},
             reinterpret_cast<std::byte *>(wide.data()),
             512},
            view("in", {1, 3, 8}, x),
            view("tokens", {1, 3}, ids)};
  auto [code, text] = invoke();
  ASSERT_EQ(code, 0) << text;
  SafetensorsFile result(out);
  EXPECT_EQ(result.find("out")->shape, (std::vector<int64_t>{1, 3, 8}));
  EXPECT_EQ(result.find("state.count")->shape, (std::vector<int64_t>{1}));
}

TEST_F(Invoke, RefusesMissingAndSurplusTensors) {
  inputs.pop_back();
  expectRefusal("missing 'tokens'");
  inputs = {view("in", {2, 16, 8}, x), view("tokens", {2, 16}, tokens)};
  expectRefusal("missing 'w'");
  inputs.push_back(view("w", {8, 8}, w));
  inputs.push_back(view("weight", {8, 8}, w));
  expectRefusal("'weight'");
}

TEST_F(Invoke, RefusesWrongShapesAndTypes) {
  inputs[0].shape = {4, 16};
  expectRefusal("tensor 'w': expected shape [8, 8], got [4, 16]");
  inputs[0].shape = {8, 8};
  inputs[2].shape = {32};
  expectRefusal(
      "tensor 'tokens': expected shape at most [2, 16] for function 'forward'");
  inputs[2].shape = {1, 32};
  expectRefusal("got [1, 32]");
  inputs[2] = {"tokens",
               ElementType::F32,
               {2, 16},
               reinterpret_cast<std::byte *>(tokens.data()),
               128};
  expectRefusal("tensor 'tokens': expected type I32, got F32");
}

TEST_F(Invoke, RefusesBadValues) {
  tokens[17] = 8;
  expectRefusal(in +
                ": tensor 'tokens': expected ids from 0 to 7, got 8 at [1, 1]");
  tokens[17] = -1;
  expectRefusal("got -1 at [1, 1]");
  tokens[17] = 0;
  w[9] = INFINITY;
  expectRefusal("tensor 'w': value at [1, 1] is not finite");
  w[9] = 0;
  count[1] = -3;
  inputs.push_back(view("state.count", {2}, count));
  expectRefusal(
      "tensor 'state.count': expected counts from 0 on, got -3 at [1]");
}

TEST_F(Invoke, RefusesOtherFunctionsFilesAndPlans) {
  expectRefusal("the plan has no function 'score', only 'forward', 'step'",
                "score");
  auto [code, text] =
      runTool("invoke " + plan +
              " --function forward --inputs /nonexistent --outputs " + out);
  EXPECT_EQ(code, 1);
  EXPECT_NE(text.find("/nonexistent: cannot open"), std::string::npos);
  writeText(plan, readText(plan).substr(0, 1000));
  expectRefusal(plan + ": corrupt plan: payload: expected");
  EXPECT_NE(runTool("invoke").first, 0);
}

TEST_F(Invoke, RunsExactFunctionsAndFillsOptionalInputs) {
  inputs = {view("in", {2, 16, 8}, x), view("bias", {8}, bias)};
  auto [code, text] = invoke("step");
  ASSERT_EQ(code, 0) << text;
  SafetensorsFile result(out);
  float first;
  std::memcpy(&first, result.find("bias")->data, 4);
  EXPECT_EQ(first, -32.0f);
}

TEST_F(Invoke, InspectPrintsThePlan) {
  auto [code, text] = runTool("inspect " + plan);
  EXPECT_EQ(code, 0);
  EXPECT_NE(text.find("parameters  72 ("), std::string::npos) << text;
  EXPECT_NE(text.find("function step: batch 2, length 16"), std::string::npos)
      << text;
  auto [jsonCode, json] = runTool("inspect --json " + plan);
  EXPECT_EQ(jsonCode, 0);
  EXPECT_NE(json.find("\"arena_bytes_without_reuse\": 2048"), std::string::npos)
      << json;
}

TEST_F(Invoke, BenchMeasuresEachKernel) {
  auto [code, text] = runTool("bench " + plan + " --repeat 1 --threads 1");
  EXPECT_EQ(code, 0);
  for (const char *name : {"forward", "step", "product", "scale", "gather"})
    EXPECT_NE(text.find(name), std::string::npos) << text;
  EXPECT_EQ(
      runTool("bench --json --repeat 1 --threads 1 --function step " + plan)
          .first,
      0);
}

TEST_F(Invoke, DoctorSaysWhatAPlanCanUse) {
  auto [code, text] = runTool("doctor --json " + plan);
  EXPECT_EQ(code, 0) << text;
  for (std::string line :
       {"\"runs\": true", "\"name\": \"cpu products\"", "\"name\": \"plan\"",
        "function 'forward', batch 1, length 8", "\"memory_bytes_per_second\""})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  EXPECT_EQ(text.find("\"ok\": false"), std::string::npos) << text;
  EXPECT_EQ(text.find("\"image\": \"sm_80\"") != std::string::npos, onCuda());
  // A plan that cannot run here is the only thing that is wrong.
  Damage damage;
  damage.cpuFeatures = {"avx99"};
  damage.arch = "sm_121a";
  const std::vector<uint8_t> bytes = buildPlan(damage);
  writeText(plan, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  const auto [refused, why] = runTool("doctor " + plan);
  EXPECT_EQ(refused, 1);
  for (std::string line :
       {onCuda() ? "compiled for sm_121a, but Stand-in 0 (GPU 0) is sm_80"
                 : "processor feature avx99: compile the plan for this machine",
        "error: the plan cannot run here"})
    EXPECT_NE(why.find(line), std::string::npos) << line << "\n" << why;
}
