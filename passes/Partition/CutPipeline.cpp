// Cuts entries into the stages of a pipeline: one function a stage and phase,
// whose arguments and results say what moves between ranks and what a stage
// keeps for its backward pass.
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "mlir/IR/IRMapping.h"
#include "passes/Entry.h"
#include "passes/Partition/Layout.h"
#include "passes/Partition/Passes.h"
#include "passes/Partition/PipelineSchedule.h"
#include "passes/Partition/Stages.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_CUTPIPELINE
#include "passes/Partition/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::PipelineShape;
using ::megalodon::ScheduleKind;

//===-- One entry ---------------------------------------------------------===//

namespace {

/// Where an op of an entry goes.
enum class Part { Forward, Backward, Weight, Tail };

struct Place {
  Part part;
  unsigned stage; ///< of Tail: none
};

/// Collectives, slices and ranks.
bool isShardOp(Operation *op) {
  return isa<shard::ShardDialect>(op->getDialect());
}

/// A function in the making. Arguments are added as they are needed.
class FunctionBuilder {
public:
  FunctionBuilder(func::FuncOp entry, const Twine &name)
      : name(name.str()), loc(entry.getLoc()), b(entry.getContext()),
        block(std::make_unique<Block>()) {
    b.setInsertionPointToEnd(block.get());
  }

  Value addArgument(Type type, Location loc, DictionaryAttr attributes) {
    argumentAttributes.push_back(attributes);
    return block->addArgument(type, loc);
  }
  void addResult(Value value, DictionaryAttr attributes) {
    results.push_back(value);
    resultAttributes.push_back(attributes);
  }
  bool isEmpty() const { return results.empty(); }

  /// Puts the function in front of `before` and names it.
  FlatSymbolRefAttr finish(Operation *before) {
    func::ReturnOp::create(b, loc, results);
    OpBuilder builder(before);
    auto function = func::FuncOp::create(
        builder, loc, name,
        builder.getFunctionType(block->getArgumentTypes(),
                                ValueRange(results).getTypes()));
    function.getBody().push_back(block.release());
    function.setAllArgAttrs(argumentAttributes);
    function.setAllResultAttrs(resultAttributes);
    return FlatSymbolRefAttr::get(builder.getContext(), name);
  }

  std::string name;
  Location loc;
  OpBuilder b;
  IRMapping mapping;

private:
  std::unique_ptr<Block> block;
  SmallVector<DictionaryAttr> argumentAttributes, resultAttributes;
  SmallVector<Value> results;
};

class EntryCutter {
public:
  EntryCutter(func::FuncOp entry, const StageMap &stages, ScheduleKind kind)
      : entry(entry), body(entry.front()), stages(stages), kind(kind),
        context(entry.getContext()), b(context), entryKind(getEntryKind(entry)),
        differentiated(entryKind == "grad" || entryKind == "train") {
    if (auto count = entry->getAttrOfType<IntegerAttr>(kMicrobatchesAttr))
      microbatches = count.getInt();
    numStages = stages.shape.stages();
    outputs.resize(numStages);
    cotangents.resize(numStages);
  }

  LogicalResult run();

private:
  void accumulateGradients();
  void findParameterStages();
  LogicalResult placeOps();
  LogicalResult placeOp(Operation *op);
  LogicalResult splitSum(AccumulateOp op);
  void separateWeightGradients();
  LogicalResult findCrossings();
  LogicalResult addCrossing(OpOperand &operand, Operation *from,
                            Operation *user);
  void deferStates();
  std::string keep(Value value, unsigned stage);
  FlatSymbolRefAttr buildStage(Part part, unsigned stage);
  Value stageValue(FunctionBuilder &function, Value value, Part part,
                   unsigned stage);
  FlatSymbolRefAttr buildTail(bool update, unsigned rank);
  Value tailValue(FunctionBuilder &function, Value value, unsigned rank);
  Value sumOverPipeline(FunctionBuilder &function, Location loc, Value value,
                        ArrayRef<int64_t> ranks = {});
  Value cloneFloating(FunctionBuilder &function, Value value);

