#include "runtime/generate/Evaluate.h"
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Metrics.h"
#include "runtime/train/Tensors.h"
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

Evaluation megalodon::evaluate(Session &session, const Corpus &corpus,
                               const EvaluateOptions &options) {
  size_t function = session.function("score");
  int64_t length = session.plan().functions[function].length;
  int64_t total = corpus.size() - 1;
  if (options.maxTokens > 0)
    total = std::min(total, options.maxTokens);
  if (total < 1)
    throw Error(str("evaluation data: expected at least 2 tokens, got ",
                    corpus.size()));

  Evaluation result;
  result.tokens = total;
  session.resetState(function);
  session.resetOptionalInputs(function);
  std::vector<int32_t> window(length + 1);
  std::vector<double> losses(length);
  int32_t before = 0; // the byte in front of the window, for the trigram model
  // When each of the latest calls began, so that the rate at the end needs no
  // list of all calls.
  std::deque<std::pair<int64_t, Clock::time_point>> recent;
  Clock::time_point start = Clock::now();
  for (int64_t position = 0; position < total;) {
    int64_t count = std::min(length, total - position);
    recent.push_back({position, Clock::now()});
    while (recent.size() > 1 && recent[1].first <= total - kRateTokens)
      recent.pop_front();
    corpus.read(position, count + 1, window.data());
    CallShape shape{1, count};
    std::memcpy(session.variable(function, "tokens", shape).data, window.data(),
                count * sizeof(int32_t));
    std::memcpy(session.variable(function, "targets", shape).data,
                window.data() + 1, count * sizeof(int32_t));
    if (options.resetState)
      session.resetState(function);
    session.run(function, shape);
    TensorView nll = session.variable(function, "nll", shape);
    for (int64_t i = 0; i < count; ++i) {
      double loss = losses[i] = loadNumber(nll, i);
      if (!std::isfinite(loss))
        throw Error(str("token ", position + i + 1,
                        ": expected a finite loss, got ", loss));
      result.nll += loss;
      addToBucket(result.positions, (options.resetState ? i : position + i) + 1,
                  loss);
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
  Clock::time_point end = Clock::now();
  result.seconds = std::chrono::duration<double>(end - start).count();
  result.lastRate =
      static_cast<double>(total - recent.front().first) /
      std::chrono::duration<double>(end - recent.front().second).count();
  result.residentLast = residentBytes();
  return result;
}
