#include "passes/Schedule/Schedule.h"
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
  unsigned lastUse = 0; // step, or kForever for what the entry returns
  int definition = -1;  // step; -1 for arguments and undefined tensors
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

class EntryScheduler {
public:
  EntryScheduler(func::FuncOp entry, std::vector<Variable> &variables)
      : entry(entry), variables(variables),
        symbols(entry->getParentOfType<ModuleOp>()) {}

  LogicalResult run(Schedule &schedule);

private:
  LogicalResult declareVariables(Schedule &schedule);
  FailureOr<SmallVector<unsigned>>
  expand(func::FuncOp function, ArrayRef<unsigned> arguments, StringRef prefix);
  void assign(ProgramSchedule &program);

  unsigned newValue(Type type, std::string name) {
    values.push_back(
        {cast<RankedTensorType>(type), 0, -1, false, -1, std::move(name)});
    return values.size() - 1;
  }

  func::FuncOp entry;
  std::vector<Variable> &variables;
  SymbolTable symbols;
  std::vector<ValueInfo> values;
  std::vector<ExpandedStep> expanded;
  SmallVector<unsigned> argumentValues, resultValues;
  SmallVector<int> argumentVariables, resultVariables;
  int updateStep = -1;
  unsigned events = 0;
};
} // namespace

LogicalResult EntryScheduler::declareVariables(Schedule &schedule) {
  // Known variables by name: an entry of a deep model has thousands.
  llvm::StringMap<int> known;
  for (auto [index, variable] : llvm::enumerate(variables))
    if (variable.function.empty() || variable.function == schedule.name)
      known[variable.name] = index;
  auto declare = [&](Type type, DictionaryAttr attributes) -> FailureOr<int> {
    auto name =
        attributes ? attributes.getAs<StringAttr>(kNameAttr) : StringAttr();
    auto role = attributes ? attributes.getAs<RoleAttr>(kRoleAttr) : RoleAttr();
    if (!name || !role)
      return entry.emitOpError()
             << "expected " << kNameAttr << " and " << kRoleAttr
             << " on every argument and result of an entry";
    auto tensor = cast<RankedTensorType>(type);
    auto found = known.find(name.getValue());
    if (found != known.end()) {
      if (variables[found->second].type != tensor)
        return entry.emitOpError()
               << "'" << name.getValue() << "' has type " << tensor
               << " here and " << variables[found->second].type << " elsewhere";
      return found->second;
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
    variables.push_back(variable);
    return known[name.getValue()] = variables.size() - 1;
  };
  for (auto [index, argument] : llvm::enumerate(entry.getArguments())) {
    auto variable = declare(argument.getType(), entry.getArgAttrDict(index));
    if (failed(variable))
      return failure();
    argumentVariables.push_back(*variable);
    // Accumulated gradients are the plan's own: nobody passes them in.
    if (variables[*variable].role != Role::Gradient)
      schedule.inputs.push_back(*variable);
    if (variables[*variable].name == "tokens") {
      schedule.localBatch = variables[*variable].type.getDimSize(0);
      schedule.localLength = variables[*variable].type.getDimSize(1);
    }
  }
  for (unsigned index = 0; index < entry.getNumResults(); ++index) {
    auto variable =
        declare(entry.getResultTypes()[index], entry.getResultAttrDict(index));
    if (failed(variable))
      return failure();
    resultVariables.push_back(*variable);
    schedule.outputs.push_back(*variable);
  }
  auto whole = [&](StringRef attribute, int64_t local) {
    auto value = entry->getAttrOfType<IntegerAttr>(attribute);
    return value ? value.getInt() : local;
  };
  schedule.batch = whole(kBatchAttr, schedule.localBatch);
  schedule.length = whole(kLengthAttr, schedule.localLength);
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
    if (!isa<plan::DispatchOp, plan::ProductOp, plan::UndefinedOp>(op))
      return op.emitOpError("cannot be scheduled; only plan ops and calls can");
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
      values[operand].lastUse = step;
    for (unsigned result : results) {
      values[result].definition = step;
      values[result].lastUse = step;
    }
    expanded.push_back({&op, operands, results, location});
  }
  llvm_unreachable("function without return");
}

