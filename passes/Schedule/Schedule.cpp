#include "passes/Schedule/Schedule.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;
using namespace mlir::megalodon;

static uint64_t byteSize(RankedTensorType type) {
  return type.getNumElements() * (type.getElementTypeBitWidth() / 8);
}

/// The name a location carries: of a NameLoc, else of the op itself.
static std::string locationName(Operation *op, StringRef prefix) {
  std::string name = op->getName().getStringRef().str();
  if (auto named = dyn_cast<NameLoc>(op->getLoc()))
    name = named.getName().str();
  return prefix.empty() ? name : (prefix + "/" + name).str();
}

namespace {
constexpr unsigned kForever = ~0u;

/// An SSA value of the expanded program.
struct ValueInfo {
  RankedTensorType type;
  unsigned lastUse = 0;  // step, or kForever for what the entry returns
  unsigned lastRead = 0; // step
  int definition = -1;   // step; -1 for arguments and undefined tensors
  bool undefined = false;
  int storage = -1;
  std::string name;
};

/// A command before memory is assigned: operands and results are value numbers.
struct ExpandedStep {
  Operation *op;
  SmallVector<unsigned> operands, results;
  std::string location;
};

/// What an argument or result is to the outside.
struct Port {
  int variable;
  Indexed index = Indexed::None;
  int64_t copy = 0;
};

class EntryScheduler {
public:
  EntryScheduler(func::FuncOp entry, std::vector<Variable> &variables)
      : entry(entry), variables(variables),
        symbols(entry->getParentOfType<ModuleOp>()),
        mesh(meshSizes(entry->getParentOfType<ModuleOp>())) {}

  LogicalResult run(Schedule &schedule);
  LogicalResult runSegment(StringRef name, Schedule &schedule,
                           ProgramSchedule &program);

private:
  LogicalResult declareVariables(Schedule &schedule,
                                 const ProgramSchedule &program);
  LogicalResult expandEntry(Schedule &schedule, const ProgramSchedule &program);
  FailureOr<SmallVector<unsigned>>
  expand(func::FuncOp function, ArrayRef<unsigned> arguments, StringRef prefix);
  LogicalResult checkCollective(plan::CollectiveOp op,
                                ArrayRef<unsigned> operands);
  unsigned callDimensions(RankedTensorType type, unsigned value) const;
  ItemShape itemShape(plan::CollectiveOp op, RankedTensorType type,
                      unsigned value) const;
  void assign(StringRef name, ProgramSchedule &program);

  unsigned newValue(Type type, std::string name) {
    values.push_back(
        {cast<RankedTensorType>(type), 0, 0, -1, false, -1, std::move(name)});
    return values.size() - 1;
  }

  func::FuncOp entry;
  std::vector<Variable> &variables;
  SymbolTable symbols;
  std::array<int64_t, 4> mesh;
  int64_t localBatch = 1, localLength = 1;
  bool isExact = false;
  std::vector<ValueInfo> values;
  std::vector<ExpandedStep> expanded;
  SmallVector<unsigned> argumentValues, resultValues;
  SmallVector<Port> argumentPorts, resultPorts;
  int updateStep = -1;
  unsigned events = 0;
};
} // namespace

