#include "runtime/io/StateFile.h"
#include "runtime/core/Error.h"
#include "runtime/io/Json.h"
#include "runtime/io/Safetensors.h"
#include "runtime/io/Weights.h"
#include "runtime/plan/LoadedPlan.h"
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

namespace megalodon {

static constexpr const char *kFormat = "megalodon-state", *kVersion = "1";

/// The state that a function reads. Throws Error when there is none.
static std::vector<TensorView> stateOf(Session &session, size_t function,
                                       int64_t rows) {
  const plan::LoadedPlan &plan = session.plan();
  std::vector<TensorView> list;
  for (uint32_t index : plan.functions[function].inputs)
    if (plan.variables[index].role == plan::Role::State)
      list.push_back(
          session.variable(function, plan.variables[index].name, {rows, 0}));
  if (list.empty())
    throw Error(str(plan.path, ": function '", plan.functions[function].name,
                    "' keeps no state"));
  return list;
}

void saveState(Session &session, size_t function, int64_t rows,
               const std::string &path) {
  const plan::LoadedPlan &plan = session.plan();
  writeSafetensors(path, stateOf(session, function, rows),
                   {{"format", kFormat},
                    {"format_version", kVersion},
                    {"config", plan.config},
                    {"precision", plan.precision},
                    {"plan", plan.digest}});
}

/// Throws Error naming the first field in which the model that left the state
/// differs from the plan's. How a model was trained changes nothing.
static void requireSameModel(const SafetensorsFile &file,
                             const plan::LoadedPlan &plan) {
  auto value = [&](const char *key) {
    auto found = file.metadata().find(key);
    if (found == file.metadata().end())
      throw Error(str(file.path(), ": field '__metadata__.", key,
                      "' is missing; expected a file that a session saved"));
    return found->second;
  };
  auto require = [&](const char *what, const std::string &expected,
                     const std::string &got) {
    if (expected != got)
      throw Error(str(file.path(), ": ", what, ": expected ", expected,
                      " as in ", plan.path, ", got ", got));
  };
  if (value("format") != kFormat || value("format_version") != kVersion)
    throw Error(str(file.path(), ": expected format ", kFormat, " version ",
                    kVersion, ", got ", value("format"), " version ",
                    value("format_version")));
  require("precision", plan.precision, value("precision"));
  nlohmann::json own = parseJson(plan.path, "config", plan.config),
                 saved = parseJson(file.path(), "field '__metadata__.config'",
                                   value("config"));
  for (const char *training : {"optimizer", "init_mode", "layerwise_ckpt"}) {
    own.erase(training);
    saved.erase(training);
  }
  auto text = [](const nlohmann::json &of, const std::string &key) {
    return of.contains(key) ? of[key].dump() : std::string("nothing");
  };
  for (const nlohmann::json *side : {&own, &saved})
    for (const auto &item : side->items())
      require(("config field '" + item.key() + "'").c_str(),
              text(own, item.key()), text(saved, item.key()));
}

void restoreState(Session &session, size_t function, int64_t rows,
                  const std::string &path) {
  const SafetensorsFile file(path);
  requireSameModel(file, session.plan());
  const std::vector<TensorView> state = stateOf(session, function, rows);
  std::set<std::string> names;
  std::vector<std::vector<std::byte>> values;
  for (const TensorView &tensor : state) {
    const StoredTensor *stored = file.find(tensor.name);
    auto wrong = [&](const auto &...pieces) {
      return Error(str(path, ": tensor '", tensor.name, "': ", pieces...));
    };
    if (!stored)
      throw Error(str(path, ": expected tensor '", tensor.name, "', got none"));
    if (std::strcmp(stored->typeName(), elementName(tensor.type)))
      throw wrong("expected type ", elementName(tensor.type), ", got ",
                  stored->typeName());
    std::vector<std::byte> &bytes = values.emplace_back(tensor.bytes);
    TensorView copy = tensor;
    copy.memory = bytes.data();
    copy.copy = nullptr;
    file.read(*stored, copy);
    requireFinite(path, copy);
    for (size_t i = 0; copy.type == ElementType::I64 && i < bytes.size();
         i += sizeof(int64_t)) {
      int64_t count;
      std::memcpy(&count, bytes.data() + i, sizeof(count));
      if (count < 0)
        throw wrong("expected counts from 0 on, got ", count);
    }
    names.insert(tensor.name);
  }
  for (const StoredTensor &stored : file.tensors())
    if (!names.count(stored.name))
      throw Error(str(path, ": tensor '", stored.name, "': expected only the ",
                      state.size(), " state tensors of ", session.plan().path));
  for (size_t i = 0; i < state.size(); ++i)
    std::memcpy(state[i].overwrite(), values[i].data(), values[i].size());
}

void copyState(Session &from, size_t fromFunction, Session &to,
               size_t toFunction, int64_t rows) {
  const std::vector<TensorView> sources = stateOf(from, fromFunction, rows),
                                targets = stateOf(to, toFunction, rows);
  auto differ = [](const TensorView &source, const TensorView &target) {
    return source.name != target.name || source.type != target.type ||
           source.shape != target.shape;
  };
  for (size_t i = 0; i < targets.size(); ++i)
    if (sources.size() != targets.size() || differ(sources[i], targets[i]))
      throw Error(str(to.plan().path, ": function '",
                      to.plan().functions[toFunction].name,
                      "': expected the same state as that of function '",
                      from.plan().functions[fromFunction].name,
                      "', got another at '", targets[i].name, "'"));
  for (size_t i = 0; i < targets.size(); ++i)
    std::memmove(targets[i].overwrite(), sources[i].read(), sources[i].bytes);
}

std::vector<int64_t> statePositions(Session &session, size_t function,
                                    int64_t rows) {
  for (const TensorView &tensor : stateOf(session, function, rows))
    if (tensor.type == ElementType::I64) {
      std::vector<int64_t> positions(tensor.bytes / sizeof(int64_t));
      std::memcpy(positions.data(), tensor.read(), tensor.bytes);
      return positions;
    }
  throw Error(str(session.plan().path, ": function '",
                  session.plan().functions[function].name,
                  "' does not count its tokens"));
}

} // namespace megalodon
