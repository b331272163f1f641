#include "runtime/plan/Trace.h"
#include "runtime/plan/Traffic.h"
#include <chrono>
#include <nlohmann/json.hpp>

using namespace megalodon::plan;

using Json = nlohmann::ordered_json;

double megalodon::plan::traceClock() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

const char *megalodon::plan::kindName(TraceEvent::Kind kind) {
  constexpr const char *names[] = {"kernel", "product", "copy",   "collective",
                                   "wait",   "send",    "receive"};
  return names[size_t(kind)];
}

namespace {

struct Extents {
  double m, n, k;
};

Extents extentsOf(const Product &product, int64_t batch, int64_t length) {
  auto extent = [&](int64_t size) {
    return double(size < 0 ? batch * length : size);
  };
  return {extent(product.m), extent(product.n), extent(product.k)};
}

} // namespace

double megalodon::plan::flopsOf(const Command &command, int64_t batch,
                                int64_t length) {
  if (auto *dispatch = std::get_if<Dispatch>(&command.operation))
    return dispatch->flops;
  if (auto *product = std::get_if<Product>(&command.operation)) {
    const Extents at = extentsOf(*product, batch, length);
    return 2 * at.m * at.n * at.k;
  }
  return 0;
}

TraceEvent megalodon::plan::eventOf(const LoadedPlan &plan,
                                    const Command &command, int64_t batch,
                                    int64_t length, uint32_t microbatch) {
  using Kind = TraceEvent::Kind;
  auto event = [&](Kind kind, std::string name, double bytes) {
    return TraceEvent{
        kind, std::move(name), command.location, uint64_t(bytes), microbatch, 0,
        0};
  };
  if (auto *dispatch = std::get_if<Dispatch>(&command.operation))
    return event(Kind::Kernel, plan.kernels[dispatch->kernel].symbol,
                 dispatch->bytes);
  if (auto *product = std::get_if<Product>(&command.operation)) {
    const Extents at = extentsOf(*product, batch, length);
    const double results = at.m * at.n * (product->accumulate ? 2 : 1);
    return event(Kind::Product, "product",
                 4 * (at.m * at.k + at.k * at.n + results));
  }
  if (auto *copy = std::get_if<CopyStart>(&command.operation))
    return event(Kind::Copy, "copy",
                 2 * double(copy->bytes) *
                     double(timesOf(copy->dynamic, batch, length)));
  const auto &start = std::get<CollectiveStart>(command.operation);
  return event(Kind::Collective, collectiveName(plan, start),
               double(contributedBytes(plan, start, batch, length)));
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