  bool isFloating(Value value) const {
    return floating.contains(value.getDefiningOp());
  }
  const Place *placeOf(Value value) const {
    auto found = places.find(value.getDefiningOp());
    return found == places.end() ? nullptr : &found->second;
  }
  bool isIn(Operation *op, Part part, unsigned stage) const {
    auto found = places.find(op);
    return found != places.end() && found->second.part == part &&
           found->second.stage == stage;
  }
  /// The value that the shard ops in front of `value` started from.
  static Value skipShardOps(Value value) {
    while (Operation *op = value.getDefiningOp()) {
      if (!isShardOp(op) || op->getNumOperands() != 1)
        break;
      value = op->getOperand(0);
    }
    return value;
  }
  static StringRef parameterOf(StringRef name) {
    for (StringRef prefix : {"exp_avg_sq.", "exp_avg.", "grad."})
      if (name.consume_front(prefix))
        break;
    return name;
  }
  DictionaryAttr portAttributes(DictionaryAttr attributes, Type type) const;
  DictionaryAttr residualAttributes(StringRef name, Attribute index,
                                    StringRef side = {},
                                    unsigned other = 0) const;
  SmallVector<int64_t> ranksOf(StringRef parameter) const;
  bool hasPart(Part part) const {
    return part == Part::Forward ||
           (differentiated && part == Part::Backward) ||
           (kind == ScheduleKind::ZeroBubble && part == Part::Weight);
  }
  Part lastPart() const {
    return hasPart(Part::Weight)     ? Part::Weight
           : hasPart(Part::Backward) ? Part::Backward
                                     : Part::Forward;
  }

  func::FuncOp entry;
  Block &body;
  const StageMap &stages;
  ScheduleKind kind;
  MLIRContext *context;
  OpBuilder b;
  StringRef entryKind;
  bool differentiated;
  int64_t microbatches = 1;
  unsigned numStages;

  DenseMap<Operation *, Place> places;
  DenseSet<Operation *> floating; ///< made anew in each function
  DenseSet<Operation *> updates;  ///< of the tail: the optimizer's half
  llvm::StringMap<SmallVector<unsigned>> parameterStages;
  Value loss;                    ///< of a microbatch, before shard ops
  SmallVector<Value> outputs;    ///< of each stage, to the next
  SmallVector<Value> cotangents; ///< of each stage's input, to the former
  /// Names of what a stage keeps, and in which order.
  SmallVector<llvm::MapVector<Value, std::string>, 0> kept;
  /// New states that the last function of a stage writes: by result number.
  DenseSet<unsigned> deferred;
  DenseSet<unsigned> produced; ///< results that a function gives
};

} // namespace

/// `grad` adds up over microbatches what it returns; `train` does so already.
void EntryCutter::accumulateGradients() {
  if (entryKind != "grad")
    return;
  Operation *terminator = body.getTerminator();
  for (unsigned index : llvm::seq(entry.getNumResults())) {
    StringRef name = nameOfResult(entry, index);
    if (!hasResultRole(entry, index, Role::Gradient) ||
        name.starts_with("grad.state."))
      continue;
    // A sum over ranks is formed once, of what has been added up; what changes
    // the shape comes before, since the accumulator is the result's variable.
    Value gradient = terminator->getOperand(index);
    while (auto sum = gradient.getDefiningOp<shard::AllReduceOp>())
      gradient = sum.getInput();
    b.setInsertionPointAfterValue(gradient);
    unsigned number = entry.getNumArguments();
    (void)entry.insertArgument(number, gradient.getType(),
                               entry.getResultAttrDict(index),
                               gradient.getLoc());
    auto sum = AccumulateOp::create(b, gradient.getLoc(), gradient,
                                    entry.getArgument(number));
    gradient.replaceAllUsesExcept(sum, sum);
  }
}

/// Finds the stages that use each parameter.
void EntryCutter::findParameterStages() {
  for (BlockArgument argument : entry.getArguments()) {
    if (!hasArgumentRole(entry, argument.getArgNumber(), Role::Parameter))
      continue;
    StringRef name = nameOfArgument(entry, argument.getArgNumber());
    SmallVector<unsigned> &used = parameterStages[name];
    SmallVector<Value> values{argument};
    while (!values.empty())
      for (Operation *user : values.pop_back_val().getUsers()) {
        if (floating.contains(user))
          llvm::append_range(values, user->getResults());
        else if (!isa<AdamWOp>(user))
          if (std::optional<unsigned> stage = stages.find(nameOf(user)))
            used.push_back(*stage);
      }
    llvm::sort(used);
    used.erase(llvm::unique(used), used.end());
  }
}

