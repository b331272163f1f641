// megalodon-run eval: the loss of a model on data, whole and by position in
// context.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/generate/Evaluate.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Checkpoint.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/Ranks.h"
#include "tools/megalodon-run/TraceFile.h"
#include "tools/megalodon-run/TrustOption.h"
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

using namespace megalodon;
using nlohmann::json;

namespace {
struct Arguments {
  std::string plan, weights, dataType = "auto", tokenizer, part = "all", losses,
                             traceFile;
  std::vector<std::string> data, trigram;
  double validationFraction = 0;
  bool asJson = false;
  EvaluateOptions options;
  SessionOptions session;
  Trust trust = Trust::Verify;
  RankOptions ranks;
};
} // namespace

static std::vector<DataFile> filesOf(const Arguments &arguments) {
  std::vector<DataFile> files = listDataFiles(arguments.data);
  if (arguments.part == "all")
    return files;
  DataSplit split = splitDataFiles(files, arguments.validationFraction);
  if (arguments.part == "validation" && split.validation.empty())
    throw Error("--split=validation: expected --validation-fraction above 0");
  return arguments.part == "training" ? split.training : split.validation;
}

static Trigram trainTrigram(const Arguments &arguments) {
  // The validation side of a split must not teach the model that is measured on
  // it.
  std::vector<DataFile> files = listDataFiles(arguments.trigram);
  if (arguments.part == "validation")
    files = splitDataFiles(files, arguments.validationFraction).training;
  const Corpus corpus(files, TokenType::Automatic, 256);
  if (!corpus.isBytes())
    throw Error("--trigram: expected files of bytes, got token ids");
  Trigram trigram;
  std::vector<int32_t> tokens(1 << 16);
  std::vector<uint8_t> bytes(tokens.size());
  for (int64_t at = 0; at < corpus.size(); at += int64_t(tokens.size())) {
    const int64_t count = std::min(int64_t(tokens.size()), corpus.size() - at);
    corpus.read(at, count, tokens.data());
    std::copy_n(tokens.begin(), count, bytes.begin());
    trigram.add(bytes.data(), size_t(count));
  }
  return trigram;
}

static json report(const Evaluation &result, const Corpus &corpus,
                   bool trigram) {
  auto tokens = static_cast<double>(result.tokens);
  json positions = json::array();
  for (const PositionLoss &bucket : result.positions) {
    double nll = bucket.nll / static_cast<double>(bucket.tokens);
    positions.push_back({{"first", bucket.first},
                         {"last", bucket.last},
                         {"tokens", bucket.tokens},
                         {"nll", nll},
                         {"bits", nll / M_LN2}});
  }
  json out = {{"tokens", result.tokens},
              {"nll", result.mean()},
              {"perplexity", std::exp(result.mean())},
              {"bits_per_token", result.mean() / M_LN2},
              {"by_position", positions},
              {"seconds", result.seconds},
              {"tokens_per_second", tokens / result.seconds},
              {"first_tokens_per_second", result.firstRate},
              {"last_tokens_per_second", result.lastRate},
              {"first_resident_bytes", result.residentFirst},
              {"last_resident_bytes", result.residentLast}};
  if (corpus.isBytes())
    out["bits_per_byte"] = result.mean() / M_LN2;
  else if (corpus.textBytes() > 0 && result.tokens == corpus.size() - 1)
    out["bits_per_byte"] =
        result.nll / M_LN2 / static_cast<double>(corpus.textBytes());
  out["unit"] = corpus.isBytes() ? "byte" : "token";
  if (trigram) {
    out["trigram_nll"] = result.trigramNll / tokens;
    out["trigram_bits_per_byte"] = result.trigramNll / tokens / M_LN2;
  }
  return out;
}

static void print(const json &out) {
  auto number = [&](const char *name) { return out.at(name).get<double>(); };
  const auto unit = out.at("unit").get<std::string>();
  std::printf("tokens           %.0f\n", number("tokens"));
  std::printf("nll              %.5f nats per token\n", number("nll"));
  std::printf("perplexity       %.4f\n", number("perplexity"));
  std::printf("bits per %-5s   %.4f\n", unit.c_str(), number("bits_per_token"));
  if (unit != "byte" && out.contains("bits_per_byte"))
    std::printf("bits per byte    %.4f\n", number("bits_per_byte"));
  if (out.contains("trigram_nll"))
    std::printf("trigram model    %.4f bits per byte, %.5f nats per token\n",
                number("trigram_bits_per_byte"), number("trigram_nll"));
  std::printf("\ntokens of context        tokens   bits per %s\n",
              unit.c_str());
  for (const json &bucket : out.at("by_position")) {
    std::string range = str(bucket.at("first").get<int64_t>(), " - ",
                            bucket.at("last").get<int64_t>());
    std::printf("%-20s %10.0f   %.4f\n", range.c_str(),
                bucket.at("tokens").get<double>(),
                bucket.at("bits").get<double>());
  }
  std::printf(
      "\nspeed            %.0f tokens/s (first %lld: %.0f, last %lld: %.0f)\n",
      number("tokens_per_second"), static_cast<long long>(kRateTokens),
      number("first_tokens_per_second"), static_cast<long long>(kRateTokens),
      number("last_tokens_per_second"));
  std::printf(
      "resident memory  %.1f MiB after the first call, %.1f MiB at the end\n",
      number("first_resident_bytes") / 0x1p20,
      number("last_resident_bytes") / 0x1p20);
}

