// megalodon-run train, eval and generate as commands: what they print, their
// exit codes, and how they refuse bad input.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "test/runtime/ToyPlan.h"
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

using namespace megalodon;
using namespace megalodon::test;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {
struct Commands : testing::Test {
  std::string plan = toyPlanFile(), data = temporaryFolder("data"),
              out = temporaryFolder("run");
  std::string trainOptions = str(" --data ", data, " --out ", out,
                                 " --lr 0.3 --warmup 4 "
                                 "--peak-flops 1e10 --validation-fraction 0.3");

  Commands() {
    for (int i = 0; i < 12; ++i)
      writeText(str(data, "/", i, ".txt"), toyText(400, i));
  }

  struct Result {
    int code;
    std::string out, err;
  };
  /// A shell command line with the program's name in front.
  static Result run(const std::string &arguments,
                    const std::string &before = "") {
    std::string out = temporaryPath("stdout"), err = temporaryPath("stderr");
    int status = std::system(
        str(before, MEGALODON_RUN, " ", arguments, " >", out, " 2>", err)
            .c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, readText(out),
            readText(err)};
  }
  Result train(const std::string &more, const std::string &before = "") {
    return run(str("train ", plan, trainOptions, " ", more), before);
  }
  void expectRefused(const std::string &arguments, const std::string &message) {
    Result result = run(arguments);
    EXPECT_EQ(result.code, 1) << arguments;
    EXPECT_NE(result.err.find("error: " + message), std::string::npos)
        << arguments << "\n"
        << result.err;
  }
};
} // namespace

TEST_F(Commands, TrainEvaluateGenerate) {
  Result trained = train("--steps 40 --eval-every 20");
  EXPECT_EQ(trained.code, 0) << trained.err;
  EXPECT_NE(trained.err.find("step 40/40  loss "), std::string::npos);
  EXPECT_NE(trained.err.find("% of peak"), std::string::npos);
  EXPECT_NE(trained.err.find("step 40  validation loss "), std::string::npos);

  std::string eval = str("eval ", plan, " --weights ", out, " --data ", data,
                         " --validation-fraction 0.3 --split validation");
  std::string losses = temporaryPath("losses");
  Result report =
      run(str(eval, " --json --trigram ", data, " --losses ", losses));
  EXPECT_EQ(report.code, 0) << report.err;
  json result = json::parse(report.out);
  std::string all = readText(losses);
  ASSERT_EQ(all.size(), 8 * result["tokens"].get<size_t>());
  double sum = 0, loss;
  for (size_t at = 0; at < all.size(); at += 8) {
    std::memcpy(&loss, all.data() + at, 8);
    sum += loss;
  }
  double mean = sum / result["tokens"].get<double>();
  EXPECT_NEAR(mean, result["nll"].get<double>(), 1e-9);
  EXPECT_NEAR(mean / std::log(2), result["bits_per_byte"].get<double>(), 1e-9);
  EXPECT_NEAR(std::exp(mean), result["perplexity"].get<double>(), 1e-6);
  EXPECT_LT(result["trigram_bits_per_byte"].get<double>(), 2);
  Result text = run(eval + " --reset-state --max-tokens 100");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(text.out.find("tokens           100\n"), 0u) << text.out;
  EXPECT_NE(text.out.find("\n5 - 8 "), std::string::npos);
  EXPECT_EQ(text.out.find("\n9 - 16 "), std::string::npos);

  std::string generate = str("generate ", plan, " --weights ", out);
  Result sample = run(generate + " --prompt 'carry ' --max-tokens 30");
  EXPECT_EQ(sample.code, 0) << sample.err;
  EXPECT_EQ(sample.out.find("carry "), 0u);
  EXPECT_EQ(sample.out.size(), 6 + 30 + 1u);
  EXPECT_EQ(run(generate + " --prompt 'carry ' --max-tokens 30").out,
            sample.out);
  EXPECT_NE(run(generate + " --prompt 'carry ' --max-tokens 30 --seed 2").out,
            sample.out);
  Result ids = run(generate + " --prompt-tokens 99,97,114,114,121,32 "
                              "--max-tokens 30 --print-tokens");
  std::string wanted;
  for (unsigned char c : sample.out.substr(6, 30))
    wanted += (wanted.empty() ? "" : ",") + std::to_string(c);
  EXPECT_EQ(ids.out, wanted + "\n");
  writeText(temporaryPath("prompt"), "carry ");
  EXPECT_EQ(run(str(generate, " --max-tokens 30 --prompt-file ",
                    temporaryPath("prompt")))
                .out,
            sample.out);
}