SmallVector<int64_t> EntryCutter::ranksOf(StringRef parameter) const {
  SmallVector<int64_t> ranks;
  for (unsigned stage : parameterStages.lookup(parameter))
    ranks.push_back(stages.rankOf(stage));
  llvm::sort(ranks);
  ranks.erase(llvm::unique(ranks), ranks.end());
  return ranks;
}

LogicalResult EntryCutter::placeOp(Operation *op) {
  bool backward = isa<MeanGradOp>(op), tail = false, update = false;
  for (Value operand : op->getOperands()) {
    if (const Place *place = placeOf(operand)) {
      backward |= place->part == Part::Backward;
      tail |= place->part == Part::Tail;
    }
    Operation *from = operand.getDefiningOp();
    tail |= isa_and_nonnull<AccumulateOp>(from) ||
            (from && operand == loss && isShardOp(op));
    update |= isa_and_nonnull<AccumulateOp>(from) || updates.contains(from);
  }
  if (tail) {
    places[op] = {Part::Tail, 0};
    if (update && entryKind == "train")
      updates.insert(op);
    return success();
  }
  std::optional<unsigned> stage;
  if (!isShardOp(op))
    stage = stages.find(nameOf(op));
  if (!stage)
    for (Value operand : op->getOperands())
      if (const Place *place = placeOf(operand)) {
        if (stage && *stage != place->stage)
          return op->emitOpError()
                 << "reads stages " << *stage << " and " << place->stage
                 << ", expected its location to name one part of the model";
        stage = place->stage;
      }
  if (!stage)
    return op->emitOpError()
           << "expected a location that names a part of the model, got "
           << op->getLoc();
  places[op] = {backward ? Part::Backward : Part::Forward, *stage};
  return success();
}

/// A parameter that two stages use has two gradients: each stage accumulates
/// its own, and the ranks add them up behind the last microbatch.
LogicalResult EntryCutter::splitSum(AccumulateOp op) {
  SmallVector<Operation *> chain; // shard ops, from the accumulation backwards
  Value value = op.getGradient();
  while (value.getDefiningOp() && isShardOp(value.getDefiningOp())) {
    chain.push_back(value.getDefiningOp());
    value = chain.back()->getOperand(0);
  }
  auto sum = value.getDefiningOp<AddOp>();
  if (!sum)
    return op.emitOpError("expected the sum of the gradients of each stage "
                          "that uses the parameter, got another op");
  DenseSet<unsigned> seen;
  for (Value term : sum.getInputs()) {
    const Place *place = placeOf(term);
    if (!place || !seen.insert(place->stage).second)
      return sum.emitOpError("expected one gradient of each stage that uses "
                             "the parameter");
    b.setInsertionPointAfterValue(term);
    Place there = *place;
    IRMapping mapping;
    mapping.map(sum.getResult(), term);
    for (Operation *step : llvm::reverse(chain))
      places[b.clone(*step, mapping)] = there;
    places[b.clone(*op, mapping)] = there;
  }
  // The whole accumulation stands for the sum over the ranks.
  places[op] = {Part::Tail, 0};
  for (Operation *step : chain)
    places.erase(step);
  places.erase(sum);
  return success();
}

LogicalResult EntryCutter::placeOps() {
  for (Operation &op : body.without_terminator()) {
    bool everywhere =
        op.hasTrait<OpTrait::ConstantLike>() ||
        (isShardOp(&op) && llvm::all_of(op.getOperands(), [&](Value operand) {
           return isa<BlockArgument>(operand) || isFloating(operand);
         }));
    if (everywhere)
      floating.insert(&op);
    if (auto mean = dyn_cast<MeanOp>(op)) {
      mean.setParts(mean.getParts() * microbatches);
      if (differentiated)
        loss = mean.getResult();
    } else if (auto mean = dyn_cast<MeanGradOp>(op)) {
      mean.setParts(mean.getParts() * microbatches);
    }
  }
  findParameterStages();
  SmallVector<AccumulateOp> tied;
  for (Operation &op : body.without_terminator()) {
    if (floating.contains(&op))
      continue;
    if (isa<GlobalNormOp>(op))
      return op.emitOpError("expected sums of squares; run megalodon-partition "
                            "first");
    if (failed(placeOp(&op)))
      return failure();
    auto accumulate = dyn_cast<AccumulateOp>(op);
    if (!accumulate)
      continue;
    auto into = dyn_cast<BlockArgument>(accumulate.getInto());
    if (!into)
      return op.emitOpError("expected to accumulate into an argument");
    StringRef name = parameterOf(nameOfArgument(entry, into.getArgNumber()));
    if (ranksOf(name).size() > 1)
      tied.push_back(accumulate);
  }
  for (AccumulateOp op : tied)
    if (failed(splitSum(op)))
      return failure();
  return success();
}

