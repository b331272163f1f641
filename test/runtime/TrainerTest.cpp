// The training loop on the toy model: it learns, resumes to the bit, stops when
// asked or when numbers break, and protects its folder.
#include "runtime/train/Trainer.h"
#include "runtime/core/Error.h"
#include "runtime/train/Checkpoint.h"
#include "test/runtime/ToyPlan.h"
#include <cmath>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace megalodon;
using namespace megalodon::test;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {
struct TrainerTest : testing::Test {
  TrainOptions options;

  void SetUp() override {
    std::string text = temporaryPath("text"), held = temporaryPath("held");
    writeText(text, toyText(3000));
    writeText(held, toyText(300, 2));
    options.data = {text};
    options.validation = {held};
    options.steps = 60;
    options.saveEvery = 20;
    options.keep = 0;
    options.logEvery = 1000;
    options.evalEvery = 25;
    options.schedule.peak = 0.3;
    options.schedule.warmup = 5;
    options.peakFlops = 1e10;
  }
  /// Trains in a folder of its own; returns the digest of the weights.
  std::string run(const std::string &folder, int threads = 1) {
    options.out = folder;
    Session session = toySession(threads);
    outcome = train(session, options);
    return parameterDigest(session);
  }
  TrainOutcome outcome = TrainOutcome::Finished;
};

/// The lines of metrics.jsonl without what depends on the clock.
std::vector<json> metricsOf(const std::string &folder) {
  std::vector<json> lines;
  std::istringstream text(readText(folder + "/metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    lines.push_back(json::parse(line));
    for (const char *field :
         {"seconds", "tokens_per_second", "peak_share", "resident_bytes"})
      lines.back().erase(field);
  }
  return lines;
}
} // namespace

TEST_F(TrainerTest, Learns) {
  std::string folder = temporaryFolder("run");
  run(folder);
  std::vector<json> lines = metricsOf(folder);
  ASSERT_EQ(lines.size(), 63u); // 60 steps, validation after 25, 50 and 60
  EXPECT_NEAR(lines[0]["loss"].get<double>(), std::log(256), 0.1);
  EXPECT_LT(lines.back()["validation_loss"].get<double>(), 3);
  EXPECT_EQ(lines.back()["step"], 60);
  std::vector<int64_t> steps;
  for (const Checkpoint &checkpoint : listCheckpoints(folder))
    steps.push_back(checkpoint.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{20, 40, 60}));
  EXPECT_NE(readText(folder + "/loss.svg").find(">validation<"),
            std::string::npos);
}

TEST_F(TrainerTest, ResumesToTheBit) {
  for (Order order : {Order::Stream, Order::Random}) {
    options.order = order;
    options.accumulate = 3; // a lap ends inside an update
    options.resume = false;
    std::string whole = temporaryFolder("whole"),
                parts = temporaryFolder("parts");
    std::string wanted = run(whole);
    run(parts, 2);
    // As if killed after the checkpoint of step 20, with half a line written.
    fs::remove_all(parts + "/checkpoint-40");
    fs::remove_all(parts + "/checkpoint-60");
    writeText(parts + "/metrics.jsonl",
              readText(parts + "/metrics.jsonl") + "{\"step\":6");
    options.resume = true;
    EXPECT_EQ(run(parts, 4), wanted);
    EXPECT_EQ(metricsOf(parts), metricsOf(whole));
    for (const char *file : {kModelFile, kOptimizerFile})
      EXPECT_EQ(readText(parts + "/checkpoint-60/" + file),
                readText(whole + "/checkpoint-60/" + file));
    EXPECT_EQ(run(parts), wanted); // nothing left to do
  }
}

/// Kills this process when it has used that much processor time: how much it
/// gets done until then does not depend on what else the machine does.
static void killAfter(std::clock_t time) {
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGKILL;
  timer_t timer;
  itimerspec when = {};
  const int64_t nanoseconds = int64_t(time) * (1'000'000'000 / CLOCKS_PER_SEC);
  when.it_value = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  if (timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) != 0 ||
      timer_settime(timer, 0, &when, nullptr) != 0)
    _exit(3);
}

