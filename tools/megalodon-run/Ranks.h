// Which ranks this process is: one, several virtual ones, or one of a
// launcher's job.
#pragma once
#include "runtime/parallel/Communicator.h"
#include "runtime/session.h"

namespace CLI {
class App;
} // namespace CLI

namespace megalodon {

struct RankOptions {
  int virtualRanks = 0; ///< 0: not given
  double timeout = 0;   ///< seconds; 0: not given
};

/// --virtual-ranks and --timeout.
void addRankOptions(CLI::App &command, RankOptions &options);

/// Runs body() on each rank that lives in this process. `session` receives the
/// share of the processors when its number of threads was left open. An error
/// names the rank.
void onRanks(const RankOptions &options, SessionOptions &session,
             const std::function<void(World &)> &body);

} // namespace megalodon
