#include "runtime/train/Trainer.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/core/FolderLock.h"
#include "runtime/device.h"
#include "runtime/generate/Evaluate.h"
#include "runtime/io/Weights.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Agreement.h"
#include "runtime/train/Checkpoint.h"
#include "runtime/train/Initialize.h"
#include "runtime/train/Metrics.h"
#include "runtime/train/Tensors.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace megalodon;
using nlohmann::json;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

volatile std::sig_atomic_t stopSignal = 0;
volatile std::sig_atomic_t stopSecond = 0; ///< when it came, monotonic clock

/// How long waits go on after the signal, in milliseconds.
std::atomic<int64_t> stopGrace{0};
static_assert(std::atomic<int64_t>::is_always_lock_free);

/// The first signal asks the loop to stop. A later one kills, but launchers
/// signal both a process and its group, so one within two seconds is the same.
void askToStop(int signal) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  auto second = static_cast<std::sig_atomic_t>(now.tv_sec);
  if (stopSignal == 0) {
    stopSignal = signal;
    stopSecond = second;
    requestStop(std::chrono::milliseconds(stopGrace));
  } else if (second - stopSecond >= 2) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

/// The signals that ask to save and stop. mpirun hands SIGUSR1 on to its ranks
/// and lets them live; after SIGTERM and SIGINT it kills them.
constexpr int kStopSignals[] = {SIGTERM, SIGINT, SIGUSR1};

const char *signalName(int signal) {
  return signal == SIGTERM  ? "SIGTERM"
         : signal == SIGINT ? "SIGINT"
                            : "SIGUSR1";
}

/// While alive, kStopSignals go to askToStop(). A file that grows beyond its
/// limit is an error of the write instead of a deadly signal. The handlers are
/// the process's, and virtual ranks share one: the first guard installs them,
/// the last takes them away.
class SignalGuard {
public:
  explicit SignalGuard(std::chrono::milliseconds grace) {
    std::lock_guard lock(mutex);
    if (guards++ > 0)
      return;
    stopSignal = 0;
    stopGrace = grace.count();
    clearStop();
    struct sigaction stop = {};
    stop.sa_handler = askToStop;
    stop.sa_flags = SA_RESTART;
    for (size_t i = 0; i < std::size(kStopSignals); ++i)
      sigaction(kStopSignals[i], &stop, &oldStop[i]);
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &ignore, &oldLimit);
  }
  ~SignalGuard() {
    std::lock_guard lock(mutex);
    if (--guards > 0)
      return;
    for (size_t i = 0; i < std::size(kStopSignals); ++i)
      sigaction(kStopSignals[i], &oldStop[i], nullptr);
    sigaction(SIGXFSZ, &oldLimit, nullptr);
  }
  SignalGuard(const SignalGuard &) = delete;
  SignalGuard &operator=(const SignalGuard &) = delete;

private:
  inline static std::mutex mutex;
  inline static int guards = 0;
  inline static struct sigaction oldStop[std::size(kStopSignals)], oldLimit;
};

/// Every rank runs the same loop on its parts of the same calls; rank 0 also
/// writes and speaks for all.
class Trainer {
public:
  Trainer(Session &session, const TrainOptions &options);
  TrainOutcome run();

private:
  void verifyOptions() const;
  void verifySameEverywhere();
  void begin();
  void resumeFrom(const Checkpoint &checkpoint);
  int agreedSignal();
  void takeTime(const std::function<void()> &body);
  /// How long a wait in a step may go on after a signal: a rank may be in the
  /// middle of a slow one.
  std::chrono::milliseconds graceOfSteps() const {
    return kStopGrace + 2 * slowestStep;
  }
  void setNumber(const char *name, double value);
  double number(const char *name);
  void step();
  double compute(int64_t microbatch);
  void load(int64_t call);
  void validate();
  void save();
  void tidy();
  void report(double loss, double gradientNorm, double seconds);
  json record() const;
  bool isPacked() const { return plan.isPacked(plan.functions[function]); }
  [[noreturn]] void stopAtNonFinite(const char *what, double value);
  CheckpointTensors tensors();
  WaitContext context(const char *operation) const {
    return {operation, current + 1};
  }

