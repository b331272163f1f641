// megalodon-run generate: continues a prompt.
#include "runtime/generate/Generate.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Checkpoint.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/TraceFile.h"
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>

using namespace megalodon;

namespace {
struct Arguments {
  std::string plan, weights, prompt, promptFile, traceFile;
  std::vector<int32_t> promptTokens;
  int64_t maxTokens = 256;
  bool printTokens = false;
  Sampling sampling;
  SessionOptions session;
  CLI::Option *promptOption = nullptr, *promptFileOption = nullptr;
};
} // namespace

static std::vector<int32_t> promptOf(const Arguments &arguments,
                                     const plan::LoadedPlan &plan) {
  if (!arguments.promptTokens.empty())
    return arguments.promptTokens;
  if (!arguments.promptOption->count() && !arguments.promptFileOption->count())
    throw Error("expected one of --prompt, --prompt-file and --prompt-tokens, "
                "got none");
  if (plan.vocabSize != 256)
    throw Error(
        str(plan.path,
            ": a prompt of bytes needs a vocabulary of 256, the plan has ",
            plan.vocabSize, ": give --prompt-tokens"));
  std::string text = arguments.promptOption->count()
                         ? arguments.prompt
                         : readText(arguments.promptFile);
  std::vector<int32_t> tokens;
  for (unsigned char byte : text)
    tokens.push_back(byte);
  return tokens;
}

static void put(const void *data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes || std::fflush(stdout) != 0)
    throw Error(str("stdout: cannot write: ", std::strerror(errno)));
}

static void run(const Arguments &arguments) {
  if (arguments.maxTokens < 1)
    throw Error(
        str("--max-tokens: expected at least 1, got ", arguments.maxTokens));
  arguments.sampling.verify();
  auto plan = plan::LoadedPlan::open(arguments.plan);
  Session session(plan, arguments.session);
  session.function("generate"); // say so before reading the weights
  std::vector<int32_t> prompt = promptOf(arguments, *plan);
  loadWeights(arguments.weights, session);

  bool asText = !arguments.printTokens && plan->vocabSize == 256 &&
                plan->outputSize <= 256;
  if (asText)
    for (int32_t token : prompt) {
      auto byte = static_cast<unsigned char>(token);
      put(&byte, 1);
    }
  plan::Trace trace;
  if (!arguments.traceFile.empty())
    session.setTrace(&trace);
  std::string ids;
  GenerateTimes times =
      generate(session, prompt, arguments.maxTokens, arguments.sampling,
               [&](int32_t token) {
                 auto byte = static_cast<unsigned char>(token);
                 if (asText)
                   put(&byte, 1);
                 else
                   ids += (ids.empty() ? "" : ",") + std::to_string(token);
               });
  if (!arguments.traceFile.empty())
    writeTrace(arguments.traceFile, trace, session);
  ids += '\n';
  put(ids.data(), ids.size());
  std::fprintf(stderr,
               "prompt: %zu tokens in %lld calls, %.0f tokens/s; generated: "
               "%lld tokens, %.0f tokens/s\n",
               prompt.size(), static_cast<long long>(times.promptCalls),
               static_cast<double>(prompt.size()) / times.promptSeconds,
               static_cast<long long>(arguments.maxTokens),
               static_cast<double>(arguments.maxTokens) / times.tokenSeconds);
}

void megalodon::addGenerate(CLI::App &app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = app.add_subcommand(
      "generate", "continue a prompt; the text streams as it is made");
  command
      ->add_option("plan", arguments->plan, "plan with the function generate")
      ->required();
  command
      ->add_option("--weights", arguments->weights,
                   "safetensors file, checkpoint or training folder")
      ->required();
  arguments->promptOption =
      command->add_option("--prompt", arguments->prompt, "text to continue");
  arguments->promptFileOption = command->add_option(
      "--prompt-file", arguments->promptFile, "file with the text to continue");
  CLI::Option *tokens =
      command->add_option("--prompt-tokens", arguments->promptTokens,
                          "token ids to continue: 1,2,3");
  tokens->delimiter(',')
      ->excludes(arguments->promptOption)
      ->excludes(arguments->promptFileOption);
  arguments->promptOption->excludes(arguments->promptFileOption);
  Sampling &sampling = arguments->sampling;
  command
      ->add_option("--max-tokens", arguments->maxTokens, "tokens to generate")
      ->capture_default_str();
  command
      ->add_option("--temperature", sampling.temperature,
                   "0: always the most likely token")
      ->capture_default_str();
  command
      ->add_option("--top-k", sampling.topK,
                   "keep the K most likely tokens; 0: all")
      ->capture_default_str();
  command
      ->add_option("--top-p", sampling.topP,
                   "keep the most likely tokens up to this mass")
      ->capture_default_str();
  command
      ->add_option(
          "--min-p", sampling.minP,
          "keep tokens at least this likely relative to the most likely one")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "seed of the choices")
      ->capture_default_str();
  command->add_flag("--print-tokens", arguments->printTokens,
                    "print one line of token ids instead of text");
  command->add_option("--trace", arguments->traceFile,
                      "write a trace of all calls for Perfetto here");
  command->add_option("--gpu", arguments->session.gpu,
                      "GPU of a plan for GPUs (default: the ranks of a machine "
                      "take its GPUs in turn)");
  command
      ->add_option("--threads", arguments->session.threads,
                   "worker threads; 0: one a processor")
      ->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}