LogicalResult EntryScheduler::declareVariables(Schedule &schedule,
                                               const ProgramSchedule &program) {
  // Known variables by name: an entry of a deep model has thousands.
  llvm::StringMap<int> known;
  for (auto [index, variable] : llvm::enumerate(variables))
    if (variable.function.empty() || variable.function == schedule.name)
      known[variable.name] = index;
  auto declare = [&](Type type, DictionaryAttr attributes) -> FailureOr<Port> {
    auto name =
        attributes ? attributes.getAs<StringAttr>(kNameAttr) : StringAttr();
    auto role = attributes ? attributes.getAs<RoleAttr>(kRoleAttr) : RoleAttr();
    if (!name || !role)
      return entry.emitOpError()
             << "expected " << kNameAttr << " and " << kRoleAttr
             << " on every argument and result of an entry";
    auto tensor = cast<RankedTensorType>(type);
    Port port{-1};
    if (auto index = attributes.getAs<StringAttr>(plan::kIndexAttr))
      port.index = index == "slot" ? Indexed::Slot : Indexed::Microbatch;
    else if (auto copy = attributes.getAs<IntegerAttr>(plan::kIndexAttr))
      port.copy = copy.getInt();
    auto found = known.find(name.getValue());
    if (found != known.end()) {
      if (variables[found->second].type != tensor)
        return entry.emitOpError()
               << "'" << name.getValue() << "' has type " << tensor
               << " here and " << variables[found->second].type << " elsewhere";
      port.variable = found->second;
      return port;
    }
    Variable variable{name.str(),
                      tensor,
                      role.getValue(),
                      llvm::to_vector(tensor.getShape()),
                      attributes.getAs<ArrayAttr>(kSplitsAttr),
                      attributes.getAs<InitAttr>(kInitAttr),
                      std::nullopt,
                      schedule.name};
    if (auto shape = attributes.getAs<DenseI64ArrayAttr>(kShapeAttr))
      variable.shape = llvm::to_vector(shape.asArrayRef());
    if (auto value = attributes.getAs<FloatAttr>(kDefaultAttr))
      variable.defaultValue = value.getValueAsDouble();
    if (llvm::is_contained(
            {Role::Parameter, Role::FirstMoment, Role::SecondMoment},
            variable.role))
      variable.function.clear();
    // The outside never sees the copies of what passes between segments.
    if (variable.role == Role::Residual && attributes.get(plan::kIndexAttr))
      variable.shape.insert(variable.shape.begin(), port.index == Indexed::Slot
                                                        ? program.slots
                                                        : program.microbatches);
    variables.push_back(variable);
    port.variable = known[name.getValue()] = variables.size() - 1;
    return port;
  };
  auto add = [](std::vector<unsigned> &list, unsigned variable) {
    if (!llvm::is_contained(list, variable))
      list.push_back(variable);
  };
  for (auto [index, argument] : llvm::enumerate(entry.getArguments())) {
    auto port = declare(argument.getType(), entry.getArgAttrDict(index));
    if (failed(port))
      return failure();
    argumentPorts.push_back(*port);
    const Variable &variable = variables[port->variable];
    // Accumulated gradients are the plan's own: nobody passes them in.
    if (variable.role != Role::Gradient && variable.role != Role::Residual)
      add(schedule.inputs, port->variable);
    if (variable.name == "tokens") {
      schedule.localBatch = variable.type.getDimSize(0);
      schedule.localLength = variable.type.getDimSize(1);
    }
  }
  for (unsigned index = 0; index < entry.getNumResults(); ++index) {
    auto port =
        declare(entry.getResultTypes()[index], entry.getResultAttrDict(index));
    if (failed(port))
      return failure();
    resultPorts.push_back(*port);
    if (variables[port->variable].role != Role::Residual)
      add(schedule.outputs, port->variable);
  }
  return success();
}

FailureOr<SmallVector<unsigned>>
EntryScheduler::expand(func::FuncOp function, ArrayRef<unsigned> arguments,
                       StringRef prefix) {
  llvm::DenseMap<Value, unsigned> numbers;
  for (auto [argument, number] :
       llvm::zip_equal(function.getArguments(), arguments))
    numbers[argument] = number;
  for (Operation &op : function.getBody().front()) {
    auto operands = llvm::map_to_vector(op.getOperands(), [&](Value operand) {
      return numbers.lookup(operand);
    });
    if (isa<func::ReturnOp>(op))
      return operands;
    if (auto call = dyn_cast<func::CallOp>(op)) {
      auto results = expand(symbols.lookup<func::FuncOp>(call.getCallee()),
                            operands, locationName(call, prefix));
      if (failed(results))
        return failure();
      for (auto [result, number] : llvm::zip_equal(call.getResults(), *results))
        numbers[result] = number;
      continue;
    }
    if (!isa<plan::DispatchOp, plan::ProductOp, plan::UndefinedOp,
             plan::CollectiveOp>(op))
      return op.emitOpError("cannot be scheduled; only plan ops and calls can");
    if (auto collective = dyn_cast<plan::CollectiveOp>(op))
      if (failed(checkCollective(collective, operands)))
        return failure();
    std::string location = locationName(&op, prefix);
    SmallVector<unsigned> results;
    for (Value result : op.getResults()) {
      numbers[result] = newValue(result.getType(), location);
      results.push_back(numbers[result]);
    }
    if (isa<plan::UndefinedOp>(op)) {
      values[results[0]].undefined = true;
      continue;
    }
    unsigned step = expanded.size();
    if (op.hasAttr(plan::kUpdateAttr) && updateStep < 0)
      updateStep = step;
    for (unsigned operand : operands)
      values[operand].lastUse = values[operand].lastRead = step;
    for (unsigned result : results) {
      values[result].definition = step;
      values[result].lastUse = step;
    }
    expanded.push_back({&op, operands, results, location});
  }
  llvm_unreachable("function without return");
}