/// Of the backward ops, those that no other stage and no gradient of a stage's
/// input waits for become a part of their own.
void EntryCutter::separateWeightGradients() {
  if (!hasPart(Part::Weight))
    return;
  auto isAwaited = [&](Operation *op) {
    for (OpOperand &use : op->getUses()) {
      Operation *user = use.getOwner();
      if (user == body.getTerminator()) {
        if (nameOfResult(entry, use.getOperandNumber())
                .starts_with("grad.state."))
          return true;
        continue;
      }
      // The first stage has nothing to send, but its input's gradient is the
      // same amount of work as in other stages.
      if (isa<EmbeddingGradOp>(user))
        return true;
      auto place = places.find(user);
      if (place != places.end() && place->second.part == Part::Backward &&
          !isa<AccumulateOp>(user))
        return true;
    }
    return false;
  };
  for (Operation &op : llvm::reverse(body.without_terminator())) {
    auto place = places.find(&op);
    if (place != places.end() && place->second.part == Part::Backward &&
        !isAwaited(&op))
      place->second.part = Part::Weight;
  }
  // What is done with a gradient is done where the gradient is made.
  for (Operation &op : body.without_terminator())
    if (isShardOp(&op) || isa<AccumulateOp>(op)) {
      auto place = places.find(&op);
      if (place == places.end() || place->second.part != Part::Weight)
        continue;
      if (const Place *from = placeOf(op.getOperand(0)))
        place->second.part = from->part;
    }
}

std::string EntryCutter::keep(Value value, unsigned stage) {
  std::string &name = kept[stage][value];
  if (name.empty())
    name = ("stage" + Twine(stage) + "." + Twine(kept[stage].size() - 1)).str();
  return name;
}

LogicalResult EntryCutter::addCrossing(OpOperand &operand, Operation *from,
                                       Operation *user) {
  Value value = operand.get();
  const Place &here = places.at(user), &there = places.at(from);
  if (there.part == Part::Tail || here.part == Part::Tail)
    return success();
  if (here.stage == there.stage) {
    if (here.part != there.part)
      keep(value, here.stage);
    return success();
  }
  auto type = dyn_cast<RankedTensorType>(value.getType());
  bool activation =
      type && type.getRank() == 3 && isa<FloatType>(type.getElementType());
  Value *port = nullptr;
  if (there.part == Part::Forward && here.stage == there.stage + 1)
    port = &outputs[there.stage];
  else if (there.part == Part::Backward && here.stage + 1 == there.stage)
    port = &cotangents[there.stage];
  if (!activation || !port || (*port && *port != value)) {
    InFlightDiagnostic error = user->emitOpError()
                               << "in stage " << here.stage << ": operand "
                               << operand.getOperandNumber() << " of type "
                               << value.getType() << " comes from stage "
                               << there.stage
                               << ", expected only the residual stream and its "
                                  "cotangent to cross stages";
    error.attachNote(value.getLoc())
        << "it is a result of '" << from->getName() << "'";
    return error;
  }
  *port = value;
  return success();
}

LogicalResult EntryCutter::findCrossings() {
  kept.resize(numStages);
  for (Operation &op : body.without_terminator()) {
    if (!places.contains(&op))
      continue;
    for (OpOperand &operand : op.getOpOperands()) {
      Operation *from = operand.get().getDefiningOp();
      if (from && places.contains(from) &&
          failed(addCrossing(operand, from, &op)))
        return failure();
    }
  }
  for (unsigned stage : llvm::seq(numStages)) {
    if (stage + 1 < numStages) {
      if (!outputs[stage])
        return entry.emitOpError()
               << "expected stage " << stage + 1 << " to read what stage "
               << stage << " computes";
      kept[stage][outputs[stage]] = ("stage" + Twine(stage) + ".out").str();
      kept[stage + 1][outputs[stage]] =
          ("stage" + Twine(stage + 1) + ".in").str();
    }
    if (stage > 0 && differentiated) {
      if (!cotangents[stage])
        return entry.emitOpError() << "expected stage " << stage - 1
                                   << " to read a cotangent of stage " << stage;
      kept[stage][cotangents[stage]] = ("stage" + Twine(stage) + ".din").str();
      kept[stage - 1][cotangents[stage]] =
          ("stage" + Twine(stage - 1) + ".dout").str();
    }
  }
  return success();
}

