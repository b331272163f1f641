// What the page shows is drawn by its own script (inspect.html); this collects
// the numbers.
#include "tools/megalodon-run/InspectHtml.h"
#include "runtime/core/Error.h"
#include "runtime/plan/Simulation.h"
#include "tools/megalodon-run/InspectPage.h"
#include "tools/megalodon-run/Text.h"
#include <map>

using namespace megalodon;
using Json = nlohmann::ordered_json;

namespace {

/// Buffers that a command touches, and of these the ones that it certainly
/// writes. A kernel writes those among its arguments that nobody touched
/// before.
struct Touched {
  std::vector<uint32_t> all, written;
};

Touched touchedBy(const plan::Command &command) {
  Touched touched;
  if (auto *dispatch = std::get_if<plan::Dispatch>(&command.operation)) {
    touched.all = dispatch->args;
  } else if (auto *product = std::get_if<plan::Product>(&command.operation)) {
    touched = {{product->a, product->b, product->c}, {product->c}};
  } else if (auto *copy = std::get_if<plan::CopyStart>(&command.operation)) {
    touched = {{copy->from, copy->to}, {copy->to}};
  } else if (auto *start =
                 std::get_if<plan::CollectiveStart>(&command.operation)) {
    for (const plan::CollectiveItem &item : start->items) {
      touched.all.insert(touched.all.end(), {item.from, item.to});
      touched.written.push_back(item.to);
    }
  }
  return touched;
}

/// A command with its number in the program; not a wait.
struct Node {
  size_t number;
  const plan::Command *command;
};

std::vector<Node> nodesOf(const plan::Program &program) {
  std::vector<Node> nodes;
  size_t number = 0;
  for (const plan::Segment &segment : program.segments)
    for (const plan::Command &command : segment.commands) {
      if (!std::holds_alternative<plan::Wait>(command.operation))
        nodes.push_back({number, &command});
      ++number;
    }
  return nodes;
}

/// "layers.3" of "layers.3/layer.mega.wz"; empty outside of layers.
std::string layerOf(const plan::Command &command) {
  const size_t slash = command.location.find('/');
  return slash == std::string::npos ? "" : command.location.substr(0, slash);
}

Json graphOf(const plan::LoadedPlan &plan, const plan::Function &function,
             const std::vector<Node> &run) {
  std::map<uint32_t, size_t> writer;
  Json nodes = Json::array();
  for (size_t i = 0; i < run.size(); ++i) {
    const plan::Command &command = *run[i].command;
    const plan::TraceEvent event = plan::eventOf(
        plan, command, function.localBatch(), function.localLength(), 0);
    const Touched touched = touchedBy(command);
    std::vector<size_t> from;
    for (uint32_t buffer : touched.all) {
      auto known = writer.find(buffer);
      if (known != writer.end() && known->second != i &&
          std::find(from.begin(), from.end(), known->second) == from.end())
        from.push_back(known->second);
      if (known == writer.end())
        writer[buffer] = i;
    }
    for (uint32_t buffer : touched.written)
      writer[buffer] = i;
    const double flops =
        plan::flopsOf(command, function.localBatch(), function.localLength());
    nodes.push_back({{"kind", plan::kindName(event.kind)},
                     {"name", event.name},
                     {"location", command.location},
                     {"extent", str(grouped(int64_t(flops)), " flop, ",
                                    grouped(int64_t(event.bytes)), " bytes")},
                     {"from", from}});
  }
  return nodes;
}

/// The first layer's commands: those of its forward, and those of its backward
/// where there is one.
Json layersOf(const plan::LoadedPlan &plan, const plan::Function &function) {
  Json layers = Json::array();
  const std::vector<Node> nodes = nodesOf(function.programs.front());
  std::string first;
  std::vector<Node> run;
  auto finish = [&] {
    // A stray command between layers is no picture of one.
    if (run.size() >= 4)
      layers.push_back({{"name", str(first, ", commands ", run.front().number,
                                     " to ", run.back().number)},
                        {"nodes", graphOf(plan, function, run)}});
    run.clear();
  };
  for (const Node &node : nodes) {
    const std::string layer = layerOf(*node.command);
    if (first.empty())
      first = layer;
    if (!first.empty() && layer == first)
      run.push_back(node);
    else
      finish();
  }
  finish();
  return layers;
}

/// When the arena's buffers live, by the numbers of commands.
Json buffersOf(const plan::Program &program) {
  std::map<uint32_t, std::pair<size_t, size_t>> lives;
  for (const Node &node : nodesOf(program))
    for (uint32_t buffer : touchedBy(*node.command).all)
      if (program.buffers[buffer].variable < 0)
        lives.emplace(buffer, std::pair{node.number, node.number})
            .first->second.second = node.number;
  Json buffers = Json::array();
  for (const auto &[index, life] : lives) {
    const plan::Buffer &buffer = program.buffers[index];
    buffers.push_back({{"name", buffer.name},
                       {"offset", buffer.offset},
                       {"bytes", buffer.bytes},
                       {"first", life.first},
                       {"last", life.second}});
  }
  return buffers;
}

Json scheduleOf(const plan::LoadedPlan &plan, const plan::Function &function) {
  const plan::Estimate estimate = plan::simulate(plan, function, {});
  Json stages = Json::array();
  for (const plan::StageEstimate &stage : estimate.stages) {
    Json events = Json::array();
    for (const plan::TraceEvent &event : stage.trace)
      events.push_back({{"kind", plan::kindName(event.kind)},
                        {"name", event.name},
                        {"location", event.location},
                        {"bytes", event.bytes},
                        {"begin", event.begin},
                        {"end", event.end}});
    stages.push_back(std::move(events));
  }
  return {{"seconds", estimate.seconds}, {"stages", std::move(stages)}};
}

Json kernelsOf(const plan::LoadedPlan &plan) {
  std::vector<size_t> dispatches(plan.kernels.size());
  for (const plan::Function &function : plan.functions)
    for (const plan::Program &program : function.programs)
      for (const Node &node : nodesOf(program))
        if (auto *dispatch =
                std::get_if<plan::Dispatch>(&node.command->operation))
          ++dispatches[dispatch->kernel];
  Json kernels = Json::array();
  for (size_t i = 0; i < plan.kernels.size(); ++i)
    kernels.push_back({{"symbol", plan.kernels[i].symbol},
                       {"dispatches", dispatches[i]},
                       {"scratch_bytes", plan.kernels[i].scratchBytes},
                       {"source", plan.kernels[i].source}});
  return kernels;
}

} // namespace

std::string megalodon::inspectPage(const plan::LoadedPlan &plan, Json facts) {
  const plan::Machine machine;
  facts["machine"] = {{"flops_per_second", machine.flopsPerSecond},
                      {"bytes_per_second", machine.bytesPerSecond}};
  facts["kernel_table"] = kernelsOf(plan);
  for (size_t i = 0; i < plan.functions.size(); ++i) {
    const plan::Function &function = plan.functions[i];
    Json &out = facts["functions"][i];
    out["layers"] = layersOf(plan, function);
    out["schedule"] = scheduleOf(plan, function);
    for (size_t stage = 0; stage < function.programs.size(); ++stage) {
      const plan::Program &program = function.programs[stage];
      out["programs"][stage]["commands"] = program.commandCount();
      out["programs"][stage]["buffers"] = buffersOf(program);
    }
  }
  // No text of the plan may end the script that holds it.
  std::string text = facts.dump(), data;
  for (char c : text)
    data += c == '<' ? std::string("\\u003c") : std::string(1, c);
  std::string page = kInspectPage;
  const std::string_view mark = "{{PLAN}}";
  return page.replace(page.find(mark), mark.size(), data);
}