/// How many leading dimensions of a tensor are the call's, and shrink with it:
/// 1 for rows, 2 for tokens. In a call of one shape nothing does.
unsigned EntryScheduler::callDimensions(RankedTensorType type,
                                        unsigned value) const {
  auto argument = llvm::find(argumentValues, value);
  bool isWeight =
      argument != argumentValues.end() &&
      variables[argumentPorts[argument - argumentValues.begin()].variable]
              .role == Role::Parameter;
  if (isExact || isWeight || type.getRank() == 0 ||
      type.getDimSize(0) != localBatch)
    return 0;
  return type.getRank() > 1 && type.getDimSize(1) == localLength ? 2 : 1;
}

LogicalResult EntryScheduler::checkCollective(plan::CollectiveOp op,
                                              ArrayRef<unsigned> operands) {
  int64_t ranks = 1;
  for (int64_t axis : op.getAxes())
    ranks *= axis == 1 && op.getStages() ? op.getStages()->size() : mesh[axis];
  if (ranks < 2)
    return op.emitOpError()
           << "expected several ranks along its axes, got " << ranks;
  if (op.getKind() == plan::CollectiveKind::AllReduce)
    return success();
  for (auto [value, input, output] :
       llvm::zip_equal(operands, op.getInputs(), op.getOutputs())) {
    auto from = cast<RankedTensorType>(input.getType()),
         to = cast<RankedTensorType>(output.getType());
    int64_t dimension = op.getDimension();
    int64_t least =
                std::min(from.getDimSize(dimension), to.getDimSize(dimension)),
            most =
                std::max(from.getDimSize(dimension), to.getDimSize(dimension));
    if (least * ranks != most)
      return op.emitOpError()
             << "expected dimension " << dimension << " of " << least * ranks
             << " for " << ranks << " ranks, got " << most;
    if (callDimensions(from, value) == 2 && dimension == 1)
      return op.emitOpError() << "cannot cut the tokens of calls of any length";
  }
  return success();
}

/// How a tensor of `type`, the smaller of an item's two, lies in memory around
/// the collective's dimension.
ItemShape EntryScheduler::itemShape(plan::CollectiveOp op,
                                    RankedTensorType type,
                                    unsigned value) const {
  unsigned dynamic = callDimensions(type, value);
  auto product = [&](unsigned begin, unsigned end) {
    int64_t result = 1;
    for (unsigned i = begin; i < end; ++i)
      result *= type.getDimSize(i);
    return result;
  };
  unsigned dimension = op.getDimension();
  if (op.getKind() == plan::CollectiveKind::AllReduce)
    dimension = dynamic;
  else if (dimension < dynamic)
    dynamic = 0; // a weight that is as high as the batch
  return {product(dynamic, dimension), dynamic,
          static_cast<uint64_t>(product(dimension, type.getRank())) *
              (type.getElementTypeBitWidth() / 8)};
}

