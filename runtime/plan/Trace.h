// When a rank did what in a call, measured or simulated, and that as a file for
// Perfetto or chrome://tracing.
#pragma once
#include "runtime/plan/LoadedPlan.h"

namespace megalodon::plan {

struct TraceEvent {
  enum class Kind : uint8_t {
    Kernel,
    Product,
    Copy,
    Collective, ///< begun
    Wait,       ///< for a collective or a message
    Send,       ///< begun
    Receive     ///< begun
  };
  Kind kind;
  std::string name, location;
  uint64_t bytes; ///< moved; of a collective: put in; of a wait: 0
  uint32_t microbatch;
  double begin, end; ///< seconds
};

/// Events in the order in which they happened.
using Trace = std::vector<TraceEvent>;

/// A command of a call of that shape on one rank, without its times; not for
/// waits.
TraceEvent eventOf(const LoadedPlan &plan, const Command &command,
                   int64_t batch, int64_t length, uint32_t microbatch);

/// Floating-point operations of a kernel or product.
double flopsOf(const Command &command, int64_t batch, int64_t length);

/// Seconds of the clock that measured traces go by, the same for all processes
/// of a machine.
double traceClock();

/// "kernel", "collective", ...
const char *kindName(TraceEvent::Kind kind);

/// The events of a process (a rank) in Chrome's trace format, separated by
/// commas; times count from `origin`.
std::string traceEvents(const Trace &trace, int process,
                        const std::string &processName, double origin);

/// A whole file of such lists.
std::string traceFile(const std::vector<std::string> &lists);

} // namespace megalodon::plan
