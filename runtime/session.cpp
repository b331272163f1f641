#include "runtime/session.h"
#include "runtime/core/Error.h"
#include "runtime/cpu/Executor.h"
#include "runtime/plan/LoadedPlan.h"
#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_map>

namespace megalodon {

using plan::Dynamic;
using plan::Function;
using plan::Role;
using plan::Variable;

/// Parameters and moments are one memory for all functions; everything else
/// belongs to its function.
static bool isShared(const Variable &variable) {
  return variable.role == Role::Parameter ||
         variable.role == Role::FirstMoment ||
         variable.role == Role::SecondMoment;
}

static size_t alignedBytes(size_t bytes) { return (bytes + 63) / 64 * 64; }

static std::shared_ptr<const plan::LoadedPlan>
runnableHere(std::shared_ptr<const plan::LoadedPlan> plan) {
  const std::vector<std::string> missing = plan::missingCpuFeatures(*plan);
  if (missing.empty())
    return plan;
  std::string names;
  for (const std::string &name : missing)
    names += (names.empty() ? "" : ", ") + name;
  throw Error(str(plan->path, ": compiled for cpu '", plan->cpu,
                  "', but this processor lacks: ", names,
                  "; compile the plan for this machine (--cpu=native) or for "
                  "an older one"));
}

/// Memory of a set of variables, by index.
struct Storage {
  cpu::Memory memory;
  std::unordered_map<uint32_t, std::byte *> address;

  Storage(const plan::LoadedPlan &plan, const std::vector<uint32_t> &variables,
          const std::string &purpose) {
    size_t total = 0;
    for (uint32_t index : variables)
      total += alignedBytes(plan.variables[index].bytes());
    memory = cpu::Memory(total, purpose);
    std::byte *next = memory.data();
    for (uint32_t index : variables) {
      address[index] = next;
      next += alignedBytes(plan.variables[index].bytes());
    }
  }
};

/// What a function needs to run; made when it is first used.
struct Bound {
  Storage own;
  std::vector<uint32_t> variables;
  std::vector<std::byte *> buffers;
};

struct Session::Impl {
  std::shared_ptr<const plan::LoadedPlan> plan;
  cpu::Executor executor;
  Storage shared;
  cpu::Memory arena; ///< of all functions: only one runs at a time
  std::vector<std::optional<Bound>> bound;
  bool poison;
  bool profiling = false;
  std::vector<double> seconds;

  Impl(std::shared_ptr<const plan::LoadedPlan> loaded, SessionOptions options)
      : plan(runnableHere(std::move(loaded))), executor(plan, options.threads),
        shared(*plan, sharedVariables(*plan), "parameters and moments"),
        bound(plan->functions.size()), poison(options.poison) {
    uint64_t most = 0;
    for (const Function &function : plan->functions)
      most = std::max(most, function.arenaBytes);
    arena = cpu::Memory(most, "the arena");
  }

  static std::vector<uint32_t> sharedVariables(const plan::LoadedPlan &plan) {
    std::vector<uint32_t> list;
    for (uint32_t i = 0; i < plan.variables.size(); ++i)
      if (isShared(plan.variables[i]))
        list.push_back(i);
    return list;
  }

  const Function &function(size_t index) const {
    if (index >= plan->functions.size())
      throw Error(str(plan->path, ": function ", index, " is out of range"));
    return plan->functions[index];
  }

  Bound &bind(size_t index) {
    const Function &f = function(index);
    if (bound[index])
      return *bound[index];
    std::vector<uint32_t> all(f.inputs);
    all.insert(all.end(), f.outputs.begin(), f.outputs.end());
    for (const plan::Buffer &buffer : f.buffers)
      if (buffer.variable >= 0)
        all.push_back(uint32_t(buffer.variable));
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    std::vector<uint32_t> own;
    std::copy_if(all.begin(), all.end(), std::back_inserter(own),
                 [&](uint32_t i) { return !isShared(plan->variables[i]); });
    bound[index].emplace(
        Bound{Storage(*plan, own, str("the variables of '", f.name, "'")),
              std::move(all),
              {}});
    Bound &result = *bound[index];
    for (const plan::Buffer &buffer : f.buffers) {
      std::byte *base = buffer.variable < 0
                            ? arena.data()
                            : address(result, uint32_t(buffer.variable));
      result.buffers.push_back(base + buffer.offset);
    }
    for (uint32_t i : f.inputs)
      setDefault(result, i);
    return result;
  }

  std::byte *address(const Bound &of, uint32_t variable) const {
    return isShared(plan->variables[variable]) ? shared.address.at(variable)
                                               : of.own.address.at(variable);
  }

  void setDefault(const Bound &of, uint32_t index) const {
    const Variable &variable = plan->variables[index];
    if (!variable.optional || variable.role != Role::Input)
      return;
    std::byte *data = address(of, index);
    for (int64_t i = 0; i < variable.elements(); ++i) {
      auto store = [&](auto value) {
        std::memcpy(data + size_t(i) * sizeof(value), &value, sizeof(value));
      };
      switch (variable.type) {
      case ElementType::F32:
        store(float(variable.defaultValue));
        break;
      case ElementType::F64:
        store(variable.defaultValue);
        break;
      case ElementType::I32:
        store(int32_t(variable.defaultValue));
        break;
      case ElementType::I64:
        store(int64_t(variable.defaultValue));
        break;
      case ElementType::I8:
        store(int8_t(variable.defaultValue));
        break;
      case ElementType::BF16:
        throw Error(str(plan->path, ": input '", variable.name,
                        "': a default value of type BF16 is not supported"));
      }
    }
  }

