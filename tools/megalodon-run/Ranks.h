// Which ranks this process is: one, several virtual ones, or one of a
// launcher's job.
#pragma once
#include "runtime/parallel/Communicator.h"
#include "runtime/session.h"

namespace CLI {
class App;
class Option;
} // namespace CLI

namespace megalodon {

struct RankOptions {
  CLI::Option *virtualGiven = nullptr;
  int virtualRanks = 0; ///< 0: as many as the plan's mesh has
  double timeout = 0;   ///< seconds; 0: not given
};

/// --virtual-ranks and --timeout.
void addRankOptions(CLI::App &command, RankOptions &options);

/// Runs body() on each rank that lives in this process: on virtual ones if they
/// were asked for, else on this process's rank of a launcher's job, else on the
/// only one. `session` receives the share of the processors when its number of
/// threads was left open. An error of a virtual rank names the rank; an error
/// of a rank of a job ends the job.
void onRanks(const RankOptions &options, const plan::LoadedPlan &plan,
             SessionOptions &session, const std::function<void(World &)> &body);

} // namespace megalodon
