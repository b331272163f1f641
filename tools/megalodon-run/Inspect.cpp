// megalodon-run inspect: what a plan contains, for people or as JSON.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/io/Safetensors.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/Traffic.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/InspectCode.h"
#include "tools/megalodon-run/InspectHtml.h"
#include "tools/megalodon-run/PipelineChart.h"
#include "tools/megalodon-run/Text.h"
#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

namespace megalodon {

namespace {

using Json = nlohmann::ordered_json;
using plan::Role;

struct InspectOptions {
  std::string plan, objectFile, imageFolder, scheduleFile, pageFile;
  bool json = false, commands = false, schedule = false;
};

const char *roleName(Role role) {
  constexpr const char *names[] = {"parameter", "first moment", "second moment",
                                   "gradient",  "input",        "output",
                                   "state",     "residual"};
  return names[size_t(role)];
}

std::string initializerText(const plan::Initializer &init) {
  constexpr const char *names[] = {
      "zero",    "constant",       "normal",     "truncated_normal",
      "uniform", "complex_normal", "cema_theta", "untouched"};
  std::string text = names[size_t(init.kind)];
  switch (init.kind) {
  case plan::InitKind::Constant:
  case plan::InitKind::Normal:
  case plan::InitKind::Uniform:
  case plan::InitKind::ComplexNormal:
    return str(text, "(", init.a, ")");
  case plan::InitKind::TruncatedNormal:
    return str(text, "(", init.a, ", ", init.b, ")");
  default:
    return text;
  }
}

/// What the arena would be if nothing shared bytes.
uint64_t bytesWithoutReuse(const plan::Program &program) {
  uint64_t bytes = 0;
  for (const plan::Buffer &buffer : program.buffers)
    if (buffer.variable < 0)
      bytes += buffer.bytes;
  return bytes;
}

struct CommandCounts {
  size_t dispatches = 0, products = 0, copies = 0;
  std::map<uint32_t, size_t> kernels; ///< dispatches of each
};

CommandCounts countCommands(const plan::Program &program) {
  CommandCounts counts;
  for (const plan::Segment &segment : program.segments)
    for (const plan::Command &command : segment.commands) {
      if (auto *dispatch = std::get_if<plan::Dispatch>(&command.operation)) {
        ++counts.dispatches;
        ++counts.kernels[dispatch->kernel];
      }
      counts.products +=
          std::holds_alternative<plan::Product>(command.operation);
      counts.copies +=
          std::holds_alternative<plan::CopyStart>(command.operation);
    }
  return counts;
}

uint64_t bytesOf(const plan::LoadedPlan &plan, Role role) {
  uint64_t bytes = 0;
  for (const plan::Variable &variable : plan.variables)
    if (variable.role == role)
      bytes += variable.bytes();
  return bytes;
}

/// Everything a function has besides parameters, moments and the arena.
uint64_t ownVariableBytes(const plan::RankMemory &memory) {
  return memory.gradients + memory.state + memory.inputsOutputs +
         memory.residuals;
}

/// What a rank of a pipeline coordinate holds of it.
uint64_t localBytesOf(const plan::LoadedPlan &plan, Role role, uint32_t stage) {
  uint64_t bytes = 0;
  for (const plan::Variable &variable : plan.variables)
    if (variable.role == role && variable.isHeldBy(stage))
      bytes += variable.localBytes();
  return bytes;
}

/// "layers.3.mega.wv.weight" -> "layers.*.mega.wv.weight", so that equal
/// tensors of all layers share a line.
std::string layerPattern(const std::string &name) {
  std::string pattern;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool number = std::isdigit(static_cast<unsigned char>(name[i])) &&
                        (i == 0 || name[i - 1] == '.');
    size_t end = i;
    while (number && end < name.size() &&
           std::isdigit(static_cast<unsigned char>(name[end])))
      ++end;
    if (number && (end == name.size() || name[end] == '.')) {
      pattern += '*';
      i = end - 1;
    } else {
      pattern += name[i];
    }
  }
  return pattern;
}

struct Group {
  std::string pattern, type, shape, init;
  int64_t tensors = 0, elements = 0;
};

/// Variables that differ in the layer only, in order of first appearance.
std::vector<Group> groups(const plan::LoadedPlan &plan,
                          const std::vector<uint32_t> &indices) {
  std::vector<Group> list;
  std::map<std::string, size_t> known;
  for (uint32_t index : indices) {
    const plan::Variable &variable = plan.variables[index];
    Group group{layerPattern(variable.name), elementName(variable.type),
                shapeText(variable.shape), initializerText(variable.init)};
    auto [entry, isNew] = known.emplace(
        group.pattern + group.type + group.shape + group.init, list.size());
    if (isNew)
      list.push_back(group);
    list[entry->second].tensors += 1;
    list[entry->second].elements += variable.elements();
  }
  return list;
}

Json signature(const plan::LoadedPlan &plan,
               const std::vector<uint32_t> &indices) {
  Json list = Json::array();
  for (uint32_t index : indices) {
    const plan::Variable &variable = plan.variables[index];
    Json entry = {{"name", variable.name},
                  {"role", roleName(variable.role)},
                  {"type", elementName(variable.type)},
                  {"shape", variable.shape}};
    if (variable.optional)
      entry["default"] = variable.defaultValue;
    if (variable.localShape != variable.shape)
      entry["local_shape"] = variable.localShape;
    list.push_back(std::move(entry));
  }
  return list;
}

Json memoryJson(const plan::RankMemory &memory) {
  return {{"parameters", memory.parameters},
          {"moments", memory.moments},
          {"gradients", memory.gradients},
          {"state", memory.state},
          {"inputs_outputs", memory.inputsOutputs},
          {"residuals", memory.residuals},
          {"arena", memory.arena},
          {"activations", memory.activations()},
          {"staging", memory.staging},
          {"total", memory.total()}};
}

Json programJson(const plan::LoadedPlan &plan, const plan::Function &function,
                 const plan::Program &program) {
  const plan::RankMemory memory = plan::memoryOf(plan, function, program);
  const CommandCounts counts = countCommands(program);
  Json out = {
      {"stage", program.stage},
      {"parameter_bytes", localBytesOf(plan, Role::Parameter, program.stage)},
      {"state_bytes", memory.state},
      {"arena_bytes", memory.arena},
      {"arena_bytes_without_reuse", bytesWithoutReuse(program)},
      {"own_variable_bytes", ownVariableBytes(memory)},
      {"memory", memoryJson(memory)},
      {"microbatches", program.microbatches},
      {"slots", program.slots},
      {"commands", program.commandCount()},
      {"dispatches", counts.dispatches},
      {"products", counts.products},
      {"copies", counts.copies},
      {"actions", program.actions.size()},
      {"update_actions", program.updateActions.size()}};
  Json &segments = out["segments"] = Json::array();
  for (const plan::Segment &segment : program.segments)
    segments.push_back(
        {{"name", segment.name}, {"commands", segment.commands.size()}});
  const std::vector<plan::Message> messages =
      plan::messagesOf(plan, function, program);
  Json &traffic = out["traffic"] = Json::array();
  for (const plan::Traffic &entry : plan::trafficOf(messages))
    traffic.push_back({{"name", entry.name},
                       {"half", entry.update ? "update" : "compute"},
                       {"messages", entry.messages},
                       {"bytes", entry.bytes}});
  Json &list = out["messages"] = Json::array();
  for (const plan::Message &message : messages)
    list.push_back({{"name", message.name},
                    {"location", message.location},
                    {"microbatch", message.microbatch},
                    {"bytes", message.bytes}});
  return out;
}

/// Memory and commands of the first pipeline rank stand in the function itself,
/// those of all in its programs.
Json functionJson(const plan::LoadedPlan &plan,
                  const plan::Function &function) {
  Json out = {{"name", function.name},
              {"batch", function.batch},
              {"length", function.length},
              {"local_batch", function.localBatch()},
              {"local_length", function.localLength()},
              {"exact", function.exact},
              {"inputs", signature(plan, function.inputs)},
              {"outputs", signature(plan, function.outputs)}};
  Json programs = Json::array();
  for (const plan::Program &program : function.programs)
    programs.push_back(programJson(plan, function, program));
  for (const char *key :
       {"state_bytes", "arena_bytes", "arena_bytes_without_reuse",
        "own_variable_bytes", "commands", "dispatches", "products", "copies"})
    out[key] = programs[0][key];
  out["model_flops"] = function.modelFlops;
  out["programs"] = std::move(programs);
  return out;
}

Json inspectJson(const plan::LoadedPlan &plan) {
  Json out = {{"plan", plan.path},
              {"digest", plan.digest},
              {"producer", plan.producer},
              {"model", plan.model},
              {"precision", plan.precision},
              {"target", plan.target},
              {"cpu", plan.cpu},
              {"cpu_features", plan.cpuFeatures},
              {"vocab_size", plan.vocabSize},
              {"output_size", plan.outputSize},
              {"chunk_size", plan.chunkSize},
              {"context", plan.context},
              {"num_layers", plan.numLayers},
              {"parameters", plan.parameterCount()},
              {"parameter_bytes", bytesOf(plan, Role::Parameter)},
              {"moment_bytes", bytesOf(plan, Role::FirstMoment) +
                                   bytesOf(plan, Role::SecondMoment)}};
  out["config"] = Json::parse(plan.config, nullptr, false);
  if (out["config"].is_discarded())
    throw Error(str(plan.path, ": corrupt plan: config: not valid JSON"));
  Json &parameters = out["parameter_table"] = Json::array();
  for (const plan::Variable &variable : plan.variables)
    if (variable.role == Role::Parameter)
      parameters.push_back({{"name", variable.name},
                            {"type", elementName(variable.type)},
                            {"shape", variable.shape},
                            {"init", initializerText(variable.init)}});
  Json &functions = out["functions"] = Json::array();
  out["mesh"] = {{"dp", plan.mesh.dp},
                 {"pp", plan.mesh.pp},
                 {"cp", plan.mesh.cp},
                 {"tp", plan.mesh.tp}};
  for (const plan::Function &function : plan.functions)
    functions.push_back(functionJson(plan, function));
  addCodeJson(plan, out);
  return out;
}

void printSignature(const plan::LoadedPlan &plan, const char *head,
                    const std::vector<uint32_t> &indices) {
  std::printf("%s\n", head);
  std::map<Role, std::pair<int64_t, int64_t>>
      summed; // tensors and elements of what is too much to list
  std::vector<uint32_t> listed;
  for (uint32_t index : indices) {
    const plan::Variable &variable = plan.variables[index];
    if (variable.role == Role::Input || variable.role == Role::Output ||
        variable.role == Role::State) {
      listed.push_back(index);
    } else {
      summed[variable.role].first += 1;
      summed[variable.role].second += variable.elements();
    }
  }
  for (auto &[role, sizes] : summed)
    std::printf("  %s tensors: %s, %s elements\n", roleName(role),
                grouped(sizes.first).c_str(), grouped(sizes.second).c_str());
  std::vector<std::vector<std::string>> rows;
  for (const Group &group : groups(plan, listed))
    rows.push_back({group.pattern, group.type, group.shape,
                    group.tensors > 1 ? str("x ", group.tensors) : ""});
  printTable(rows, {0, 1, 2});
}

/// Memory and commands of the ranks of one pipeline coordinate.
void printProgram(const plan::LoadedPlan &plan, const plan::Function &function,
                  const plan::Program &program) {
  const plan::RankMemory memory = plan::memoryOf(plan, function, program);
  const CommandCounts counts = countCommands(program);
  std::string head = "memory";
  if (plan.mesh.pp > 1)
    head += str(" of stage ", program.stage);
  if (plan.mesh.ranks() > 1)
    head +=
        str(", a rank of ", program.microbatches, " x ", function.localBatch(),
            " rows, ", function.localLength(), " tokens");
  std::printf("%s\n", head.c_str());
  auto bytes = [](uint64_t count) {
    return grouped(int64_t(count)) + " bytes";
  };
  std::vector<std::vector<std::string>> sizes = {
      {"parameters", bytes(memory.parameters)},
      {"moments", bytes(memory.moments)},
      {"gradients", bytes(memory.gradients)},
      {"state", bytes(memory.state)},
      {"inputs, outputs", bytes(memory.inputsOutputs)},
      {"arena", bytes(memory.arena)},
      {"arena without reuse", bytes(bytesWithoutReuse(program))}};
  if (memory.residuals)
    sizes.push_back({"residuals between segments", bytes(memory.residuals)});
  if (plan.mesh.ranks() > 1)
    sizes.push_back({"staging of messages", bytes(memory.staging)});
  sizes.push_back({"all", bytes(memory.total())});
  printTable(sizes);
  std::printf("commands    %s: %s dispatches of %s kernels, %s products, %s "
              "copies",
              grouped(int64_t(program.commandCount())).c_str(),
              grouped(int64_t(counts.dispatches)).c_str(),
              grouped(int64_t(counts.kernels.size())).c_str(),
              grouped(int64_t(counts.products)).c_str(),
              grouped(int64_t(counts.copies)).c_str());
  if (program.segments.size() > 1) {
    std::printf(";");
    const char *separator = "";
    for (const plan::Segment &segment : program.segments) {
      std::printf("%s %s in %s", separator,
                  grouped(int64_t(segment.commands.size())).c_str(),
                  segment.name.c_str());
      separator = ",";
    }
  }
  std::printf("\n");
  std::vector<std::vector<std::string>> rows;
  for (const plan::Traffic &entry :
       plan::trafficOf(plan::messagesOf(plan, function, program)))
    rows.push_back({entry.name, entry.update ? "in the update" : "",
                    grouped(entry.messages) +
                        (entry.messages == 1 ? " message" : " messages"),
                    bytes(entry.bytes)});
  if (!rows.empty()) {
    std::printf("a rank puts into messages\n");
    printTable(rows, {0, 1});
  }
}

/// What a command does and on how much, for one rank.
std::vector<std::string> commandText(const plan::LoadedPlan &plan,
                                     const plan::Function &function,
                                     const plan::Command &command) {
  const int64_t batch = function.localBatch(), length = function.localLength();
  if (auto *dispatch = std::get_if<plan::Dispatch>(&command.operation))
    return {plan.kernels[dispatch->kernel].symbol,
            grouped(dispatch->grid.workgroups(batch, length)) + " workgroups"};
  if (auto *product = std::get_if<plan::Product>(&command.operation)) {
    auto extent = [&](int64_t size) {
      return size < 0 ? batch * length : size;
    };
    return {"product", str(extent(product->m), " x ", extent(product->n), " x ",
                           extent(product->k))};
  }
  if (auto *copy = std::get_if<plan::CopyStart>(&command.operation))
    return {"copy", grouped(int64_t(copy->bytes) *
                            plan::timesOf(copy->dynamic, batch, length)) +
                        " bytes, event " + std::to_string(copy->event)};
  if (auto *start = std::get_if<plan::CollectiveStart>(&command.operation)) {
    const int64_t shares = start->kind == plan::CollectiveKind::ReduceScatter
                               ? plan.communicators[start->communicator].size
                               : 1;
    return {plan::collectiveName(plan, *start),
            grouped(int64_t(start->shareBytes(batch, length)) * shares) +
                " bytes, event " + std::to_string(start->event) +
                (start->last ? ", last" : "")};
  }
  return {"wait", str("event ", std::get<plan::Wait>(command.operation).event)};
}

void printCommands(const plan::LoadedPlan &plan, const plan::Function &function,
                   const plan::Program &program) {
  for (const plan::Segment &segment : program.segments) {
    std::printf("commands of segment %s", segment.name.c_str());
    if (plan.mesh.pp > 1)
      std::printf(" of stage %u", program.stage);
    std::printf("\n");
    std::vector<std::vector<std::string>> rows;
    for (size_t i = 0; i < segment.commands.size(); ++i) {
      std::vector<std::string> row =
          commandText(plan, function, segment.commands[i]);
      row.insert(row.begin(), std::to_string(i));
      row.push_back(segment.commands[i].location);
      rows.push_back(std::move(row));
    }
    printTable(rows, {1, 2, 3});
  }
}

void inspectText(const plan::LoadedPlan &plan, bool commands) {
  std::printf("plan        %s\ndigest      %s\nproducer    %s\n",
              plan.path.c_str(), plan.digest.c_str(), plan.producer.c_str());
  std::printf("model       %s, %s layers, vocabulary %s, %s %s, %s\n",
              plan.model.c_str(), grouped(plan.numLayers).c_str(),
              grouped(plan.vocabSize).c_str(),
              plan.context > 0 ? "context" : "chunk",
              grouped(plan.chunkSize).c_str(), plan.precision.c_str());
  std::string features;
  for (const std::string &name : plan.cpuFeatures)
    features += " " + name;
  if (plan.isCuda())
    std::printf("target      %s\n", plan.target.c_str());
  else
    std::printf("target      %s, %s:%s\n", plan.target.c_str(),
                plan.cpu.c_str(), features.c_str());
  const std::vector<std::string> missing = plan::missingCpuFeatures(plan);
  for (const std::string &name : missing)
    std::printf("            this machine lacks %s\n", name.c_str());
  std::printf("config      %s\n", plan.config.c_str());
  if (plan.mesh.ranks() > 1)
    std::printf("mesh        %s: %s ranks\n", plan::meshText(plan.mesh).c_str(),
                grouped(plan.mesh.ranks()).c_str());
  std::printf("parameters  %s (%s bytes, moments %s bytes)\n",
              grouped(plan.parameterCount()).c_str(),
              grouped(int64_t(bytesOf(plan, Role::Parameter))).c_str(),
              grouped(int64_t(bytesOf(plan, Role::FirstMoment) +
                              bytesOf(plan, Role::SecondMoment)))
                  .c_str());
  if (plan.mesh.ranks() > 1)
    for (uint32_t stage = 0; stage < uint32_t(plan.mesh.pp); ++stage)
      std::printf(
          "            a rank%s holds %s bytes of parameters, %s of moments\n",
          plan.mesh.pp > 1 ? str(" of stage ", stage).c_str() : "",
          grouped(int64_t(localBytesOf(plan, Role::Parameter, stage))).c_str(),
          grouped(int64_t(localBytesOf(plan, Role::FirstMoment, stage) +
                          localBytesOf(plan, Role::SecondMoment, stage)))
              .c_str());
  std::vector<uint32_t> parameters;
  for (uint32_t i = 0; i < plan.variables.size(); ++i)
    if (plan.variables[i].role == Role::Parameter)
      parameters.push_back(i);
  std::vector<std::vector<std::string>> rows = {
      {"name", "type", "shape", "tensors", "elements", "init"}};
  for (const Group &group : groups(plan, parameters))
    rows.push_back({group.pattern, group.type, group.shape,
                    grouped(group.tensors), grouped(group.elements),
                    group.init});
  printTable(rows, {0, 1, 2, 5});

  for (const plan::Function &function : plan.functions) {
    std::printf("\nfunction %s: batch %s%s, length %s%s\n",
                function.name.c_str(), function.exact ? "" : "up to ",
                grouped(function.batch).c_str(), function.exact ? "" : "up to ",
                grouped(function.length).c_str());
    printSignature(plan, "takes", function.inputs);
    printSignature(plan, "gives", function.outputs);
    for (const plan::Program &program : function.programs)
      printProgram(plan, function, program);
    if (commands)
      for (const plan::Program &program : function.programs)
        printCommands(plan, function, program);
    std::printf("dense flops %.4g a call\n", function.modelFlops);
  }

  std::vector<size_t> dispatches(plan.kernels.size());
  for (const plan::Function &function : plan.functions)
    for (const plan::Program &program : function.programs)
      for (auto [kernel, count] : countCommands(program).kernels)
        dispatches[kernel] += count;
  printCode(plan, dispatches);
}

} // namespace

