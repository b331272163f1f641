#include "tools/megalodon-run/Ranks.h"
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include <CLI/CLI.hpp>
#include <iostream>
#include <thread>

using namespace megalodon;

void megalodon::addRankOptions(CLI::App &command, RankOptions &options) {
  options.virtualGiven =
      command
          .add_option("--virtual-ranks", options.virtualRanks,
                      "run all ranks of the plan's mesh in this process, a "
                      "thread each; a number must be the mesh's")
          ->expected(0, 1)
          ->default_str("0");
  command.add_option("--timeout", options.timeout,
                     "seconds a rank waits for another one before it gives up "
                     "(default: 300, or MEGALODON_TIMEOUT)");
}

void megalodon::onRanks(const RankOptions &options,
                        const plan::LoadedPlan &plan, SessionOptions &session,
                        const std::function<void(World &)> &body) {
  const bool isVirtual = options.virtualGiven && options.virtualGiven->count();
  if (options.virtualRanks < 0)
    throw Error(str("--virtual-ranks: expected at least 1, got ",
                    options.virtualRanks));
  if (options.timeout < 0)
    throw Error(str("--timeout: expected seconds, got ", options.timeout));
  auto run = [&](World &world) {
    if (options.timeout > 0)
      world.timeout = std::chrono::milliseconds(
          static_cast<int64_t>(options.timeout * 1000));
    body(world);
  };
  if (isVirtual) {
    const int ranks =
        options.virtualRanks ? options.virtualRanks : plan.mesh.ranks();
    if (ranks != plan.mesh.ranks())
      throw Error(str(plan.path, ": --virtual-ranks: expected ",
                      plan.mesh.ranks(), " as mesh ", plan::meshText(plan.mesh),
                      " says, got ", ranks));
    if (session.threads == 0 && ranks > 1)
      session.threads = std::max(
          1, static_cast<int>(std::thread::hardware_concurrency()) / ranks);
    if (ranks > 1)
      return runVirtualRanks(ranks, run);
  } else if (underLauncher()) {
    std::unique_ptr<World> world = openMpiWorld();
    try {
      return run(*world);
    } catch (const std::exception &error) {
      // The others may wait for this rank, so none can go on.
      std::cerr << str("megalodon-run: error: rank ", world->rank(), ": ",
                       error.what(), "\n")
                << std::flush;
      world->abort(1);
    }
  }
  run(*singleWorld());
}
