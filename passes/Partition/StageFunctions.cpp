// Writes the functions of a pipeline: of each stage and part, and what each
// rank does behind the last microbatch.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "passes/Partition/EntryCutter.h"

using namespace mlir;
using namespace mlir::megalodon;

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
