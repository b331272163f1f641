#include "runtime/plan/LoadedPlan.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "runtime/plan/Plan_generated.h"
#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <set>

namespace megalodon::plan {

static_assert(int(fb::ElementType::MAX) == int(ElementType::I8) &&
              int(fb::Role::MAX) == int(Role::State) &&
              int(fb::Dynamic::MAX) == int(Dynamic::BatchLength) &&
              int(fb::InitKind::MAX) == int(InitKind::Untouched) &&
              int(fb::Outer::MAX) == int(Outer::Batch) &&
              int(fb::Inner::MAX) == int(Inner::Tokens));

// Bounds far above any real plan, so that sums and products of checked sizes
// cannot overflow.
static constexpr int64_t kMaxElements = int64_t(1) << 44;
static constexpr uint64_t kMaxBytes = uint64_t(1) << 48;
static constexpr int64_t kMaxBatch = int64_t(1) << 18;
static constexpr int64_t kMaxWorkgroups = std::numeric_limits<uint32_t>::max();

int64_t Variable::elements() const {
  int64_t product = 1;
  for (int64_t size : shape)
    product *= size;
  return product;
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
    check(plan.target == "cpu", "target", "expected 'cpu', got '", plan.target,
          "'");
    check(plan.precision == "f32" || plan.precision == "f64", "precision",
          "expected 'f32' or 'f64', got '", plan.precision, "'");
    check(plan.vocabSize > 0 && plan.vocabSize <= INT32_MAX, "vocab_size",
          "expected a positive size, got ", plan.vocabSize);
    check(plan.outputSize > 0 && plan.outputSize <= INT32_MAX, "output_size",
          "expected a positive size, got ", plan.outputSize);
    check(plan.chunkSize >= 0, "chunk_size", "expected a size, got ",
          plan.chunkSize);
    check(plan.numLayers >= 0, "num_layers", "expected a number, got ",
          plan.numLayers);
    for (const fb::Variable *variable : *root.variables())
      readVariable(*variable);
    for (const Variable &variable : plan.variables)
      checkParameterOf(variable);
    for (const fb::Kernel *kernel : *root.kernels())
      readKernel(*kernel);
    if (root.object())
      plan.object.assign(root.object()->begin(), root.object()->end());
    check(plan.kernels.empty() || !plan.object.empty(), "object",
          "expected the code of ", plan.kernels.size(),
          " kernels, got nothing");
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
                  from.source() ? from.source()->str() : ""};
    check(!kernel.symbol.empty() &&
              kernel.symbol.find('\0') == std::string::npos,
          "kernels", "a symbol is not a name");
    check(kernel.scratchBytes <= kMaxBytes,
          str("kernel '", kernel.symbol, "'.scratch_bytes"),
          "expected at most ", kMaxBytes, ", got ", kernel.scratchBytes);
    plan.kernels.push_back(std::move(kernel));
  }

  void readVariableList(const flatbuffers::Vector<uint32_t> &from,
                        const Function &function, const std::string &field,
                        std::vector<uint32_t> &into) const {
    std::set<std::string> names;
    for (uint32_t index : from) {
      check(index < plan.variables.size(), field, "variable ", index,
            " is out of range (", plan.variables.size(), " variables)");
      const Variable &variable = plan.variables[index];
      check(names.insert(variable.name).second, field, "name '", variable.name,
            "' stands twice");
      checkShape(variable, function, field);
      into.push_back(index);
    }
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
    readVariableList(*from.inputs(), function, field + ".inputs",
                     function.inputs);
    readVariableList(*from.outputs(), function, field + ".outputs",
                     function.outputs);
    std::map<std::string, uint32_t> inputs;
    for (uint32_t input : function.inputs)
      inputs.emplace(plan.variables[input].name, input);
    for (uint32_t output : function.outputs) {
      auto same = inputs.find(plan.variables[output].name);
      check(same == inputs.end() || same->second == output, field + ".outputs",
            "'", plan.variables[output].name,
            "' is another variable than the input of that name");
    }
    function.arenaBytes = from.arena_bytes();
    check(function.arenaBytes <= kMaxBytes, field + ".arena_bytes",
          "expected at most ", kMaxBytes, ", got ", function.arenaBytes);
    for (const fb::Buffer *buffer : *from.buffers())
      readBuffer(*buffer, function,
                 str(field, ".buffers[", function.buffers.size(), "]"));
    events.clear();
    for (const fb::Command *command : *from.commands())
      readCommand(*command, function,
                  str(field, ".commands[", function.commands.size(), "]"));
    check(events.empty(), field + ".commands", "event ",
          events.empty() ? 0 : *events.begin(),
          " is started and never waited for");
    function.updateBegin = from.update_begin();
    check(function.updateBegin <= function.commands.size(),
          field + ".update_begin", "expected at most ",
          function.commands.size(), ", got ", function.updateBegin);
    function.modelFlops = from.model_flops();
    plan.functions.push_back(std::move(function));
  }

  void readBuffer(const fb::Buffer &from, Function &function,
                  const std::string &field) const {
    Buffer buffer{from.variable(), from.offset(), from.bytes(),
                  from.name() ? from.name()->str() : ""};
    uint64_t room = function.arenaBytes;
    if (buffer.variable != -1) {
      check(buffer.variable >= 0 &&
                size_t(buffer.variable) < plan.variables.size(),
            field + ".variable", "index ", buffer.variable,
            " is out of range (", plan.variables.size(), " variables)");
      const Variable &variable = plan.variables[size_t(buffer.variable)];
      checkShape(variable, function, field);
      room = variable.bytes();
    } else {
      check(buffer.offset % 64 == 0, field + ".offset",
            "expected a multiple of 64, got ", buffer.offset);
    }
    check(buffer.offset <= room && buffer.bytes <= room - buffer.offset, field,
          "expected a range inside ", room, " bytes, got ", buffer.bytes,
          " bytes at ", buffer.offset);
    function.buffers.push_back(std::move(buffer));
  }

  const Buffer &buffer(const Function &function, uint32_t index,
                       const std::string &field) const {
    check(index < function.buffers.size(), field, "buffer ", index,
          " is out of range (", function.buffers.size(), " buffers)");
    return function.buffers[index];
  }

  static bool overlap(const Buffer &left, uint64_t leftBytes,
                      const Buffer &right, uint64_t rightBytes) {
    return left.variable == right.variable &&
           left.offset < right.offset + rightBytes &&
           right.offset < left.offset + leftBytes;
  }

  void readCommand(const fb::Command &from, Function &function,
                   const std::string &field) {
    Command command;
    command.location = from.location() ? from.location()->str() : "";
    switch (from.operation_type()) {
    case fb::Operation::Dispatch:
      command.operation = readDispatch(*from.operation_as_Dispatch(), function,
                                       field + ".dispatch");
      break;
    case fb::Operation::Product:
      command.operation = readProduct(*from.operation_as_Product(), function,
                                      field + ".product");
      break;
    case fb::Operation::CopyStart:
      command.operation = readCopy(*from.operation_as_CopyStart(), function,
                                   field + ".copy_start");
      break;
    case fb::Operation::Wait: {
      const uint32_t event = from.operation_as_Wait()->event();
      check(events.erase(event) == 1, field + ".wait", "event ", event,
            " was not started");
      command.operation = Wait{event};
      break;
    }
    default:
      fail(field, "unknown operation ", int(from.operation_type()));
    }
    function.commands.push_back(std::move(command));
  }

  Dispatch readDispatch(const fb::Dispatch &from, const Function &function,
                        const std::string &field) const {
    Dispatch dispatch;
    dispatch.kernel = from.kernel();
    check(dispatch.kernel < plan.kernels.size(), field + ".kernel", "kernel ",
          dispatch.kernel, " is out of range (", plan.kernels.size(),
          " kernels)");
    for (uint32_t index : *from.args()) {
      buffer(function, index, field + ".args");
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
    check(unit.workgroups(function.batch, function.length) <=
              kMaxWorkgroups / dispatch.grid.factor,
          field + ".grid", "more than ", kMaxWorkgroups, " workgroups");
    dispatch.flops = from.flops();
    dispatch.bytes = from.bytes();
    return dispatch;
  }

  Product readProduct(const fb::Product &from, const Function &function,
                      const std::string &field) const {
    Product product{
        from.a(),          from.b(),
        from.c(),          from.trans_a(),
        from.trans_b(),    from.m(),
        from.n(),          from.k(),
        from.tile_m(),     from.tile_n(),
        from.accumulate(), from.source() ? from.source()->str() : ""};
    check(from.library()->string_view() == "onednn", field + ".library",
          "expected 'onednn', got '", from.library()->str(), "'");
    check(plan.features & kFeatureOneDnn, field + ".library",
          "the header lacks the feature bit of oneDNN");
    const int64_t tokens = function.batch * function.length;
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
                      const char *name) -> const Buffer & {
      const Buffer &storage = buffer(function, index, str(field, ".", name));
      int64_t bytes;
      check(!__builtin_mul_overflow(rows, columns, &bytes) &&
                bytes <= kMaxElements && uint64_t(bytes) * 4 <= storage.bytes,
            str(field, ".", name), "expected a buffer for ", rows, " x ",
            columns, " floats, got ", storage.bytes, " bytes");
      check(storage.offset % 4 == 0, str(field, ".", name),
            "expected an offset that is a multiple of 4, got ", storage.offset);
      return storage;
    };
    const Buffer &a = matrix(product.a, m, k, "a"),
                 &b = matrix(product.b, k, n, "b"),
                 &c = matrix(product.c, m, n, "c");
    const uint64_t written = uint64_t(m) * uint64_t(n) * 4;
    check(!overlap(a, uint64_t(m) * uint64_t(k) * 4, c, written) &&
              !overlap(b, uint64_t(k) * uint64_t(n) * 4, c, written),
          field + ".c", "overlaps an operand");
    return product;
  }

  CopyStart readCopy(const fb::CopyStart &from, const Function &function,
                     const std::string &field) {
    CopyStart copy{from.from(), from.to(), from.bytes(),
                   enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX,
                                       field + ".dynamic"),
                   from.event()};
    const uint64_t times = copy.dynamic == Dynamic::Batch
                               ? uint64_t(function.batch)
                           : copy.dynamic == Dynamic::BatchLength
                               ? uint64_t(function.batch * function.length)
                               : 1;
    const Buffer &source = buffer(function, copy.from, field + ".from"),
                 &target = buffer(function, copy.to, field + ".to");
    uint64_t bytes;
    check(!__builtin_mul_overflow(copy.bytes, times, &bytes) &&
              bytes <= source.bytes && bytes <= target.bytes,
          field + ".bytes", "expected at most ",
          std::min(source.bytes, target.bytes), " bytes, got ", copy.bytes,
          " x ", times);
    check(!overlap(source, bytes, target, bytes), field + ".to",
          "overlaps the source");
    check(events.insert(copy.event).second, field + ".event", "event ",
          copy.event, " is already under way");
    return copy;
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
