#include "tools/megalodon-run/Ranks.h"
#include "runtime/core/Error.h"
#include "runtime/core/ThreadPool.h"
#include "runtime/plan/LoadedPlan.h"
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <iostream>
#include <sched.h>
#include <sys/utsname.h>

using namespace megalodon;

/// A rank's share of the processors that the ranks on its machine may use
/// together. A launcher may have bound each to its own, or left them all to
/// all.
static int shareOfProcessors(World &world) {
  struct Machine {
    char name[sizeof(utsname::nodename)];
    cpu_set_t processors;
  } own{};
  utsname system{};
  if (uname(&system) != 0 ||
      sched_getaffinity(0, sizeof(own.processors), &own.processors) != 0)
    return 1;
  std::memcpy(own.name, system.nodename, sizeof(own.name));
  std::vector<Machine> all(size_t(world.size()));
  world.all()
      .allGather(&own, all.data(), sizeof(own))
      ->wait({"counting the ranks of a machine", -1}, world.timeout);
  cpu_set_t together;
  CPU_ZERO(&together);
  int ranks = 0;
  for (const Machine &other : all) {
    if (std::strncmp(other.name, own.name, sizeof(own.name)) != 0)
      continue;
    ++ranks;
    CPU_OR(&together, &together, &other.processors);
  }
  return std::max(
      1, std::min(CPU_COUNT(&own.processors), CPU_COUNT(&together) / ranks));
}

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
      session.threads = std::max(1, usableProcessors() / ranks);
    if (ranks > 1)
      return runVirtualRanks(ranks, run);
  } else if (underLauncher()) {
    std::unique_ptr<World> world = openMpiWorld();
    try {
      if (session.threads == 0)
        session.threads = shareOfProcessors(*world);
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