TEST_F(TrainerTest, SurvivesKillsAtAnyMoment) {
  options.steps = 150;
  options.saveEvery = 6;
  options.keep = 2;
  options.evalEvery = 0;
  std::string whole = temporaryFolder("whole"),
              parts = temporaryFolder("parts");
  const std::clock_t begin = std::clock();
  std::string wanted = run(whole);
  const std::clock_t undisturbed = std::clock() - begin;
  options.resume = true;
  int kills = 0, status = 0;
  for (int attempt = 0; attempt < 60; ++attempt) {
    pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::freopen("/dev/null", "w", stderr);
      killAfter(undisturbed * (4 + attempt % 8) / 32);
      _exit(messageOf([&] { run(parts); }).empty() ? 0 : 2);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status))
      break;
    ASSERT_EQ(WTERMSIG(status), SIGKILL);
    ++kills;
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_GE(kills, 2);
  EXPECT_EQ(run(parts), wanted);
  EXPECT_EQ(metricsOf(parts), metricsOf(whole));
  EXPECT_EQ(listCheckpoints(parts).size(), 2u);
}

TEST_F(TrainerTest, SavesOnSigterm) {
  options.steps = 1'000'000;
  options.saveEvery = 0;
  options.evalEvery = 0;
  std::string folder = temporaryFolder("run");
  pid_t parent = getpid(), child = fork();
  if (child == 0) {
    usleep(400'000);
    kill(parent, SIGTERM);
    _exit(0);
  }
  run(folder);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(outcome, TrainOutcome::Interrupted);
  ASSERT_TRUE(newestCheckpoint(folder));
  EXPECT_EQ(newestCheckpoint(folder)->step, metricsOf(folder).back()["step"]);
}

TEST_F(TrainerTest, StopsWhenNumbersBreak) {
  options.schedule = {ScheduleKind::Constant, 1e39, 0, 0, 1, 1, 1};
  options.saveEvery = 2;
  std::string folder = temporaryFolder("run");
  std::string message = messageOf([&] { run(folder); });
  EXPECT_NE(
      message.find("step 2: loss: expected a finite number, got nan: "
                   "tensor 'table' is nan at element 0; nothing was saved"),
      message.npos)
      << message;
}

TEST_F(TrainerTest, ProtectsItsFolder) {
  std::string folder = temporaryFolder("run");
  run(folder);
  EXPECT_ERROR(run(folder),
               folder + "/checkpoint-60 exists: continue it with --resume");
  options.resume = true;
  options.steps = 61;
  for (auto change : {+[](TrainOptions &o) { o.seed = 2; },
                      +[](TrainOptions &o) { o.accumulate = 2; },
                      +[](TrainOptions &o) { o.order = Order::Random; },
                      +[](TrainOptions &o) { o.data = o.validation; }}) {
    TrainOptions old = options;
    change(options);
    EXPECT_ERROR(run(folder), folder + "/checkpoint-60/trainer.json: ");
    options = old;
  }
  int channel[2];
  ASSERT_EQ(pipe(channel), 0);
  pid_t child = fork();
  if (child == 0) {
    options.steps = 1'000'000;
    options.saveEvery = 0;
    options.evalEvery = 0;
    std::thread([&] {
      usleep(600'000);
      (void)!write(channel[1], "x", 1);
    }).detach();
    std::freopen("/dev/null", "w", stderr);
    run(folder);
    _exit(0);
  }
  char ready;
  ASSERT_EQ(read(channel[0], &ready, 1), 1);
  EXPECT_ERROR(run(folder),
               str(folder,
                   ": another training run is writing into this folder: "
                   "process ",
                   child, " on "));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  run(folder);
  EXPECT_EQ(newestCheckpoint(folder)->step, 61);
}

TEST_F(TrainerTest, AFullDiskStopsItWithTheOldCheckpointsIntact) {
  options.keep = 1;
  options.schedule.total = 40;
  std::string folder = temporaryFolder("run");
  options.steps = 20;
  run(folder);
  options.steps = 40;
  options.resume = true;
  rlimit limit, tight;
  getrlimit(RLIMIT_FSIZE, &limit);
  tight = limit;
  tight.rlim_cur = 200'000;
  setrlimit(RLIMIT_FSIZE, &tight);
  std::string message = messageOf([&] { run(folder); });
  setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_NE(message.find("checkpoint-40: cannot save: "), message.npos)
      << message;
  EXPECT_EQ(newestCheckpoint(folder)->step, 20);
  std::string resumed = run(folder);
  options.resume = false;
  EXPECT_EQ(resumed, run(temporaryFolder("whole")));
}

TEST_F(TrainerTest, RanksTrainAlikeAndContinueOnOtherMeshes) {
  const std::string whole = temporaryFolder("whole"),
                    parts = temporaryFolder("parts");
  const std::string wanted = run(whole);
  auto runOn = [&](int ranks) {
    std::vector<std::string> digests(static_cast<size_t>(ranks));
    runVirtualRanks(ranks, [&](World &world) {
      Session session = toySession(world);
      train(session, options);
      digests[size_t(world.rank())] = parameterDigest(session);
    });
    return digests;
  };
  options.out = parts;
  options.resume = true;
  options.schedule.total = 60;
  int step = 0;
  std::vector<std::string> digests;
  for (int ranks : {3, 1, 2}) {
    options.steps = step += 20;
    options.evalEvery = 25;
    digests = runOn(ranks);
    const std::string folder = str(parts, "/checkpoint-", step);
    EXPECT_EQ(fs::exists(folder + "/model.safetensors"), ranks == 1);
    EXPECT_EQ(fs::exists(folder + "/model.safetensors.index.json"), ranks > 1);
    EXPECT_EQ(readRecord(folder)["mesh"], str("dp=1,pp=1,cp=1,tp=", ranks));
  }
  EXPECT_EQ(digests, std::vector<std::string>(2, wanted));
  std::vector<json> got = metricsOf(parts), expected = metricsOf(whole);
  // Each of the three runs also validates at its end.
  auto onlySteps = [](std::vector<json> &lines) {
    lines.erase(std::remove_if(lines.begin(), lines.end(),
                               [](const json &line) {
                                 return line.contains("validation_loss") &&
                                        line["step"] != 60;
                               }),
                lines.end());
  };
  onlySteps(got);
  onlySteps(expected);
  EXPECT_EQ(got, expected);
}

TEST_F(TrainerTest, RanksFailTogether) {
  const std::string folder = temporaryFolder("run");
  auto messagesOf = [&](auto change) {
    std::vector<std::string> messages(2);
    runVirtualRanks(2, [&](World &world) {
      TrainOptions own = options;
      own.out = folder;
      change(own, world.rank());
      Session session = toySession(world);
      messages[size_t(world.rank())] = messageOf([&] { train(session, own); });
    });
    return messages;
  };
  // Told different things: refused before anything is written.
  for (const std::string &message :
       messagesOf([](TrainOptions &o, int rank) { o.seed += rank; }))
    EXPECT_EQ(message, "rank 1: seed: expected 1 as on rank 0, got 2");
  EXPECT_TRUE(fs::is_empty(folder));
  for (const std::string &message : messagesOf([](TrainOptions &o, int) {
         o.schedule = {ScheduleKind::Constant, 1e39, 0, 0, 1, 1, 1};
       }))
    EXPECT_EQ(message,
              "step 2: loss: expected a finite number, got nan: tensor 'table' "
              "is nan at element 0 of rank 0; nothing was saved");
  // Rank 0 alone looks after the folder.
  options.steps = 2;
  run(folder);
  const std::string why =
      folder + "/checkpoint-2 exists: continue it with --resume";
  for (const std::string &message : messagesOf([](TrainOptions &, int) {}))
    EXPECT_EQ(message.rfind(why, 0), 0u) << message;
}

TEST_F(TrainerTest, AllRanksSaveWhenAskedToStop) {
  options.steps = 1'000'000;
  options.saveEvery = 0;
  options.evalEvery = 0;
  for (int signal : {SIGTERM, SIGUSR1}) {
    options.out = temporaryFolder(str("run-", signal));
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
      usleep(400'000);
      kill(parent, signal);
      _exit(0);
    }
    TrainOutcome outcomes[2] = {TrainOutcome::Finished, TrainOutcome::Finished};
    runVirtualRanks(2, [&](World &world) {
      Session session = toySession(world);
      outcomes[world.rank()] = train(session, options);
    });
    waitpid(child, nullptr, 0);
    for (TrainOutcome outcome : outcomes)
      EXPECT_EQ(outcome, TrainOutcome::Interrupted);
    ASSERT_TRUE(newestCheckpoint(options.out));
    EXPECT_EQ(newestCheckpoint(options.out)->step,
              metricsOf(options.out).back()["step"]);
  }
}

TEST_F(TrainerTest, RefusesOptionsThatMakeNoSense) {
  auto refused = [&](auto change) {
    TrainOptions old = options;
    change(options);
    std::string message = messageOf([&] { run(temporaryFolder("run")); });
    options = old;
    return message;
  };
  EXPECT_EQ(refused([](auto &o) { o.steps = 0; }),
            "--steps: expected at least 1, got 0");
  EXPECT_EQ(refused([](auto &o) { o.accumulate = 0; }),
            "--accumulate: expected at least 1, got 0");
  EXPECT_EQ(refused([](auto &o) { o.logEvery = 0; }),
            "--log-every: expected at least 1, got 0");
  EXPECT_EQ(refused([](auto &o) { o.validationFraction = 0.5; }),
            "--validation and --validation-fraction: expected one of them, "
            "got both");
  EXPECT_EQ(refused([](auto &o) { o.validation.clear(); }),
            "--eval-every: expected validation data: give --validation or "
            "--validation-fraction");
}
