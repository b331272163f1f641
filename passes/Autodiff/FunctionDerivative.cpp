// Derivative of a called function.
#include "passes/Autodiff/FunctionDerivative.h"
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "passes/Autodiff/ReverseMode.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::megalodon;

/// Forward values by the placeholder that stands for them in the backward body.
using Placeholders = llvm::MapVector<Value, Value>;

/// Erases the ops of `block` that no result of its terminator needs.
static void eraseDeadOps(Block &block) {
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(block.without_terminator())))
    if (isOpTriviallyDead(&op))
      op.erase();
}

/// The forward values to keep out of those that backward needs, in the order in
/// which forward computes them.
static llvm::SetVector<Value> chooseResiduals(Block &forward,
                                              const Placeholders &needed,
                                              Recompute recompute) {
  llvm::SetVector<Value> residuals;
  if (recompute == Recompute::Full)
    return residuals;
  DenseSet<Value> available(forward.args_begin(), forward.args_end());
  for (Operation &op : forward) {
    auto differentiable = dyn_cast<DifferentiableOpInterface>(op);
    // Recomputing pays only if it does not keep an operand in the result's
    // place.
    bool cheap = recompute == Recompute::Selective && differentiable &&
                 differentiable.isCheapToRecompute() &&
                 llvm::all_of(op.getOperands(), [&](Value value) {
                   return available.contains(value);
                 });
    for (Value result : op.getResults()) {
      bool keep = !cheap && needed.contains(result);
      if (keep)
        residuals.insert(result);
      if (cheap || keep)
        available.insert(result);
    }
  }
  return residuals;
}

namespace {
/// Puts copies of forward ops in front of the first backward op that uses them.
class Recomputation {
public:
  /// `known` maps the forward values that need no recomputation.
  explicit Recomputation(IRMapping known) : values(std::move(known)) {}

  Value materialize(OpBuilder &builder, Value forward) {
    if (Value value = values.lookupOrNull(forward))
      return value;
    Operation *op = forward.getDefiningOp();
    for (Value operand : op->getOperands())
      materialize(builder, operand);
    builder.clone(*op, values);
    return values.lookup(forward);
  }

private:
  IRMapping values;
};
} // namespace

/// Replaces the placeholders that are not residuals by recomputed values.
static void recomputeValues(Block &forward, Block &backward,
                            ArrayRef<Value> arguments,
                            const Placeholders &needed,
                            const llvm::SetVector<Value> &residuals) {
  IRMapping known;
  known.map(forward.getArguments(), arguments);
  DenseMap<Value, Value> forwardOf;
  for (auto [value, placeholder] : needed) {
    if (residuals.contains(value))
      known.map(value, placeholder);
    else
      forwardOf[placeholder] = value;
  }
  Recomputation recomputation(std::move(known));
  // In block order, so that a copy stands before every later use of it.
  for (Operation &op : llvm::make_early_inc_range(backward)) {
    OpBuilder builder(&op);
    for (OpOperand &operand : op.getOpOperands())
      if (Value value = forwardOf.lookup(operand.get()))
        operand.set(recomputation.materialize(builder, value));
  }
}

/// The ops of `block` that `roots` depend on.
static DenseSet<Operation *> findSlice(Block &block, ArrayRef<Value> roots) {
  DenseSet<Operation *> slice;
  for (Value root : roots)
    if (Operation *op = root.getDefiningOp())
      slice.insert(op);
  for (Operation &op : llvm::reverse(block))
    if (slice.contains(&op))
      for (Value operand : op.getOperands())
        if (Operation *producer = operand.getDefiningOp())
          slice.insert(producer);
  return slice;
}

/// The values that `ops` use and do not define.
static SmallVector<Value> findArguments(ArrayRef<Operation *> ops) {
  DenseSet<Operation *> inside(ops.begin(), ops.end());
  llvm::SetVector<Value> arguments;
  for (Operation *op : ops)
    for (Value operand : op->getOperands())
      if (!operand.getDefiningOp() || !inside.contains(operand.getDefiningOp()))
        arguments.insert(operand);
  return arguments.takeVector();
}

