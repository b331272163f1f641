#include "tools/megalodon-run/Ranks.h"
#include "runtime/core/Error.h"
#include <CLI/CLI.hpp>
#include <thread>

using namespace megalodon;

void megalodon::addRankOptions(CLI::App &command, RankOptions &options) {
  command.add_option("--virtual-ranks", options.virtualRanks,
                     "run a plan for a mesh on so many ranks in this process, "
                     "a thread each");
  command.add_option("--timeout", options.timeout,
                     "seconds a rank waits for another one before it gives up "
                     "(default: 300, or MEGALODON_TIMEOUT)");
}

void megalodon::onRanks(const RankOptions &options, SessionOptions &session,
                        const std::function<void(World &)> &body) {
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
  if (options.virtualRanks <= 1)
    return run(*singleWorld());
  if (session.threads == 0)
    session.threads =
        std::max(1, static_cast<int>(std::thread::hardware_concurrency()) /
                        options.virtualRanks);
  runVirtualRanks(options.virtualRanks, run);
}
