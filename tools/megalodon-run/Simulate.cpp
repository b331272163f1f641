// megalodon-run simulate: how long a plan's functions would take on a machine
// that is described, not there.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/Simulation.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/Text.h"
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

namespace megalodon {

namespace {

using Json = nlohmann::ordered_json;

struct SimulateOptions {
  std::string plan, function, traceFile;
  std::vector<std::string> links;
  double gigaflops = plan::Machine().flopsPerSecond / 1e9,
         gigabytes = plan::Machine().bytesPerSecond / 1e9;
  bool json = false;
};

constexpr const char *kAxisNames[] = {"dp", "pp", "cp", "tp"};

/// Microseconds a step and gigabytes a second, as AXIS=US:GB gives them.
void readLink(const std::string &text, plan::Machine &machine) {
  const size_t equals = text.find('='), colon = text.find(':');
  const auto axis =
      std::find(std::begin(kAxisNames), std::end(kAxisNames),
                equals == std::string::npos ? "" : text.substr(0, equals));
  double latency = -1, rate = -1;
  char rest;
  if (axis == std::end(kAxisNames) || colon == std::string::npos ||
      std::sscanf(text.c_str() + equals + 1, "%lf:%lf%c", &latency, &rate,
                  &rest) != 2 ||
      !(latency >= 0) || !(rate > 0) || std::isinf(latency))
    throw Error(str("--link: expected AXIS=MICROSECONDS:GIGABYTES with axis "
                    "dp, pp, cp or tp, got '",
                    text, "'"));
  machine.links[axis - std::begin(kAxisNames)] = {latency * 1e-6, rate * 1e9};
}

plan::Machine machineOf(const SimulateOptions &options) {
  plan::Machine machine;
  machine.flopsPerSecond = options.gigaflops * 1e9;
  machine.bytesPerSecond = options.gigabytes * 1e9;
  for (const auto &[name, value] :
       {std::pair<const char *, double>{"--gflops", options.gigaflops},
        {"--gbytes", options.gigabytes}})
    if (!(value > 0) || std::isinf(value))
      throw Error(str(name, ": expected a number above 0, got ", value));
  for (const std::string &link : options.links)
    readLink(link, machine);
  return machine;
}

Json machineJson(const plan::Machine &machine) {
  Json out = {{"flops_per_second", machine.flopsPerSecond},
              {"bytes_per_second", machine.bytesPerSecond}};
  for (Axis axis : kAxes)
    out["links"][kAxisNames[size_t(axis)]] = {
        {"latency_seconds", machine.links[size_t(axis)].latency},
        {"bytes_per_second", machine.links[size_t(axis)].bytesPerSecond}};
  return out;
}

bool isMessage(const plan::TraceEvent &event) {
  return event.kind == plan::TraceEvent::Kind::Collective ||
         event.kind == plan::TraceEvent::Kind::Send ||
         event.kind == plan::TraceEvent::Kind::Receive;
}

Json estimateJson(const plan::Function &function,
                  const plan::Estimate &estimate) {
  Json out = {{"function", function.name},
              {"seconds", estimate.seconds},
              {"tokens_per_second",
               double(function.batch * function.length) / estimate.seconds},
              {"model_flops", function.modelFlops},
              {"exposed_share", estimate.exposedShare()},
              {"bubble_share", estimate.bubbleShare()}};
  for (const plan::StageEstimate &stage : estimate.stages) {
    Json exposed = Json::object();
    for (const plan::Exposed &entry : stage.exposed)
      exposed[entry.name] = entry.seconds;
    Json messages = Json::array();
    for (const plan::TraceEvent &event : stage.trace)
      if (isMessage(event))
        messages.push_back({{"name", event.name},
                            {"location", event.location},
                            {"microbatch", event.microbatch},
                            {"bytes", event.bytes}});
    out["stages"].push_back({{"seconds", stage.seconds},
                             {"compute_seconds", stage.compute},
                             {"flops", stage.flops},
                             {"pipeline_wait_seconds", stage.pipelineWait},
                             {"exposed_seconds", exposed},
                             {"wire_bytes", stage.wireBytes},
                             {"messages", messages}});
  }
  return out;
}

std::string milliseconds(double seconds) { return decimal(seconds * 1e3, 3); }

void printEstimate(const plan::LoadedPlan &plan, const plan::Function &function,
                   const plan::Estimate &estimate) {
  std::printf("\n%s, batch %s, length %s on %s: %s ms, %s tokens/s; %s %% "
              "waiting for collectives, bubble %s %%\n",
              function.name.c_str(), grouped(function.batch).c_str(),
              grouped(function.length).c_str(),
              plan::meshText(plan.mesh).c_str(),
              milliseconds(estimate.seconds).c_str(),
              grouped(int64_t(double(function.batch * function.length) /
                              estimate.seconds))
                  .c_str(),
              decimal(100 * estimate.exposedShare(), 1).c_str(),
              decimal(100 * estimate.bubbleShare(), 1).c_str());
  std::vector<std::vector<std::string>> rows = {
      {"stage", "ms", "compute", "waits for", "", "messages", "MB on links"}};
  for (size_t i = 0; i < estimate.stages.size(); ++i) {
    const plan::StageEstimate &stage = estimate.stages[i];
    rows.push_back({std::to_string(i), milliseconds(stage.seconds),
                    milliseconds(stage.compute), "stages",
                    milliseconds(stage.pipelineWait),
                    grouped(std::count_if(stage.trace.begin(),
                                          stage.trace.end(), isMessage)),
                    decimal(stage.wireBytes * 1e-6, 1)});
    for (const plan::Exposed &entry : stage.exposed)
      rows.push_back({"", "", "", entry.name, milliseconds(entry.seconds)});
  }
  printTable(rows, {0, 3});
}

void simulate(const SimulateOptions &options) {
  const plan::Machine machine = machineOf(options);
  const auto plan = plan::LoadedPlan::open(options.plan);
  if (!options.function.empty() && plan->findFunction(options.function) < 0)
    throw Error(str(options.plan, ": the plan has no function '",
                    options.function, "'"));
  if (!options.traceFile.empty() && options.function.empty() &&
      plan->functions.size() > 1)
    throw Error("--trace: expected --function, the plan has several");
  Json json = {{"plan", plan->path},
               {"mesh", plan::meshText(plan->mesh)},
               {"machine", machineJson(machine)}};
  for (const plan::Function &function : plan->functions) {
    if (!options.function.empty() && function.name != options.function)
      continue;
    const plan::Estimate estimate = plan::simulate(*plan, function, machine);
    if (options.json)
      json["functions"].push_back(estimateJson(function, estimate));
    else
      printEstimate(*plan, function, estimate);
    if (options.traceFile.empty())
      continue;
    std::vector<std::string> lists;
    for (size_t stage = 0; stage < estimate.stages.size(); ++stage)
      lists.push_back(plan::traceEvents(estimate.stages[stage].trace,
                                        int(stage), str("stage ", stage), 0));
    writeText(options.traceFile, plan::traceFile(lists));
  }
  if (options.json)
    std::cout << json.dump(2) << '\n';
}

} // namespace

void addSimulate(CLI::App &app) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App *command = app.add_subcommand(
      "simulate", "says how long a plan would take on a machine with so many "
                  "ranks, without it");
  command->add_option("plan", options->plan, "plan file")->required();
  command->add_option("--function", options->function, "only this function");
  command
      ->add_option("--gflops", options->gigaflops,
                   "gigaflops a second of one rank")
      ->capture_default_str();
  command
      ->add_option("--gbytes", options->gigabytes,
                   "gigabytes a second of one rank's memory")
      ->capture_default_str();
  command->add_option(
      "--link", options->links,
      "latency in microseconds and gigabytes a second of a rank's link along "
      "an axis, as tp=3:200 (default: tp=3:200, the other axes 10:25)");
  command->add_option("--trace", options->traceFile,
                      "write a trace for Perfetto here");
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] { simulate(*options); });
}

} // namespace megalodon