/// A private function behind `after` that computes `results` from `arguments`
/// by copies of `ops`.
static func::FuncOp outline(func::FuncOp after, const Twine &name,
                            SymbolTable &symbols, ArrayRef<Operation *> ops,
                            ValueRange arguments, ValueRange results) {
  OpBuilder builder(after.getContext());
  auto function = func::FuncOp::create(
      after.getLoc(), name.str(),
      builder.getFunctionType(arguments.getTypes(), results.getTypes()));
  function.setPrivate();
  Block *block = function.addEntryBlock();
  builder.setInsertionPointToEnd(block);
  IRMapping mapping;
  mapping.map(arguments, block->getArguments());
  for (Operation *op : ops)
    builder.clone(*op, mapping);
  SmallVector<Value> returned;
  for (Value result : results)
    returned.push_back(mapping.lookup(result));
  func::ReturnOp::create(builder, function.getLoc(), returned);
  symbols.insert(function, std::next(Block::iterator(after)));
  return function;
}

/// A copy of `function` that returns `residuals` too, or the function itself
/// when there are none.
static func::FuncOp buildForward(func::FuncOp function, const Twine &name,
                                 SymbolTable &symbols,
                                 ArrayRef<Value> residuals) {
  if (residuals.empty())
    return function;
  IRMapping mapping;
  auto forward = cast<func::FuncOp>(function->clone(mapping));
  forward.setName(name.str());
  SmallVector<Type> types;
  Operation *terminator = forward.front().getTerminator();
  for (Value residual : residuals) {
    terminator->insertOperands(terminator->getNumOperands(),
                               mapping.lookup(residual));
    types.push_back(residual.getType());
  }
  SmallVector<unsigned> positions(types.size(), function.getNumResults());
  SmallVector<DictionaryAttr> attributes(types.size());
  (void)forward.insertResults(positions, types, attributes);
  symbols.insert(forward, std::next(Block::iterator(function)));
  return forward;
}

