// Measures a model on a stream of tokens: the loss of every token given all
// before it, whole and by position in context.
#pragma once
#include "runtime/generate/Trigram.h"
#include "runtime/session.h"
#include "runtime/train/Data.h"
#include <functional>

namespace megalodon {

struct EvaluateOptions {
  int64_t maxTokens = 0;   ///< predict at most this many tokens; 0 = all
  bool resetState = false; ///< forget everything before each call
  int64_t resetEvery = 0;  ///< forget everything after so many tokens; 0: never
  int64_t step = -1;       ///< of training, for errors; negative: none
  const Trigram *trigram = nullptr; ///< measured on the same bytes
  /// Called with the losses of each call, in order.
  std::function<void(const double *losses, int64_t count)> sink;
};

/// Tokens with `first` to `last` tokens of context.
struct PositionLoss {
  int64_t first, last, tokens;
  double nll; ///< sum
};

struct Evaluation {
  int64_t tokens = 0;
  double nll = 0;        ///< sum of the natural-log losses
  double trigramNll = 0; ///< likewise of the trigram model
  std::vector<PositionLoss> positions;
  double seconds = 0;
  double firstRate = 0, lastRate = 0; ///< tokens/s over the first and last
                                      ///< kRateTokens tokens (or all, if fewer)
  int64_t residentFirst = 0,
          residentLast = 0; ///< bytes after the first call and at the end

  double mean() const { return nll / static_cast<double>(tokens); }
};

inline constexpr int64_t kRateTokens = 65536;

/// Runs the function `score` over the corpus, one row, state carried from call
/// to call; where it cannot hold the next call it starts afresh. A call ends
/// where `resetEvery` wants the next one to start afresh. Called by all ranks;
/// the result is the same on all of them, but for times and memory.
Evaluation evaluate(Session &session, const Corpus &corpus,
                    const EvaluateOptions &options);

} // namespace megalodon
