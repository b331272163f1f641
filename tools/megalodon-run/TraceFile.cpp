#include "tools/megalodon-run/TraceFile.h"
#include "runtime/core/File.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/parallel/Mesh.h"
#include "runtime/train/Agreement.h"
#include <algorithm>

using namespace megalodon;

void megalodon::writeTrace(const std::string &path, const plan::Trace &trace,
                           Session &session) {
  World &world = session.world();
  const WaitContext context{"gathering the trace", -1};
  const double own = trace.empty() ? plan::traceClock() : trace[0].begin;
  std::vector<double> begins(size_t(world.size()));
  world.all()
      .allGather(&own, begins.data(), sizeof(own))
      ->wait(context, world.timeout);
  const Coordinates &place = session.place();
  const std::vector<std::string> lists = gatherTexts(
      world, context,
      plan::traceEvents(trace, world.rank(),
                        str("rank ", world.rank(), ": dp ", place.data, ", pp ",
                            place.pipeline, ", cp ", place.chunk, ", tp ",
                            place.tensor),
                        *std::min_element(begins.begin(), begins.end())));
  if (world.rank() == 0)
    writeText(path, plan::traceFile(lists));
}
