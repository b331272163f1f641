#include "runtime/session.h"
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include "runtime/device.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/parallel/Mesh.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/Traffic.h"
#include "runtime/variables.h"
#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>

namespace megalodon {

using plan::Action;
using plan::ActionKind;
using plan::Dynamic;
using plan::Function;
using plan::Indexed;
using plan::Program;
using plan::Role;
using plan::Variable;

/// Ranks of one job run one version.
static constexpr char kRuntimeVersion[32] = MEGALODON_VERSION;

/// Parameters and moments are one memory for all functions; everything else
/// belongs to its function.
static bool isShared(const Variable &variable) {
  return variable.role == Role::Parameter ||
         variable.role == Role::FirstMoment ||
         variable.role == Role::SecondMoment;
}

/// Throws Error unless all ranks run one version of the runtime on one plan,
/// and are as many as its mesh has.
static void agree(const plan::LoadedPlan &plan, World &world) {
  struct Identity {
    char version[sizeof(kRuntimeVersion)];
    char digest[64];
  } own{};
  std::memcpy(own.version, kRuntimeVersion, sizeof(own.version));
  std::memcpy(own.digest, plan.digest.data(),
              std::min(sizeof(own.digest), plan.digest.size()));
  std::vector<Identity> all(size_t(world.size()));
  world.all()
      .allGather(&own, all.data(), sizeof(own))
      ->wait({"comparing the ranks' plans", -1}, world.timeout);
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (std::memcmp(all[rank].version, all[0].version, sizeof(own.version)))
      throw Error(str("rank ", rank, " runs version ",
                      std::string(all[rank].version),
                      " of the runtime, rank 0 "
                      "version ",
                      std::string(all[0].version)));
    if (std::memcmp(all[rank].digest, all[0].digest, sizeof(own.digest)))
      throw Error(str(plan.path, ": rank ", rank,
                      " holds another plan than rank 0: digest ",
                      std::string(all[rank].digest, sizeof(own.digest)),
                      ", expected ",
                      std::string(all[0].digest, sizeof(own.digest))));
  }
  const int ranks = plan.mesh.ranks();
  if (ranks != world.size())
    throw Error(str(plan.path, ": expected ", ranks, " ranks as mesh ",
                    plan::meshText(plan.mesh), " says, got ", world.size(),
                    "; start it with mpirun -n ", ranks,
                    " megalodon-run ... or with --virtual-ranks"));
}

/// What a function needs to run; made when it is first used.
struct Bound {
  const Program &program;
  Storage own;
  std::vector<uint32_t> variables;  ///< of which this rank holds a part
  std::vector<HostCopy *> copies;   ///< of these, where they have some
  std::vector<HostCopy *> changed;  ///< of those that a run changes
  std::vector<std::byte *> buffers; ///< of microbatch 0 and slot 0
  std::vector<uint32_t> indexed;    ///< buffers that are elsewhere in others
  std::vector<std::vector<uint32_t>> touched; ///< buffers of each segment
};

/// A message to or from another pipeline rank, under way.
struct Message {
  std::byte *begin, *end; ///< memory of the device
  Block staging;          ///< what travels, where that is not host memory
  std::unique_ptr<Request> request;
  std::string operation;
  const Action *action;
};

struct Session::Impl {
  std::unique_ptr<World> ownWorld;
  World &world;
  std::shared_ptr<const plan::LoadedPlan> plan;
  Coordinates place;
  std::vector<std::unique_ptr<Communicator>> communicators;
  std::unique_ptr<Device> device;
  std::shared_ptr<Storage> shared;
  Block arena; ///< of all functions: only one runs at a time
  std::deque<std::optional<Bound>> bound;
  bool poison;
  bool profiling = false;
  plan::Trace *trace = nullptr;
  int64_t step = -1;
  std::vector<std::vector<double>> seconds;