/// Backward reads states that forward would overwrite; their new values are
/// kept and written when all is done.
void EntryCutter::deferStates() {
  Operation *terminator = body.getTerminator();
  for (unsigned index : llvm::seq(entry.getNumResults())) {
    Value value = terminator->getOperand(index);
    const Place *place = placeOf(value);
    if (!hasResultRole(entry, index, Role::State) || !place)
      continue;
    BlockArgument old = findArgument(entry, nameOfResult(entry, index));
    if (!old || llvm::none_of(old.getUsers(), [&](Operation *user) {
          auto found = places.find(user);
          return found != places.end() && found->second.part != Part::Forward;
        }))
      continue;
    deferred.insert(index);
    keep(value, place->stage);
  }
}

//===-- Functions ---------------------------------------------------------===//

DictionaryAttr EntryCutter::portAttributes(DictionaryAttr attributes,
                                           Type type) const {
  auto tensor = dyn_cast<RankedTensorType>(type);
  auto name = attributes.getAs<StringAttr>(kNameAttr);
  auto role = attributes.getAs<RoleAttr>(kRoleAttr);
  if (microbatches == 1 || !tensor || tensor.getRank() == 0 || !name || !role)
    return attributes;
  bool hasRows = llvm::is_contained({Role::State, Role::Input, Role::Output},
                                    role.getValue()) ||
                 (role.getValue() == Role::Gradient &&
                  name.getValue().starts_with("grad.state."));
  if (!hasRows)
    return attributes;
  NamedAttrList list(attributes);
  auto shape = attributes.getAs<DenseI64ArrayAttr>(kShapeAttr);
  SmallVector<int64_t> whole(shape ? shape.asArrayRef() : tensor.getShape());
  whole[0] *= microbatches;
  list.set(kShapeAttr, DenseI64ArrayAttr::get(context, whole));
  list.set(plan::kIndexAttr, StringAttr::get(context, "microbatch"));
  return list.getDictionary(context);
}

DictionaryAttr EntryCutter::residualAttributes(StringRef name, Attribute index,
                                               StringRef side,
                                               unsigned other) const {
  NamedAttrList list(getPortAttributes(context, name, Role::Residual));
  list.set(plan::kIndexAttr, index);
  if (!side.empty())
    list.set(side, IntegerAttr::get(IntegerType::get(context, 64), other));
  return list.getDictionary(context);
}

Value EntryCutter::cloneFloating(FunctionBuilder &function, Value value) {
  function.b.clone(*value.getDefiningOp(), function.mapping);
  return function.mapping.lookup(value);
}

/// `value` as a function of a stage sees it: an argument where it was not
/// computed by the function itself.
Value EntryCutter::stageValue(FunctionBuilder &function, Value value, Part part,
                              unsigned stage) {
  if (Value known = function.mapping.lookupOrNull(value))
    return known;
  if (isFloating(value)) {
    for (Value operand : value.getDefiningOp()->getOperands())
      stageValue(function, operand, part, stage);
    return cloneFloating(function, value);
  }
  DictionaryAttr attributes;
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    attributes = portAttributes(entry.getArgAttrDict(argument.getArgNumber()),
                                value.getType());
  } else {
    StringRef side;
    unsigned other = 0;
    if (part == Part::Forward && stage > 0 && value == outputs[stage - 1]) {
      side = plan::kFromAttr;
      other = stage - 1;
    } else if (part == Part::Backward && stage + 1 < numStages &&
               value == cotangents[stage + 1]) {
      side = plan::kFromAttr;
      other = stage + 1;
    }
    attributes = residualAttributes(kept[stage].lookup(value),
                                    b.getStringAttr("slot"), side, other);
  }
  Value made =
      function.addArgument(value.getType(), value.getLoc(), attributes);
  function.mapping.map(value, made);
  return made;
}

