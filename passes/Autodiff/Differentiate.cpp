// The differentiate phase: gradients of the loss in `grad` and `train` entries.
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/IR/Remarks.h"
#include "passes/Autodiff/FunctionDerivative.h"
#include "passes/Autodiff/Passes.h"
#include "passes/Autodiff/ReverseMode.h"
#include "passes/Entry.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_DIFFERENTIATE
#include "passes/Autodiff/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// A text that two requests share exactly if they ask for the same derivative.
std::string keyOf(DerivativeRequest request) {
  std::string key = request.function.getName().str();
  for (const llvm::SmallBitVector *bits :
       {&request.results, &request.wanted, &request.weights}) {
    key += '/';
    for (unsigned index = 0; index < bits->size(); ++index)
      key += bits->test(index) ? '1' : '0';
  }
  return key;
}

/// Differentiates the entries of one module.
class Differentiator {
public:
  Differentiator(ModuleOp module, Recompute recompute)
      : module(module), symbols(module), recompute(recompute) {}

  LogicalResult differentiateEntry(func::FuncOp entry);
  /// Erases differentiated functions that nothing calls any more.
  void eraseReplacedFunctions();

  unsigned numFunctions = 0, numCalls = 0, numResiduals = 0;
  uint64_t residualBytes = 0;

private:
  Value buildSeed(func::FuncOp entry, OpBuilder &builder, Value loss);
  FailureOr<const FunctionDerivative *>
  getDerivative(DerivativeRequest request);

  ModuleOp module;
  SymbolTable symbols;
  Recompute recompute;
  llvm::StringMap<FunctionDerivative> derivatives;
  llvm::SetVector<func::FuncOp> differentiated;
};

/// The cotangent of the loss.
Value Differentiator::buildSeed(func::FuncOp entry, OpBuilder &builder,
                                Value loss) {
  if (getEntryKind(entry) == "grad") {
    auto type = cast<RankedTensorType>(loss.getType());
    return arith::ConstantOp::create(
        builder, loss.getLoc(),
        DenseElementsAttr::get(type,
                               builder.getFloatAttr(type.getElementType(), 1)));
  }
  Value scale = findArgument(entry, "loss_scale");
  if (!scale) {
    entry.emitOpError("expected an argument 'loss_scale', got none");
    return {};
  }
  if (scale.getType() != loss.getType()) {
    entry.emitOpError("expected 'loss_scale' of type ")
        << loss.getType() << ", got " << scale.getType();
    return {};
  }
  return scale;
}

FailureOr<const FunctionDerivative *>
Differentiator::getDerivative(DerivativeRequest request) {
  std::string key = keyOf(request);
  auto found = derivatives.find(key);
  if (found == derivatives.end()) {
    auto built = FunctionDerivative::build(request, recompute, symbols);
    if (failed(built))
      return failure();
    ++numFunctions;
    differentiated.insert(request.function);
    remark::analysis(request.function.getLoc(),
                     remark::RemarkOpts::name("Residuals")
                         .category("differentiate")
                         .function(request.function.getName()))
        << remark::metric("residuals", built->getNumResiduals())
        << remark::metric("bytes", built->getResidualBytes());
    found = derivatives.try_emplace(key, std::move(*built)).first;
  }
  return &found->second;
}

