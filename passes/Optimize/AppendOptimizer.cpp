// The optimizer's half of train entries: clipping and AdamW behind accumulated
// gradients.
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "passes/Entry.h"
#include "passes/Optimize/Passes.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_APPENDOPTIMIZER
#include "passes/Optimize/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// A parameter and what belongs to it.
struct Trained {
  std::string name;
  BlockArgument parameter, firstMoment, secondMoment;
  unsigned gradient; ///< the number of the result
};

/// The argument called `name` in `argument`, an error if there is none.
LogicalResult expectArgument(func::FuncOp entry, const Twine &name,
                             BlockArgument &argument) {
  argument = findArgument(entry, name.str());
  if (!argument)
    return entry.emitOpError("expected an argument '") << name << "', got none";
  return success();
}

/// The parameters of `entry` in the order of its arguments.
FailureOr<SmallVector<Trained>> findTrained(func::FuncOp entry) {
  // Maps, because searching the signature for each parameter is quadratic.
  llvm::StringMap<BlockArgument> arguments;
  for (BlockArgument argument : entry.getArguments())
    arguments[nameOfArgument(entry, argument.getArgNumber())] = argument;
  llvm::StringMap<unsigned> results;
  for (unsigned index : llvm::seq(entry.getNumResults()))
    results[nameOfResult(entry, index)] = index;
  auto expectMoment = [&](const std::string &name, BlockArgument &moment) {
    moment = arguments.lookup(name);
    if (moment)
      return success();
    return LogicalResult(entry.emitOpError("expected an argument '")
                         << name << "', got none");
  };

  SmallVector<Trained> all;
  for (BlockArgument argument : entry.getArguments()) {
    if (!hasArgumentRole(entry, argument.getArgNumber(), Role::Parameter))
      continue;
    Trained trained;
    trained.name = nameOfArgument(entry, argument.getArgNumber()).str();
    trained.parameter = argument;
    if (failed(expectMoment("exp_avg." + trained.name, trained.firstMoment)) ||
        failed(
            expectMoment("exp_avg_sq." + trained.name, trained.secondMoment)))
      return failure();
    auto gradient = results.find("grad." + trained.name);
    if (gradient == results.end())
      return entry.emitOpError("expected a result 'grad.")
             << trained.name
             << "', got none: run megalodon-differentiate first";
    trained.gradient = gradient->second;
    all.push_back(std::move(trained));
  }
  return all;
}

struct AppendOptimizer
    : mlir::megalodon::impl::AppendOptimizerBase<AppendOptimizer> {
  using AppendOptimizerBase::AppendOptimizerBase;

  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (getEntryKind(function) == "train" && failed(appendTo(function)))
        return signalPassFailure();
  }

private:
  LogicalResult appendTo(func::FuncOp entry);
};

LogicalResult AppendOptimizer::appendTo(func::FuncOp entry) {
  for (BlockArgument argument : entry.getArguments())
    if (hasArgumentRole(entry, argument.getArgNumber(), Role::Gradient))
      return entry.emitOpError("has an optimizer already: argument '")
             << nameOfArgument(entry, argument.getArgNumber())
             << "' accumulates a gradient";

  auto optimizer =
      getOperation()->getAttrOfType<DictionaryAttr>(kOptimizerAttr);
  for (StringRef name : {"beta1", "beta2", "epsilon", "weight_decay", "clip"})
    if (!optimizer || !optimizer.getAs<FloatAttr>(name))
      return getOperation().emitOpError("expected a number '")
             << name << "' in '" << kOptimizerAttr << "', got none";
  auto hyperparameter = [&](StringRef name) {
    return optimizer.getAs<FloatAttr>(name);
  };

  FailureOr<SmallVector<Trained>> trained = findTrained(entry);
  if (failed(trained))
    return failure();
  BlockArgument step, lr;
  if (failed(expectArgument(entry, "step", step)) ||
      failed(expectArgument(entry, "lr", lr)))
    return failure();
  numParameters += trained->size();

  // The first half ends in accumulators. Each takes its gradient as soon as it
  // is there, so that few gradients live at a time.
  Operation *terminator = entry.front().getTerminator();
  OpBuilder builder(terminator);
  MLIRContext *context = &getContext();
  unsigned firstAccumulator = entry.getNumArguments();
  // All at once: inserting one by one is quadratic in the number of parameters.
  SmallVector<Type> types;
  SmallVector<DictionaryAttr> ports;
  SmallVector<Location> places;
  for (const Trained &one : *trained) {
    types.push_back(one.parameter.getType());
    ports.push_back(
        getPortAttributes(context, "grad." + one.name, Role::Gradient));
    places.push_back(one.parameter.getLoc());
  }
  SmallVector<unsigned> ends(trained->size(), firstAccumulator);
  if (failed(entry.insertArguments(ends, types, ports, places)))
    return failure();
  SmallVector<Value> accumulated(trained->size());
  for (unsigned number : llvm::reverse(llvm::seq<unsigned>(trained->size()))) {
    const Trained &one = (*trained)[number];
    Value gradient = terminator->getOperand(one.gradient);
    builder.setInsertionPointAfterValue(gradient);
    accumulated[number] =
        AccumulateOp::create(builder, one.parameter.getLoc(), gradient,
                             entry.getArgument(firstAccumulator + number));
    terminator->setOperand(one.gradient, accumulated[number]);
  }

  // The second half.
  builder.setInsertionPoint(terminator);
  Location loc = terminator->getLoc();
  auto norm = GlobalNormOp::create(builder, loc, lr.getType(), accumulated);
  norm->setAttr(plan::kUpdateAttr, builder.getUnitAttr());
  auto clip = ClipOp::create(builder, loc, norm.getType(), norm,
                             hyperparameter("clip"));
  SmallVector<Value> results{norm};
  SmallVector<DictionaryAttr> attributes{
      getPortAttributes(context, "grad_norm", Role::Output)};
  for (auto [one, gradient] : llvm::zip_equal(*trained, accumulated)) {
    auto update = AdamWOp::create(
        builder, one.parameter.getLoc(), one.parameter.getType(),
        one.firstMoment.getType(), one.secondMoment.getType(), one.parameter,
        one.firstMoment, one.secondMoment, gradient, step, lr, clip,
        hyperparameter("beta1"), hyperparameter("beta2"),
        hyperparameter("epsilon"), hyperparameter("weight_decay"));
    llvm::append_range(results, update.getResults());
    attributes.push_back(getPortAttributes(context, one.name, Role::Parameter));
    attributes.push_back(
        getPortAttributes(context, "exp_avg." + one.name, Role::FirstMoment));
    attributes.push_back(getPortAttributes(context, "exp_avg_sq." + one.name,
                                           Role::SecondMoment));
  }
  SmallVector<unsigned> positions(results.size(), entry.getNumResults());
  if (failed(entry.insertResults(positions, ValueRange(results).getTypes(),
                                 attributes)))
    return failure();
  terminator->insertOperands(terminator->getNumOperands(), results);
  return success();
}
} // namespace