  Session &session;
  World &world;
  const bool first; ///< rank 0
  TrainOptions options;
  const plan::LoadedPlan &plan;
  size_t function;
  int64_t batch, length;
  DataSplit split;
  Corpus corpus;
  std::optional<Corpus> heldOut;
  BatchOrder order;
  fs::path out;
  std::vector<SpreadTensor> state;

  int64_t current = 0; ///< updates done
  int64_t saved = -1;  ///< step of the newest checkpoint
  int64_t loaded = -1; ///< call whose tokens and targets the inputs hold
  std::optional<Metrics> metrics;
  bool live;
  int64_t timedSteps = 0;
  double timedSeconds = 0; ///< training only: neither evaluation nor saving
  std::chrono::milliseconds slowestStep{0};
};

} // namespace

static DataSplit splitOf(const TrainOptions &options) {
  std::vector<DataFile> files = listDataFiles(options.data);
  if (options.validation.empty())
    return splitDataFiles(files, options.validationFraction);
  if (options.validationFraction > 0)
    throw Error("--validation and --validation-fraction: expected one of them, "
                "got both");
  return {files, listDataFiles(options.validation)};
}

static int64_t usableIds(const plan::LoadedPlan &plan) {
  return std::min(plan.vocabSize, plan.outputSize);
}

/// A NaN without its sign, which means nothing.
static std::string numberText(double value) {
  return std::isnan(value) ? "nan" : str(value);
}

static double seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

Trainer::Trainer(Session &session, const TrainOptions &given)
    : session(session), world(session.world()), first(world.rank() == 0),
      options(given), plan(session.plan()),
      function(session.function("train_step")),
      batch(plan.functions[function].batch),
      length(plan.functions[function].length), split(splitOf(options)),
      corpus(split.training, options.dataType, usableIds(plan),
             options.tokenizer.get()),
      order(corpus, options.order, options.seed, batch, length, isPacked()),
      out(options.out), live(first && isatty(STDERR_FILENO)) {
  if (options.schedule.total == 0)
    options.schedule.total = options.steps;
  verifyOptions();
  if (!split.validation.empty())
    heldOut.emplace(split.validation, options.dataType, usableIds(plan),
                    options.tokenizer.get());
  if (options.order != Order::Random)
    for (uint32_t index : plan.functions[function].inputs)
      if (plan.variables[index].role == plan::Role::State)
        state.push_back(
            spreadVariable(session, function, plan.variables[index].name));
}

void Trainer::verifyOptions() const {
  auto atLeast = [](const char *name, int64_t least, int64_t value) {
    if (value < least)
      throw Error(str(name, ": expected at least ", least, ", got ", value));
  };
  atLeast("--steps", 1, options.steps);
  atLeast("--accumulate", 1, options.accumulate);
  atLeast("--save-every", 0, options.saveEvery);
  atLeast("--keep", 0, options.keep);
  atLeast("--log-every", 1, options.logEvery);
  atLeast("--eval-every", 0, options.evalEvery);
  atLeast("--eval-tokens", 0, options.evalTokens);
  options.schedule.verify();
  if (!plan.functions[function].hasUpdate())
    throw Error(str(plan.path, ": function 'train_step': expected an update "
                               "after the gradients, got none"));
  if (options.out.empty())
    throw Error("--out: expected a folder, got nothing");
  if (plan.context > 0 && options.order != Order::Random &&
      corpus.longestDocument() > plan.context)
    throw Error(str(plan.path,
                    ": training data: expected documents of at most ",
                    plan.context, " tokens (max_seq_len), got one of ",
                    corpus.longestDocument(),
                    "; train with --order random, or cut documents"));
  if (options.evalEvery > 0 && split.validation.empty())
    throw Error("--eval-every: expected validation data: give --validation or "
                "--validation-fraction");
  if (options.evalEvery > 0 && !session.hasFunction("score"))
    throw Error(str(plan.path, ": --eval-every needs the function score: "
                               "compile with --entry=train:...,score:..."));
}

