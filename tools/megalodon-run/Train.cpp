// megalodon-run train: trains a model from data files and writes checkpoints.
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Trainer.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/Ranks.h"
#include "tools/megalodon-run/TraceFile.h"
#include "tools/megalodon-run/TrustOption.h"
#include <CLI/CLI.hpp>
#include <algorithm>

using namespace megalodon;

namespace {
struct Arguments {
  std::string plan, dataType = "auto", tokenizer, order, schedule = "linear",
                    traceFile;
  int64_t warmup = -1;
  TrainOptions options;
  SessionOptions session;
  RankOptions ranks;
};
} // namespace

void megalodon::addTrain(CLI::App &app) {
  auto arguments = std::make_shared<Arguments>();
  TrainOptions &options = arguments->options;
  CLI::App *command = app.add_subcommand(
      "train",
      "train a model; ends with exit code 0 when all steps are done, or after "
      "SIGTERM, SIGINT or SIGUSR1 when a checkpoint is saved");
  command
      ->add_option("plan", arguments->plan, "plan with the function train_step")
      ->required();
  command->add_option("--data", options.data, "files and folders to train on")
      ->required();
  command->add_option("--validation", options.validation,
                      "held-out files and folders");
  command->add_option("--validation-fraction", options.validationFraction,
                      "hold out about this fraction of the files of --data, "
                      "chosen by their names");
  command
      ->add_option("--data-type", arguments->dataType,
                   "auto (token files, token ids in *.u16 and *.u32, else "
                   "text), bytes, uint16 or uint32")
      ->capture_default_str();
  command->add_option("--tokenizer", arguments->tokenizer,
                      "tokenizer of text files: bytes (default) or a "
                      "SentencePiece model (FILE.model)");
  command->add_option(
      "--order", arguments->order,
      "stream (each row reads on where it stopped, with carried "
      "state; the default), documents (the same over documents in an "
      "order drawn anew for each epoch) or random (windows, fresh "
      "state; the default of a plan whose sequences have an end)");
  command->add_option("--steps", options.steps, "train until this update")
      ->required();
  command
      ->add_option("--out", options.out,
                   "folder for checkpoints, metrics.jsonl and loss.svg")
      ->required();
  command->add_flag(
      "--resume", options.resume,
      "continue from the newest checkpoint in --out, if there is one");
  addTrustOption(*command, options.trust);
  command->add_option("--weights", options.weights,
                      "start from these weights instead of fresh ones");
  command
      ->add_option("--seed", options.seed,
                   "seed of the initial weights and the data order")
      ->capture_default_str();
  command
      ->add_option("--accumulate", options.accumulate, "microbatches an update")
      ->capture_default_str();
  command
      ->add_option("--schedule", arguments->schedule,
                   "linear, cosine or constant")
      ->capture_default_str();
  command->add_option("--lr", options.schedule.peak, "largest learning rate")
      ->capture_default_str();
  command->add_option(
      "--warmup", arguments->warmup,
      "updates of warmup (default: a tenth of all, at most 2000)");
  command
      ->add_option("--lr-init-ratio", options.schedule.initRatio,
                   "first learning rate as a fraction of --lr")
      ->capture_default_str();
  command
      ->add_option("--lr-end-ratio", options.schedule.endRatio,
                   "last learning rate as a fraction of --lr")
      ->capture_default_str();
  command
      ->add_option("--cycles", options.schedule.cycles,
                   "half cosines until the end")
      ->capture_default_str();
  command->add_option("--total-steps", options.schedule.total,
                      "updates the schedule is made for (default: --steps)");
  command
      ->add_option("--save-every", options.saveEvery,
                   "save after so many updates; 0: only at the end")
      ->capture_default_str();
  command
      ->add_option("--keep", options.keep,
                   "keep the newest checkpoints; 0: all")
      ->capture_default_str();
  command
      ->add_option("--log-every", options.logEvery,
                   "a line on stderr after so many updates")
      ->capture_default_str();
  command
      ->add_option("--eval-every", options.evalEvery,
                   "validate after so many updates; 0: never")
      ->capture_default_str();
  command
      ->add_option("--eval-tokens", options.evalTokens,
                   "validate on so many tokens; 0: all")
      ->capture_default_str();
  command->add_option("--gpu", arguments->session.gpu,
                      "GPU of a plan for GPUs (default: the ranks of a machine "
                      "take its GPUs in turn)");
  command
      ->add_option("--threads", arguments->session.threads,
                   "worker threads; 0: one a processor")
      ->capture_default_str();
  command->add_option("--peak-flops", options.peakFlops,
                      "floating-point operations a second the share of peak "
                      "refers to; 0: measure");
  command->add_option("--trace", arguments->traceFile,
                      "write what every rank did in the last update, and when, "
                      "here (JSON for Perfetto)");
  addRankOptions(*command, arguments->ranks);
  command->callback([arguments] {
    TrainOptions &options = arguments->options;
    options.dataType = parseTokenType(arguments->dataType);
    if (!arguments->tokenizer.empty())
      options.tokenizer = Tokenizer::open(arguments->tokenizer);
    options.schedule.kind = parseScheduleKind(arguments->schedule);
    int64_t total =
        options.schedule.total > 0 ? options.schedule.total : options.steps;
    options.schedule.warmup = arguments->warmup >= 0
                                  ? arguments->warmup
                                  : std::min<int64_t>(2000, total / 10);
    auto plan = plan::LoadedPlan::open(arguments->plan, options.trust);
    // Packed documents end by themselves.
    const bool ends =
        plan->context > 0 &&
        !std::any_of(plan->functions.begin(), plan->functions.end(),
                     [&](const plan::Function &function) {
                       return function.name == "train_step" &&
                              plan->isPacked(function);
                     });
    options.order = !arguments->order.empty() ? parseOrder(arguments->order)
                    : ends                    ? Order::Random
                                              : Order::Stream;
    if (ends && options.order != Order::Random)
      throw Error(str(plan->path,
                      ": --order: a stream has no end, but a "
                      "sequence at most ",
                      plan->context,
                      " tokens (max_seq_len); train with --order random, or "
                      "compile with --packed"));
    onRanks(arguments->ranks, *plan, arguments->session, [&](World &world) {
      Session session(plan, arguments->session, world);
      TrainOptions ofRank = options;
      plan::Trace trace;
      if (!arguments->traceFile.empty())
        ofRank.trace = &trace;
      const TrainOutcome outcome = train(session, ofRank);
      if (ofRank.trace && outcome == TrainOutcome::Finished)
        writeTrace(arguments->traceFile, trace, session);
    });
  });
}