  Impl(std::shared_ptr<const plan::LoadedPlan> loaded, SessionOptions options,
       World *given, std::shared_ptr<Storage> weights = nullptr)
      : ownWorld(given ? nullptr : singleWorld()),
        world(given ? *given : *ownWorld),
        plan(agreed(std::move(loaded), world)),
        place(plan->mesh.coordinates(world.rank())),
        device(openDevice(plan, options, world)),
        shared(weights ? std::move(weights)
                       : std::make_shared<Storage>(*device, *plan,
                                                   sharedVariables(),
                                                   "parameters and moments")),
        bound(plan->functions.size()), poison(options.poison) {
    uint64_t most = 0;
    for (const Function &function : plan->functions)
      most = std::max(most, programOf(function).arenaBytes);
    arena = device->allocate(most, "the arena");
    connect();
  }

  static std::shared_ptr<const plan::LoadedPlan>
  agreed(std::shared_ptr<const plan::LoadedPlan> plan, World &world) {
    agree(*plan, world);
    return plan;
  }

  /// Makes the plan's communicators. All ranks go through them in one order,
  /// and the groups of one communicator have no rank in common.
  void connect() {
    std::vector<Communicator *> list;
    for (const plan::Communicator &communicator : plan->communicators) {
      communicators.emplace_back();
      if (communicator.isMember(uint32_t(place.pipeline)))
        communicators.back() = world.group(membersOf(communicator));
      list.push_back(communicators.back().get());
    }
    device->connect(std::move(list), world.timeout);
  }

  /// The group that this rank is in, by its axes' coordinates, the first axis
  /// slowest.
  std::vector<int> membersOf(const plan::Communicator &communicator) const {
    std::vector<int> members = plan->mesh.group(
        world.rank(), communicator.axes,
        {communicator.stages.begin(), communicator.stages.end()});
    std::sort(members.begin(), members.end(), [&](int left, int right) {
      const Coordinates a = plan->mesh.coordinates(left),
                        b = plan->mesh.coordinates(right);
      for (Axis axis : communicator.axes)
        if (a.along(axis) != b.along(axis))
          return a.along(axis) < b.along(axis);
      return left < right;
    });
    return members;
  }

  /// The parameters, for another session.
  std::shared_ptr<Storage> shareable() const {
    if (!device->isHost() || world.size() != 1)
      throw Error(str(plan->path,
                      ": expected sessions that share parameters to be of one "
                      "rank on the cpu, got ",
                      world.size(), " ranks on ", device->name()));
    return shared;
  }

  const Program &programOf(const Function &function) const {
    return function.programs[size_t(place.pipeline)];
  }

  bool isHeld(uint32_t variable) const {
    return plan->variables[variable].isHeldBy(uint32_t(place.pipeline));
  }

  std::vector<uint32_t> sharedVariables() const {
    std::vector<uint32_t> list;
    for (uint32_t i = 0; i < plan->variables.size(); ++i)
      if (isShared(plan->variables[i]) && isHeld(i))
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
    const Program &program = programOf(f);
    std::vector<uint32_t> all(f.inputs);
    all.insert(all.end(), f.outputs.begin(), f.outputs.end());
    for (const plan::Buffer &buffer : program.buffers)
      if (buffer.variable >= 0)
        all.push_back(uint32_t(buffer.variable));
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    all.erase(std::remove_if(all.begin(), all.end(),
                             [&](uint32_t i) { return !isHeld(i); }),
              all.end());
    std::vector<uint32_t> own;
    std::copy_if(all.begin(), all.end(), std::back_inserter(own),
                 [&](uint32_t i) { return !isShared(plan->variables[i]); });
    bound[index].emplace(Bound{
        program,
        Storage(*device, *plan, own, str("the variables of '", f.name, "'")),
        std::move(all),
        {},
        {},
        {},
        {},
        {}});
    Bound &result = *bound[index];
    for (uint32_t i : result.variables)
      if (HostCopy *copy = storageOf(result, i).hostCopy(i)) {
        result.copies.push_back(copy);
        if (isChanged(f, i))
          result.changed.push_back(copy);
      }
    for (uint32_t i = 0; i < program.buffers.size(); ++i) {
      const plan::Buffer &buffer = program.buffers[i];
      std::byte *base = buffer.variable < 0
                            ? arena.data()
                            : address(result, uint32_t(buffer.variable));
      result.buffers.push_back(base + buffer.offset);
      if (buffer.index != Indexed::None)
        result.indexed.push_back(i);
    }
    for (const plan::Segment &segment : program.segments)
      result.touched.push_back(buffersOf(segment));
    for (uint32_t i : f.inputs)
      if (isHeld(i))
        setDefault(result, i);
    return result;
  }