json Trainer::record() const {
  const Schedule &schedule = options.schedule;
  const char *kinds[] = {"linear", "cosine", "constant"};
  const BatchOrder::Position position =
      order.position(current * options.accumulate);
  return {{"seed", options.seed},
          {"order", orderName(options.order)},
          {"batch", batch},
          {"length", length},
          {"accumulate", options.accumulate},
          {"data",
           {{"tokens", corpus.size()},
            {"fingerprint", str(std::hex, corpus.fingerprint())}}},
          {"next_call", current * options.accumulate},
          {"position", {{"epoch", position.epoch}, {"index", position.index}}},
          {"model", {{"config", plan.config}, {"precision", plan.precision}}},
          {"plan", plan.digest},
          {"mesh", plan::meshText(plan.mesh)},
          {"schedule",
           {{"kind", kinds[static_cast<int>(schedule.kind)]},
            {"lr", schedule.peak},
            {"warmup", schedule.warmup},
            {"total_steps", schedule.total},
            {"lr_init_ratio", schedule.initRatio},
            {"lr_end_ratio", schedule.endRatio},
            {"cycles", schedule.cycles}}}};
}

/// Ranks are started one by one, perhaps on several machines: they may have
/// been given different plans, options or data.
void Trainer::verifySameEverywhere() {
  json own = record();
  own.erase("mesh"); // the session compared it
  own["steps"] = options.steps;
  own["resume"] = options.resume;
  own["save_every"] = options.saveEvery;
  own["eval_every"] = options.evalEvery;
  own["eval_tokens"] = options.evalTokens;
  own["weights"] = options.weights;
  own["validation_data"] =
      heldOut ? str(std::hex, heldOut->fingerprint()) : std::string();
  const std::vector<std::string> all = gatherTexts(
      world, {"comparing what the ranks were told", -1}, own.dump());
  const json wanted = json::parse(all[0]);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    const json got = json::parse(all[rank]);
    for (const auto &item : wanted.items())
      if (got.at(item.key()) != item.value())
        throw Error(str("rank ", rank, ": ", item.key(), ": expected ",
                        item.value().dump(), " as on rank 0, got ",
                        got.at(item.key()).dump()));
  }
}

CheckpointTensors Trainer::tensors() {
  CheckpointTensors all{spreadVariables(session, plan::Role::Parameter),
                        spreadVariables(session, plan::Role::FirstMoment),
                        state};
  for (SpreadTensor &moment :
       spreadVariables(session, plan::Role::SecondMoment))
    all.optimizer.push_back(std::move(moment));
  return all;
}

/// Sets an input where this rank holds it.
void Trainer::setNumber(const char *name, double value) {
  if (spreadVariable(session, function, name).box())
    storeNumber(session.variable(function, name), 0, value);
}

/// An output, which only one stage of a pipeline may have.
double Trainer::number(const char *name) {
  const SpreadTensor tensor = spreadVariable(session, function, name);
  double value = tensor.box() ? loadNumber(tensor.part, 0) : 0;
  auto holder = std::find_if(tensor.boxes.begin(), tensor.boxes.end(),
                             [](auto &box) { return box.has_value(); });
  if (std::count(tensor.boxes.begin(), tensor.boxes.end(), std::nullopt))
    world.all()
        .broadcast(&value, sizeof(value), int(holder - tensor.boxes.begin()))
        ->wait(context("sharing a number of the step"), world.timeout);
  return value;
}

void Trainer::resumeFrom(const Checkpoint &checkpoint) {
  json record = readRecord(checkpoint.folder), wanted = this->record();
  std::string file = (fs::path(checkpoint.folder) / kRecordFile).string();
  auto found = [&](const char *field) -> const json & {
    return recordField(checkpoint.folder, record, field);
  };
  if (found("step") != checkpoint.step)
    throw Error(str(file, ": step: expected ", checkpoint.step,
                    " (the folder's name), got ", found("step").dump()));
  // What decides which tokens come next must be the same, else "resume" would
  // silently train something else.
  for (const char *field :
       {"model", "seed", "order", "batch", "length", "accumulate", "data"})
    if (found(field) != wanted.at(field))
      throw Error(str(file, ": ", field, ": expected ", wanted.at(field).dump(),
                      " as this command says, got ", found(field).dump()));
  current = checkpoint.step;
  wanted = this->record();
  for (const char *field : {"next_call", "position"})
    if (record.contains(field) && record.at(field) != wanted.at(field))
      throw Error(str(file, ": ", field, ": expected ", wanted.at(field).dump(),
                      " after step ", current, ", got ",
                      record.at(field).dump()));
  // Checkpoints of one rank did not say so once.
  const std::string alone = plan::meshText({}),
                    mesh = record.value("mesh", alone);
  // A plan for another mesh is another plan; that is said below.
  const bool sameMesh = mesh == wanted.at("mesh");
  for (const char *field : {"plan", "schedule"})
    if (first && found(field) != wanted.at(field) &&
        (sameMesh || std::string_view(field) != "plan"))
      std::fprintf(
          stderr,
          "note: %s: %s: was %s, is now %s: the run continues, but not "
          "as it would have without the change\n",
          file.c_str(), field, found(field).dump().c_str(),
          wanted.at(field).dump().c_str());
  if (first && !sameMesh)
    std::fprintf(stderr,
                 "note: %s: mesh: was %s, is now %s: the run continues with "
                 "the same data, equal up to rounding\n",
                 file.c_str(), mesh.c_str(),
                 wanted.at("mesh").get<std::string>().c_str());
  loadCheckpoint(checkpoint.folder, record, plan, tensors(), world,
                 options.trust);
  current = saved = checkpoint.step;
  if (first)
    std::fprintf(stderr, "resumed from %s\n", checkpoint.folder.c_str());
}

