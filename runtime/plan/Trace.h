// When a rank did what in a call, measured or simulated, and that as a file for
// Perfetto or chrome://tracing.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

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

/// "kernel", "collective", ...
const char *kindName(TraceEvent::Kind kind);

/// The events of a process (a rank) in Chrome's trace format, separated by
/// commas; times count from `origin`.
std::string traceEvents(const Trace &trace, int process,
                        const std::string &processName, double origin);

/// A whole file of such lists.
std::string traceFile(const std::vector<std::string> &lists);

} // namespace megalodon::plan
