#include "runtime/plan/LoadedPlan.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "runtime/plan/Plan_generated.h"
#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <map>
#include <set>

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

// Bounds far above any real plan, so that sums and products of checked sizes
// cannot overflow.
static constexpr int64_t kMaxElements = int64_t(1) << 44;
static constexpr uint64_t kMaxBytes = uint64_t(1) << 48;
static constexpr int64_t kMaxBatch = int64_t(1) << 18;
static constexpr int64_t kMaxWorkgroups = std::numeric_limits<uint32_t>::max();
static constexpr uint32_t kMaxRanks = 1 << 20;
static constexpr uint32_t kMaxMicrobatches = 1 << 16;
// Of all GPUs so far: threads of a workgroup, its shared memory, and how many
// workgroups a launch may have.
static constexpr uint32_t kMaxThreads = 1024;
static constexpr uint64_t kMaxSharedBytes = 227 << 10;
static constexpr int64_t kMaxLaunch = std::numeric_limits<int32_t>::max();
// Message tags: MPI promises 15 bits, and the tools need some of their own.
static constexpr uint32_t kMaxChannel = (1 << 14) - 1;

static int64_t product(const std::vector<int64_t> &sizes) {
  int64_t result = 1;
  for (int64_t size : sizes)
    result *= size;
  return result;
}

int64_t Variable::elements() const { return product(shape); }

size_t Variable::localBytes() const {
  return size_t(product(localShape)) * elementBytes(type);
}

int64_t Variable::parts(uint32_t dimension) const {
  for (const Split &split : splits)
    if (split.dimension == dimension)
      return split.parts;
  return 1;
}

static bool isAmong(const std::vector<uint32_t> &stages, uint32_t stage) {
  return stages.empty() ||
         std::find(stages.begin(), stages.end(), stage) != stages.end();
}

bool Variable::isHeldBy(uint32_t stage) const { return isAmong(stages, stage); }
bool Communicator::isMember(uint32_t stage) const {
  return isAmong(stages, stage);
}

size_t Program::commandCount() const {
  size_t count = 0;
  for (const Segment &segment : segments)
    count += segment.commands.size();
  return count;
}

bool Function::hasUpdate() const {
  return std::any_of(
      programs.begin(), programs.end(),
      [](const Program &program) { return !program.updateActions.empty(); });
}

int64_t timesOf(Dynamic dynamic, int64_t batch, int64_t length) {
  return dynamic == Dynamic::None    ? 1
         : dynamic == Dynamic::Batch ? batch
                                     : batch * length;
}

uint64_t CollectiveItem::rowsOf(int64_t batch, int64_t length) const {
  return uint64_t(rows) * uint64_t(timesOf(dynamic, batch, length));
}

uint64_t CollectiveStart::shareBytes(int64_t batch, int64_t length) const {
  uint64_t bytes = 0;
  for (const CollectiveItem &item : items)
    bytes += item.rowsOf(batch, length) * item.rowBytes;
  return bytes;
}

std::string collectiveName(const LoadedPlan &plan,
                           const CollectiveStart &collective) {
  constexpr const char *kinds[] = {"all_reduce", "all_gather",
                                   "reduce_scatter"};
  constexpr const char *axes[] = {"dp", "pp", "cp", "tp"};
  std::string name = kinds[size_t(collective.kind)];
  const char *separator = " ";
  for (Axis axis : plan.communicators[collective.communicator].axes) {
    name += str(separator, axes[size_t(axis)]);
    separator = "+";
  }
  return name;
}

std::string meshText(const Mesh &mesh) {
  return str("dp=", mesh.dp, ",pp=", mesh.pp, ",cp=", mesh.cp, ",tp=", mesh.tp);
}

int64_t Grid::workgroups(int64_t batch, int64_t length) const {
  const int64_t rows = outer == Outer::Batch ? batch : 1;
  const int64_t extent = inner == Inner::Tokens   ? batch * length
                         : inner == Inner::Length ? length
                                                  : 1;
  return factor * rows * ((extent + divisor - 1) / divisor);
}

int LoadedPlan::findFunction(std::string_view name) const {
  for (size_t i = 0; i < functions.size(); ++i)
    if (functions[i].name == name)
      return int(i);
  return -1;
}

int64_t LoadedPlan::parameterCount() const {
  int64_t count = 0;
  for (const Variable &variable : variables)
    if (variable.role == Role::Parameter)
      count += variable.elements();
  return count;
}

namespace {

/// Turns the verified FlatBuffer into plain structs and checks what the
/// verifier cannot know.
class Reader {
public:
  explicit Reader(LoadedPlan &plan) : plan(plan) {}