void Trainer::begin() {
  session.resetState(function);
  session.resetOptionalInputs(function);
  const WaitContext begins{"looking for checkpoints", -1};
  std::string step;
  together(world, begins, [&] {
    if (!first)
      return;
    removePartialFiles(options.out);
    if (std::optional<Checkpoint> found = newestCheckpoint(options.out))
      step = std::to_string(found->step);
  });
  // Rank 0 says which: a folder of several machines may look older on some.
  step = shareText(world, begins, step, 0);
  std::optional<Checkpoint> newest;
  if (!step.empty())
    newest = {std::stoll(step), (out / str("checkpoint-", step)).string()};
  if (newest && !options.resume)
    throw Error(
        str(newest->folder,
            " exists: continue it with --resume or choose another --out"));
  if (newest) {
    resumeFrom(*newest);
  } else {
    if (options.weights.empty())
      initializeParameters(session, options.seed);
    else
      loadWeights(options.weights, session, options.trust);
    for (const auto &moments :
         {session.firstMoments(), session.secondMoments()})
      for (const TensorView &tensor : moments)
        tensor.zero();
  }
  together(world, begins, [&] {
    if (first)
      metrics.emplace(out.string(), current);
    if (newest)
      tidy();
  });
}

void Trainer::stopAtNonFinite(const char *what, double value) {
  std::string culprit;
  auto search = [&](const TensorView &tensor) {
    int64_t element = culprit.empty() ? firstNonFinite(tensor) : -1;
    if (element >= 0)
      culprit =
          str(": tensor '", tensor.name, "' is ",
              numberText(loadNumber(tensor, element)), " at element ", element);
  };
  // A loss can only come from bad parameters or state; a gradient norm from bad
  // gradients, and the update has spread it already.
  bool beforeUpdate = std::string_view(what) == "loss";
  if (beforeUpdate) {
    for (const TensorView &tensor : session.parameters())
      search(tensor);
    for (const TensorView &tensor : session.inputs(function))
      search(tensor);
  }
  for (const plan::Variable &variable : plan.variables)
    if (variable.role == plan::Role::Gradient && variable.parameter >= 0)
      try {
        search(session.variable(function, variable.name));
      } catch (const Error &) {
        continue; // a gradient of another function
      }
  // The number is the same on all ranks, the culprit may be on one only.
  const std::vector<std::string> culprits = gatherTexts(
      world, context("looking for numbers that are not finite"), culprit);
  for (size_t rank = culprits.size(); rank-- > 0;)
    if (!culprits[rank].empty())
      culprit = culprits[rank] +
                (world.size() > 1 ? str(" of rank ", rank) : std::string());
  throw Error(str("step ", current + 1, ": ", what,
                  ": expected a finite number, got ", numberText(value),
                  culprit,
                  saved < 0 ? std::string("; nothing was saved")
                            : str("; the last checkpoint is of step ", saved)));
}

