// Verifiers of what meshes add: summaries, prefixes and layouts.
#include "dialect/Megalodon/Verifiers/Check.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::verifiers;

LogicalResult TimestepStatisticsOp::verify() {
  Check check(*this);
  // C2
  check.divides("groups", getGroups(), "channels", shapeOf(getX())[2]);
  // C1
  return check.results(*this, {"summary"});
}

/// What timestep_prefix and its gradient ask of the summaries and of the state
/// in front of all ranks.
static void checkStatistics(Check &check, Value summaries, Value count,
                            Value mean, Value var) {
  ArrayRef<int64_t> shape = shapeOf(summaries);
  Type element = elementOf(summaries);
  check.positive("ranks", shape[1])
      .shape("summaries", summaries, {shape[0], shape[1], 2, shape[3]})
      .shape("count", count, {shape[0]})
      .shape("mean", mean, {shape[0], shape[3]})
      .shape("var", var, {shape[0], shape[3]})
      .element("mean", mean, element)
      .element("var", var, element);
}

LogicalResult TimestepPrefixOp::verify() {
  Check check(*this);
  // C1, C2, C3
  checkStatistics(check, getSummaries(), getCount(), getMean(), getVar());
  return check.results(*this, {"local_count", "local_mean", "local_var",
                               "new_count", "new_mean", "new_var"});
}

/// What the two halves of the gradient ask of the tokens they belong to.
static void checkTokens(Check &check, Value x, Value count, Value runningMean,
                        int64_t groups) {
  ArrayRef<int64_t> shape = shapeOf(x);
  check.divides("groups", groups, "channels", shape[2])
      .shape("running_mean", runningMean, {shape[0], shape[1], groups})
      .element("running_mean", runningMean, computeTypeOf(x))
      .shape("count", count, {shape[0]});
}

LogicalResult TimestepMomentsGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX());
  int64_t groups = shapeOf(getDmean())[1];
  // C1, C3
  check.shape("dmean", getDmean(), {x[0], groups})
      .element("dmean", getDmean(), computeTypeOf(getX()))
      .type("dvar", getDvar(), getDmean());
  // C2, C3
  checkTokens(check, getX(), getCount(), getRunningMean(), groups);
  return check.results(*this, {"share"});
}

LogicalResult TimestepSuffixGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX()), shares = shapeOf(getShares());
  // C1
  check.type("dx", getDx(), getX());
  // C2, C4
  check.positive("ranks", shares[1])
      .shape("shares", getShares(), {x[0], shares[1], 2, shares[3]})
      .element("shares", getShares(), computeTypeOf(getX()));
  // C3, C4
  checkTokens(check, getX(), getCount(), getRunningMean(), shares[3]);
  return check.results(*this, {"result", "dmean", "dvar"});
}

LogicalResult CemaSummaryOp::verify() {
  Check check(*this);
  int64_t channels = shapeOf(getX())[2], states = shapeOf(getP())[1];
  // C1
  check.shape("p", getP(), {channels, states})
      .shape("q", getQ(), {channels, states, 2});
  // C2
  return check.results(*this, {"summary"});
}

LogicalResult CemaGradSummaryOp::verify() {
  Check check(*this);
  int64_t channels = shapeOf(getDy())[2], states = shapeOf(getQ())[1];
  // C1
  check.shape("q", getQ(), {channels, states, 2})
      .shape("g", getG(), {channels, states, 2});
  // C2
  return check.results(*this, {"summary"});
}

LogicalResult CemaPrefixOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> summaries = shapeOf(getSummaries());
  // C1
  check.positive("ranks", summaries[1])
      .shape("summaries", getSummaries(),
             {summaries[0], summaries[1], summaries[2], summaries[3], 2})
      .shape("q", getQ(), {summaries[2], summaries[3], 2});
  // C2
  check
      .shape("state", getState(), {summaries[0], summaries[2], summaries[3], 2})
      .element("state", getState(), elementOf(getSummaries()));
  return check.results(*this, {"local_state", "new_state"});
}

LogicalResult CrossEntropySummaryOp::verify() {
  Check check(*this);
  // C1
  check.shape("targets", getTargets(), shapeOf(getLogits()).drop_back());
  // C3
  check.positive("vocabulary", getVocabulary());
  // C2
  return check.results(*this, {"summary"});
}

LogicalResult CrossEntropyCombineOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> summaries = shapeOf(getSummaries());
  // C1
  check
      .that(summaries[2] > 0 && summaries[2] % 2 == 0, "summaries",
            "pairs of numbers", Twine(summaries[2]) + " numbers")
      .shape("targets", getTargets(), summaries.drop_back());
  // C1, C2
  return check.results(*this, {"nll", "lse"});
}

/// What the sums of a slice ask of its cotangent and gain.
static void checkNormSlice(Check &check, Value dy, Value x, Value weight) {
  check.type("dy", dy, x)
      .shape("weight", weight, {shapeOf(x)[2]})
      .element("weight", weight, computeTypeOf(x));
}

LogicalResult RmsNormGradSumsOp::verify() {
  Check check(*this);
  // C1, C2
  checkNormSlice(check, getDy(), getX(), getWeight());
  checkPlain(check, getPlain(), getWeight());
  // C3
  return check.results(*this, {"sums"});
}

LogicalResult LayerNormGradSumsOp::verify() {
  Check check(*this);
  // C1, C2
  checkNormSlice(check, getDy(), getX(), getWeight());
  // C3
  return check.results(*this, {"sums"});
}

LogicalResult SumOfSquaresOp::verify() {
  Check check(*this);
  // C1
  check.that(!getGradients().empty(), "gradients", "at least one", "none");
  for (Value gradient : getGradients())
    check.element("gradients", gradient, elementOf(getGradients().front()));
  return check.results(*this, {"sum"});
}

LogicalResult NormOfSquaresOp::verify() {
  // C1
  return Check(*this).that(!getSums().empty(), "sums", "at least one", "none");
}

LogicalResult ReshardOp::verify() {
  auto from = cast<RankedTensorType>(getInput().getType()),
       to = cast<RankedTensorType>(getType());
  // C1
  if (from.getShape() != to.getShape() ||
      from.getElementType() != to.getElementType())
    return emitOpError() << "expected a result like the operand's "
                         << from.cloneWithEncoding({}) << ", got "
                         << to.cloneWithEncoding({});
  // C2
  for (RankedTensorType type : {from, to})
    if (auto layout = dyn_cast_or_null<LayoutAttr>(type.getEncoding());
        !layout ||
        static_cast<int64_t>(layout.getDimensions().size()) != type.getRank())
      return emitOpError() << "expected a layout of " << type.getRank()
                           << " dimensions, got " << type;
  return success();
}
