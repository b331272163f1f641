// The C interface's models: opening, weights, and what a plan says of itself.
#include "runtime/c/Handles.h"
#include "runtime/core/BFloat16.h"
#include "runtime/io/Safetensors.h"
#include "runtime/io/Weights.h"
#include "runtime/train/Checkpoint.h"
#include <algorithm>
#include <cstring>

using namespace megalodon;
using namespace megalodon::c;

static_assert(int(ElementType::F32) == MEGALODON_F32 &&
              int(ElementType::F64) == MEGALODON_F64 &&
              int(ElementType::I32) == MEGALODON_I32 &&
              int(ElementType::I64) == MEGALODON_I64 &&
              int(ElementType::BF16) == MEGALODON_BF16 &&
              int(ElementType::I8) == MEGALODON_I8);
static_assert(int(plan::Role::Parameter) == MEGALODON_PARAMETER &&
              int(plan::Role::FirstMoment) == MEGALODON_FIRST_MOMENT &&
              int(plan::Role::SecondMoment) == MEGALODON_SECOND_MOMENT &&
              int(plan::Role::Gradient) == MEGALODON_GRADIENT &&
              int(plan::Role::Input) == MEGALODON_INPUT &&
              int(plan::Role::Output) == MEGALODON_OUTPUT &&
              int(plan::Role::State) == MEGALODON_STATE);

static thread_local std::string lastError;

megalodon_status c::fail(megalodon_status status, const char *message) {
  try {
    lastError = message;
  } catch (const std::bad_alloc &) {
    lastError.clear();
  }
  return status;
}

void c::copyShape(const std::string &name, const std::vector<int64_t> &from,
                  int32_t &rank, int64_t *shape) {
  if (from.size() > MEGALODON_MAX_RANK)
    throw Error(str("variable '", name, "': expected at most ",
                    int(MEGALODON_MAX_RANK), " dimensions, got ", from.size()));
  rank = int32_t(from.size());
  std::fill_n(shape, MEGALODON_MAX_RANK, 0);
  std::copy(from.begin(), from.end(), shape);
}

int32_t megalodon_abi_version(void) { return MEGALODON_ABI_VERSION; }
const char *megalodon_version(void) { return MEGALODON_VERSION; }
const char *megalodon_error(void) { return lastError.c_str(); }

static Trust trustOf(const megalodon_options *options) {
  return options && options->trust ? Trust::Assume : Trust::Verify;
}

static void open(std::shared_ptr<const plan::LoadedPlan> plan,
                 const megalodon_options *given, megalodon_model **model) {
  const megalodon_options options =
      given ? *given : megalodon_options MEGALODON_OPTIONS_INIT;
  auto result = std::make_shared<Model>();
  result->plan = std::move(plan);
  result->options.threads = options.threads;
  result->options.gpu = options.gpu;
  result->trust = trustOf(given);
  SessionOptions first = result->options;
  if (!result->plan->isCuda())
    first.threads = 1; // it never runs, it only holds the weights
  result->weights = std::make_shared<Session>(result->plan, first);
  for (const plan::Variable &variable : result->plan->variables)
    if (variable.role == plan::Role::Parameter)
      result->missing.insert(variable.name);
  *model = new megalodon_model{std::move(result)};
}

static void requireOptions(const megalodon_options *options) {
  if (!options)
    return;
  requireAbi(*options);
  if (options->threads < 0)
    throw Misuse(
        str("options.threads: expected 0 or more, got ", options->threads));
  if (options->trust != 0 && options->trust != 1)
    throw Misuse(str("options.trust: expected 0 or 1, got ", options->trust));
}

megalodon_status megalodon_model_open(const char *path,
                                      const megalodon_options *options,
                                      megalodon_model **model) {
  return guarded([&] {
    require(path, "path");
    require(model, "model");
    requireOptions(options);
    open(plan::LoadedPlan::open(path, trustOf(options)), options, model);
  });
}

megalodon_status megalodon_model_open_memory(const char *name, const void *data,
                                             size_t bytes,
                                             const megalodon_options *options,
                                             megalodon_model **model) {
  return guarded([&] {
    require(name, "name");
    require(data, "data");
    require(model, "model");
    requireOptions(options);
    // The payload is read in place, at the alignment that a file has in memory.
    struct Free {
      void operator()(void *memory) const { std::free(memory); }
    };
    std::unique_ptr<void, Free> copy(
        std::aligned_alloc(64, (bytes + 64) / 64 * 64));
    if (!copy)
      throw std::bad_alloc();
    std::memcpy(copy.get(), data, bytes);
    open(plan::LoadedPlan::parse(name, static_cast<const uint8_t *>(copy.get()),
                                 bytes, trustOf(options)),
         options, model);
  });
}

void megalodon_model_close(megalodon_model *model) { delete model; }

megalodon_status megalodon_model_load_weights(megalodon_model *model,
                                              const char *path) {
  return guarded([&] {
    require(model, "model");
    require(path, "path");
    loadWeights(path, *model->model->weights, model->model->trust);
    model->model->missing.clear();
  });
}

/// Elements of a floating type as f64.
static double loadFloat(ElementType type, const std::byte *data, size_t i) {
  auto read = [&](auto value) {
    std::memcpy(&value, data + i * sizeof(value), sizeof(value));
    return value;
  };
  return type == ElementType::F64   ? read(double())
         : type == ElementType::F32 ? double(read(float()))
                                    : double(widen(read(BFloat16())));
}

static void convert(ElementType from, const std::byte *source, ElementType to,
                    std::byte *target, size_t count) {
  auto write = [&](size_t i, auto value) {
    std::memcpy(target + i * sizeof(value), &value, sizeof(value));
  };
  if (from == to)
    std::memcpy(target, source, count * elementBytes(to));
  else
    for (size_t i = 0; i < count; ++i) {
      const double value = loadFloat(from, source, i);
      if (to == ElementType::F64)
        write(i, value);
      else if (to == ElementType::F32)
        write(i, float(value));
      else
        write(i, narrow(float(value)));
    }
}