  void read(const fb::Plan &root) {
    plan.producer = root.producer()->str();
    plan.config = root.config()->str();
    plan.model = root.model()->str();
    plan.precision = root.precision()->str();
    plan.target = root.target()->str();
    plan.cpu = root.cpu() ? root.cpu()->str() : "";
    if (root.cpu_features())
      for (const flatbuffers::String *name : *root.cpu_features())
        plan.cpuFeatures.push_back(name->str());
    plan.vocabSize = root.vocab_size();
    plan.outputSize = root.output_size();
    plan.chunkSize = root.chunk_size();
    plan.numLayers = root.num_layers();
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
    check(plan.numLayers >= 0, "num_layers", "expected a number, got ",
          plan.numLayers);
    if (root.mesh())
      readMesh(*root.mesh());
    if (root.communicators())
      for (const fb::Communicator *communicator : *root.communicators())
        readCommunicator(*communicator);
    for (const fb::Variable *variable : *root.variables())
      readVariable(*variable);
    for (const Variable &variable : plan.variables)
      checkParameterOf(variable);
    for (const fb::Kernel *kernel : *root.kernels())
      readKernel(*kernel);
    if (root.object())
      plan.object.assign(root.object()->begin(), root.object()->end());
    if (root.images())
      for (const fb::GpuImage *image : *root.images())
        readImage(*image);
    check(plan.kernels.empty() ||
              !(plan.isCuda() ? plan.images.empty() : plan.object.empty()),
          plan.isCuda() ? "images" : "object", "expected the code of ",
          plan.kernels.size(), " kernels, got nothing");
    for (const fb::Function *function : *root.functions())
      readFunction(*function);
    check(!plan.functions.empty(), "functions",
          "expected at least one, got none");
  }

private:
  template <typename... Pieces>
  [[noreturn]] void fail(const std::string &field,
                         const Pieces &...pieces) const {
    throw Error(str(plan.path, ": corrupt plan: ", field, ": ", pieces...));
  }
  template <typename... Pieces>
  void check(bool ok, const std::string &field, const Pieces &...pieces) const {
    if (!ok)
      fail(field, pieces...);
  }
  template <typename To, typename From>
  To enumerator(From value, From last, const std::string &field) const {
    check(int(value) >= 0 && value <= last, field, "unknown value ",
          int(value));
    return To(int(value));
  }

  void readMesh(const fb::Mesh &from) {
    uint64_t ranks = 1;
    for (uint32_t size : {from.dp(), from.pp(), from.cp(), from.tp()}) {
      check(size > 0 && size <= kMaxRanks && ranks * size <= kMaxRanks, "mesh",
            "expected positive sizes of at most ", kMaxRanks,
            " ranks together, got ", from.dp(), " x ", from.pp(), " x ",
            from.cp(), " x ", from.tp());
      ranks *= size;
    }
    plan.mesh = {int(from.dp()), int(from.pp()), int(from.cp()),
                 int(from.tp())};
  }