/// Puts a call's tokens and targets where its run finds them.
void Trainer::load(int64_t call) {
  const SpreadTensor tokens = spreadVariable(session, function, "tokens"),
                     targets = spreadVariable(session, function, "targets");
  std::optional<SpreadTensor> resets;
  if (isPacked())
    resets = spreadVariable(session, function, plan::kResets);
  auto ids = [](const SpreadTensor &tensor) {
    return tensor.box() ? reinterpret_cast<int32_t *>(tensor.part.overwrite())
                        : nullptr;
  };
  // Stages of a pipeline that hold neither may still ask where documents begin.
  const std::optional<Box> &box = tokens.box()    ? tokens.box()
                                  : targets.box() ? targets.box()
                                  : resets        ? resets->box()
                                                  : targets.box();
  if (box)
    order.read(call, *box, ids(tokens), ids(targets),
               resets ? ids(*resets) : nullptr);
  const SpreadTensor *const all[] = {&tokens, &targets,
                                     resets ? &*resets : nullptr};
  for (const SpreadTensor *tensor : all)
    if (tensor && tensor->box())
      tensor->part.flush();
  loaded = call;
}

double Trainer::compute(int64_t microbatch) {
  int64_t call = current * options.accumulate + microbatch;
  if (loaded != call)
    load(call);
  if (order.startsFresh(call))
    session.resetState(function);
  session.run(function, {}, Half::Compute, microbatch > 0,
              microbatch + 1 == options.accumulate);
  // A device that works on meanwhile gets the next call's tokens already.
  if (!session.device().isHost() &&
      call + 1 < options.steps * options.accumulate)
    load(call + 1);
  double loss = number("loss");
  if (!std::isfinite(loss))
    stopAtNonFinite("loss", loss);
  return loss;
}

void Trainer::step() {
  Clock::time_point start = Clock::now();
  session.setStep(current + 1);
  session.setTrace(current + 1 == options.steps ? options.trace : nullptr);
  setNumber("step", static_cast<double>(current + 1));
  setNumber("lr", options.schedule.rate(current));
  if (options.accumulate > 1)
    setNumber("loss_scale", 1.0 / static_cast<double>(options.accumulate));
  double loss = 0;
  for (int64_t i = 0; i < options.accumulate; ++i)
    loss += compute(i) / static_cast<double>(options.accumulate);
  session.run(function, {}, Half::Update);
  session.setTrace(nullptr);
  double gradientNorm = number("grad_norm");
  if (!std::isfinite(gradientNorm))
    stopAtNonFinite("gradient norm", gradientNorm);
  double took = seconds(Clock::now() - start);
  ++current;
  ++timedSteps;
  timedSeconds += took;
  slowestStep = std::max(
      slowestStep,
      std::chrono::milliseconds(static_cast<int64_t>(std::ceil(1000 * took))));
  report(loss, gradientNorm, took);
}

void Trainer::report(double loss, double gradientNorm, double took) {
  if (!first)
    return;
  double tokens = static_cast<double>(batch * length * options.accumulate);
  double flops = plan.functions[function].modelFlops *
                 static_cast<double>(options.accumulate);
  double rate = options.schedule.rate(current - 1),
         share = flops / took / (options.peakFlops * world.size());
  int64_t resident = residentBytes();
  metrics->add({{"step", current},
                {"loss", loss},
                {"grad_norm", gradientNorm},
                {"lr", rate},
                {"seconds", took},
                {"tokens_per_second", tokens / took},
                {"peak_share", share},
                {"resident_bytes", resident}});
  bool last = current == options.steps;
  if (!live && current % options.logEvery != 0 && !last)
    return;
  auto eta =
      static_cast<int64_t>(timedSeconds / static_cast<double>(timedSteps) *
                           static_cast<double>(options.steps - current));
  std::fprintf(stderr,
               "%sstep %lld/%lld  loss %.4f  %.0f tokens/s  %.1f%% of peak  "
               "%lld MiB  eta %lld:%02lld:%02lld%s",
               live ? "\r\033[K" : "", static_cast<long long>(current),
               static_cast<long long>(options.steps), loss, tokens / took,
               100 * share, static_cast<long long>(resident >> 20),
               static_cast<long long>(eta / 3600),
               static_cast<long long>(eta / 60 % 60),
               static_cast<long long>(eta % 60), live && !last ? "" : "\n");
}

