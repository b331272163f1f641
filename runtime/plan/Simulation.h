// How long a call would take: a plan's command lists played through against a
// model of the machine and its network, without running them.
//
// A kernel takes the longer of its flops and its bytes at the given rates.
// Messages travel along axes: each rank has one link an axis, which carries one
// message at a time while the rank computes; a message over several axes takes
// all their links, at the slowest one's rate. Collectives are rings: all_gather
// and reduce_scatter take R - 1 steps of a rank's share, all_reduce 2 (R - 1)
// steps of the R-th part. Ranks that differ along the data, chunk and tensor
// axes do the same at the same time, so one rank a pipeline stage is simulated.
#pragma once
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/Trace.h"

namespace megalodon::plan {

struct Link {
  double latency;        ///< seconds a step
  double bytesPerSecond; ///< each way
};

struct Machine {
  double flopsPerSecond = 1e14, bytesPerSecond = 1.5e12; ///< of one rank
  /// By axis: tp within a machine, the others between machines.
  Link links[4] = {{10e-6, 25e9}, {10e-6, 25e9}, {10e-6, 25e9}, {3e-6, 200e9}};
};

/// Seconds that a rank stood still for messages of one name.
struct Exposed {
  std::string name;
  double seconds = 0;
};

struct StageEstimate {
  double seconds = 0; ///< until its last command ends
  double compute = 0;
  double flops = 0;             ///< of kernels and products
  double pipelineWait = 0;      ///< for messages of other stages
  std::vector<Exposed> exposed; ///< waits for collectives
  double wireBytes = 0;         ///< that a rank puts onto links
  Trace trace;

  double exposedSeconds() const;
};

struct Estimate {
  double seconds = 0;
  std::vector<StageEstimate> stages;

  /// Share of all ranks' time in which they neither compute nor wait for a
  /// collective.
  double bubbleShare() const;
  /// Share of all ranks' time spent waiting for collectives.
  double exposedShare() const;
};

/// A call of the compiled shape that ends its step's accumulation. Throws Error
/// when the programs wait for each other forever.
Estimate simulate(const LoadedPlan &plan, const Function &function,
                  const Machine &machine);

} // namespace megalodon::plan
