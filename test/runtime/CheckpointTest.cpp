// Checkpoints: whole or not at all, verified on the way back, never fewer than
// they were after a failure.
#include "runtime/train/Checkpoint.h"
#include "runtime/core/Error.h"
#include "runtime/io/Safetensors.h"
#include "runtime/train/Initialize.h"
#include "runtime/train/Tensors.h"
#include "test/runtime/ToyPlan.h"
#include <cmath>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

using namespace megalodon;
using namespace megalodon::test;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {
struct CheckpointTest : testing::Test {
  std::string out = temporaryFolder("run");
  Session session = toySession();
  std::vector<TensorView> state;

  void SetUp() override {
    initializeParameters(session, 1);
    size_t function = session.function("train_step");
    for (const char *name : {"state.mean", "state.count"})
      state.push_back(session.variable(function, name));
    storeNumber(state[0], 1, 0.25);
    storeNumber(state[1], 0, 42);
    for (const TensorView &moment : session.secondMoments())
      storeNumber(moment, 3, 0.125);
  }
  CheckpointTensors tensors(Session &of) {
    CheckpointTensors all{spreadVariables(of, plan::Role::Parameter),
                          spreadVariables(of, plan::Role::FirstMoment),
                          {}};
    for (const SpreadTensor &second :
         spreadVariables(of, plan::Role::SecondMoment))
      all.optimizer.push_back(second);
    for (const TensorView &tensor : state)
      all.state.push_back(
          spreadVariable(of, of.function("train_step"), tensor.name));
    return all;
  }
  Checkpoint save(int64_t step) {
    return saveCheckpoint(out, step, tensors(session), session.world(),
                          {{"seed", 7}});
  }
  void load(const std::string &folder, Session &into) {
    loadCheckpoint(folder, readRecord(folder), into.plan(), tensors(into),
                   into.world());
  }
};

/// Changes one byte of a file.
void damage(const std::string &path, size_t at) {
  std::string text = readText(path);
  text.at(at) ^= 1;
  writeText(path, text);
}
} // namespace

TEST_F(CheckpointTest, RoundTripsEveryBit) {
  std::string folder = save(12).folder;
  EXPECT_EQ(folder, out + "/checkpoint-12");
  Session other = toySession();
  load(folder, other);
  EXPECT_EQ(parameterDigest(session), parameterDigest(other));
  EXPECT_EQ(loadNumber(other.secondMoments()[1], 3), 0.125);
  size_t function = other.function("train_step");
  EXPECT_EQ(loadNumber(other.variable(function, "state.mean"), 1), 0.25);
  EXPECT_EQ(loadNumber(other.variable(function, "state.count"), 0), 42);
  json record = readRecord(folder);
  EXPECT_EQ(record["seed"], 7);
  EXPECT_EQ(record["step"], 12);
  // The original's names, so that other programs can read the weights.
  EXPECT_NE(SafetensorsFile(folder + "/model.safetensors").find("table"),
            nullptr);
  EXPECT_NE(
      SafetensorsFile(folder + "/optimizer.safetensors").find("exp_avg.table"),
      nullptr);
}

TEST_F(CheckpointTest, FindsTheNewestAndKeepsSome) {
  EXPECT_FALSE(newestCheckpoint(out));
  for (int64_t step : {9, 10, 100, 11})
    save(step);
  fs::create_directory(out + "/checkpoint-500"); // no record: not a checkpoint
  fs::create_directory(out + "/checkpoint-1000x");
  EXPECT_EQ(newestCheckpoint(out)->step, 100);
  EXPECT_EQ(findWeights(out), out + "/checkpoint-100/model.safetensors");
  EXPECT_EQ(findWeights(out + "/latest"), findWeights(out));
  EXPECT_EQ(findWeights(out + "/checkpoint-9"),
            out + "/checkpoint-9/model.safetensors");
  removeOldCheckpoints(out, 2);
  std::vector<int64_t> steps;
  for (const Checkpoint &checkpoint : listCheckpoints(out))
    steps.push_back(checkpoint.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{11, 100}));
  removeOldCheckpoints(out, 0);
  EXPECT_EQ(listCheckpoints(out).size(), 2u);
}

TEST_F(CheckpointTest, LeavesOutWhatAKilledRunLeft) {
  save(5);
  fs::rename(out + "/checkpoint-5", out + "/.checkpoint-5.partial");
  writeText(out + "/loss.svg.tmp.123", "half");
  EXPECT_FALSE(newestCheckpoint(out));
  removePartialFiles(out);
  EXPECT_TRUE(fs::is_empty(out));
}