  template <typename Vector>
  std::vector<Axis> readAxes(const Vector &from,
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

  std::vector<uint32_t> readStages(const flatbuffers::Vector<uint32_t> *from,
                                   const std::string &field) const {
    std::vector<uint32_t> stages;
    if (!from)
      return stages;
    for (uint32_t stage : *from) {
      check(stage < uint32_t(plan.mesh.pp), field, "pipeline rank ", stage,
            " is out of range (", plan.mesh.pp, ")");
      check(stages.empty() || stages.back() < stage, field,
            "expected pipeline ranks in ascending order");
      stages.push_back(stage);
    }
    return stages;
  }

  void readCommunicator(const fb::Communicator &from) {
    const std::string field =
        str("communicators[", plan.communicators.size(), "]");
    Communicator communicator{readAxes(*from.axes(), field + ".axes"),
                              readStages(from.stages(), field + ".stages"), 1};
    for (Axis axis : communicator.axes)
      communicator.size *=
          axis == Axis::Pipeline && !communicator.stages.empty()
              ? int64_t(communicator.stages.size())
              : plan.mesh.size(axis);
    plan.communicators.push_back(std::move(communicator));
  }

  void readSplits(const fb::Variable &from, Variable &variable,
                  const std::string &field) const {
    variable.localShape = variable.shape;
    if (!from.splits())
      return;
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

  void readVariable(const fb::Variable &from) {
    Variable variable;
    variable.name = from.name()->str();
    const std::string field = str("variable '", variable.name, "'");
    check(!variable.name.empty(), "variables", "a name is empty");
    variable.type = enumerator<ElementType>(from.type(), fb::ElementType::MAX,
                                            field + ".type");
    variable.role =
        enumerator<Role>(from.role(), fb::Role::MAX, field + ".role");
    variable.dynamic = enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX,
                                           field + ".dynamic");
    int64_t elements = 1;
    for (int64_t size : *from.shape()) {
      check(size > 0 && !__builtin_mul_overflow(elements, size, &elements) &&
                elements <= kMaxElements,
            field + ".shape", "expected positive sizes and at most ",
            kMaxElements, " elements");
      variable.shape.push_back(size);
    }
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
      variable.init = {enumerator<InitKind>(init->kind(), fb::InitKind::MAX,
                                            field + ".init"),
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

  void checkParameterOf(const Variable &variable) const {
    const std::string field = str("variable '", variable.name, "'.parameter");
    const bool moment = variable.role == Role::FirstMoment ||
                        variable.role == Role::SecondMoment;
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
    check(parameter.role == Role::Parameter &&
              parameter.shape == variable.shape,
          field, "'", parameter.name, "' is not a parameter of the same shape");
  }

  void readKernel(const fb::Kernel &from) {
    Kernel kernel{from.symbol()->str(), from.scratch_bytes(),
                  from.source() ? from.source()->str() : "", from.threads(),
                  from.words()};
    check(!kernel.symbol.empty() &&
              kernel.symbol.find('\0') == std::string::npos,
          "kernels", "a symbol is not a name");
    check(kernel.scratchBytes <= kMaxBytes,
          str("kernel '", kernel.symbol, "'.scratch_bytes"),
          "expected at most ", kMaxBytes, ", got ", kernel.scratchBytes);
    if (plan.isCuda()) {
      check(kernel.threads > 0 && kernel.threads <= kMaxThreads,
            str("kernel '", kernel.symbol, "'.threads"), "expected from 1 to ",
            kMaxThreads, ", got ", kernel.threads);
      check(kernel.scratchBytes <= kMaxSharedBytes,
            str("kernel '", kernel.symbol, "'.scratch_bytes"),
            "expected at most ", kMaxSharedBytes, " of shared memory, got ",
            kernel.scratchBytes);
    }
    plan.kernels.push_back(std::move(kernel));
  }

  void readImage(const fb::GpuImage &from) {
    GpuImage image{from.arch()->str(),
                   from.ptx(),
                   {from.data()->begin(), from.data()->end()}};
    const std::string field = str("image '", image.arch, "'");
    size_t digits = 0;
    if (image.arch.rfind("sm_", 0) == 0)
      while (3 + digits < image.arch.size() &&
             std::isdigit(static_cast<unsigned char>(image.arch[3 + digits])))
        ++digits;
    check((digits == 2 || digits == 3) && image.arch.size() <= 4 + digits,
          "images", "expected an architecture such as sm_90a, got '",
          image.arch, "'");
    check(!image.data.empty(), field, "is empty");
    check(!image.ptx || image.data.back() == 0, field,
          "expected text that ends with a zero");
    for (const GpuImage &other : plan.images)
      check(other.arch != image.arch || other.ptx != image.ptx, field,
            "stands twice");
    plan.images.push_back(std::move(image));
  }

  void readVariableList(const flatbuffers::Vector<uint32_t> &from,
                        Function &function, const std::string &field,
                        std::vector<uint32_t> &into) const {
    std::set<std::string> names;
    for (uint32_t index : from) {
      check(index < plan.variables.size(), field, "variable ", index,
            " is out of range (", plan.variables.size(), " variables)");
      const Variable &variable = plan.variables[index];
      check(names.insert(variable.name).second, field, "name '", variable.name,
            "' stands twice");
      check(variable.role != Role::Residual, field, "'", variable.name,
            "' is nothing that the outside sees");
      checkShape(variable, function, field);
      if (variable.dynamic != Dynamic::None)
        readParts(variable, 0, function.dataParts, field);
      if (variable.dynamic == Dynamic::BatchLength)
        readParts(variable, 1, function.chunkParts, field);
      into.push_back(index);
    }
  }

  /// All tensors that follow the call are cut in the same way; the first says
  /// how.
  void readParts(const Variable &variable, uint32_t dimension, int64_t &parts,
                 const std::string &field) const {
    if (!parts)
      parts = variable.parts(dimension);
    check(parts == variable.parts(dimension), field, "'", variable.name,
          "': expected dimension ", dimension, " in ", parts, " parts, got ",
          variable.parts(dimension));
  }

  void checkShape(const Variable &variable, const Function &function,
                  const std::string &field) const {
    if (variable.dynamic != Dynamic::None)
      check(variable.shape[0] == function.batch, field, "'", variable.name,
            "': expected ", function.batch, " rows, got ", variable.shape[0]);
    if (variable.dynamic == Dynamic::BatchLength)
      check(variable.shape[1] == function.length, field, "'", variable.name,
            "': expected length ", function.length, ", got ",
            variable.shape[1]);
  }

  void readFunction(const fb::Function &from) {
    Function function;
    function.name = from.name()->str();
    const std::string field = str("function '", function.name, "'");
    check(plan.findFunction(function.name) < 0, "functions", "name '",
          function.name, "' stands twice");
    function.batch = from.batch();
    function.length = from.length();
    check(function.batch > 0 && function.length > 0 &&
              function.batch <= kMaxBatch &&
              function.length <= kMaxElements / function.batch,
          field, "expected a batch from 1 to ", kMaxBatch,
          " and a positive length, got ", function.batch, " x ",
          function.length);
    function.exact = from.exact();
    // Before the tensors say it: as the mesh cuts.
    function.dataParts = function.chunkParts = 0;
    readVariableList(*from.inputs(), function, field + ".inputs",
                     function.inputs);
    readVariableList(*from.outputs(), function, field + ".outputs",
                     function.outputs);
    if (!function.dataParts)
      function.dataParts = plan.mesh.dp;
    if (!function.chunkParts)
      function.chunkParts = plan.mesh.cp;
    std::map<std::string, uint32_t> inputs;
    for (uint32_t input : function.inputs)
      inputs.emplace(plan.variables[input].name, input);
    for (uint32_t output : function.outputs) {
      auto same = inputs.find(plan.variables[output].name);
      check(same == inputs.end() || same->second == output, field + ".outputs",
            "'", plan.variables[output].name,
            "' is another variable than the input of that name");
    }
    check(from.programs()->size() == uint32_t(plan.mesh.pp),
          field + ".programs", "expected ", plan.mesh.pp, ", got ",
          from.programs()->size());
    for (const fb::Program *program : *from.programs())
      readProgram(*program, function,
                  str(field, ".programs[", function.programs.size(), "]"));
    checkMessages(function, &Program::actions, field + ".actions");
    checkMessages(function, &Program::updateActions, field + ".update_actions");
    function.modelFlops = from.model_flops();
    plan.functions.push_back(std::move(function));
  }

  /// What the readers of one program's parts need to know of it.
  struct Context {
    const Function &function;
    Program &program;
    int64_t batch, length; ///< of one microbatch on one rank, at most
  };

  void readProgram(const fb::Program &from, Function &function,
                   const std::string &field) {
    Program program;
    program.stage = from.stage();
    check(program.stage == function.programs.size(), field + ".stage",
          "expected ", function.programs.size(), ", got ", program.stage);
    program.arenaBytes = from.arena_bytes();
    check(program.arenaBytes <= kMaxBytes, field + ".arena_bytes",
          "expected at most ", kMaxBytes, ", got ", program.arenaBytes);
    program.microbatches = from.microbatches();
    program.slots = from.slots();
    check(program.microbatches > 0 &&
              program.microbatches <= kMaxMicrobatches && program.slots > 0 &&
              program.slots <= kMaxMicrobatches,
          field, "expected from 1 to ", kMaxMicrobatches,
          " microbatches and slots, got ", program.microbatches, " and ",
          program.slots);
    check(function.programs.empty() ||
              program.microbatches == function.microbatches(),
          field + ".microbatches", "expected as many as in the first program");
    const int64_t cut = function.dataParts * program.microbatches;
    check(function.batch % cut == 0 &&
              function.length % function.chunkParts == 0,
          field, "expected a batch that is a multiple of ", cut,
          " and a length that is a multiple of ", function.chunkParts, ", got ",
          function.batch, " x ", function.length);
    const Context context{function, program, function.batch / cut,
                          function.length / function.chunkParts};
    for (const fb::Buffer *buffer : *from.buffers())
      readBuffer(*buffer, context,
                 str(field, ".buffers[", program.buffers.size(), "]"));
    for (const fb::Segment *segment : *from.segments())
      readSegment(*segment, context,
                  str(field, ".segments[", program.segments.size(), "]"));
    for (const fb::Action *action : *from.actions())
      program.actions.push_back(
          readAction(*action, context,
                     str(field, ".actions[", program.actions.size(), "]")));
    for (const fb::Action *action : *from.update_actions())
      program.updateActions.push_back(readAction(
          *action, context,
          str(field, ".update_actions[", program.updateActions.size(), "]")));
    function.programs.push_back(std::move(program));
  }

  void readSegment(const fb::Segment &from, const Context &context,
                   const std::string &field) {
    Segment segment;
    segment.name = from.name()->str();
    events.clear();
    for (const fb::Command *command : *from.commands())
      segment.commands.push_back(
          readCommand(*command, context,
                      str(field, ".commands[", segment.commands.size(), "]")));
    check(events.empty(), field + ".commands", "event ",
          events.empty() ? 0 : *events.begin(),
          " is started and never waited for");
    context.program.segments.push_back(std::move(segment));
  }

  Action readAction(const fb::Action &from, const Context &context,
                    const std::string &field) const {
    const Program &program = context.program;
    Action action{enumerator<ActionKind>(from.kind(), fb::ActionKind::MAX,
                                         field + ".kind"),
                  from.segment(),
                  from.buffer(),
                  from.peer(),
                  from.channel(),
                  from.microbatch(),
                  from.slot(),
                  enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX,
                                      field + ".dynamic")};
    check(action.microbatch < program.microbatches, field + ".microbatch",
          "microbatch ", action.microbatch, " is out of range (",
          program.microbatches, ")");
    check(action.slot < program.slots, field + ".slot", "slot ", action.slot,
          " is out of range (", program.slots, ")");
    if (action.kind == ActionKind::Run) {
      check(action.segment < program.segments.size(), field + ".segment",
            "segment ", action.segment, " is out of range (",
            program.segments.size(), " segments)");
      return action;
    }
    const Buffer &memory = buffer(context, action.buffer, field + ".buffer");
    check(action.peer < uint32_t(plan.mesh.pp) && action.peer != program.stage,
          field + ".peer", "expected another of ", plan.mesh.pp,
          " pipeline ranks, got ", action.peer);
    check(action.channel <= kMaxChannel, field + ".channel",
          "expected at most ", kMaxChannel, ", got ", action.channel);
    const uint64_t times =
        uint64_t(timesOf(action.dynamic, context.batch, context.length));
    check(memory.bytes > 0 && memory.bytes % times == 0, field + ".buffer",
          "expected a multiple of ", times, " bytes, got ", memory.bytes);
    return action;
  }

  /// Every message is sent and received, in the same order and size.
  void checkMessages(const Function &function,
                     std::vector<Action> Program::*list,
                     const std::string &field) const {
    using Message = std::pair<uint64_t, Dynamic>;
    // By sender, receiver and channel.
    std::map<std::array<uint32_t, 3>, std::vector<Message>> sent, received;
    for (const Program &program : function.programs)
      for (const Action &action : program.*list) {
        if (action.kind == ActionKind::Run)
          continue;
        const Message message = {program.buffers[action.buffer].bytes,
                                 action.dynamic};
        if (action.kind == ActionKind::Send)
          sent[{program.stage, action.peer, action.channel}].push_back(message);
        else
          received[{action.peer, program.stage, action.channel}].push_back(
              message);
      }
    check(sent == received, field,
          "what is sent between pipeline ranks is not what is received");
  }

  void readBuffer(const fb::Buffer &from, const Context &context,
                  const std::string &field) const {
    const Program &program = context.program;
    Buffer buffer{
        from.variable(),
        from.offset(),
        from.bytes(),
        from.name() ? from.name()->str() : "",
        from.stride(),
        enumerator<Indexed>(from.index(), fb::Indexed::MAX, field + ".index")};
    const uint64_t copies = copiesOf(buffer, program);
    uint64_t room = program.arenaBytes;
    if (buffer.variable != -1) {
      check(buffer.variable >= 0 &&
                size_t(buffer.variable) < plan.variables.size(),
            field + ".variable", "index ", buffer.variable,
            " is out of range (", plan.variables.size(), " variables)");
      const Variable &variable = plan.variables[size_t(buffer.variable)];
      checkShape(variable, context.function, field);
      check(variable.isHeldBy(program.stage), field, "'", variable.name,
            "' is not held by pipeline rank ", program.stage);
      room = variable.localBytes();
      // A smaller call packs its rows, so its microbatches lie closer.
      check(buffer.index != Indexed::Microbatch ||
                variable.dynamic == Dynamic::None ||
                (buffer.offset == 0 && buffer.stride == room / copies &&
                 room % copies == 0 && buffer.bytes <= buffer.stride),
            field, "expected one of ", copies, " equal parts of '",
            variable.name, "'");
    } else {
      check(buffer.offset % 64 == 0 && buffer.stride % 64 == 0,
            field + ".offset", "expected a multiple of 64, got ", buffer.offset,
            " and stride ", buffer.stride);
    }
    check(buffer.index != Indexed::None || buffer.stride == 0,
          field + ".stride", "expected 0 without an index, got ",
          buffer.stride);
    check(buffer.stride <= kMaxBytes && buffer.offset <= room &&
              buffer.bytes <= room - buffer.offset &&
              (copies - 1) * buffer.stride <=
                  room - buffer.offset - buffer.bytes,
          field, "expected a range inside ", room, " bytes, got ", buffer.bytes,
          " bytes at ", buffer.offset,
          copies > 1 ? str(" and stride ", buffer.stride) : "");
    context.program.buffers.push_back(std::move(buffer));
  }

  static uint64_t copiesOf(const Buffer &buffer, const Program &program) {
    return buffer.index == Indexed::Microbatch ? program.microbatches
           : buffer.index == Indexed::Slot     ? program.slots
                                               : 1;
  }

  const Buffer &buffer(const Context &context, uint32_t index,
                       const std::string &field) const {
    const std::vector<Buffer> &buffers = context.program.buffers;
    check(index < buffers.size(), field, "buffer ", index, " is out of range (",
          buffers.size(), " buffers)");
    return buffers[index];
  }

  /// Whether two buffers may share bytes in one microbatch and slot.
  static bool overlap(const Context &context, const Buffer &left,
                      uint64_t leftBytes, const Buffer &right,
                      uint64_t rightBytes) {
    if (left.index != right.index || left.stride != right.stride) {
      leftBytes += (copiesOf(left, context.program) - 1) * left.stride;
      rightBytes += (copiesOf(right, context.program) - 1) * right.stride;
    }
    return left.variable == right.variable &&
           left.offset < right.offset + rightBytes &&
           right.offset < left.offset + leftBytes;
  }

  Command readCommand(const fb::Command &from, const Context &context,
                      const std::string &field) {
    Command command;
    command.location = from.location() ? from.location()->str() : "";
    command.queue = from.queue();
    switch (from.operation_type()) {
    case fb::Operation::Dispatch:
      command.operation = readDispatch(*from.operation_as_Dispatch(), context,
                                       field + ".dispatch");
      break;
    case fb::Operation::Product:
      command.operation = readProduct(*from.operation_as_Product(), context,
                                      field + ".product");
      break;
    case fb::Operation::CopyStart:
      command.operation = readCopy(*from.operation_as_CopyStart(), context,
                                   field + ".copy_start");
      break;
    case fb::Operation::Wait: {
      const uint32_t event = from.operation_as_Wait()->event();
      check(events.erase(event) == 1, field + ".wait", "event ", event,
            " was not started");
      command.operation = Wait{event};
      break;
    }
    case fb::Operation::CollectiveStart:
      command.operation = readCollective(*from.operation_as_CollectiveStart(),
                                         context, field + ".collective_start");
      break;
    default:
      fail(field, "unknown operation ", int(from.operation_type()));
    }
    return command;
  }

  Dispatch readDispatch(const fb::Dispatch &from, const Context &context,
                        const std::string &field) const {
    Dispatch dispatch;
    dispatch.kernel = from.kernel();
    check(dispatch.kernel < plan.kernels.size(), field + ".kernel", "kernel ",
          dispatch.kernel, " is out of range (", plan.kernels.size(),
          " kernels)");
    for (uint32_t index : *from.args()) {
      buffer(context, index, field + ".args");
      dispatch.args.push_back(index);
    }
    if (from.immediates())
      dispatch.immediates.assign(from.immediates()->begin(),
                                 from.immediates()->end());
    const fb::Grid *grid = from.grid();
    check(grid, field + ".grid", "is missing");
    dispatch.grid = {
        grid->factor(), grid->divisor(),
        enumerator<Outer>(grid->outer(), fb::Outer::MAX, field + ".grid.outer"),
        enumerator<Inner>(grid->inner(), fb::Inner::MAX,
                          field + ".grid.inner")};
    // All terms grow with batch and length, so the compiled shape bounds them.
    check(dispatch.grid.factor > 0 && dispatch.grid.factor <= kMaxWorkgroups &&
              dispatch.grid.divisor > 0 &&
              dispatch.grid.divisor <= kMaxElements,
          field + ".grid", "expected a positive factor and divisor, got ",
          dispatch.grid.factor, " and ", dispatch.grid.divisor);
    Grid unit = dispatch.grid;
    unit.factor = 1;
    check(unit.workgroups(context.batch, context.length) <=
              kMaxWorkgroups / dispatch.grid.factor,
          field + ".grid", "more than ", kMaxWorkgroups, " workgroups");
    if (plan.isCuda()) {
      check(unit.workgroups(context.batch, context.length) <=
                kMaxLaunch / dispatch.grid.factor,
            field + ".grid", "more than ", kMaxLaunch, " workgroups");
      const Kernel &kernel = plan.kernels[dispatch.kernel];
      check(kernel.words <= kFirstImmediate + dispatch.immediates.size(),
            field + ".immediates", "kernel '", kernel.symbol, "' takes ",
            kernel.words, " words, got ",
            kFirstImmediate + dispatch.immediates.size());
    }
    dispatch.flops = from.flops();
    dispatch.bytes = from.bytes();
    return dispatch;
  }

  Product readProduct(const fb::Product &from, const Context &context,
                      const std::string &field) const {
    Product product{from.a(),
                    from.b(),
                    from.c(),
                    from.trans_a(),
                    from.trans_b(),
                    from.m(),
                    from.n(),
                    from.k(),
                    from.tile_m(),
                    from.tile_n(),
                    from.accumulate(),
                    from.source() ? from.source()->str() : "",
                    enumerator<ElementType>(from.type(), fb::ElementType::MAX,
                                            field + ".type"),
                    enumerator<ElementType>(from.result_type(),
                                            fb::ElementType::MAX,
                                            field + ".result_type")};
    const char *library = plan.isCuda() ? "cublaslt" : "onednn";
    check(from.library()->string_view() == library, field + ".library",
          "expected '", library, "', got '", from.library()->str(), "'");
    check(plan.features & (plan.isCuda() ? kFeatureCublasLt : kFeatureOneDnn),
          field + ".library", "the header lacks the feature bit of ", library);
    const bool narrow = product.type == ElementType::BF16;
    check((product.type == ElementType::F32 || narrow) &&
              (product.resultType == ElementType::F32 ||
               (narrow && product.resultType == ElementType::BF16)),
          field + ".type", "cannot multiply ", elementName(product.type),
          " to ", elementName(product.resultType));
    const int64_t tokens = context.batch * context.length;
    auto extent = [&](int64_t size, const char *name) {
      check(size == -1 || (size > 0 && size <= kMaxElements),
            str(field, ".", name), "expected -1 or a positive size, got ",
            size);
      return size == -1 ? tokens : size;
    };
    const int64_t m = extent(product.m, "m"), n = extent(product.n, "n"),
                  k = extent(product.k, "k");
    check(product.tileM > 0 && product.tileN > 0, field,
          "expected positive tiles, got ", product.tileM, " x ", product.tileN);
    check((m + product.tileM - 1) / product.tileM <=
              kMaxWorkgroups / ((n + product.tileN - 1) / product.tileN),
          field, "more than ", kMaxWorkgroups, " tiles");
    auto matrix = [&](uint32_t index, int64_t rows, int64_t columns,
                      ElementType type, const char *name) -> const Buffer & {
      const size_t element = elementBytes(type);
      const Buffer &storage = buffer(context, index, str(field, ".", name));
      int64_t bytes;
      check(!__builtin_mul_overflow(rows, columns, &bytes) &&
                bytes <= kMaxElements &&
                uint64_t(bytes) * element <= storage.bytes,
            str(field, ".", name), "expected a buffer for ", rows, " x ",
            columns, " ", elementName(type), ", got ", storage.bytes, " bytes");
      check(storage.offset % element == 0, str(field, ".", name),
            "expected an offset that is a multiple of ", element, ", got ",
            storage.offset);
      return storage;
    };
    const Buffer &a = matrix(product.a, m, k, product.type, "a"),
                 &b = matrix(product.b, k, n, product.type, "b"),
                 &c = matrix(product.c, m, n, product.resultType, "c");
    const uint64_t written =
        uint64_t(m) * uint64_t(n) * elementBytes(product.resultType);
    const uint64_t element = elementBytes(product.type);
    check(
        !overlap(context, a, uint64_t(m) * uint64_t(k) * element, c, written) &&
            !overlap(context, b, uint64_t(k) * uint64_t(n) * element, c,
                     written),
        field + ".c", "overlaps an operand");
    return product;
  }

  CopyStart readCopy(const fb::CopyStart &from, const Context &context,
                     const std::string &field) {
    CopyStart copy{from.from(), from.to(), from.bytes(),
                   enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX,
                                       field + ".dynamic"),
                   from.event()};
    const uint64_t times =
        uint64_t(timesOf(copy.dynamic, context.batch, context.length));
    const Buffer &source = buffer(context, copy.from, field + ".from"),
                 &target = buffer(context, copy.to, field + ".to");
    uint64_t bytes;
    check(!__builtin_mul_overflow(copy.bytes, times, &bytes) &&
              bytes <= source.bytes && bytes <= target.bytes,
          field + ".bytes", "expected at most ",
          std::min(source.bytes, target.bytes), " bytes, got ", copy.bytes,
          " x ", times);
    check(!overlap(context, source, bytes, target, bytes), field + ".to",
          "overlaps the source");
    check(events.insert(copy.event).second, field + ".event", "event ",
          copy.event, " is already under way");
    return copy;
  }

  CollectiveStart readCollective(const fb::CollectiveStart &from,
                                 const Context &context,
                                 const std::string &field) {
    CollectiveStart collective{
        enumerator<CollectiveKind>(from.kind(), fb::CollectiveKind::MAX,
                                   field + ".kind"),
        from.communicator(),
        enumerator<ElementType>(from.type(), fb::ElementType::MAX,
                                field + ".type"),
        {},
        from.event(),
        from.last()};
    check(collective.communicator < plan.communicators.size(),
          field + ".communicator", "communicator ", collective.communicator,
          " is out of range (", plan.communicators.size(), " communicators)");
    const Communicator &communicator =
        plan.communicators[collective.communicator];
    check(communicator.isMember(context.program.stage), field + ".communicator",
          "pipeline rank ", context.program.stage, " is not in communicator ",
          collective.communicator);
    check(collective.kind == CollectiveKind::AllGather ||
              collective.type == ElementType::F32 ||
              collective.type == ElementType::F64 ||
              collective.type == ElementType::BF16 ||
              collective.type == ElementType::I32 ||
              collective.type == ElementType::I64,
          field + ".type", "cannot add up ", elementName(collective.type));
    check(from.items()->size() > 0, field + ".items",
          "expected at least one, got none");
    for (const fb::CollectiveItem *item : *from.items())
      collective.items.push_back(
          readItem(*item, collective, uint64_t(communicator.size), context,
                   str(field, ".items[", collective.items.size(), "]")));
    check(events.insert(collective.event).second, field + ".event", "event ",
          collective.event, " is already under way");
    return collective;
  }

  CollectiveItem readItem(const fb::CollectiveItem &from,
                          const CollectiveStart &collective, uint64_t ranks,
                          const Context &context,
                          const std::string &field) const {
    CollectiveItem item{from.from(), from.to(), from.rows(),
                        enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX,
                                            field + ".dynamic"),
                        from.row_bytes()};
    const size_t element = elementBytes(collective.type);
    check(item.rows > 0 && item.rows <= kMaxElements && item.rowBytes > 0 &&
              item.rowBytes % element == 0,
          field, "expected rows of whole elements, got ", item.rows,
          " rows of ", item.rowBytes, " bytes");
    const Buffer &source = buffer(context, item.from, field + ".from"),
                 &target = buffer(context, item.to, field + ".to");
    const uint64_t times =
        uint64_t(timesOf(item.dynamic, context.batch, context.length));
    uint64_t bytes, all;
    const bool fits =
        !__builtin_mul_overflow(uint64_t(item.rows), times, &bytes) &&
        !__builtin_mul_overflow(bytes, item.rowBytes, &bytes) &&
        !__builtin_mul_overflow(bytes, ranks, &all);
    const uint64_t read = collective.kind == CollectiveKind::ReduceScatter
                              ? all
                              : bytes,
                   written = collective.kind == CollectiveKind::AllGather
                                 ? all
                                 : bytes;
    check(fits && read <= source.bytes && written <= target.bytes,
          field + ".row_bytes", "expected ", item.rows, " x ", times,
          " rows inside ", source.bytes, " and ", target.bytes,
          " bytes, got rows of ", item.rowBytes, " bytes of ", ranks, " ranks");
    check(source.offset % element == 0 && target.offset % element == 0 &&
              source.stride % element == 0 && target.stride % element == 0,
          field, "expected whole elements at ", source.offset, " and ",
          target.offset);
    if (collective.kind == CollectiveKind::AllReduce)
      check(item.from == item.to, field + ".to", "expected buffer ", item.from,
            ", got ", item.to);
    else
      check(!overlap(context, source, read, target, written), field + ".to",
            "overlaps the source");
    return item;
  }

