// Registration and verifiers of the plan dialect.
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/SmallSet.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::plan;

#include "dialect/Plan/PlanDialect.cpp.inc"
#include "dialect/Plan/PlanEnums.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "dialect/Plan/PlanAttributes.cpp.inc"

void PlanDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialect/Plan/PlanAttributes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialect/Plan/PlanOps.cpp.inc"
      >();
}

LogicalResult DispatchOp::verify() {
  // C1
  if (getTied().size() != getNumResults())
    return emitOpError() << "expected " << getNumResults()
                         << " entries in tied, got " << getTied().size();
  llvm::SmallSet<int64_t, 4> seen;
  for (auto [index, input] : llvm::enumerate(getTied())) {
    if (input < 0)
      continue;
    if (input >= static_cast<int64_t>(getInputs().size()))
      return emitOpError() << "result " << index << " is tied to input "
                           << input << ", but there are " << getInputs().size();
    if (getInputs()[input].getType() != getResult(index).getType())
      return emitOpError() << "result " << index << " of type "
                           << getResult(index).getType()
                           << " is tied to an input of type "
                           << getInputs()[input].getType();
    // C2
    if (!seen.insert(input).second)
      return emitOpError() << "input " << input << " is tied twice";
  }
  return success();
}

LogicalResult DispatchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  // C3
  auto kernel =
      symbols.lookupNearestSymbolFrom<func::FuncOp>(*this, getKernel());
  if (!kernel)
    return emitOpError() << "expected a kernel function, got " << getKernel();
  // The parameter block, the workgroup and the scratch come first.
  unsigned expected =
      3 + getInputs().size() +
      llvm::count_if(getTied(), [](int64_t input) { return input < 0; });
  if (kernel.getNumArguments() != expected) {
    InFlightDiagnostic error = emitOpError() << "expected a kernel of "
                                             << expected << " arguments, got "
                                             << kernel.getNumArguments();
    error.attachNote(kernel.getLoc()) << "kernel is here";
    return error;
  }
  return success();
}

LogicalResult ProductOp::verify() {
  int64_t m = getM(), n = getN(), k = getK();
  int64_t tileM = getTileM(), tileN = getTileN();
  // C1
  if ((m < 0) + (n < 0) + (k < 0) > 1)
    return emitOpError() << "expected at most one extent of -1, got m=" << m
                         << " n=" << n << " k=" << k;
  // C2
  if (tileM <= 0 || tileN <= 0)
    return emitOpError() << "expected positive tiles, got " << tileM << " x "
                         << tileN;
  // C3
  auto element = [](Value v) {
    return cast<RankedTensorType>(v.getType()).getElementType();
  };
  const bool widens = element(getA()).isBF16() && element(getC()).isF32();
  if (element(getA()) != element(getB()) ||
      (element(getA()) != element(getC()) && !widens))
    return emitOpError() << "expected one element type, got " << element(getA())
                         << ", " << element(getB()) << " and "
                         << element(getC());
  return success();
}

/// By which factor dimension `dimension` of `larger` exceeds that of `smaller`,
/// whose other dimensions are the same; 0 if there is none.
static int64_t factorBetween(RankedTensorType smaller, RankedTensorType larger,
                             int64_t dimension) {
  if (smaller.getRank() != larger.getRank() || dimension < 0 ||
      dimension >= smaller.getRank())
    return 0;
  for (int64_t i = 0; i < smaller.getRank(); ++i)
    if (i != dimension && smaller.getDimSize(i) != larger.getDimSize(i))
      return 0;
  int64_t few = smaller.getDimSize(dimension),
          many = larger.getDimSize(dimension);
  return few > 0 && many % few == 0 ? many / few : 0;
}

LogicalResult CollectiveOp::verify() {
  // C1
  if (getInputs().empty() || getInputs().size() != getNumResults())
    return emitOpError() << "expected as many results as inputs and at least "
                            "one, got "
                         << getNumResults() << " for " << getInputs().size();
  // C3
  llvm::SmallSet<int64_t, 4> seen;
  for (int64_t axis : getAxes())
    if (axis < 0 || axis > 3 || !seen.insert(axis).second)
      return emitOpError() << "expected distinct axes from 0 to 3, got ["
                           << getAxes() << "]";
  if (seen.empty())
    return emitOpError() << "expected at least one axis, got none";
  auto first = cast<RankedTensorType>(getInputs()[0].getType());
  int64_t factor = 0;
  for (auto [index, input, output] :
       llvm::enumerate(getInputs(), getOutputs())) {
    auto from = cast<RankedTensorType>(input.getType()),
         to = cast<RankedTensorType>(output.getType());
    // C2
    for (RankedTensorType type : {from, to})
      if (type.getElementType() != first.getElementType())
        return emitOpError()
               << "expected one element type, got " << first.getElementType()
               << " and " << type.getElementType();
    // C4
    if (getKind() == CollectiveKind::AllReduce) {
      if (from != to)
        return emitOpError() << "result " << index << " of type " << to
                             << " is the sum of an input of type " << from;
      continue;
    }
    // C5
    bool gathers = getKind() == CollectiveKind::AllGather;
    int64_t between = gathers ? factorBetween(from, to, getDimension())
                              : factorBetween(to, from, getDimension());
    if (between == 0)
      return emitOpError() << "expected result " << index
                           << " to differ from its input by a factor in "
                              "dimension "
                           << getDimension() << ", got " << from << " and "
                           << to;
    if (index > 0 && between != factor)
      return emitOpError() << "expected a factor of " << factor
                           << " for result " << index << ", got " << between;
    factor = between;
  }
  return success();
}

LogicalResult PipelineOp::verify() {
  auto expect = [&](StringRef name, ArrayAttr list, int64_t expected,
                    bool optional) {
    if (static_cast<int64_t>(list.size()) == expected ||
        (optional && list.empty()))
      return true;
    emitOpError() << name << ": expected " << expected << " functions"
                  << (optional ? " or none" : "") << ", got " << list.size();
    return false;
  };
  // C2
  return success(expect("forward", getForward(), getNumStages(), false) &&
                 expect("backward", getBackward(), getNumStages(), true) &&
                 expect("weight", getWeight(), getNumStages(), true) &&
                 expect("finish", getFinish(), getNumRanks(), true) &&
                 expect("update", getUpdate(), getNumRanks(), true));
}

LogicalResult PipelineOp::verifySymbolUses(SymbolTableCollection &symbols) {
  // C1
  for (ArrayAttr list :
       {getForward(), getBackward(), getWeight(), getFinish(), getUpdate()})
    for (auto name : list.getAsRange<FlatSymbolRefAttr>())
      if (!symbols.lookupNearestSymbolFrom<func::FuncOp>(*this, name))
        return emitOpError() << "expected a function, got " << name;
  return success();
}

#define GET_OP_CLASSES
#include "dialect/Plan/PlanOps.cpp.inc"
