// megalodon-run generate: continues a prompt.
#include "runtime/generate/Generate.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/text/Tokenizer.h"
#include "runtime/train/Checkpoint.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/TraceFile.h"
#include "tools/megalodon-run/TrustOption.h"
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>

using namespace megalodon;

namespace {
struct Arguments {
  std::string plan, weights, tokenizer, prompt, promptFile, traceFile;
  std::vector<int32_t> promptTokens;
  int64_t maxTokens = 256;
  bool printTokens = false, bos = false;
  Sampling sampling;
  SessionOptions session;
  Trust trust = Trust::Verify;
  CLI::Option *promptOption = nullptr, *promptFileOption = nullptr;
};
} // namespace

/// The tokenizer that was named, or bytes for a model of bytes, or none.
static std::shared_ptr<const Tokenizer>
tokenizerOf(const Arguments &arguments, const plan::LoadedPlan &plan) {
  if (arguments.tokenizer.empty())
    return plan.vocabSize == 256 && plan.outputSize <= 256
               ? Tokenizer::open("bytes")
               : nullptr;
  auto tokenizer = Tokenizer::open(arguments.tokenizer);
  verifyVocabulary(*tokenizer, std::min(plan.vocabSize, plan.outputSize),
                   plan.path);
  return tokenizer;
}

static std::vector<int32_t> promptOf(const Arguments &arguments,
                                     const plan::LoadedPlan &plan,
                                     const Tokenizer *tokenizer) {
  const std::vector<int32_t> &given = arguments.promptTokens;
  if (!given.empty()) {
    // Before the decoder sees them, which knows no position.
    const int64_t ids = tokenizer ? tokenizer->vocabulary() : plan.vocabSize;
    for (size_t i = 0; i < given.size(); ++i)
      if (given[i] < 0 || given[i] >= ids)
        throw Error(str("the prompt: token ", i, ": expected an id from 0 to ",
                        ids - 1, ", got ", given[i]));
    return given;
  }
  if (!arguments.promptOption->count() && !arguments.promptFileOption->count())
    throw Error("expected one of --prompt, --prompt-file and --prompt-tokens, "
                "got none");
  if (!tokenizer)
    throw Error(str(
        plan.path,
        ": a prompt of bytes needs a vocabulary of 256, the plan has ",
        plan.vocabSize, ": give --tokenizer FILE.model or --prompt-tokens"));
  std::string text = arguments.promptOption->count()
                         ? arguments.prompt
                         : readText(arguments.promptFile);
  std::vector<int32_t> tokens;
  if (arguments.bos) {
    if (tokenizer->bos() < 0)
      throw Error(
          str("--bos: expected a tokenizer with a mark for a document's "
              "beginning, got '",
              tokenizer->name(), "', which has none"));
    tokens.push_back(tokenizer->bos());
  }
  try {
    tokenizer->encode(text, tokens);
  } catch (const Error &error) {
    throw Error(str("the prompt: ", error.what()));
  }
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
  auto plan = plan::LoadedPlan::open(arguments.plan, arguments.trust);
  Session session(plan, arguments.session);
  session.function("generate"); // say so before reading the weights
  const auto tokenizer = tokenizerOf(arguments, *plan);
  std::vector<int32_t> prompt = promptOf(arguments, *plan, tokenizer.get());
  loadWeights(arguments.weights, session, arguments.trust);

  // One decoder for the prompt and what follows: a character may begin in one
  // and end in the other.
  std::unique_ptr<TextDecoder> decoder;
  if (tokenizer && !arguments.printTokens)
    decoder = tokenizer->decoder();
  auto putText = [](const std::string &text) { put(text.data(), text.size()); };
  if (decoder)
    for (int32_t token : prompt)
      putText(decoder->push(token));
  plan::Trace trace;
  if (!arguments.traceFile.empty())
    session.setTrace(&trace);
  std::string ids;
  GenerateTimes times = generate(
      session, prompt, arguments.maxTokens, arguments.sampling,
      [&](int32_t token) {
        if (decoder)
          putText(decoder->push(token));
        else
          ids += (ids.empty() ? "" : ",") + std::to_string(token);
      },
      tokenizer ? tokenizer->eos() : -1);
  if (decoder)
    putText(decoder->finish());
  if (!arguments.traceFile.empty())
    writeTrace(arguments.traceFile, trace, session);
  ids += '\n';
  put(ids.data(), ids.size());
  std::fprintf(stderr,
               "prompt: %zu tokens in %lld calls, %.0f tokens/s; generated: "
               "%lld tokens, %.0f tokens/s\n",
               prompt.size(), static_cast<long long>(times.promptCalls),
               static_cast<double>(prompt.size()) / times.promptSeconds,
               static_cast<long long>(times.tokens),
               static_cast<double>(times.tokens) / times.tokenSeconds);
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
  command->add_option("--tokenizer", arguments->tokenizer,
                      "bytes (default for a vocabulary of 256) or a "
                      "SentencePiece model (FILE.model), whose end of document "
                      "ends the text");
  command->add_flag("--bos", arguments->bos,
                    "begin the prompt with the tokenizer's mark");
  addTrustOption(*command, arguments->trust);
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
