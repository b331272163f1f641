// megalodon-run invoke: one call of one function, raw tensors in and out.
#include "runtime/core/Error.h"
#include "runtime/io/Weights.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/SpreadTensors.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/Ranks.h"
#include "tools/megalodon-run/TraceFile.h"
#include "tools/megalodon-run/TrustOption.h"
#include <CLI/CLI.hpp>
#include <cstring>
#include <set>

namespace megalodon {

namespace {

struct InvokeOptions {
  std::string plan, function, inputs, outputs, traceFile;
  SessionOptions session;
  Trust trust = Trust::Verify;
  RankOptions ranks;
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

/// Counts index caches and must therefore make sense; ranks of the chunk axis
/// begin with whole chunks.
void requireCounts(const std::string &path, const TensorView &tensor,
                   int64_t multiple) {
  for (size_t i = 0; i < tensor.bytes / 8; ++i) {
    int64_t count;
    std::memcpy(&count, tensor.read() + i * 8, 8);
    if (count < 0 || count > (int64_t(1) << 60))
      throw Error(str(path, ": tensor '", tensor.name,
                      "': expected counts from 0 on, got ", count, " at [", i,
                      "]"));
    if (count % multiple != 0)
      throw Error(str(path, ": tensor '", tensor.name,
                      "': expected counts that are multiples of the chunk, ",
                      multiple, ", on a mesh with a chunk axis, got ", count,
                      " at [", i, "]"));
  }
}

/// Steps count from 1: the optimizer divides by 1 - beta^step.
void requireStep(const std::string &path, const TensorView &tensor) {
  int64_t step;
  std::memcpy(&step, tensor.read(), sizeof(step));
  if (step < 1)
    throw Error(
        str(path, ": tensor 'step': expected a step from 1 on, got ", step));
}

void checkValues(const plan::LoadedPlan &plan, const plan::Function &function,
                 const std::string &path, const TensorView &tensor) {
  if (tensor.name == "tokens")
    requireIds(path, tensor, plan.vocabSize, 0);
  else if (tensor.name == "targets")
    requireIds(path, tensor, plan.outputSize, kIgnoredTarget);
  else if (tensor.name == plan::kResets)
    requireIds(path, tensor, 2, 0);
  else if (isState(tensor.name) && tensor.type == ElementType::I64)
    requireCounts(path, tensor,
                  function.chunkParts > 1 ? std::max<int64_t>(1, plan.chunkSize)
                                          : 1);
  else if (tensor.name == "step" && tensor.type == ElementType::I64)
    requireStep(path, tensor);
  else if (isFloat(tensor.type))
    requireFinite(path, tensor);
}

/// Throws Error unless the file holds the inputs of the function and nothing
/// else. Returns whether it holds the state.
bool requireInputs(const plan::LoadedPlan &plan, const plan::Function &function,
                   const SafetensorsFile &file) {
  std::set<std::string> taken;
  std::vector<std::string> missing, missingState;
  bool stateGiven = false;
  for (uint32_t index : function.inputs) {
    const plan::Variable &variable = plan.variables[index];
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
    throw Error(str(file.path(), ": expected all inputs of function '",
                    function.name, "', missing ", nameList(missing)));
  if (stateGiven && !missingState.empty())
    throw Error(str(file.path(),
                    ": expected all state tensors or none, missing ",
                    nameList(missingState)));
  refuseSurplus(plan, file, [&](const std::string &name) {
    return taken.count(name) != 0;
  });
  return stateGiven;
}

/// One rank's share of the call: it reads its parts of the inputs, and rank 0
/// puts the outputs together.
void invoke(const InvokeOptions &options,
            std::shared_ptr<const plan::LoadedPlan> plan, World &world) {
  Session session(plan, options.session, world);
  const size_t index = session.function(options.function);
  const plan::Function &function = plan->functions[index];
  const SafetensorsFile file(options.inputs);
  const CallShape shape = callShape(*plan, function, file);
  const bool stateGiven = requireInputs(*plan, function, file);

  session.resetState(index);
  session.resetOptionalInputs(index);
  for (uint32_t input : function.inputs) {
    const plan::Variable &variable = plan->variables[input];
    const StoredTensor *stored = file.find(variable.name);
    if (!stored)
      continue;
    const SpreadTensor tensor =
        spreadVariable(session, index, variable.name, shape);
    if (!tensor.box())
      continue;
    file.read(*stored, tensor.part, tensor.whole.shape, *tensor.box());
    checkValues(*plan, function, options.inputs, tensor.part);
  }
  plan::Trace trace;
  session.setTrace(options.traceFile.empty() ? nullptr : &trace);
  session.run(index, shape);
  session.setTrace(nullptr);
  if (!options.traceFile.empty())
    writeTrace(options.traceFile, trace, session);

  std::vector<SpreadTensor> outputs;
  for (uint32_t output : function.outputs) {
    const std::string &name = plan->variables[output].name;
    // grad and train_step leave the state alone unless it was carried in.
    if (function.exact && !stateGiven &&
        (isState(name) || isStateGradient(name)))
      continue;
    outputs.push_back(spreadVariable(session, index, name, shape));
  }
  writeAssembled(options.outputs, outputs, world);
}

void invokeOnRanks(InvokeOptions &options) {
  const auto plan = plan::LoadedPlan::open(options.plan, options.trust);
  onRanks(options.ranks, *plan, options.session,
          [&](World &world) { invoke(options, plan, world); });
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
  command->add_option("--trace", options->traceFile,
                      "write what every rank did, and when, here (JSON for "
                      "Perfetto)");
  command->add_option("--gpu", options->session.gpu,
                      "GPU of a plan for GPUs (default: the ranks of a machine "
                      "take its GPUs in turn)");
  command->add_option("--threads", options->session.threads,
                      "number of threads (0: all processors)");
  command->add_flag("--poison", options->session.poison,
                    "fill scratch memory with NaN first (finds kernels that "
                    "read what nobody wrote)");
  addRankOptions(*command, options->ranks);
  addTrustOption(*command, options->trust);
  command->callback([options] { invokeOnRanks(*options); });
}

} // namespace megalodon
