// A plan's facts, mesh, communicators and variables.
#include "runtime/plan/PlanReader.h"
#include <algorithm>

namespace megalodon::plan {

static_assert(int(fb::ElementType::MAX) == int(ElementType::I8) &&
              int(fb::Role::MAX) == int(Role::Residual) &&
              int(fb::Dynamic::MAX) == int(Dynamic::BatchLength) &&
              int(fb::InitKind::MAX) == int(InitKind::Untouched) &&
              int(fb::Outer::MAX) == int(Outer::Batch) &&
              int(fb::Inner::MAX) == int(Inner::Tokens) &&
              int(fb::Axis::MAX) == int(Axis::Tensor) &&
              int(fb::Indexed::MAX) == int(Indexed::Slot) &&
              int(fb::CollectiveKind::MAX) ==
                  int(CollectiveKind::ReduceScatter) &&
              int(fb::ActionKind::MAX) == int(ActionKind::Receive));

void PlanReader::read(const fb::Plan &root) {
  plan.producer = text(root.producer());
  plan.config = text(root.config());
  plan.model = text(root.model());
  plan.precision = text(root.precision());
  plan.target = text(root.target());
  plan.cpu = text(root.cpu());
  if (root.cpu_features())
    for (const flatbuffers::String *name : list(*root.cpu_features()))
      plan.cpuFeatures.push_back(text(name));
  plan.vocabSize = root.vocab_size();
  plan.outputSize = root.output_size();
  plan.chunkSize = root.chunk_size();
  plan.numLayers = root.num_layers();
  plan.context = root.context();
  check(plan.target == "cpu" || plan.target == "cuda", "target",
        "expected 'cpu' or 'cuda', got '", plan.target, "'");
  check((plan.target == "cuda") == plan.isCuda(), "target", "'", plan.target,
        "' is not what the header's feature bits say");
  check(plan.precision == "f32" || plan.precision == "bf16" ||
            plan.precision == "f64",
        "precision", "expected 'f32', 'bf16' or 'f64', got '", plan.precision,
        "'");
  check(plan.vocabSize > 0 && plan.vocabSize <= INT32_MAX, "vocab_size",
        "expected a positive size, got ", plan.vocabSize);
  check(plan.outputSize > 0 && plan.outputSize <= INT32_MAX, "output_size",
        "expected a positive size, got ", plan.outputSize);
  check(plan.chunkSize >= 0, "chunk_size", "expected a size, got ",
        plan.chunkSize);
  check(plan.context >= 0, "context", "expected a number, got ", plan.context);
  check(plan.numLayers >= 0, "num_layers", "expected a number, got ",
        plan.numLayers);
  if (root.mesh())
    readMesh(*root.mesh());
  if (root.communicators())
    for (const fb::Communicator *communicator : list(*root.communicators()))
      readCommunicator(*communicator);
  for (const fb::Variable *variable : list(*root.variables()))
    readVariable(*variable);
  for (const Variable &variable : plan.variables)
    checkParameterOf(variable);
  for (const fb::Kernel *kernel : list(*root.kernels()))
    readKernel(*kernel);
  if (root.object())
    take(root.object()->size());
  if (root.object())
    plan.object.assign(root.object()->begin(), root.object()->end());
  check(!root.images() || root.images()->size() <= kMaxImages, "images",
        "expected at most ", kMaxImages);
  if (root.images())
    for (const fb::GpuImage *image : *root.images())
      readImage(*image);
  check(plan.kernels.empty() ||
            !(plan.isCuda() ? plan.images.empty() : plan.object.empty()),
        plan.isCuda() ? "images" : "object", "expected the code of ",
        plan.kernels.size(), " kernels, got nothing");
  check(root.functions()->size() <= kMaxFunctions, "functions",
        "expected at most ", kMaxFunctions, ", got ", root.functions()->size());
  for (const fb::Function *function : *root.functions())
    readFunction(*function);
  check(!plan.functions.empty(), "functions",
        "expected at least one, got none");
}

void PlanReader::readMesh(const fb::Mesh &from) {
  uint64_t ranks = 1;
  for (uint32_t size : {from.dp(), from.pp(), from.cp(), from.tp()}) {
    check(size > 0 && size <= kMaxRanks && ranks * size <= kMaxRanks, "mesh",
          "expected positive sizes of at most ", kMaxRanks,
          " ranks together, got ", from.dp(), " x ", from.pp(), " x ",
          from.cp(), " x ", from.tp());
    ranks *= size;
  }
  plan.mesh = {int(from.dp()), int(from.pp()), int(from.cp()), int(from.tp())};
}

template <typename Vector>
std::vector<Axis> PlanReader::readAxes(const Vector &from,
                                       const std::string &field) const {
  std::vector<Axis> axes;
  for (auto value : from) {
    const Axis axis =
        enumerator<Axis>(fb::Axis(int(value)), fb::Axis::MAX, field);
    check(std::find(axes.begin(), axes.end(), axis) == axes.end(), field,
          "an axis stands twice");
    axes.push_back(axis);
  }
  check(!axes.empty(), field, "expected at least one axis, got none");
  return axes;
}

std::vector<uint32_t>
PlanReader::readStages(const flatbuffers::Vector<uint32_t> *from,
                       const std::string &field) const {
  std::vector<uint32_t> stages;
  if (!from)
    return stages;
  for (uint32_t stage : list(*from)) {
    check(stage < uint32_t(plan.mesh.pp), field, "pipeline rank ", stage,
          " is out of range (", plan.mesh.pp, ")");
    check(stages.empty() || stages.back() < stage, field,
          "expected pipeline ranks in ascending order");
    stages.push_back(stage);
  }
  return stages;
}

void PlanReader::readCommunicator(const fb::Communicator &from) {
  const std::string field =
      str("communicators[", plan.communicators.size(), "]");
  Communicator communicator{readAxes(*from.axes(), field + ".axes"),
                            readStages(from.stages(), field + ".stages"), 1};
  for (Axis axis : communicator.axes)
    communicator.size *= axis == Axis::Pipeline && !communicator.stages.empty()
                             ? int64_t(communicator.stages.size())
                             : plan.mesh.size(axis);
  plan.communicators.push_back(std::move(communicator));
}

void PlanReader::readSplits(const fb::Variable &from, Variable &variable,
                            const std::string &field) const {
  variable.localShape = variable.shape;
  if (!from.splits())
    return;
  check(from.splits()->size() <= variable.shape.size(), field,
        "expected at most one for each of ", variable.shape.size(),
        " dimensions, got ", from.splits()->size());
  for (const fb::Split *split : *from.splits()) {
    const uint32_t dimension = split->dimension();
    check(dimension < variable.shape.size(), field, "dimension ", dimension,
          " is out of range (", variable.shape.size(), " dimensions)");
    check(variable.parts(dimension) == 1, field, "dimension ", dimension,
          " stands twice");
    Split into{dimension, readAxes(*split->axes(), field), 1};
    for (Axis axis : into.axes)
      into.parts *= plan.mesh.size(axis);
    int64_t &local = variable.localShape[dimension];
    local = (local + into.parts - 1) / into.parts;
    variable.splits.push_back(std::move(into));
  }
}

void PlanReader::readVariable(const fb::Variable &from) {
  Variable variable;
  variable.name = nameIn(from.name(), "variables");
  const std::string field = str("variable '", variable.name, "'");
  check(!variable.name.empty(), "variables", "a name is empty");
  variable.type = enumerator<ElementType>(from.type(), fb::ElementType::MAX,
                                          field + ".type");
  variable.role = enumerator<Role>(from.role(), fb::Role::MAX, field + ".role");
  variable.dynamic =
      enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX, field + ".dynamic");
  check(from.shape()->size() <= kMaxDimensions, field + ".shape",
        "expected at most ", kMaxDimensions, " dimensions, got ",
        from.shape()->size());
  int64_t size = 1;
  for (int64_t extent : list(*from.shape())) {
    check(extent > 0 && !__builtin_mul_overflow(size, extent, &size) &&
              size <= kMaxElements - elements,
          field + ".shape", "expected positive sizes and at most ",
          kMaxElements, " elements in all variables");
    variable.shape.push_back(extent);
  }
  elements += size;
  const size_t leading = variable.dynamic == Dynamic::BatchLength ? 2
                         : variable.dynamic == Dynamic::Batch     ? 1
                                                                  : 0;
  check(variable.shape.size() >= leading, field + ".shape",
        "expected at least ", leading, " dimensions, got ",
        variable.shape.size());
  readSplits(from, variable, field + ".splits");
  variable.stages = readStages(from.stages(), field + ".stages");
  for (uint32_t d = 0; d < leading; ++d)
    check(variable.shape[d] % variable.parts(d) == 0, field + ".splits",
          "expected a multiple of ", variable.parts(d), ", got ",
          variable.shape[d]);
  if (const fb::Initializer *init = from.init())
    variable.init = {
        enumerator<InitKind>(init->kind(), fb::InitKind::MAX, field + ".init"),
        init->a(), init->b()};
  variable.parameter = from.parameter();
  variable.optional = from.optional();
  variable.defaultValue = from.default_value();
  const bool shared = variable.role == Role::Parameter ||
                      variable.role == Role::FirstMoment ||
                      variable.role == Role::SecondMoment;
  check(!shared || variable.dynamic == Dynamic::None, field + ".dynamic",
        "a parameter or moment cannot depend on the call");
  check(!shared || isFloat(variable.type), field + ".type",
        "expected a floating type, got ", elementName(variable.type));
  check(!shared || sharedNames.insert(variable.name).second, "variables",
        "name '", variable.name, "' stands twice");
  plan.variables.push_back(std::move(variable));
}

void PlanReader::checkParameterOf(const Variable &variable) const {
  const std::string field = str("variable '", variable.name, "'.parameter");
  const bool moment =
      variable.role == Role::FirstMoment || variable.role == Role::SecondMoment;
  if (variable.parameter == -1) {
    check(!moment, field, "a moment needs a parameter");
    return;
  }
  check(moment || variable.role == Role::Gradient, field,
        "only moments and gradients belong to a parameter");
  check(variable.parameter >= 0 &&
            size_t(variable.parameter) < plan.variables.size(),
        field, "index ", variable.parameter, " is out of range");
  const Variable &parameter = plan.variables[size_t(variable.parameter)];
  check(parameter.role == Role::Parameter && parameter.shape == variable.shape,
        field, "'", parameter.name, "' is not a parameter of the same shape");
}

} // namespace megalodon::plan