FlatSymbolRefAttr EntryCutter::buildStage(Part part, unsigned stage) {
  constexpr const char *names[] = {".forward", ".backward", ".weight"};
  FunctionBuilder function(entry, entry.getName() + ".stage" + Twine(stage) +
                                      names[static_cast<size_t>(part)]);
  auto get = [&](Value value) {
    return stageValue(function, value, part, stage);
  };
  if (part == Part::Forward && stage > 0)
    get(outputs[stage - 1]);
  if (part == Part::Backward && stage + 1 < numStages)
    get(cotangents[stage + 1]);
  for (Operation &op : body.without_terminator()) {
    if (!isIn(&op, part, stage))
      continue;
    for (Value operand : op.getOperands())
      get(operand);
    function.b.clone(op, function.mapping)->removeAttr(plan::kUpdateAttr);
  }

  Attribute slot = b.getStringAttr("slot");
  for (auto &[value, name] : kept[stage]) {
    if (!value.getDefiningOp() || !isIn(value.getDefiningOp(), part, stage))
      continue;
    StringRef side;
    unsigned other = 0;
    if (stage + 1 < numStages && value == outputs[stage]) {
      side = plan::kToAttr;
      other = stage + 1;
    } else if (stage > 0 && value == cotangents[stage]) {
      side = plan::kToAttr;
      other = stage - 1;
    }
    function.addResult(get(value), residualAttributes(name, slot, side, other));
  }
  if (loss && isIn(loss.getDefiningOp(), part, stage))
    function.addResult(get(loss),
                       residualAttributes("loss.of_microbatch",
                                          b.getStringAttr("microbatch")));
  Operation *terminator = body.getTerminator();
  for (unsigned index : llvm::seq(entry.getNumResults())) {
    Value value = terminator->getOperand(index);
    const Place *place = placeOf(value);
    bool here = place && place->stage == stage && place->part != Part::Tail &&
                (deferred.contains(index) ? lastPart() : place->part) == part;
    if (!here || value == loss)
      continue;
    function.addResult(
        get(value),
        portAttributes(entry.getResultAttrDict(index), value.getType()));
    produced.insert(index);
  }
  // Sums that no result shows as they are: those that go through collectives
  // first, and a stage's part of a tied parameter's.
  for (Operation &op : body.without_terminator())
    if (auto sum = dyn_cast<AccumulateOp>(op);
        sum && isIn(sum, part, stage) &&
        !llvm::is_contained(terminator->getOperands(), sum.getResult()))
      function.addResult(
          get(sum), entry.getArgAttrDict(
                        cast<BlockArgument>(sum.getInto()).getArgNumber()));
  return function.finish(entry);
}

Value EntryCutter::sumOverPipeline(FunctionBuilder &function, Location loc,
                                   Value value, ArrayRef<int64_t> ranks) {
  SmallVector<int16_t> axes{static_cast<int16_t>(Axis::Pipeline)};
  auto sum = shard::AllReduceOp::create(function.b, loc, value, kMeshSymbol,
                                        axes, shard::ReductionKind::Sum);
  if (!ranks.empty() && ranks.size() < stages.shape.ranks)
    sum->setAttr(plan::kStagesAttr, function.b.getDenseI64ArrayAttr(ranks));
  return sum;
}

/// `value` as what ends a call on a rank sees it; null if it is of no concern
/// there.
Value EntryCutter::tailValue(FunctionBuilder &function, Value value,
                             unsigned rank) {
  if (Value known = function.mapping.lookupOrNull(value))
    return known;
  auto isHere = [&](StringRef parameter) {
    return llvm::is_contained(ranksOf(parameter), rank);
  };
  auto addArgument = [&](BlockArgument argument) {
    return function.addArgument(argument.getType(), argument.getLoc(),
                                entry.getArgAttrDict(argument.getArgNumber()));
  };
  Value made;
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    StringRef name =
        parameterOf(nameOfArgument(entry, argument.getArgNumber()));
    if (parameterStages.contains(name) && !isHere(name))
      return {};
    made = addArgument(argument);
  } else if (isFloating(value)) {
    for (Value operand : value.getDefiningOp()->getOperands())
      if (!tailValue(function, operand, rank))
        return {};
    return cloneFloating(function, value);
  } else if (auto sum = value.getDefiningOp<AccumulateOp>()) {
    auto into = cast<BlockArgument>(sum.getInto());
    StringRef name = parameterOf(nameOfArgument(entry, into.getArgNumber()));
    if (!isHere(name))
      return {};
    made = addArgument(into);
    SmallVector<int64_t> ranks = ranksOf(name);
    if (ranks.size() > 1)
      made = sumOverPipeline(function, sum.getLoc(), made, ranks);
  } else {
    return {};
  }
  function.mapping.map(value, made);
  return made;
}