/// Every rank scores its part; rank 0 writes and prints.
static void runRank(const Arguments &arguments,
                    std::shared_ptr<const plan::LoadedPlan> plan,
                    const Corpus &corpus, World &world) {
  Session session(plan, arguments.session, world);
  session.function("score"); // say so before reading the weights
  loadWeights(arguments.weights, session, arguments.trust);
  EvaluateOptions options = arguments.options;
  std::optional<AtomicFile> losses;
  if (world.rank() == 0 && !arguments.losses.empty()) {
    losses.emplace(arguments.losses);
    options.sink = [&](const double *values, int64_t count) {
      losses->write(values, count * sizeof(double));
    };
  }
  plan::Trace trace;
  if (!arguments.traceFile.empty())
    session.setTrace(&trace);
  Evaluation result = evaluate(session, corpus, options);
  if (!arguments.traceFile.empty())
    writeTrace(arguments.traceFile, trace, session);
  const bool packed =
      plan->isPacked(plan->functions[session.function("score")]);
  if (world.rank() == 0 && plan->context > 0 && !packed &&
      result.tokens > plan->context)
    std::fprintf(stderr,
                 "note: %s holds %lld tokens of a sequence: the state was "
                 "forgotten at least that often\n",
                 plan->path.c_str(), static_cast<long long>(plan->context));
  if (world.rank() != 0)
    return;
  if (losses)
    losses->commit();
  json out = report(result, corpus, options.trigram != nullptr);
  if (arguments.asJson)
    std::puts(out.dump(2).c_str());
  else
    print(out);
}

static void run(Arguments &arguments) {
  auto plan = plan::LoadedPlan::open(arguments.plan, arguments.trust);
  if (arguments.options.maxTokens < 0)
    throw Error(str("--max-tokens: expected at least 0, got ",
                    arguments.options.maxTokens));
  if (arguments.options.resetEvery < 0)
    throw Error(str("--reset-every: expected at least 0, got ",
                    arguments.options.resetEvery));
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!arguments.tokenizer.empty())
    tokenizer = Tokenizer::open(arguments.tokenizer);
  Corpus corpus(filesOf(arguments), parseTokenType(arguments.dataType),
                std::min(plan->vocabSize, plan->outputSize), tokenizer.get());
  std::optional<Trigram> trigram;
  if (!arguments.trigram.empty()) {
    if (!corpus.isBytes())
      throw Error("--trigram: expected data of bytes, got token ids");
    trigram = trainTrigram(arguments);
    arguments.options.trigram = &*trigram;
  }
  onRanks(arguments.ranks, *plan, arguments.session,
          [&](World &world) { runRank(arguments, plan, corpus, world); });
}

void megalodon::addEval(CLI::App &app) {
  auto arguments = std::make_shared<Arguments>();
  EvaluateOptions &options = arguments->options;
  CLI::App *command = app.add_subcommand(
      "eval", "loss, perplexity and bits per byte on a stream of tokens");
  command->add_option("plan", arguments->plan, "plan with the function score")
      ->required();
  command
      ->add_option("--weights", arguments->weights,
                   "safetensors file, checkpoint or training folder")
      ->required();
  addTrustOption(*command, arguments->trust);
  command
      ->add_option("--data", arguments->data,
                   "files and folders, read as one stream")
      ->required();
  command
      ->add_option("--data-type", arguments->dataType,
                   "auto (token files, token ids in *.u16 and *.u32, else "
                   "text), bytes, uint16 or uint32")
      ->capture_default_str();
  command->add_option("--tokenizer", arguments->tokenizer,
                      "tokenizer of text files: bytes (default) or a "
                      "SentencePiece model (FILE.model)");
  command->add_option("--validation-fraction", arguments->validationFraction,
                      "the fraction training held out");
  command
      ->add_option("--split", arguments->part,
                   "all files, or the training or validation side")
      ->check(CLI::IsMember({"all", "training", "validation"}))
      ->capture_default_str();
  command
      ->add_option("--max-tokens", options.maxTokens,
                   "predict at most so many tokens; 0: all")
      ->capture_default_str();
  CLI::Option *resetState =
      command->add_flag("--reset-state", options.resetState,
                        "forget everything before each call");
  command
      ->add_option("--reset-every", options.resetEvery,
                   "forget everything after so many tokens; 0: never")
      ->capture_default_str()
      ->excludes(resetState);
  command->add_option("--trigram", arguments->trigram,
                      "also measure an interpolated trigram model trained on "
                      "these files (their training side with "
                      "--split=validation)");
  command->add_option(
      "--losses", arguments->losses,
      "write the loss of every token here: float64, little-endian");
  command->add_flag("--json", arguments->asJson, "print JSON");
  command->add_option("--trace", arguments->traceFile,
                      "write a trace of all calls for Perfetto here; limit "
                      "them with --max-tokens");
  command->add_option("--gpu", arguments->session.gpu,
                      "GPU of a plan for GPUs (default: the ranks of a machine "
                      "take its GPUs in turn)");
  command
      ->add_option("--threads", arguments->session.threads,
                   "worker threads; 0: one a processor")
      ->capture_default_str();
  addRankOptions(*command, arguments->ranks);
  command->callback([arguments] { run(*arguments); });
}