LogicalResult Differentiator::differentiateEntry(func::FuncOp entry) {
  if (!llvm::hasSingleElement(entry.getBody()))
    return entry.emitOpError("expected one block, got ")
           << entry.getBody().getBlocks().size();
  for (unsigned index : llvm::seq(entry.getNumResults()))
    if (hasResultRole(entry, index, Role::Gradient))
      return entry.emitOpError("is differentiated already: result '")
             << nameOfResult(entry, index) << "' is a gradient";
  std::optional<unsigned> lossIndex = findResult(entry, "loss");
  if (!lossIndex)
    return entry.emitOpError("expected a result 'loss', got none");

  Block &block = entry.front();
  Operation *terminator = block.getTerminator();
  Value loss = terminator->getOperand(*lossIndex);
  auto lossType = dyn_cast<RankedTensorType>(loss.getType());
  if (!lossType || lossType.getRank() != 0 || !isDifferentiableType(lossType))
    return entry.emitOpError("expected 'loss' to be a scalar, got ")
           << loss.getType();

  bool stateIsDetached = getEntryKind(entry) == "train";
  SmallVector<Value> inputs;
  for (BlockArgument argument : entry.getArguments()) {
    unsigned index = argument.getArgNumber();
    if (isDifferentiableType(argument.getType()) &&
        (hasArgumentRole(entry, index, Role::Parameter) ||
         (hasArgumentRole(entry, index, Role::State) && !stateIsDetached)))
      inputs.push_back(argument);
  }

  OpBuilder builder(terminator);
  Value seed = buildSeed(entry, builder, loss);
  if (!seed)
    return failure();
  Cotangents cotangents;
  cotangents.add(loss, seed);

  SmallVector<func::CallOp> replaced;
  auto differentiateCall = [&](func::CallOp call, ValueRange results,
                               const llvm::SmallBitVector &wanted,
                               MutableArrayRef<Value> operands) {
    auto callee = symbols.lookup<func::FuncOp>(call.getCallee());
    DerivativeRequest request{
        callee, llvm::SmallBitVector(call.getNumResults()), wanted,
        llvm::SmallBitVector(call.getNumOperands())};
    for (auto [index, result] : llvm::enumerate(results))
      request.results[index] = bool(result);
    for (unsigned index : wanted.set_bits())
      if (auto argument = dyn_cast<BlockArgument>(call.getOperand(index)))
        request.weights[index] =
            hasArgumentRole(entry, argument.getArgNumber(), Role::Parameter);
    auto derivative = getDerivative(request);
    if (failed(derivative))
      return failure();
    (*derivative)->differentiateCall(builder, call, results, operands);
    replaced.push_back(call);
    ++numCalls;
    numResiduals += (*derivative)->getNumResiduals();
    residualBytes += (*derivative)->getResidualBytes();
    return success();
  };
  if (failed(buildBackward(
          builder, block, findActiveValues(block, inputs),
          [](Value value) { return value; }, differentiateCall, cotangents)))
    return failure();
  for (func::CallOp call : replaced)
    call.erase();

  // Gradients become results behind the others, in the order of the arguments.
  SmallVector<Value> gradients;
  SmallVector<DictionaryAttr> attributes;
  for (Value input : inputs) {
    unsigned index = cast<BlockArgument>(input).getArgNumber();
    StringRef name = nameOfArgument(entry, index);
    Value gradient = cotangents.take(builder, input);
    if (!gradient) {
      if (hasArgumentRole(entry, index, Role::State))
        continue; // the attention's cache is detached
      return entry.emitOpError("parameter '")
             << name << "' has no influence on the loss";
    }
    gradients.push_back(gradient);
    attributes.push_back(getPortAttributes(builder.getContext(), "grad." + name,
                                           Role::Gradient));
  }
  SmallVector<unsigned> positions(gradients.size(), entry.getNumResults());
  if (failed(entry.insertResults(positions, ValueRange(gradients).getTypes(),
                                 attributes)))
    return failure();
  terminator->insertOperands(terminator->getNumOperands(), gradients);
  return success();
}

void Differentiator::eraseReplacedFunctions() {
  for (func::FuncOp function : differentiated)
    if (function.isPrivate() &&
        SymbolTable::symbolKnownUseEmpty(function, module))
      symbols.erase(function);
}

struct Differentiate : mlir::megalodon::impl::DifferentiateBase<Differentiate> {
  using DifferentiateBase::DifferentiateBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<func::FuncOp> entries;
    for (auto function : module.getOps<func::FuncOp>())
      if (StringRef kind = getEntryKind(function);
          kind == "grad" || kind == "train")
        entries.push_back(function);

    Differentiator differentiator(module, recompute);
    for (func::FuncOp entry : entries)
      if (failed(differentiator.differentiateEntry(entry)))
        return signalPassFailure();
    differentiator.eraseReplacedFunctions();
    numFunctions += differentiator.numFunctions;
    numCalls += differentiator.numCalls;
    numResiduals += differentiator.numResiduals;
    residualBytes += differentiator.residualBytes;
  }
};
} // namespace