/// What a rank does behind the last microbatch, and in the optimizer's half of
/// a training step: it goes through the entry's ops with what it holds.
FlatSymbolRefAttr EntryCutter::buildTail(bool update, unsigned rank) {
  FunctionBuilder function(entry, entry.getName() + ".rank" + Twine(rank) +
                                      (update ? ".update" : ".finish"));
  OpBuilder &fb = function.b;
  auto zero = [&](Location loc, Type type) -> Value {
    return arith::ConstantOp::create(fb, loc,
                                     cast<TypedAttr>(fb.getZeroAttr(type)));
  };
  // A parameter that several ranks hold counts on the first.
  auto countsHere = [&](Value value) {
    auto sum = skipShardOps(value).getDefiningOp<AccumulateOp>();
    if (!sum)
      return false;
    auto into = cast<BlockArgument>(sum.getInto());
    return ranksOf(parameterOf(nameOfArgument(entry, into.getArgNumber())))
               .front() == rank;
  };

  // Ranks run different functions here, but what they say to each other must
  // have one order: sums of tied gradients, then of norms or the loss.
  if (update == (entryKind == "train"))
    for (Operation &op : body.without_terminator())
      if (auto place = places.find(&op); isa<AccumulateOp>(op) &&
                                         place != places.end() &&
                                         place->second.part == Part::Tail)
        tailValue(function, op.getResult(0), rank);
  if (!update && rank == stages.rankOf(stages.last())) {
    SmallVector<Value> parts;
    for (int64_t number : llvm::seq(microbatches))
      parts.push_back(function.addArgument(
          loss.getType(), loss.getLoc(),
          residualAttributes("loss.of_microbatch",
                             fb.getI64IntegerAttr(number))));
    function.mapping.map(
        loss, parts.size() == 1
                  ? parts.front()
                  : AddOp::create(fb, loss.getLoc(), loss.getType(), parts)
                        .getResult());
  }
  for (Operation &op : body.without_terminator()) {
    auto place = places.find(&op);
    if (place == places.end() || place->second.part != Part::Tail ||
        isa<AccumulateOp>(op) || updates.contains(&op) != update)
      continue;
    if (auto squares = dyn_cast<SumOfSquaresOp>(op)) {
      SmallVector<Value> here;
      for (Value gradient : squares->getOperands())
        if (countsHere(gradient))
          here.push_back(tailValue(function, gradient, rank));
      Value sum =
          here.empty()
              ? zero(op.getLoc(), op.getResult(0).getType())
              : SumOfSquaresOp::create(fb, op.getLoc(), here).getResult();
      function.mapping.map(op.getResult(0), sum);
      continue;
    }
    bool here = true;
    for (Value operand : op.getOperands())
      here &= static_cast<bool>(tailValue(function, operand, rank));
    if (!here)
      continue;
    if (isa<NormOfSquaresOp>(op))
      for (Value operand : op.getOperands())
        function.mapping.map(operand,
                             sumOverPipeline(function, op.getLoc(),
                                             function.mapping.lookup(operand)));
    Operation *clone = fb.clone(op, function.mapping);
    clone->removeAttr(plan::kUpdateAttr);
    // Nothing behind the last microbatch needs to be told so.
    clone->removeAttr(plan::kLastAttr);
  }

  Operation *terminator = body.getTerminator();
  for (unsigned index : llvm::seq(entry.getNumResults())) {
    Value value = terminator->getOperand(index);
    Value made;
    if (skipShardOps(value) == loss) {
      if (update)
        continue;
      made = function.mapping.lookupOrNull(value);
      made = sumOverPipeline(function, loss.getLoc(),
                             made ? made : zero(loss.getLoc(), loss.getType()));
    } else if (const Place *place = placeOf(value);
               place && place->part == Part::Tail) {
      // The sums of tied gradients belong to both.
      bool inUpdate =
          updates.contains(value.getDefiningOp()) ||
          (entryKind == "train" && isa<AccumulateOp>(value.getDefiningOp()));
      if (inUpdate == update)
        made = isa<AccumulateOp>(value.getDefiningOp())
                   ? tailValue(function, value, rank)
                   : function.mapping.lookupOrNull(value);
    }
    if (!made)
      continue;
    function.addResult(made, entry.getResultAttrDict(index));
    produced.insert(index);
  }
  return function.finish(entry);
}