  static std::vector<uint32_t> buffersOf(const plan::Segment &segment) {
    std::vector<uint32_t> list;
    for (const plan::Command &command : segment.commands) {
      if (auto *dispatch = std::get_if<plan::Dispatch>(&command.operation)) {
        list.insert(list.end(), dispatch->args.begin(), dispatch->args.end());
      } else if (auto *product =
                     std::get_if<plan::Product>(&command.operation)) {
        list.insert(list.end(), {product->a, product->b, product->c});
      } else if (auto *copy =
                     std::get_if<plan::CopyStart>(&command.operation)) {
        list.insert(list.end(), {copy->from, copy->to});
      } else if (auto *collective =
                     std::get_if<plan::CollectiveStart>(&command.operation)) {
        for (const plan::CollectiveItem &item : collective->items)
          list.insert(list.end(), {item.from, item.to});
      }
    }
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
    return list;
  }

  /// Whether a call of the function may write the variable.
  bool isChanged(const Function &f, uint32_t variable) const {
    const Role role = plan->variables[variable].role;
    return role != Role::Parameter && role != Role::Input
               ? true
               : std::find(f.outputs.begin(), f.outputs.end(), variable) !=
                     f.outputs.end();
  }

  const Storage &storageOf(const Bound &of, uint32_t variable) const {
    return isShared(plan->variables[variable]) ? *shared : of.own;
  }
  std::byte *address(const Bound &of, uint32_t variable) const {
    return storageOf(of, variable).address(variable);
  }

  void setDefault(const Bound &of, uint32_t index) const {
    const Variable &variable = plan->variables[index];
    if (!variable.optional || variable.role != Role::Input)
      return;
    const TensorView whole = wholeView(storageOf(of, index), index);
    std::byte *data = whole.overwrite();
    const size_t elements = variable.localBytes() / elementBytes(variable.type);
    for (size_t i = 0; i < elements; ++i) {
      auto store = [&](auto value) {
        std::memcpy(data + i * sizeof(value), &value, sizeof(value));
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
        store(narrow(float(variable.defaultValue)));
        break;
      }
    }
  }

  CallShape checked(const Function &f, CallShape shape) const {
    CallShape call{shape.batch ? shape.batch : f.batch,
                   shape.length ? shape.length : f.length};
    auto refuse = [&](const char *what, int64_t most, int64_t multiple,
                      int64_t got) {
      if (got != most && (f.exact || got < 1 || got > most))
        throw Error(str(plan->path, ": function '", f.name, "': ", what,
                        ": expected ", f.exact ? "exactly " : "between 1 and ",
                        most, ", got ", got));
      if (got % multiple != 0)
        throw Error(str(plan->path, ": function '", f.name, "': ", what,
                        ": expected a multiple of ", multiple, " on mesh ",
                        plan::meshText(plan->mesh), ", got ", got));
    };
    refuse("batch", f.batch, f.dataParts * f.microbatches(), call.batch);
    refuse("length", f.length, lengthMultiple(f), call.length);
    return call;
  }

  /// Which tokens of the call begin a document; null where rows are not packed.
  std::optional<TensorView> resetsOf(const Bound &of, const Function &f,
                                     CallShape call) const {
    for (uint32_t index : f.inputs)
      if (plan->variables[index].name == plan::kResets && isHeld(index))
        return view(of, index, call);
    return {};
  }

