#include "runtime/generate/Evaluate.h"
#include "runtime/core/Error.h"
#include "runtime/io/SpreadTensor.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Metrics.h"
#include "runtime/train/Tensors.h"
#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>

using namespace megalodon;
using Clock = std::chrono::steady_clock;

/// Bucket 0: one token of context; bucket i: from 2^(i-1) + 1 to 2^i tokens.
static void addToBucket(std::vector<PositionLoss> &positions, int64_t context,
                        double nll) {
  size_t bucket = 0;
  while ((int64_t(1) << bucket) < context)
    ++bucket;
  while (positions.size() <= bucket) {
    int64_t last = int64_t(1) << positions.size();
    positions.push_back({positions.empty() ? 1 : last / 2 + 1, last, 0, 0});
  }
  positions[bucket].tokens += 1;
  positions[bucket].nll += nll;
}

namespace {
/// The function `score` on one row of one call, whichever ranks hold it.
class Scorer {
public:
  explicit Scorer(Session &session)
      : session(session), function(session.function("score")) {}

  int64_t length() const { return of().length; }
  void begin() {
    session.resetState(function);
    session.resetOptionalInputs(function);
  }
  void resetState() { session.resetState(function); }

  bool isPacked() const { return session.plan().isPacked(of()); }

  /// Reads `count` tokens, their targets and, where rows are packed, which of
  /// them begin a document; leaves their losses, the same on all ranks.
  /// `step` of training is for errors.
  void score(const int32_t *tokens, const int32_t *targets,
             const int32_t *resets, int64_t count, double *losses,
             int64_t step);

private:
  const plan::Function &of() const {
    return session.plan().functions[function];
  }
  void fill(const char *name, CallShape shape, const int32_t *ids,
            int64_t count, int32_t padding);

  Session &session;
  size_t function;
};
} // namespace

void Scorer::fill(const char *name, CallShape shape, const int32_t *ids,
                  int64_t count, int32_t padding) {
  const SpreadTensor tensor = spreadVariable(session, function, name, shape);
  if (!tensor.box())
    return;
  auto *into = reinterpret_cast<int32_t *>(tensor.part.overwrite());
  std::fill_n(into, tensor.box()->elements(), padding);
  // The stream is the first row of the call.
  forEachRun({1, count}, *tensor.box(),
             [&](int64_t from, int64_t to, int64_t run) {
               std::copy_n(ids + from, run, into + to);
             });
}

void Scorer::score(const int32_t *tokens, const int32_t *targets,
                   const int32_t *resets, int64_t count, double *losses,
                   int64_t step) {
  // Ranks that share rows or tokens need calls that divide evenly: what the
  // stream does not fill is padding that no loss counts.
  const CallShape shape{of().dataParts * of().microbatches(),
                        of().chunkParts > 1 ? of().length : count};
  fill("tokens", shape, tokens, count, 0);
  fill("targets", shape, targets, count, kIgnoredTarget);
  if (isPacked())
    fill(plan::kResets, shape, resets, count, 0);
  session.run(function, shape);
  const SpreadTensor nll = spreadVariable(session, function, "nll", shape);
  std::fill_n(losses, count, 0);
  // Of ranks that hold the same losses the first one gives them.
  auto holder = std::find(nll.boxes.begin(), nll.boxes.end(), nll.box());
  if (nll.box() && holder - nll.boxes.begin() == nll.rank)
    forEachRun({1, count}, *nll.box(),
               [&](int64_t to, int64_t from, int64_t run) {
                 for (int64_t i = 0; i < run; ++i)
                   losses[to + i] = loadNumber(nll.part, from + i);
               });
  World &world = session.world();
  if (world.size() > 1)
    world.all()
        .allReduce(losses, size_t(count), ElementType::F64)
        ->wait({"adding up losses of an evaluation", step}, world.timeout);
}

Evaluation megalodon::evaluate(Session &session, const Corpus &corpus,
                               const EvaluateOptions &options) {
  Scorer scorer(session);
  const int64_t length = scorer.length();
  int64_t total = corpus.size() - 1;
  if (options.maxTokens > 0)
    total = std::min(total, options.maxTokens);
  if (total < 1)
    throw Error(str("evaluation data: expected at least 2 tokens, got ",
                    corpus.size()));

  Evaluation result;
  result.tokens = total;
  scorer.begin();
  std::vector<int32_t> window(length + 1), targets(length), resets(length);
  std::vector<char> starts(length + 1, 0);
  std::vector<double> losses(length);
  const int64_t most = session.plan().context; // 0: state has no end
  int64_t first = 0;                           // where the context began
  int32_t before = 0; // the byte in front of the window, for the trigram model
  // When each of the latest calls began, so that the rate at the end needs no
  // list of all calls.
  std::deque<std::pair<int64_t, Clock::time_point>> recent;
  Clock::time_point start = Clock::now();
  for (int64_t position = 0; position < total;) {
    if (options.resetEvery > 0 && position - first == options.resetEvery) {
      scorer.resetState();
      first = position;
    }
    int64_t count = std::min(length, total - position);
    if (options.resetEvery > 0)
      count = std::min(count, first + options.resetEvery - position);
    recent.push_back({position, Clock::now()});
    while (recent.size() > 1 && recent[1].first <= total - kRateTokens)
      recent.pop_front();
    corpus.read(position, count + 1, window.data());
    if (scorer.isPacked())
      corpus.markDocuments(position, count + 1, starts.data());
    // Tokens of the call that go on with the state.
    const int64_t run =
        std::find(starts.begin(), starts.begin() + count, 1) - starts.begin();
    if (options.resetState || (most > 0 && position - first + run > most)) {
      scorer.resetState();
      first = position;
    }
    for (int64_t i = 0; i < count; ++i) {
      resets[i] = starts[i];
      targets[i] = starts[i + 1] ? kIgnoredTarget : window[i + 1];
    }
    scorer.score(window.data(), targets.data(), resets.data(), count,
                 losses.data(), options.step);
    for (int64_t i = 0; i < count; ++i) {
      if (starts[i])
        first = position + i;
      if (targets[i] == kIgnoredTarget) {
        --result.tokens; // nothing follows a document's last token
        continue;
      }
      const double loss = losses[i];
      if (!std::isfinite(loss))
        throw Error(str("token ", position + i + 1,
                        ": expected a finite loss, got ", loss));
      result.nll += loss;
      addToBucket(result.positions, position - first + i + 1, loss);
      if (options.trigram)
        result.trigramNll -= std::log(options.trigram->probability(
            i > 0 ? window[i - 1] : before, window[i], window[i + 1]));
    }
    before = window[count - 1];
    if (options.sink)
      options.sink(losses.data(), count);
    position += count;
    if (result.residentFirst == 0)
      result.residentFirst = residentBytes();
    if (result.firstRate == 0 && (position >= kRateTokens || position == total))
      result.firstRate =
          static_cast<double>(position) /
          std::chrono::duration<double>(Clock::now() - start).count();
  }
  if (result.tokens == 0)
    throw Error("evaluation data: expected a document of at least 2 tokens, "
                "got none");
  Clock::time_point end = Clock::now();
  result.seconds = std::chrono::duration<double>(end - start).count();
  result.lastRate =
      static_cast<double>(total - recent.front().first) /
      std::chrono::duration<double>(end - recent.front().second).count();
  result.residentLast = residentBytes();
  return result;
}
