// megalodon-run invoke: one call of one function, raw tensors in and out.
#include "runtime/core/Error.h"
#include "runtime/io/Weights.h"
#include "runtime/plan/LoadedPlan.h"
#include "tools/megalodon-run/Commands.h"
#include <CLI/CLI.hpp>
#include <cstring>
#include <set>

namespace megalodon {

namespace {

struct InvokeOptions {
  std::string plan, function, inputs, outputs;
  SessionOptions session;
};

constexpr int64_t kIgnoredTarget = -100;

/// Batch and length of the call, taken from `tokens`.
CallShape callShape(const plan::LoadedPlan &plan,
                    const plan::Function &function,
                    const SafetensorsFile &file) {
  const StoredTensor *tokens = file.find("tokens");
  if (!tokens)
    return {}; // if the function needs them, they are reported as missing with
               // all others
  const std::vector<int64_t> &shape = tokens->shape;
  const bool fits =
      shape.size() == 2 &&
      (function.exact
           ? shape[0] == function.batch && shape[1] == function.length
           : shape[0] >= 1 && shape[0] <= function.batch && shape[1] >= 1 &&
                 shape[1] <= function.length);
  if (!fits)
    throw Error(str(file.path(), ": tensor 'tokens': expected shape ",
                    function.exact ? "" : "at most ",
                    shapeText({function.batch, function.length}),
                    " for function '", function.name, "' of ", plan.path,
                    ", got ", shapeText(shape)));
  return {shape[0], shape[1]};
}

bool isState(const std::string &name) { return name.rfind("state.", 0) == 0; }
bool isStateGradient(const std::string &name) {
  return name.rfind("grad.state.", 0) == 0;
}

/// Counts index caches and must therefore make sense.
void requireCounts(const std::string &path, const TensorView &tensor) {
  for (size_t i = 0; i < tensor.bytes / 8; ++i) {
    int64_t count;
    std::memcpy(&count, tensor.data + i * 8, 8);
    if (count < 0 || count > (int64_t(1) << 60))
      throw Error(str(path, ": tensor '", tensor.name,
                      "': expected counts from 0 on, got ", count, " at [", i,
                      "]"));
  }
}

/// Steps count from 1: the optimizer divides by 1 - beta^step.
void requireStep(const std::string &path, const TensorView &tensor) {
  int64_t step;
  std::memcpy(&step, tensor.data, sizeof(step));
  if (step < 1)
    throw Error(
        str(path, ": tensor 'step': expected a step from 1 on, got ", step));
}

void checkValues(const plan::LoadedPlan &plan, const std::string &path,
                 const TensorView &tensor) {
  if (tensor.name == "tokens")
    requireIds(path, tensor, plan.vocabSize, 0);
  else if (tensor.name == "targets")
    requireIds(path, tensor, plan.outputSize, kIgnoredTarget);
  else if (isState(tensor.name) && tensor.type == ElementType::I64)
    requireCounts(path, tensor);
  else if (tensor.name == "step" && tensor.type == ElementType::I64)
    requireStep(path, tensor);
  else if (tensor.type == ElementType::F32 || tensor.type == ElementType::F64)
    requireFinite(path, tensor);
}

void invoke(const InvokeOptions &options) {
  const auto plan = plan::LoadedPlan::open(options.plan);
  Session session(plan, options.session);
  const size_t index = session.function(options.function);
  const plan::Function &function = plan->functions[index];
  const SafetensorsFile file(options.inputs);
  const CallShape shape = callShape(*plan, function, file);

  std::set<std::string> taken;
  std::vector<std::string> missing, missingState;
  bool stateGiven = false;
  const std::vector<TensorView> inputs = session.inputs(index, shape);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const plan::Variable &variable = plan->variables[function.inputs[i]];
    taken.insert(variable.name);
    const bool given = file.find(variable.name);
    if (isState(variable.name)) {
      stateGiven |= given;
      if (!given)
        missingState.push_back(variable.name);
    } else if (!given && !variable.optional) {
      missing.push_back(variable.name);
    }
  }
  if (!missing.empty())
    throw Error(str(options.inputs, ": expected all inputs of function '",
                    function.name, "', missing ", nameList(missing)));
  if (stateGiven && !missingState.empty())
    throw Error(str(options.inputs,
                    ": expected all state tensors or none, missing ",
                    nameList(missingState)));
  refuseSurplus(*plan, file, [&](const std::string &name) {
    return taken.count(name) != 0;
  });

  session.resetState(index);
  session.resetOptionalInputs(index);
  for (const TensorView &input : inputs)
    if (const StoredTensor *tensor = file.find(input.name)) {
      file.read(*tensor, input);
      checkValues(*plan, options.inputs, input);
    }
  session.run(index, shape);

  std::vector<TensorView> outputs;
  for (const TensorView &output : session.outputs(index, shape)) {
    // grad and train_step leave the state alone unless it was carried in.
    if (function.exact && !stateGiven &&
        (isState(output.name) || isStateGradient(output.name)))
      continue;
    outputs.push_back(output);
  }
  writeSafetensors(options.outputs, outputs);
}

} // namespace

void addInvoke(CLI::App &app) {
  auto options = std::make_shared<InvokeOptions>();
  CLI::App *command =
      app.add_subcommand("invoke", "runs one function on raw tensors");
  command->add_option("plan", options->plan, "plan file")->required();
  command->add_option("--function", options->function, "function to run")
      ->required();
  command
      ->add_option("--inputs", options->inputs,
                   "safetensors file with parameters and inputs")
      ->required();
  command
      ->add_option("--outputs", options->outputs, "safetensors file to write")
      ->required();
  command->add_option("--threads", options->session.threads,
                      "number of threads (0: all processors)");
  command->add_flag("--poison", options->session.poison,
                    "fill scratch memory with NaN first (finds kernels that "
                    "read what nobody wrote)");
  command->callback([options] { invoke(*options); });
}

} // namespace megalodon
