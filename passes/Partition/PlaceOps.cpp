// Where each op of an entry goes: the forward pass, the backward pass or the
// weights' gradients of a stage, or what follows the last microbatch.
#include "passes/Partition/EntryCutter.h"

using namespace mlir;
using namespace mlir::megalodon;

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
