// The training loop: data, gradient accumulation, the update, metrics,
// checkpoints, and stopping at the right moment.
#pragma once
#include "runtime/core/Trust.h"
#include "runtime/plan/Trace.h"
#include "runtime/session.h"
#include "runtime/train/Data.h"
#include "runtime/train/Schedule.h"

namespace megalodon {

struct TrainOptions {
  std::vector<std::string> data;       ///< files and folders
  std::vector<std::string> validation; ///< explicit held-out files and folders
  double validationFraction = 0;       ///< or a part of the files of `data`
  TokenType dataType = TokenType::Automatic;
  std::shared_ptr<const Tokenizer> tokenizer; ///< of text; null: bytes
  Order order = Order::Stream;
  uint64_t seed = 1;

  int64_t steps = 0;
  int64_t accumulate = 1; ///< microbatches an update
  Schedule schedule;      ///< total 0: steps
  std::string weights;    ///< start from these instead of fresh parameters

  std::string out;
  bool resume = false;
  Trust trust = Trust::Verify; ///< of checkpoint and weights
  int64_t saveEvery = 500;     ///< 0: only at the end
  int64_t keep = 3;            ///< 0: all checkpoints
  int64_t logEvery = 10;
  int64_t evalEvery = 0;        ///< 0: never
  int64_t evalTokens = 1 << 16; ///< 0: all validation tokens

  /// The machine's multiply-add rate, for the share of peak; 0: measured at the
  /// start, which takes about a second.
  double peakFlops = 0;

  /// Receives what this rank does in the last update; null: nothing.
  plan::Trace *trace = nullptr;
};

enum class TrainOutcome { Finished, Interrupted };

/// Trains until step options.steps, or until SIGTERM, SIGINT or SIGUSR1, after
/// which it saves and returns. Whatever it says goes to stderr. Throws Error;
/// then the checkpoints are as they were. Called by all ranks of the session
/// with the same options; a save on a signal needs all of them within
/// kStopGrace of each other (or the time of a step, where that is longer).
TrainOutcome train(Session &session, const TrainOptions &options);

} // namespace megalodon
