// megalodon-run tokenize: makes a token file from documents.
#include "runtime/text/TokenizeFiles.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/Text.h"
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <unistd.h>

using namespace megalodon;
using Clock = std::chrono::steady_clock;

namespace {
struct Arguments {
  std::string tokenizer, out, format = "auto";
  TokenizeOptions options;
};

/// A line on stderr: ten times a second on a terminal, else every ten seconds.
class Progress {
public:
  void show(const TokenizeCounts &counts) {
    const Clock::time_point now = Clock::now();
    if (now < next)
      return;
    next = now + (live ? std::chrono::milliseconds(100)
                       : std::chrono::milliseconds(10000));
    std::fprintf(stderr, "%s%s documents, %s tokens, %s bytes%s",
                 live ? "\r\033[K" : "", grouped(counts.documents).c_str(),
                 grouped(counts.tokens).c_str(),
                 grouped(counts.textBytes).c_str(), live ? "" : "\n");
  }
  ~Progress() {
    if (live)
      std::fputs("\r\033[K", stderr);
  }

private:
  const bool live = isatty(STDERR_FILENO);
  Clock::time_point next =
      Clock::now() + std::chrono::milliseconds(live ? 100 : 10000);
};
} // namespace

static void print(const TokenizeCounts &counts, double seconds) {
  const std::pair<const char *, int64_t> rows[] = {
      {"files", counts.files},           {"documents", counts.documents},
      {"tokens", counts.tokens},         {"bytes of text", counts.textBytes},
      {"empty, left out", counts.empty}, {"bad, left out", counts.bad}};
  for (auto [name, value] : rows)
    std::printf("%-16s %s\n", name, grouped(value).c_str());
  std::printf(
      "bytes a token    %s\n",
      decimal(double(counts.textBytes) / double(counts.tokens), 3).c_str());
  std::printf("speed            %s tokens/s, %s MB/s\n",
              grouped(int64_t(double(counts.tokens) / seconds)).c_str(),
              decimal(double(counts.textBytes) / seconds * 1e-6, 1).c_str());
}

static void run(Arguments &arguments) {
  TokenizeOptions &options = arguments.options;
  options.format = parseDocumentFormat(arguments.format);
  const auto tokenizer = Tokenizer::open(arguments.tokenizer);
  const Clock::time_point start = Clock::now();
  TokenizeCounts counts;
  {
    Progress progress;
    options.progress = [&](const TokenizeCounts &now) { progress.show(now); };
    counts = tokenizeFiles(*tokenizer, options, arguments.out);
  }
  print(counts, std::chrono::duration<double>(Clock::now() - start).count());
}

void megalodon::addTokenize(CLI::App &app) {
  auto arguments = std::make_shared<Arguments>();
  TokenizeOptions &options = arguments->options;
  CLI::App *command = app.add_subcommand(
      "tokenize", "make a token file from text files, JSON lines and folders");
  command
      ->add_option("inputs", options.inputs,
                   "files, and folders (recursively, in sorted order)")
      ->required();
  command
      ->add_option("--tokenizer", arguments->tokenizer,
                   "bytes, or a SentencePiece model (FILE.model)")
      ->required();
  command->add_option("--out", arguments->out, "the token file to write")
      ->required();
  command
      ->add_option("--format", arguments->format,
                   "auto (JSON lines in *.jsonl and *.ndjson, else text: a "
                   "file is a document), text or jsonl")
      ->capture_default_str();
  command
      ->add_option("--field", options.field,
                   "field of a JSON line that holds the document")
      ->capture_default_str();
  command->add_flag("--bos", options.bos,
                    "begin each document with the tokenizer's mark");
  command->add_flag("--append-eos", options.eos,
                    "end each document with the tokenizer's mark");
  command->add_flag("--skip-bad", options.skipBad,
                    "count and leave out what is not valid instead of failing");
  command
      ->add_option("--threads", options.threads,
                   "worker threads; 0: one a processor")
      ->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}