void addInspect(CLI::App &app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App *command =
      app.add_subcommand("inspect", "prints what a plan contains");
  command->add_option("plan", options->plan, "plan file")->required();
  command->add_flag("--json", options->json, "print JSON");
  command->add_option("--html", options->pageFile,
                      "write a page with layer graph, memory plan, schedule "
                      "and tables into this file");
  command->add_flag("--commands", options->commands,
                    "print each function's commands too");
  command->add_option("--save-object", options->objectFile,
                      "write the kernels' ELF shared object here");
  command->add_option("--save-images", options->imageFolder,
                      "write the kernels' cubins and PTX into this folder");
  command->add_flag("--schedule", options->schedule,
                    "print what the ranks of a pipeline run, and when");
  command->add_option("--schedule-svg", options->scheduleFile,
                      "draw that as a picture (SVG) into this file");
  command->callback([options] {
    const auto plan = plan::LoadedPlan::open(options->plan);
    if (!options->objectFile.empty())
      writeText(options->objectFile,
                {reinterpret_cast<const char *>(plan->object.data()),
                 plan->object.size()});
    if (!options->imageFolder.empty())
      saveImages(*plan, options->imageFolder);
    if (!options->scheduleFile.empty())
      writeText(options->scheduleFile, drawSchedulesAsSvg(*plan));
    if (!options->pageFile.empty())
      writeText(options->pageFile, inspectPage(*plan, inspectJson(*plan)));
    if (options->schedule)
      std::cout << drawSchedulesAsText(*plan);
    else if (options->json)
      std::cout << inspectJson(*plan).dump(2) << '\n';
    else if (options->pageFile.empty())
      inspectText(*plan, options->commands);
  });
}

} // namespace megalodon