TEST_F(Commands, TrainAndEvaluateOnTokenFiles) {
  const std::string tokens = temporaryPath("data.tokens"),
                    held = temporaryPath("held.tokens");
  EXPECT_EQ(
      run(str("tokenize --tokenizer bytes --out ", tokens, " ", data)).code, 0);
  EXPECT_EQ(
      run(str("tokenize --tokenizer bytes --out ", held, " ", data, "/0.txt"))
          .code,
      0);
  auto trainOn = [&](const std::string &folder, const std::string &more) {
    return run(str("train ", plan, " --data ", tokens, " --validation ", held,
                   " --order documents --lr 0.3 --warmup 4 --peak-flops 1e10 "
                   "--tokenizer bytes --total-steps 40 --out ",
                   folder, " ", more));
  };
  // Whole, and in two parts: the loader goes on where it stopped, epochs later.
  const std::string parts = temporaryFolder("parts");
  EXPECT_EQ(trainOn(out, "--steps 40 --accumulate 20").code, 0);
  EXPECT_EQ(trainOn(parts, "--steps 17 --accumulate 20").code, 0);
  const Result resumed = trainOn(parts, "--steps 40 --accumulate 20 --resume");
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(readText(out + "/checkpoint-40/model.safetensors"),
            readText(parts + "/checkpoint-40/model.safetensors"));
  const json record =
      json::parse(readText(out + "/checkpoint-40/trainer.json"));
  EXPECT_EQ(record["order"], "documents");
  EXPECT_GT(record["position"]["epoch"], 1);

  const Result report =
      run(str("eval ", plan, " --weights ", out, " --data ", held, " --json"));
  EXPECT_EQ(report.code, 0) << report.err;
  const Result text = run(str("eval ", plan, " --weights ", out, " --data ",
                              data, "/0.txt --json"));
  EXPECT_EQ(json::parse(report.out)["nll"], json::parse(text.out)["nll"]);
  EXPECT_EQ(json::parse(report.out)["bits_per_byte"],
            json::parse(text.out)["bits_per_byte"]);
  expectRefused(str("train ", plan, " --data ", tokens, " --out ", parts,
                    " --steps 60 --order documents --seed 2 --accumulate 20 "
                    "--resume"),
                parts + "/checkpoint-40/trainer.json: seed: expected 2");
}

TEST_F(Commands, RefuseBadInput) {
  expectRefused("train " + plan + trainOptions + " --steps 40 --data " + out +
                    "/none",
                out + "/none: no such file or folder");
  expectRefused("train " + plan + trainOptions + " --steps 40 --schedule step",
                "--schedule: expected linear, cosine or constant, got 'step'");
  expectRefused("train " + plan + trainOptions +
                    " --steps 40 --data-type uint32",
                data + "/"); // ids beyond the vocabulary
  std::string generate = str("generate ", plan, " --weights ", out);
  expectRefused(generate + " --prompt x", out + ": expected model.safetensors");
  EXPECT_EQ(train("--steps 40").code, 0);
  expectRefused("train " + plan + trainOptions + " --steps 40",
                out + "/checkpoint-40 exists");
  expectRefused(generate, "expected one of --prompt, --prompt-file and "
                          "--prompt-tokens, got none");
  expectRefused(generate + " --prompt ''", "the prompt: expected at least one");
  expectRefused(generate + " --prompt-tokens 1,256", "the prompt: token 1: ");
  expectRefused(generate + " --prompt x --top-p 2", "--top-p: expected");
  expectRefused(generate + " --prompt x --max-tokens 0", "--max-tokens: ");
  expectRefused(str("eval ", plan, " --weights ", out, " --data ", data,
                    " --split validation"),
                "--split=validation: expected --validation-fraction above 0");
  fs::resize_file(out + "/checkpoint-40/model.safetensors", 1000);
  expectRefused(generate + " --prompt x",
                out + "/checkpoint-40/model.safetensors: bytes: expected ");
}

TEST_F(Commands, AFullDiskEndsTrainingWithAnErrorAndTheOldCheckpoints) {
  EXPECT_EQ(train("--steps 40").code, 0);
  Result full = train("--resume --steps 60", "ulimit -f 200; ");
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find(out + "/checkpoint-60: cannot save: "),
            std::string::npos)
      << full.err;
  EXPECT_TRUE(fs::exists(out + "/checkpoint-40/trainer.json"));
  EXPECT_FALSE(fs::exists(out + "/checkpoint-60"));
  Result lost =
      run(str("generate ", plan, " --weights ", out,
              " --prompt x --max-tokens 3 >/dev/full; exit $?; true"));
  EXPECT_EQ(lost.code, 1);
  EXPECT_EQ(train("--resume --steps 60").code, 0);
}

TEST_F(Commands, SigtermSavesAndEndsWithZero) {
  Result stopped =
      train("--steps 10000000 --save-every 0", "timeout -s TERM 1 ");
  EXPECT_EQ(stopped.code, 124); // timeout's own code: the command was told
  EXPECT_NE(stopped.err.find("stopped by SIGTERM after step "),
            std::string::npos)
      << stopped.err;
  stopped = train("--resume --steps 10000000",
                  "timeout --preserve-status -s TERM 1 ");
  EXPECT_EQ(stopped.code, 0) << stopped.err;
  EXPECT_NE(stopped.err.find("resumed from "), std::string::npos);
}
