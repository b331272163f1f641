#include "runtime/plan/Trace.h"
#include <nlohmann/json.hpp>

using namespace megalodon::plan;

using Json = nlohmann::ordered_json;

const char *megalodon::plan::kindName(TraceEvent::Kind kind) {
  constexpr const char *names[] = {"kernel", "product", "copy",   "collective",
                                   "wait",   "send",    "receive"};
  return names[size_t(kind)];
}

std::string megalodon::plan::traceEvents(const Trace &trace, int process,
                                         const std::string &processName,
                                         double origin) {
  std::string text = Json({{"ph", "M"},
                           {"name", "process_name"},
                           {"pid", process},
                           {"args", {{"name", processName}}}})
                         .dump();
  for (const TraceEvent &event : trace)
    text += ",\n" + Json({{"ph", "X"},
                          {"name", event.name},
                          {"cat", kindName(event.kind)},
                          {"pid", process},
                          {"tid", 0},
                          {"ts", (event.begin - origin) * 1e6},
                          {"dur", (event.end - event.begin) * 1e6},
                          {"args",
                           {{"location", event.location},
                            {"bytes", event.bytes},
                            {"microbatch", event.microbatch}}}})
                        .dump();
  return text;
}

std::string megalodon::plan::traceFile(const std::vector<std::string> &lists) {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  for (size_t i = 0; i < lists.size(); ++i)
    text += (i ? ",\n" : "") + lists[i];
  return text + "\n]}\n";
}