  /// Where all keys are kept there is an end to what a sequence may hold. All
  /// layers have counted the same, so the first one's count is enough.
  void checkContext(const Bound &of, const Function &f, CallShape call) const {
    if (plan->context == 0)
      return;
    for (uint32_t index : f.inputs) {
      const Variable &variable = plan->variables[index];
      if (variable.role != Role::State || variable.type != ElementType::I64 ||
          !isHeld(index))
        continue;
      const TensorView counts = view(of, index, call);
      const auto *seen = reinterpret_cast<const int64_t *>(counts.read());
      const std::optional<TensorView> resets = resetsOf(of, f, call);
      for (int64_t row = 0; row < counts.shape[0]; ++row) {
        const int32_t *begins =
            resets ? reinterpret_cast<const int32_t *>(resets->read()) +
                         row * resets->shape[1]
                   : nullptr;
        const Run run = longestRun(seen[row], call.length, begins);
        if (run.before > plan->context - run.tokens)
          throw Error(str(plan->path, ": function '", f.name, "': row ", row,
                          ": expected at most ", plan->context,
                          " tokens in a sequence (max_seq_len), got ",
                          run.before, " before this call and ", run.tokens,
                          " in it; start the sequence afresh, or compile with "
                          "a larger max_seq_len"));
      }
      return;
    }
  }

  /// Tokens of one document: those before the call, and those in it.
  struct Run {
    int64_t before, tokens;
  };
  static Run longestRun(int64_t before, int64_t length, const int32_t *begins) {
    Run run{before, 0}, longest = run;
    for (int64_t token = 0; token < length; ++token) {
      if (begins && begins[token] != 0)
        run = {0, 0};
      ++run.tokens;
      if (run.before + run.tokens > longest.before + longest.tokens)
        longest = run;
    }
    return longest;
  }

  /// Ranks of the chunk axis hold whole chunks.
  int64_t lengthMultiple(const Function &f) const {
    return f.chunkParts > 1
               ? f.chunkParts * std::max<int64_t>(1, plan->chunkSize)
               : 1;
  }

  TensorView wholeView(const Storage &storage, uint32_t index) const {
    const Variable &variable = plan->variables[index];
    HostCopy *copy = storage.hostCopy(index);
    return {variable.name,         variable.type,
            variable.localShape,   copy ? nullptr : storage.address(index),
            variable.localBytes(), copy};
  }

  TensorView view(const Bound &of, uint32_t index, CallShape call) const {
    const Variable &variable = plan->variables[index];
    TensorView view = wholeView(storageOf(of, index), index);
    view.bytes = elementBytes(variable.type);
    if (variable.dynamic != Dynamic::None)
      view.shape[0] = call.batch / variable.parts(0);
    if (variable.dynamic == Dynamic::BatchLength)
      view.shape[1] = call.length / variable.parts(1);
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
      if (isHeld(index))
        list.push_back(view(of, index, call));
    return list;
  }

  std::vector<TensorView> sharedViews(Role role) const {
    std::vector<TensorView> list;
    for (uint32_t i = 0; i < plan->variables.size(); ++i)
      if (plan->variables[i].role == role && isHeld(i))
        list.push_back(wholeView(*shared, i));
    return list;
  }

  /// The buffers as an action means them.
  std::vector<std::byte *> buffersFor(const Bound &of, const Action &action,
                                      const Function &f,
                                      CallShape local) const {
    std::vector<std::byte *> buffers = of.buffers;
    for (uint32_t index : of.indexed) {
      const plan::Buffer &buffer = of.program.buffers[index];
      uint64_t stride = buffer.stride;
      if (buffer.index == Indexed::Slot) {
        buffers[index] += action.slot * stride;
        continue;
      }
      // The rows of a smaller call are packed, so its microbatches are too.
      if (buffer.variable >= 0) {
        const Dynamic dynamic =
            plan->variables[size_t(buffer.variable)].dynamic;
        stride =
            stride /
            uint64_t(plan::timesOf(dynamic, f.localBatch(), f.localLength())) *
            uint64_t(plan::timesOf(dynamic, local.batch, local.length));
      }
      buffers[index] += action.microbatch * stride;
    }
    return buffers;
  }