FailureOr<FunctionDerivative>
FunctionDerivative::build(const DerivativeRequest &request, Recompute recompute,
                          SymbolTable &symbols) {
  func::FuncOp function = request.function;
  if (!llvm::hasSingleElement(function.getBody()))
    return function.emitOpError(
        "is called where gradients are needed but is not a single block");
  Block &forwardBlock = function.front();
  Operation *terminator = forwardBlock.getTerminator();

  // The body: first the function's arguments, then the cotangents of its
  // results, then placeholders for other forward values as they are needed.
  FunctionDerivative derivative;
  OpBuilder builder(function.getContext());
  derivative.body = func::FuncOp::create(function.getLoc(), "backward",
                                         builder.getFunctionType({}, {}));
  Block *body = derivative.body->addEntryBlock();
  builder.setInsertionPointToEnd(body);
  for (Value argument : forwardBlock.getArguments())
    derivative.arguments.push_back(
        body->addArgument(argument.getType(), argument.getLoc()));
  Cotangents cotangents;
  for (unsigned index : request.results.set_bits()) {
    Value result = terminator->getOperand(index);
    derivative.cotangents.push_back(
        body->addArgument(result.getType(), result.getLoc()));
    cotangents.add(result, derivative.cotangents.back());
  }

  SmallVector<Value> inputs;
  for (unsigned index : request.wanted.set_bits())
    inputs.push_back(forwardBlock.getArgument(index));
  Placeholders needed;
  auto forwardValue = [&](Value value) -> Value {
    if (auto argument = dyn_cast<BlockArgument>(value))
      return derivative.arguments[argument.getArgNumber()];
    Value &placeholder = needed[value];
    if (!placeholder)
      placeholder = body->addArgument(value.getType(), value.getLoc());
    return placeholder;
  };
  auto refuseCall = [](func::CallOp call, ValueRange,
                       const llvm::SmallBitVector &, MutableArrayRef<Value>) {
    return call.emitOpError("stands in a called function, expected calls only "
                            "in entries where gradients are needed");
  };
  if (failed(buildBackward(builder, forwardBlock,
                           findActiveValues(forwardBlock, inputs), forwardValue,
                           refuseCall, cotangents)))
    return failure();

  // The body's terminator holds all gradients, so that what none needs can go.
  SmallVector<Value> gradients;
  derivative.gradients.resize(forwardBlock.getNumArguments());
  for (unsigned index : request.wanted.set_bits())
    if (Value gradient =
            cotangents.take(builder, forwardBlock.getArgument(index))) {
      derivative.gradients[index] = gradient;
      gradients.push_back(gradient);
    }
  func::ReturnOp::create(builder, function.getLoc(), gradients);
  eraseDeadOps(*body);
  needed.remove_if([](auto &entry) { return entry.second.use_empty(); });

  llvm::SetVector<Value> residuals =
      chooseResiduals(forwardBlock, needed, recompute);
  for (Value residual : residuals)
    derivative.residuals.push_back(needed.lookup(residual));
  recomputeValues(forwardBlock, *body, derivative.arguments, needed, residuals);

  // Cut the body in two. An op that input gradients depend on belongs to the
  // first part, even if it gives weight gradients too.
  SmallVector<Value> inputGradients;
  for (auto [index, gradient] : llvm::enumerate(derivative.gradients))
    if (gradient && !request.weights[index])
      inputGradients.push_back(gradient);
  DenseSet<Operation *> inputSlice = findSlice(*body, inputGradients);
  SmallVector<Operation *> inputOps, weightOps;
  for (Operation &op : body->without_terminator())
    (inputSlice.contains(&op) ? inputOps : weightOps).push_back(&op);

  Part input, weight;
  input.arguments = findArguments(inputOps);
  weight.arguments = findArguments(weightOps);
  llvm::SetVector<Value> inputResults, weightResults;
  auto addResult = [&](Value value) {
    if (Operation *op = value.getDefiningOp())
      (inputSlice.contains(op) ? inputResults : weightResults).insert(value);
  };
  llvm::for_each(inputGradients, addResult);
  llvm::for_each(gradients, addResult);
  llvm::for_each(weight.arguments, addResult);
  input.results = inputResults.takeVector();
  weight.results = weightResults.takeVector();

  // The three share a number where the function has several derivatives.
  StringRef name = function.getName();
  std::string number;
  for (unsigned next = 1;
       symbols.lookup((name + "_forward" + number).str()) ||
       symbols.lookup((name + "_backward_input" + number).str());
       ++next)
    number = ("_" + Twine(next)).str();
  // Each goes right behind the function, so the last comes first.
  if (!weight.results.empty())
    weight.function =
        outline(function, name + "_backward_weight" + number, symbols,
                weightOps, weight.arguments, weight.results);
  if (!input.results.empty())
    input.function = outline(function, name + "_backward_input" + number,
                             symbols, inputOps, input.arguments, input.results);
  derivative.forward = buildForward(function, name + "_forward" + number,
                                    symbols, residuals.getArrayRef());
  for (Part *part : {&input, &weight})
    if (part->function)
      derivative.parts.push_back(std::move(*part));
  return derivative;
}

void FunctionDerivative::differentiateCall(
    OpBuilder &builder, func::CallOp call, ValueRange results,
    MutableArrayRef<Value> operands) const {
  OpBuilder forwardBuilder(call);
  auto forwardCall = func::CallOp::create(forwardBuilder, call.getLoc(),
                                          forward, call.getOperands());
  forwardCall->setDiscardableAttrs(call->getDiscardableAttrDictionary());
  unsigned numResults = call.getNumResults();
  call->replaceAllUsesWith(forwardCall.getResults().take_front(numResults));

  IRMapping mapping;
  mapping.map(arguments, forwardCall.getOperands());
  mapping.map(residuals, forwardCall.getResults().drop_front(numResults));
  for (auto [inside, value] : llvm::zip_equal(
           cotangents, llvm::make_filter_range(
                           results, [](Value value) { return bool(value); })))
    mapping.map(inside, value);
  for (const Part &part : parts) {
    SmallVector<Value> values;
    for (Value argument : part.arguments)
      values.push_back(mapping.lookup(argument));
    auto backwardCall =
        func::CallOp::create(builder, call.getLoc(), part.function, values);
    mapping.map(part.results, backwardCall.getResults());
  }
  for (auto [operand, gradient] : llvm::zip_equal(operands, gradients))
    if (gradient)
      operand = mapping.lookup(gradient);
}

uint64_t FunctionDerivative::getResidualBytes() const {
  uint64_t bytes = 0;
  for (Value residual : residuals) {
    auto type = cast<RankedTensorType>(residual.getType());
    bytes += type.getNumElements() * type.getElementTypeBitWidth() / 8;
  }
  return bytes;
}