void EntryScheduler::assign(StringRef name, ProgramSchedule &program) {
  auto newStorage = [&](int variable, StringRef name, uint64_t bytes) {
    Storage storage;
    storage.variable = variable;
    storage.name = name.str();
    if (variable < 0) {
      storage.temporary = program.temporaries.size();
      program.temporaries.push_back({bytes, kForever, 0, 0});
    }
    program.storages.push_back(storage);
    return static_cast<int>(program.storages.size() - 1);
  };
  llvm::DenseMap<std::pair<int, int64_t>, int> variableStorage;
  auto storageOf = [&](const Port &port) {
    auto [entry, fresh] =
        variableStorage.try_emplace({port.variable, port.copy}, 0);
    if (fresh) {
      entry->second =
          newStorage(port.variable, variables[port.variable].name, 0);
      program.storages.back().index = port.index;
      program.storages.back().copy = port.copy;
    }
    return entry->second;
  };
  llvm::DenseSet<int> taken; // variables that are arguments: their memory holds
                             // a value from the start
  llvm::DenseSet<int> outputVariables;
  for (const Port &port : resultPorts)
    outputVariables.insert(port.variable);
  // What is only an output is computed in place, if it is computed here and
  // returned once. A carried variable's new value may take its memory when the
  // old value is dead before the new one is written.
  llvm::DenseMap<int, unsigned> argumentOf;
  for (auto [value, port] : llvm::zip_equal(argumentValues, argumentPorts)) {
    values[value].storage = storageOf(port);
    taken.insert(port.variable);
    argumentOf[port.variable] = value;
  }
  for (auto [value, port] : llvm::zip_equal(resultValues, resultPorts)) {
    ValueInfo &info = values[value];
    if (info.storage >= 0 || info.definition < 0 ||
        info.type != variables[port.variable].type)
      continue;
    auto argument = argumentOf.find(port.variable);
    if (argument == argumentOf.end()
            ? taken.insert(port.variable).second
            : static_cast<int>(values[argument->second].lastUse) <
                      info.definition &&
                  values[argument->second].lastUse != kForever)
      info.storage = storageOf(port);
  }

  // What such a value updates in place is computed there too.
  auto inherit = [&](unsigned number, unsigned operand, unsigned result) {
    ValueInfo &before = values[operand], &after = values[result];
    if (after.storage < 0 || before.storage >= 0 || before.definition < 0 ||
        before.lastUse != number ||
        llvm::count(expanded[number].operands, operand) != 1)
      return;
    auto argument = argumentOf.find(program.storages[after.storage].variable);
    if (argument == argumentOf.end() ||
        static_cast<int>(values[argument->second].lastUse) < before.definition)
      before.storage = after.storage;
  };
  for (unsigned number = expanded.size(); number-- > 0;) {
    const ExpandedStep &step = expanded[number];
    if (auto dispatch = dyn_cast<plan::DispatchOp>(step.op)) {
      for (auto [index, input] : llvm::enumerate(dispatch.getTied()))
        if (input >= 0)
          inherit(number, step.operands[input], step.results[index]);
    } else if (auto collective = dyn_cast<plan::CollectiveOp>(step.op);
               collective &&
               collective.getKind() == plan::CollectiveKind::AllReduce) {
      for (auto [operand, result] :
           llvm::zip_equal(step.operands, step.results))
        inherit(number, operand, result);
    }
  }

  auto touch = [&](unsigned storage, unsigned step) {
    if (program.storages[storage].temporary < 0)
      return;
    Lifetime &lifetime =
        program.temporaries[program.storages[storage].temporary];
    lifetime.begin = std::min(lifetime.begin, step);
    lifetime.end = std::max(lifetime.end, step);
  };
  program.segments.push_back({name.str(), {}});
  unsigned emitted = 0;
  auto append = [&](Step step) {
    for (unsigned buffer : step.buffers)
      touch(buffer, emitted);
    ++emitted;
    program.segments.back().steps.push_back(std::move(step));
  };
  // Messages under way, whose buffers stay alive until they are waited for:
  // before the first step that reads what they bring or overwrites anything of
  // theirs.
  std::vector<Step> underWay;
  auto settle = [&](llvm::function_ref<bool(const Step &)> needed) {
    for (auto message = underWay.begin(); message != underWay.end();) {
      if (!needed(*message)) {
        ++message;
        continue;
      }
      append({Step::Kind::Wait,
              message->op,
              message->buffers,
              0,
              message->location,
              message->event,
              {}});
      message = underWay.erase(message);
    }
  };
  auto settleAll = [&] { settle([](const Step &) { return true; }); };
  auto emit = [&](Step step, ArrayRef<unsigned> written) {
    settle([&](const Step &message) {
      for (auto [index, buffer] : llvm::enumerate(message.buffers)) {
        bool arrives = index % 2 == 1; // from, to, from, to, ...
        if (llvm::is_contained(written, buffer) ||
            (arrives && llvm::is_contained(step.buffers, buffer)))
          return true;
      }
      return false;
    });
    if (step.kind == Step::Kind::Collective)
      underWay.push_back(step);
    append(std::move(step));
  };
  auto copy = [&](unsigned from, unsigned to, uint64_t bytes,
                  StringRef location) {
    emit({Step::Kind::Copy,
          nullptr,
          {from, to},
          bytes,
          location.str(),
          events++,
          {}},
         {to});
  };

  // Copies results that were not computed in place to their variables, as far
  // as they and the variables' old values are done with before step `end`. The
  // compute half of a training step must leave its results itself: several
  // microbatches run it several times, and the optimizer's half once.
  llvm::DenseSet<unsigned> returned;
  auto returnResults = [&](unsigned end) {
    for (auto [index, value] : llvm::enumerate(resultValues)) {
      const Port &port = resultPorts[index];
      auto argument = argumentOf.find(port.variable);
      bool done = values[value].definition < static_cast<int64_t>(end) &&
                  (argument == argumentOf.end() ||
                   values[argument->second].lastUse < end);
      if ((!done && end != kForever) || !returned.insert(index).second)
        continue;
      unsigned target = storageOf(port);
      if (values[value].storage >= 0 &&
          static_cast<unsigned>(values[value].storage) != target)
        copy(values[value].storage, target, byteSize(values[value].type),
             "return");
    }
  };

  for (unsigned number = 0; number < expanded.size(); ++number) {
    const ExpandedStep &step = expanded[number];
    if (static_cast<int>(number) == updateStep) {
      returnResults(number);
      settleAll();
      program.segments.push_back({"update", {}});
    }
    auto materialize = [&](unsigned value) {
      if (values[value].storage < 0)
        values[value].storage =
            newStorage(-1, values[value].name, byteSize(values[value].type));
      return static_cast<unsigned>(values[value].storage);
    };
    if (isa<plan::ProductOp>(step.op)) {
      unsigned a = materialize(step.operands[0]),
               b = materialize(step.operands[1]),
               c = materialize(step.results[0]);
      emit({Step::Kind::Product, step.op, {a, b, c}, 0, step.location, 0, {}},
           {c});
      continue;
    }
    // Gives a result the memory of the operand it updates, or a copy of it if
    // the operand is still needed.
    auto update = [&](unsigned operand, unsigned result, bool dead) {
      ValueInfo &before = values[operand], &after = values[result];
      dead &= llvm::count(step.operands, operand) == 1;
      if (before.storage < 0) {
        materialize(result); // of unspecified content
        return;
      }
      int variable = program.storages[before.storage].variable;
      bool writable = variable < 0 || outputVariables.contains(variable);
      if (dead && writable &&
          (after.storage < 0 || after.storage == before.storage)) {
        after.storage = before.storage;
        return;
      }
      unsigned to = materialize(result);
      copy(before.storage, to, byteSize(before.type), step.location);
    };
    if (auto collective = dyn_cast<plan::CollectiveOp>(step.op)) {
      Step command{Step::Kind::Collective, step.op,  {}, 0,
                   step.location,          events++, {}};
      SmallVector<unsigned> written;
      for (auto [operand, result] :
           llvm::zip_equal(step.operands, step.results)) {
        ValueInfo &before = values[operand], &after = values[result];
        RankedTensorType smaller = before.type;
        if (collective.getKind() == plan::CollectiveKind::AllReduce) {
          // Gradients that microbatches have added up are added up over the
          // ranks where they lie: the next step begins anew.
          bool accumulated =
              collective.getLast() && before.storage >= 0 &&
              program.storages[before.storage].variable >= 0 &&
              llvm::is_contained(
                  {Role::Gradient, Role::Residual},
                  variables[program.storages[before.storage].variable].role) &&
              before.lastRead == number;
          update(operand, result, before.lastUse == number || accumulated);
          command.buffers.push_back(after.storage);
        } else {
          if (collective.getKind() == plan::CollectiveKind::ReduceScatter)
            smaller = after.type;
          command.buffers.push_back(materialize(operand));
        }
        command.buffers.push_back(materialize(result));
        written.push_back(after.storage);
        command.items.push_back(itemShape(collective, smaller, operand));
      }
      emit(std::move(command), written);
      continue;
    }
    auto dispatch = cast<plan::DispatchOp>(step.op);
    SmallVector<int> bufferOfInput(step.operands.size(), -1);
    SmallVector<unsigned> written;
    for (auto [index, input] : llvm::enumerate(dispatch.getTied())) {
      if (input < 0)
        continue;
      update(step.operands[input], step.results[index],
             values[step.operands[input]].lastUse == number);
      bufferOfInput[input] = values[step.results[index]].storage;
      written.push_back(bufferOfInput[input]);
    }
    Step command{Step::Kind::Dispatch, step.op, {}, 0, step.location, 0, {}};
    for (auto [index, operand] : llvm::enumerate(step.operands))
      command.buffers.push_back(bufferOfInput[index] >= 0
                                    ? bufferOfInput[index]
                                    : materialize(operand));
    for (auto [index, result] : llvm::enumerate(step.results))
      if (dispatch.getTied()[index] < 0) {
        command.buffers.push_back(materialize(result));
        written.push_back(command.buffers.back());
      }
    emit(std::move(command), written);
    // What nobody reads still needs memory while its kernel runs; emit() has
    // seen to that.
  }
  returnResults(kForever);
  settleAll();
  for (Lifetime &lifetime : program.temporaries)
    if (lifetime.begin == kForever)
      lifetime.begin = lifetime.end = 0;
  program.arenaBytes = planMemory(program.temporaries);
}