megalodon_status megalodon_model_set_weight(megalodon_model *model,
                                            const char *name,
                                            const megalodon_tensor *value) {
  return guarded([&] {
    require(model, "model");
    require(name, "name");
    require(value, "value");
    Model &of = *model->model;
    const std::vector<TensorView> list = of.weights->parameters();
    auto found =
        std::find_if(list.begin(), list.end(), [&](const TensorView &tensor) {
          return tensor.name == name;
        });
    if (found == list.end())
      throw Error(str(of.plan->path, ": the model has no weight '", name, "'"));
    auto wrong = [&](const auto &...pieces) {
      return Error(str("weight '", name, "': ", pieces...));
    };
    if (value->rank < 0 || value->rank > MEGALODON_MAX_RANK)
      throw Misuse(str("value.rank: expected 0 to ", int(MEGALODON_MAX_RANK),
                       ", got ", value->rank));
    const std::vector<int64_t> shape(value->shape, value->shape + value->rank);
    if (shape != found->shape)
      throw wrong("expected shape ", shapeText(found->shape), ", got ",
                  shapeText(shape));
    const auto type = ElementType(value->type);
    if (type != ElementType::F32 && type != ElementType::F64 &&
        type != ElementType::BF16)
      throw wrong("expected type F32, F64 or BF16, got another");
    const size_t count = found->bytes / elementBytes(found->type);
    if (value->bytes != count * elementBytes(type))
      throw wrong("expected ", count * elementBytes(type), " bytes, got ",
                  value->bytes);
    if (count)
      require(value->data, "value.data");
    TensorView given{name,         type,
                     shape,        static_cast<std::byte *>(value->data),
                     value->bytes, nullptr};
    requireFinite("value", given);
    std::vector<std::byte> converted(found->bytes);
    convert(type, given.memory, found->type, converted.data(), count);
    given.type = found->type;
    given.memory = converted.data();
    given.bytes = converted.size();
    requireFinite("value", given); // what was too large for the type
    std::memcpy(found->overwrite(), converted.data(), converted.size());
    found->flush();
    of.missing.erase(name);
  });
}

megalodon_status megalodon_model_query(const megalodon_model *model,
                                       megalodon_model_info *info) {
  return guarded([&] {
    require(model, "model");
    requireSize(info, "info");
    const plan::LoadedPlan &plan = *model->model->plan;
    const auto weights =
        std::count_if(plan.variables.begin(), plan.variables.end(),
                      [](const plan::Variable &variable) {
                        return variable.role == plan::Role::Parameter;
                      });
    *info = {info->struct_size,      int32_t(plan.functions.size()),
             int32_t(weights),       int32_t(model->model->missing.size()),
             plan.parameterCount(),  plan.vocabSize,
             plan.outputSize,        plan.chunkSize,
             plan.numLayers,         plan.config.c_str(),
             plan.precision.c_str(), plan.target.c_str(),
             plan.digest.c_str()};
  });
}

static const plan::Function &functionOf(const megalodon_model *model,
                                        int32_t index) {
  require(model, "model");
  const std::vector<plan::Function> &list = model->model->plan->functions;
  if (index < 0 || size_t(index) >= list.size())
    throw Misuse(
        str("function: expected 0 to ", list.size() - 1, ", got ", index));
  return list[size_t(index)];
}

/// Inputs, then what is an output only.
static std::vector<uint32_t> variablesOf(const plan::Function &function) {
  std::vector<uint32_t> list = function.inputs;
  for (uint32_t index : function.outputs)
    if (std::find(function.inputs.begin(), function.inputs.end(), index) ==
        function.inputs.end())
      list.push_back(index);
  return list;
}

megalodon_status megalodon_model_function(const megalodon_model *model,
                                          int32_t function,
                                          megalodon_function_info *info) {
  return guarded([&] {
    const plan::Function &of = functionOf(model, function);
    requireSize(info, "info");
    *info = {info->struct_size, int32_t(variablesOf(of).size()),
             of.name.c_str(),   of.batch,
             of.length,         of.exact};
  });
}

megalodon_status megalodon_model_find_function(const megalodon_model *model,
                                               const char *name,
                                               int32_t *function) {
  return guarded([&] {
    require(model, "model");
    require(name, "name");
    require(function, "function");
    *function = int32_t(model->model->weights->function(name));
  });
}

megalodon_status megalodon_model_variable(const megalodon_model *model,
                                          int32_t function, int32_t variable,
                                          megalodon_variable_info *info) {
  return guarded([&] {
    const plan::Function &of = functionOf(model, function);
    requireSize(info, "info");
    const std::vector<uint32_t> list = variablesOf(of);
    if (variable < 0 || size_t(variable) >= list.size())
      throw Misuse(
          str("variable: expected 0 to ", list.size() - 1, ", got ", variable));
    const uint32_t index = list[size_t(variable)];
    const plan::Variable &v = model->model->plan->variables[index];
    megalodon_variable_info result{};
    result.struct_size = info->struct_size;
    result.role = megalodon_role(v.role);
    result.name = v.name.c_str();
    result.type = megalodon_element_type(v.type);
    copyShape(v.name, v.shape, result.rank, result.shape);
    result.dynamic = int32_t(v.dynamic);
    result.is_input = size_t(variable) < of.inputs.size();
    result.is_output = std::find(of.outputs.begin(), of.outputs.end(), index) !=
                       of.outputs.end();
    result.optional = v.optional;
    *info = result;
  });
}