void Trainer::validate() {
  EvaluateOptions evaluation;
  evaluation.maxTokens = options.evalTokens;
  evaluation.step = current;
  Evaluation result = evaluate(session, *heldOut, evaluation);
  if (!first)
    return;
  metrics->add({{"step", current},
                {"validation_loss", result.mean()},
                {"validation_tokens", result.tokens}});
  std::fprintf(stderr, "%sstep %lld  validation loss %.4f over %lld tokens\n",
               live ? "\r\033[K" : "", static_cast<long long>(current),
               result.mean(), static_cast<long long>(result.tokens));
}

void Trainer::save() {
  if (saved == current)
    return;
  const WaitContext saves{"saving a checkpoint", current};
  together(world, saves, [&] {
    if (first)
      metrics->sync();
  });
  const Checkpoint checkpoint =
      saveCheckpoint(options.out, current, tensors(), world, record());
  saved = current;
  // Said once it is durable, and not before: whoever reads this may count on
  // it.
  if (first)
    std::fprintf(stderr, "%ssaved %s\n", live ? "\r\033[K" : "",
                 checkpoint.folder.c_str());
  together(world, saves, [&] { tidy(); });
}

/// What follows a save and needs nothing but the folder: a run that was killed
/// in between leaves it to the next.
void Trainer::tidy() {
  if (!first)
    return;
  removeOldCheckpoints(options.out, options.keep);
  writeText((out / "loss.svg").string(), metrics->curve());
}

/// The signal that asked to stop, if any rank got one. All ranks come to the
/// same answer, so that none waits in a step that others do not begin.
int Trainer::agreedSignal() {
  int32_t signal = stopSignal;
  if (world.size() == 1)
    return signal;
  // Who was asked to stop knows that somebody counts the seconds, and may be
  // told of a rank that will not come.
  const bool asked = signal != 0;
  world.all()
      .allReduce(&signal, 1, ElementType::I32, Reduction::Max)
      ->wait(context(asked ? "agreeing to stop" : "agreeing to go on"),
             asked
                 ? std::min(world.timeout, std::max<std::chrono::milliseconds>(
                                               kStopGrace, slowestStep))
                 : world.timeout);
  if (signal != 0)
    clearStop(); // all are there, and what they do next may take its time
  return signal;
}

/// What may take longer than any step. A signal that came before it has set a
/// deadline already, which an agreement lifts.
void Trainer::takeTime(const std::function<void()> &body) {
  stopGrace = world.timeout.count();
  agreedSignal();
  body();
  stopGrace = graceOfSteps().count();
}

TrainOutcome Trainer::run() {
  SignalGuard signals(world.timeout);
  verifySameEverywhere();
  std::optional<FolderLock> lock;
  together(world, {"locking the folder", -1}, [&] {
    if (!first)
      return;
    createFolders(options.out);
    lock.emplace(options.out);
  });
  begin();
  if (first && options.peakFlops == 0) {
    options.peakFlops = session.device().measure().flopsPerSecond;
  }
  if (first)
    std::fprintf(stderr,
                 "training on %lld tokens of %zu files, %lld rows of %lld "
                 "tokens, %lld parameters\n",
                 static_cast<long long>(corpus.size()), split.training.size(),
                 static_cast<long long>(batch), static_cast<long long>(length),
                 static_cast<long long>(plan.parameterCount()));
  int signal = 0;
  while (current < options.steps && (signal = agreedSignal()) == 0) {
    step();
    const bool last = current == options.steps;
    auto due = [&](int64_t every) {
      return every > 0 && (current % every == 0 || last);
    };
    const bool saves = last || due(options.saveEvery);
    if (!due(options.evalEvery) && !saves) {
      stopGrace = graceOfSteps().count();
      continue;
    }
    takeTime([&] {
      if (due(options.evalEvery))
        validate();
      if (saves)
        save();
    });
  }
  if (current >= options.steps)
    return TrainOutcome::Finished;
  stopGrace = world.timeout.count();
  save();
  if (first)
    std::fprintf(
        stderr,
        "%sstopped by %s after step %lld, saved; continue with --resume\n",
        live ? "\n" : "", signalName(signal), static_cast<long long>(current));
  return TrainOutcome::Interrupted;
}

TrainOutcome megalodon::train(Session &session, const TrainOptions &options) {
  return Trainer(session, options).run();
}