LogicalResult EntryScheduler::expandEntry(Schedule &schedule,
                                          const ProgramSchedule &program) {
  if (failed(declareVariables(schedule, program)))
    return failure();
  localBatch = schedule.localBatch;
  localLength = schedule.localLength;
  isExact = schedule.isExact();
  for (BlockArgument argument : entry.getArguments())
    argumentValues.push_back(newValue(argument.getType(), ""));
  auto results = expand(entry, argumentValues, "");
  if (failed(results))
    return failure();
  resultValues = *results;
  for (unsigned value : resultValues)
    values[value].lastUse = kForever;
  return success();
}

LogicalResult EntryScheduler::run(Schedule &schedule) {
  schedule.name = entry.getName().str();
  schedule.entry = entry->getAttrOfType<StringAttr>(kEntryAttr).str();
  ProgramSchedule &program = schedule.programs.emplace_back();
  if (failed(expandEntry(schedule, program)))
    return failure();
  auto whole = [&](StringRef attribute, int64_t local) {
    auto value = entry->getAttrOfType<IntegerAttr>(attribute);
    return value ? value.getInt() : local;
  };
  schedule.batch = whole(kBatchAttr, schedule.localBatch);
  schedule.length = whole(kLengthAttr, schedule.localLength);
  assign("compute", program);
  using Kind = ::megalodon::plan::PipelineStep::Kind;
  for (unsigned segment : llvm::seq<unsigned>(program.segments.size()))
    (segment == 0 ? program.actions : program.updateActions)
        .push_back({Kind::Run, segment});
  return success();
}