  void finish(Message &message) const {
    const double begin = trace ? plan::traceClock() : 0;
    message.request->wait({message.operation, step}, world.timeout);
    if (message.staging.data() && message.action->kind == ActionKind::Receive)
      device->await(device->upload(message.begin, message.staging.data(),
                                   size_t(message.end - message.begin)));
    if (trace)
      trace->push_back(
          {plan::TraceEvent::Kind::Wait,
           message.action->kind == ActionKind::Send ? "wait send pp"
                                                    : "wait receive pp",
           "", 0, message.action->microbatch, begin, plan::traceClock()});
  }

  /// Waits for the messages whose memory lies in [begin, end).
  void settle(std::vector<Message> &messages, const std::byte *begin,
              const std::byte *end) const {
    for (size_t i = 0; i < messages.size();) {
      if (messages[i].begin >= end || begin >= messages[i].end) {
        ++i;
        continue;
      }
      finish(messages[i]);
      messages.erase(messages.begin() + std::ptrdiff_t(i));
    }
  }

  /// Begins a message to or from another pipeline rank.
  Message exchange(const Bound &of, const Action &action, std::byte *memory,
                   const Function &f, CallShape local) {
    const plan::Buffer &buffer = of.program.buffers[action.buffer];
    const uint64_t bytes =
        plan::messageBytes(f, of.program, action, local.batch, local.length);
    Coordinates other = place;
    other.pipeline = int(action.peer);
    const int peer = plan->mesh.rank(other);
    const bool sends = action.kind == ActionKind::Send;
    Message message{memory,
                    memory + bytes,
                    {},
                    nullptr,
                    str(sends ? "sending '" : "receiving '", buffer.name,
                        "' of microbatch ", action.microbatch,
                        sends ? " to" : " from", " rank ", peer),
                    &action};
    const double begin = trace ? plan::traceClock() : 0;
    if (!device->isHost()) {
      message.staging = device->allocateHost(bytes, "a message between ranks");
      memory = message.staging.data();
      if (sends)
        device->download(memory, message.begin, bytes);
    }
    message.request =
        sends ? world.all().send(memory, bytes, peer, int(action.channel))
              : world.all().receive(memory, bytes, peer, int(action.channel));
    if (trace)
      trace->push_back({sends ? plan::TraceEvent::Kind::Send
                              : plan::TraceEvent::Kind::Receive,
                        sends ? "send pp" : "receive pp", buffer.name, bytes,
                        action.microbatch, begin, plan::traceClock()});
    return message;
  }

  /// Runs a list of actions; all its messages are complete afterwards.
  void perform(const Bound &of, const Function &f,
               const std::vector<Action> &actions, CallShape call,
               bool accumulate, bool last) {
    const int64_t microbatches = of.program.microbatches;
    const CallShape local{call.batch / (f.dataParts * microbatches),
                          call.length / f.chunkParts};
    std::vector<Message> messages;
    std::vector<std::byte *> moved;
    for (const Action &action : actions) {
      if (!of.indexed.empty())
        moved = buffersFor(of, action, f, local);
      const std::vector<std::byte *> &buffers =
          of.indexed.empty() ? of.buffers : moved;
      if (action.kind == ActionKind::Run) {
        if (!messages.empty())
          for (uint32_t index : of.touched[action.segment])
            settle(messages, buffers[index],
                   buffers[index] + of.program.buffers[index].bytes);
        device->run(of.program.segments[action.segment], buffers,
                    {local.batch, local.length,
                     accumulate || action.microbatch > 0,
                     last && action.microbatch + 1 == microbatches, place, step,
                     action.microbatch, action.slot},
                    profiling ? &seconds[action.segment] : nullptr);
      } else {
        std::byte *memory = buffers[action.buffer];
        settle(messages, memory,
               memory + of.program.buffers[action.buffer].bytes);
        messages.push_back(exchange(of, action, memory, f, local));
      }
      for (Message &message : messages)
        message.request->test();
    }
    for (Message &message : messages)
      finish(message);
  }
};