void EntryScheduler::assign(ProgramSchedule &program) {
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
  llvm::DenseMap<int, int> variableStorage;
  auto storageOfVariable = [&](int variable) {
    auto [entry, fresh] = variableStorage.try_emplace(variable, 0);
    if (fresh)
      entry->second = newStorage(variable, variables[variable].name, 0);
    return entry->second;
  };
  llvm::DenseSet<int> taken; // variables that are arguments: their memory holds
                             // a value from the start
  for (auto [value, variable] :
       llvm::zip_equal(argumentValues, argumentVariables)) {
    values[value].storage = storageOfVariable(variable);
    taken.insert(variable);
  }
  llvm::DenseSet<int> outputVariables(resultVariables.begin(),
                                      resultVariables.end());
  // What is only an output is computed in place, if it is computed here and
  // returned once. A carried variable's new value may take its memory when the
  // old value is dead before the new one is written.
  llvm::DenseMap<int, unsigned> argumentOf;
  for (auto [value, variable] :
       llvm::zip_equal(argumentValues, argumentVariables))
    argumentOf[variable] = value;
  for (auto [value, variable] :
       llvm::zip_equal(resultValues, resultVariables)) {
    ValueInfo &info = values[value];
    if (info.storage >= 0 || info.definition < 0 ||
        info.type != variables[variable].type)
      continue;
    auto argument = argumentOf.find(variable);
    if (argument == argumentOf.end()
            ? taken.insert(variable).second
            : static_cast<int>(values[argument->second].lastUse) <
                      info.definition &&
                  values[argument->second].lastUse != kForever)
      info.storage = storageOfVariable(variable);
  }

  auto touch = [&](unsigned storage, unsigned step) {
    if (program.storages[storage].temporary < 0)
      return;
    Lifetime &lifetime =
        program.temporaries[program.storages[storage].temporary];
    lifetime.begin = std::min(lifetime.begin, step);
    lifetime.end = std::max(lifetime.end, step);
  };
  program.segments.push_back({"compute", {}});
  unsigned emitted = 0;
  auto emit = [&](Step step) {
    for (unsigned buffer : step.buffers)
      touch(buffer, emitted);
    ++emitted;
    program.segments.back().steps.push_back(std::move(step));
  };
  auto copy = [&](unsigned from, unsigned to, uint64_t bytes,
                  StringRef location) {
    emit({Step::Kind::Copy,
          nullptr,
          {from, to},
          bytes,
          location.str(),
          events++});
  };

  // Copies results that were not computed in place to their variables, as far
  // as they and the variables' old values are done with before step `end`. The
  // compute half of a training step must leave its results itself: several
  // microbatches run it several times, and the optimizer's half once.
  llvm::DenseSet<unsigned> returned;
  auto returnResults = [&](unsigned end) {
    for (auto [index, value] : llvm::enumerate(resultValues)) {
      int variable = resultVariables[index];
      auto argument = argumentOf.find(variable);
      bool done = values[value].definition < static_cast<int64_t>(end) &&
                  (argument == argumentOf.end() ||
                   values[argument->second].lastUse < end);
      if ((!done && end != kForever) || !returned.insert(index).second)
        continue;
      unsigned target = storageOfVariable(variable);
      if (values[value].storage >= 0 &&
          static_cast<unsigned>(values[value].storage) != target)
        copy(values[value].storage, target, byteSize(values[value].type),
             "return");
    }
  };

  for (auto [number, step] : llvm::enumerate(expanded)) {
    if (static_cast<int>(number) == updateStep) {
      returnResults(number);
      program.segments.push_back({"update", {}});
    }
    auto materialize = [&](unsigned value) {
      if (values[value].storage < 0)
        values[value].storage =
            newStorage(-1, values[value].name, byteSize(values[value].type));
      return static_cast<unsigned>(values[value].storage);
    };
    if (isa<plan::ProductOp>(step.op)) {
      emit({Step::Kind::Product,
            step.op,
            {materialize(step.operands[0]), materialize(step.operands[1]),
             materialize(step.results[0])},
            0,
            step.location,
            0});
      continue;
    }
    auto dispatch = cast<plan::DispatchOp>(step.op);
    SmallVector<int> bufferOfInput(step.operands.size(), -1);
    for (auto [index, input] : llvm::enumerate(dispatch.getTied())) {
      if (input < 0)
        continue;
      ValueInfo &before = values[step.operands[input]],
                &after = values[step.results[index]];
      bool dead = before.lastUse == number &&
                  llvm::count(step.operands, step.operands[input]) == 1;
      if (before.undefined && before.storage < 0) {
        materialize(step.results[index]);
      } else if (before.storage >= 0) {
        int variable = program.storages[before.storage].variable;
        bool writable = variable < 0 || outputVariables.contains(variable);
        if (dead && writable &&
            (after.storage < 0 || after.storage == before.storage)) {
          after.storage = before.storage;
        } else {
          unsigned to = materialize(step.results[index]);
          copy(before.storage, to, byteSize(before.type), step.location);
        }
      }
      bufferOfInput[input] = after.storage;
    }
    Step command{Step::Kind::Dispatch, step.op, {}, 0, step.location, 0};
    for (auto [index, operand] : llvm::enumerate(step.operands))
      command.buffers.push_back(bufferOfInput[index] >= 0
                                    ? bufferOfInput[index]
                                    : materialize(operand));
    for (auto [index, result] : llvm::enumerate(step.results))
      if (dispatch.getTied()[index] < 0)
        command.buffers.push_back(materialize(result));
    emit(std::move(command));
    // What nobody reads still needs memory while its kernel runs; emit() has
    // seen to that.
  }
  returnResults(kForever);
  for (Lifetime &lifetime : program.temporaries)
    if (lifetime.begin == kForever)
      lifetime.begin = lifetime.end = 0;
  program.arenaBytes = planMemory(program.temporaries);
}

LogicalResult EntryScheduler::run(Schedule &schedule) {
  schedule.name = entry.getName().str();
  schedule.entry = entry->getAttrOfType<StringAttr>(kEntryAttr).str();
  if (failed(declareVariables(schedule)))
    return failure();
  for (BlockArgument argument : entry.getArguments())
    argumentValues.push_back(newValue(argument.getType(), ""));
  auto results = expand(entry, argumentValues, "");
  if (failed(results))
    return failure();
  resultValues = *results;
  for (unsigned value : resultValues)
    values[value].lastUse = kForever;
  assign(schedule.programs.emplace_back());
  return success();
}

LogicalResult
mlir::megalodon::scheduleEntries(ModuleOp module,
                                 std::vector<Variable> &variables,
                                 std::vector<Schedule> &schedules) {
  for (auto function : module.getOps<func::FuncOp>()) {
    if (!function->hasAttr(kEntryAttr))
      continue;
    schedules.emplace_back();
    if (failed(EntryScheduler(function, variables).run(schedules.back())))
      return failure();
  }
  if (schedules.empty())
    return module.emitError()
           << "expected at least one function with " << kEntryAttr;
  return success();
}