LogicalResult EntryScheduler::runSegment(StringRef name, Schedule &schedule,
                                         ProgramSchedule &program) {
  if (failed(expandEntry(schedule, program)))
    return failure();
  ProgramSchedule own;
  assign(name, own);
  // Segments run one after the other, so all of them use the arena from its
  // start, and a variable's buffer serves several.
  SmallVector<unsigned> places;
  for (Storage &storage : own.storages) {
    auto same = llvm::find_if(program.storages, [&](const Storage &other) {
      return storage.variable >= 0 && other.variable == storage.variable &&
             other.index == storage.index && other.copy == storage.copy;
    });
    places.push_back(same - program.storages.begin());
    if (same != program.storages.end())
      continue;
    if (storage.temporary >= 0)
      storage.temporary += program.temporaries.size();
    program.storages.push_back(std::move(storage));
  }
  llvm::append_range(program.temporaries, own.temporaries);
  program.arenaBytes = std::max(program.arenaBytes, own.arenaBytes);
  for (SegmentSchedule &segment : own.segments) {
    for (Step &step : segment.steps)
      for (unsigned &buffer : step.buffers)
        buffer = places[buffer];
    program.segments.push_back(std::move(segment));
  }
  return success();
}

LogicalResult mlir::megalodon::scheduleSegment(func::FuncOp function,
                                               StringRef name,
                                               std::vector<Variable> &variables,
                                               Schedule &schedule,
                                               ProgramSchedule &program) {
  return EntryScheduler(function, variables)
      .runSegment(name, schedule, program);
}

std::array<int64_t, 4> mlir::megalodon::meshSizes(ModuleOp module) {
  std::array<int64_t, 4> sizes = {1, 1, 1, 1};
  if (auto grid = module.lookupSymbol<shard::GridOp>(kMeshSymbol))
    llvm::copy(grid.getShape().take_front(sizes.size()), sizes.begin());
  return sizes;
}

LogicalResult
mlir::megalodon::scheduleEntries(ModuleOp module,
                                 std::vector<Variable> &variables,
                                 std::vector<Schedule> &schedules) {
  for (Operation &op : *module.getBody()) {
    auto function = dyn_cast<func::FuncOp>(op);
    if (function && function->hasAttr(kEntryAttr)) {
      if (failed(EntryScheduler(function, variables)
                     .run(schedules.emplace_back())))
        return failure();
    } else if (auto pipeline = dyn_cast<plan::PipelineOp>(op)) {
      if (failed(
              schedulePipeline(pipeline, variables, schedules.emplace_back())))
        return failure();
    }
  }
  if (schedules.empty())
    return module.emitError()
           << "expected at least one function with " << kEntryAttr;
  return success();
}