const std::byte *TensorView::read() const {
  return copy ? copy->read(bytes) : memory;
}
std::byte *TensorView::write() const {
  return copy ? copy->write(bytes) : memory;
}
std::byte *TensorView::overwrite() const {
  return copy ? copy->overwrite(bytes) : memory;
}
void TensorView::zero() const {
  if (copy)
    copy->zero(bytes);
  else if (bytes)
    std::memset(memory, 0, bytes);
}
void TensorView::flush() const {
  if (copy)
    copy->flush();
}

Session::Session(std::shared_ptr<const plan::LoadedPlan> plan,
                 SessionOptions options)
    : impl(std::make_unique<Impl>(std::move(plan), options, nullptr)) {}
Session::Session(std::shared_ptr<const plan::LoadedPlan> plan,
                 SessionOptions options, World &world)
    : impl(std::make_unique<Impl>(std::move(plan), options, &world)) {}
Session::Session(const Session &other, SessionOptions options)
    : impl(std::make_unique<Impl>(other.impl->plan, options, nullptr,
                                  other.impl->shareable())) {}
Session::~Session() = default;
Session::Session(Session &&) noexcept = default;

World &Session::world() const { return impl->world; }
const Coordinates &Session::place() const { return impl->place; }
void Session::setStep(int64_t step) { impl->step = step; }
const plan::LoadedPlan &Session::plan() const { return *impl->plan; }
int Session::threads() const { return impl->device->threads(); }
Device &Session::device() const { return *impl->device; }

plan::RankMemory Session::memory() const {
  plan::RankMemory memory;
  memory.arena = impl->arena.bytes();
  memory.staging = impl->device->stagingBytes();
  impl->shared->addTo(memory, *impl->plan);
  for (const std::optional<Bound> &bound : impl->bound)
    if (bound)
      bound->own.addTo(memory, *impl->plan);
  return memory;
}

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
  throw Error(str(
      impl->plan->path, ": function '", impl->function(function).name,
      "' has no variable '", name, "'",
      impl->plan->mesh.pp > 1 ? str(" on pipeline rank ", impl->place.pipeline)
                              : ""));
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
      impl->wholeView(impl->storageOf(of, index), index).zero();
  }
}

void Session::resetOptionalInputs(size_t function) {
  const Bound &of = impl->bind(function);
  for (uint32_t index : impl->function(function).inputs)
    if (impl->isHeld(index))
      impl->setDefault(of, index);
}

void Session::run(size_t function, CallShape shape, Half half, bool accumulate,
                  bool last) {
  const Bound &of = impl->bind(function);
  const Function &f = impl->function(function);
  const CallShape call = impl->checked(f, shape);
  if (half != Half::Update)
    impl->checkContext(of, f, call);
  if (impl->poison && half != Half::Update && impl->arena.bytes())
    impl->device->fill(impl->arena.data(), 0xff, impl->arena.bytes());
  if (impl->profiling) {
    impl->seconds.clear();
    for (const plan::Segment &segment : of.program.segments)
      impl->seconds.emplace_back(segment.commands.size());
  }
  for (HostCopy *copy : of.copies)
    copy->beforeRun();
  if (half != Half::Update)
    impl->perform(of, f, of.program.actions, call, accumulate, last);
  if (half != Half::Compute)
    impl->perform(of, f, of.program.updateActions, call, accumulate, last);
  for (HostCopy *copy : of.changed)
    copy->changedByDevice();
}

void Session::setTrace(plan::Trace *trace) {
  impl->trace = trace;
  impl->device->record(trace);
}

void Session::setProfiling(bool on) { impl->profiling = on; }
const std::vector<std::vector<double>> &Session::commandSeconds() const {
  return impl->seconds;
}

} // namespace megalodon