  CallShape checked(const Function &f, CallShape shape) const {
    CallShape call{shape.batch ? shape.batch : f.batch,
                   shape.length ? shape.length : f.length};
    auto refuse = [&](const char *what, int64_t most, int64_t got) {
      if (got != most && (f.exact || got < 1 || got > most))
        throw Error(str(plan->path, ": function '", f.name, "': ", what,
                        ": expected ", f.exact ? "exactly " : "between 1 and ",
                        most, ", got ", got));
    };
    refuse("batch", f.batch, call.batch);
    refuse("length", f.length, call.length);
    return call;
  }

  TensorView view(const Bound &of, uint32_t index, CallShape call) const {
    const Variable &variable = plan->variables[index];
    TensorView view{variable.name, variable.type, variable.shape,
                    address(of, index), elementBytes(variable.type)};
    if (variable.dynamic != Dynamic::None)
      view.shape[0] = call.batch;
    if (variable.dynamic == Dynamic::BatchLength)
      view.shape[1] = call.length;
    for (int64_t size : view.shape)
      view.bytes *= size_t(size);
    return view;
  }

  std::vector<TensorView> views(const std::vector<uint32_t> &indices,
                                size_t function, CallShape shape) {
    const Bound &of = bind(function);
    const CallShape call = checked(plan->functions[function], shape);
    std::vector<TensorView> list;
    for (uint32_t index : indices)
      list.push_back(view(of, index, call));
    return list;
  }

  std::vector<TensorView> sharedViews(Role role) const {
    std::vector<TensorView> list;
    for (uint32_t i = 0; i < plan->variables.size(); ++i) {
      const Variable &variable = plan->variables[i];
      if (variable.role == role)
        list.push_back({variable.name, variable.type, variable.shape,
                        shared.address.at(i), variable.bytes()});
    }
    return list;
  }
};

Session::Session(std::shared_ptr<const plan::LoadedPlan> plan,
                 SessionOptions options)
    : impl(std::make_unique<Impl>(std::move(plan), options)) {}
Session::~Session() = default;
Session::Session(Session &&) noexcept = default;

const plan::LoadedPlan &Session::plan() const { return *impl->plan; }
int Session::threads() const { return impl->executor.threads().size(); }

bool Session::hasFunction(std::string_view name) const {
  return impl->plan->findFunction(name) >= 0;
}

size_t Session::function(std::string_view name) const {
  const int index = impl->plan->findFunction(name);
  if (index >= 0)
    return size_t(index);
  std::string names;
  for (const Function &function : impl->plan->functions)
    names += (names.empty() ? "'" : ", '") + function.name + "'";
  throw Error(str(impl->plan->path, ": the plan has no function '", name,
                  "', only ", names));
}

TensorView Session::variable(size_t function, std::string_view name,
                             CallShape shape) {
  const Bound &of = impl->bind(function);
  const CallShape call = impl->checked(impl->function(function), shape);
  for (uint32_t index : of.variables)
    if (impl->plan->variables[index].name == name)
      return impl->view(of, index, call);
  throw Error(str(impl->plan->path, ": function '",
                  impl->function(function).name, "' has no variable '", name,
                  "'"));
}

std::vector<TensorView> Session::inputs(size_t function, CallShape shape) {
  return impl->views(impl->function(function).inputs, function, shape);
}

std::vector<TensorView> Session::outputs(size_t function, CallShape shape) {
  return impl->views(impl->function(function).outputs, function, shape);
}

std::vector<TensorView> Session::parameters() {
  return impl->sharedViews(Role::Parameter);
}
std::vector<TensorView> Session::firstMoments() {
  return impl->sharedViews(Role::FirstMoment);
}
std::vector<TensorView> Session::secondMoments() {
  return impl->sharedViews(Role::SecondMoment);
}

void Session::resetState(size_t function) {
  const Bound &of = impl->bind(function);
  for (uint32_t index : of.variables) {
    const Variable &variable = impl->plan->variables[index];
    if (variable.role == Role::State)
      std::memset(impl->address(of, index), 0, variable.bytes());
  }
}

void Session::resetOptionalInputs(size_t function) {
  const Bound &of = impl->bind(function);
  for (uint32_t index : impl->function(function).inputs)
    impl->setDefault(of, index);
}

void Session::run(size_t function, CallShape shape, Half half,
                  bool accumulate) {
  const Bound &of = impl->bind(function);
  const Function &f = impl->function(function);
  const CallShape call = impl->checked(f, shape);
  const size_t begin = half == Half::Update ? f.updateBegin : 0;
  const size_t end = half == Half::Compute ? f.updateBegin : f.commands.size();
  if (impl->poison && half != Half::Update && impl->arena.bytes())
    std::memset(impl->arena.data(), 0xff, impl->arena.bytes());
  if (impl->profiling)
    impl->seconds.assign(f.commands.size(), 0);
  impl->executor.run(f, of.buffers,
                     {call.batch, call.length, accumulate, begin, end},
                     impl->profiling ? &impl->seconds : nullptr);
}

void Session::setProfiling(bool on) { impl->profiling = on; }
const std::vector<double> &Session::commandSeconds() const {
  return impl->seconds;
}

} // namespace megalodon