  LoadedPlan &plan;
  std::set<std::string> sharedNames;
  std::set<uint32_t> events; // started and not yet waited for
};

} // namespace

std::shared_ptr<const LoadedPlan>
LoadedPlan::parse(const std::string &path, const uint8_t *data, size_t bytes) {
  Header header;
  if (bytes < sizeof(header))
    throw Error(str(path, ": not a plan: expected at least ", sizeof(header),
                    " bytes, got ", bytes));
  std::memcpy(&header, data, sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)
    throw Error(str(path, ": not a plan: the file does not begin with '",
                    std::string(kMagic, sizeof(kMagic)), "'"));
  if (header.version != kVersion)
    throw Error(str(path, ": plan version: expected ", kVersion, ", got ",
                    header.version, "; compile the plan again"));
  if (header.headerBytes != sizeof(header))
    throw Error(str(path, ": corrupt plan: header size: expected ",
                    sizeof(header), ", got ", header.headerBytes));
  if (header.payloadBytes != bytes - sizeof(header))
    throw Error(str(path, ": corrupt plan: payload: expected ",
                    header.payloadBytes, " bytes, got ",
                    bytes - sizeof(header)));
  const uint8_t *payload = data + sizeof(header);
  const Sha256::Digest digest = planDigest(header, payload);
  if (std::memcmp(digest.data(), header.digest, digest.size()) != 0)
    throw Error(str(path, ": corrupt plan: digest: expected ",
                    Sha256::hex(digest),
                    ", got another; the file was altered"));
  if (header.features & ~kKnownFeatures)
    throw Error(str(
        path, ": plan needs features this runtime does not know: feature bits ",
        header.features & ~kKnownFeatures));

  flatbuffers::Verifier verifier(payload, header.payloadBytes, 64,
                                 flatbuffers::uoffset_t(1) << 24);
  if (header.payloadBytes >= FLATBUFFERS_MAX_BUFFER_SIZE ||
      !fb::VerifyPlanBuffer(verifier))
    throw Error(
        str(path, ": corrupt plan: the FlatBuffers payload does not verify"));
  auto plan = std::make_shared<LoadedPlan>();
  plan->path = path;
  plan->digest = Sha256::hex(digest);
  plan->features = header.features;
  Reader(*plan).read(*fb::GetPlan(payload));
  return plan;
}

std::shared_ptr<const LoadedPlan> LoadedPlan::open(const std::string &path) {
  MappedFile file(path);
  return parse(path, reinterpret_cast<const uint8_t *>(file.data()),
               file.size());
}

} // namespace megalodon::plan