TEST_F(CheckpointTest, RefusesDamage) {
  Session other = toySession();
  for (const char *name :
       {kModelFile, kOptimizerFile, kStateFile, kRecordFile}) {
    std::string folder = save(1).folder, path = folder + "/" + name;
    std::string text = readText(path);
    damage(path, name == kRecordFile ? text.find("seed") : text.size() - 1);
    EXPECT_ERROR(load(folder, other),
                 path + (name == kRecordFile ? ": digest: expected"
                                             : ": sha256: expected"));
    writeText(path, text.substr(0, text.size() / 2));
    EXPECT_ERROR(load(folder, other),
                 path + (name == kRecordFile ? ": the record is not valid JSON"
                                             : ": bytes: expected"));
    fs::remove(path);
    EXPECT_ERROR(load(folder, other), path + ": cannot open");
    fs::remove_all(folder);
  }
  std::string folder = save(1).folder;
  json record = json::parse(readText(folder + "/trainer.json"));
  record["version"] = 2;
  writeText(folder + "/trainer.json", record.dump());
  EXPECT_ERROR(load(folder, other), "trainer.json: version: expected 1, got 2");
}

TEST_F(CheckpointTest, RefusesWeightsThatAreNotFinite) {
  storeNumber(session.parameters()[0], 257, INFINITY);
  EXPECT_ERROR(save(1), out + "/checkpoint-1: cannot save: model.safetensors: "
                              "tensor 'table': value at [1, 1] is not finite");
  EXPECT_TRUE(fs::is_empty(out));
  std::string path = out + "/weights.safetensors";
  writeSafetensors(path, session.parameters());
  EXPECT_ERROR(loadWeights(path, session),
               path + ": tensor 'table': value at [1, 1] is not finite");
}

TEST_F(CheckpointTest, ADamagedModelIsNotUsedForGeneration) {
  std::string folder = save(1).folder, model = folder + "/model.safetensors";
  loadWeights(out, session);
  damage(model, readText(model).size() - 1);
  EXPECT_ERROR(loadWeights(out, session), model + ": sha256: expected");
  EXPECT_ERROR(loadWeights(out + "/none", session),
               "none: no such file or folder");
  EXPECT_ERROR(loadWeights(temporaryFolder("empty"), session),
               "expected model.safetensors or a checkpoint in this folder");
}

TEST_F(CheckpointTest, TrustLeavesOutTheDigestsButNotTheSizes) {
  std::string folder = save(1).folder, model = folder + "/model.safetensors";
  // The last bit of a number: finite either way.
  damage(model, readText(model).size() - 4);
  EXPECT_ERROR(loadWeights(out, session), model + ": sha256: expected");
  loadWeights(out, session, Trust::Assume);
  writeText(model, readText(model) + "x");
  EXPECT_ERROR(loadWeights(out, session, Trust::Assume),
               model + ": bytes: expected");
}

TEST_F(CheckpointTest, RefusesRecordsThatMeanHarm) {
  const std::string folder = out + "/checkpoint-1",
                    path = folder + "/trainer.json";
  fs::create_directory(folder);
  // Whoever printed that by recursion would run out of stack.
  writeText(path,
            R"({"version":1,"digest":"","x":)" + std::string(1 << 20, '['));
  EXPECT_ERROR(readRecord(folder), path + ": expected at most 32 levels");
  writeText(path, R"({"version":1,"version":1})");
  EXPECT_ERROR(readRecord(folder), path + ": name 'version' stands twice");
  EXPECT_ERROR(checkpointFiles(folder,
                               {{"files", {{"model-/../../secret", {}}}}},
                               kModelFile),
               path + ": files: expected the name of a file beside this one");
}

TEST_F(CheckpointTest, AFullDiskLeavesTheOldOnes) {
  save(1);
  std::string before = readText(out + "/checkpoint-1/model.safetensors");
  auto old = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit, tight;
  getrlimit(RLIMIT_FSIZE, &limit);
  tight = limit;
  // Room for the weights, but not for the moments.
  tight.rlim_cur = 400'000;
  setrlimit(RLIMIT_FSIZE, &tight);
  std::string message = messageOf([&] { save(2); });
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, old);
  EXPECT_NE(message.find(out + "/checkpoint-2: cannot save: "), message.npos)
      << message;
  EXPECT_NE(message.find("File too large"), message.npos) << message;
  EXPECT_EQ(newestCheckpoint(out)->step, 1);
  EXPECT_EQ(readText(out + "/checkpoint-1/model.safetensors"), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(out), {}), 1);
}