LogicalResult EntryCutter::run() {
  accumulateGradients();
  if (failed(placeOps()))
    return failure();
  if (differentiated && !loss)
    return entry.emitOpError("expected a loss that is a megalodon.mean");
  separateWeightGradients();
  if (failed(findCrossings()))
    return failure();
  deferStates();
  auto each = [&](unsigned count,
                  llvm::function_ref<FlatSymbolRefAttr(unsigned)> build) {
    SmallVector<Attribute> names;
    for (unsigned number : llvm::seq(count))
      names.push_back(build(number));
    return ArrayAttr::get(context, names);
  };
  auto functions = [&](Part part) {
    return each(hasPart(part) ? numStages : 0,
                [&](unsigned stage) { return buildStage(part, stage); });
  };
  auto tails = [&](bool wanted, bool update) {
    return each(wanted ? stages.shape.ranks : 0,
                [&](unsigned rank) { return buildTail(update, rank); });
  };
  ArrayAttr forward = functions(Part::Forward),
            backward = functions(Part::Backward),
            weight = functions(Part::Weight),
            finish = tails(differentiated, false),
            update = tails(entryKind == "train", true);
  for (unsigned index : llvm::seq(entry.getNumResults()))
    if (!produced.contains(index))
      return entry.emitOpError() << "result '" << nameOfResult(entry, index)
                                 << "': expected a value that a stage computes";

  PipelineShape shape = stages.shape;
  shape.microbatches = microbatches;
  SmallVector<std::string> lists;
  auto schedule = ::megalodon::buildSchedule(kind, shape);
  for (const auto &work : schedule)
    lists.push_back(::megalodon::printWork(work, shape));
  b.setInsertionPoint(entry);
  auto pipeline = plan::PipelineOp::create(
      b, entry.getLoc(), entry.getName(), entryKind, microbatches, shape.chunks,
      forward, backward, weight, finish, update,
      b.getStrArrayAttr(SmallVector<StringRef>(lists.begin(), lists.end())));
  if (auto batch = entry->getAttrOfType<IntegerAttr>(kBatchAttr))
    pipeline->setAttr(kBatchAttr,
                      b.getI64IntegerAttr(batch.getInt() * microbatches));
  if (Attribute length = entry->getAttr(kLengthAttr))
    pipeline->setAttr(kLengthAttr, length);
  entry.erase();
  return success();
}

//===-- The pass ----------------------------------------------------------===//

namespace {
struct CutPipeline : mlir::megalodon::impl::CutPipelineBase<CutPipeline> {
  using CutPipelineBase::CutPipelineBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    int64_t ranks = getMesh(module)[Axis::Pipeline];
    if (ranks == 1)
      return;
    auto kind = ::megalodon::parseScheduleKind(schedule);
    if (!kind || *kind == ScheduleKind::Forward) {
      module.emitError() << "schedule: expected gpipe, 1f1b, interleaved or "
                            "zero-bubble, got '"
                         << schedule << "'";
      return signalPassFailure();
    }
    const unsigned perRank = chunks;
    if (perRank < 1 || (perRank > 1 && *kind != ScheduleKind::Interleaved)) {
      module.emitError() << "chunks: expected 1 with schedule " << schedule
                         << ", got " << perRank;
      return signalPassFailure();
    }
    SmallVector<func::FuncOp> entries;
    for (auto function : module.getOps<func::FuncOp>())
      if (!getEntryKind(function).empty())
        entries.push_back(function);
    if (entries.empty())
      return;
    auto stages =
        cutLayers(module, entries, {static_cast<unsigned>(ranks), 1, perRank});
    if (failed(stages))
      return signalPassFailure();
    numStages += stages->shape.stages();
    for (func::FuncOp entry : entries) {
      bool differentiated =
          getEntryKind(entry) == "grad" || getEntryKind(entry) == "train";
      if (failed(EntryCutter(entry, *stages,
                             differentiated ? *kind : ScheduleKind::Forward)
                     .run()))
        return signalPassFailure();
    }
  }
};
} // namespace
