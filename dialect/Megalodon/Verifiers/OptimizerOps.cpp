// Verifiers of the optimizer.
#include "dialect/Megalodon/Verifiers/Check.h"
#include "llvm/ADT/SmallString.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::verifiers;

LogicalResult GlobalNormOp::verify() {
  Check check(*this);
  // C1
  check.that(!getGradients().empty(), "gradients", "at least one", "none");
  for (Value gradient : getGradients())
    check.element("gradients", gradient, elementOf(getNorm()));
  return check;
}

LogicalResult ClipOp::verify() {
  // C1
  return Check(*this).results(*this, {"coefficient"});
}

LogicalResult AdamWOp::verify() {
  Check check(*this);
  Type element = elementOf(getParameter());
  auto isDecay = [](const APFloat &beta) {
    double value = beta.convertToDouble();
    return value >= 0 && value < 1;
  };
  auto text = [](const APFloat &value) {
    SmallString<16> digits;
    value.toString(digits);
    return digits.str().str();
  };
  // C1
  check.type("first_moment", getFirstMoment(), getParameter())
      .type("second_moment", getSecondMoment(), getParameter())
      .type("gradient", getGradient(), getParameter());
  // C2
  check
      .that(isDecay(getBeta1()), "beta1", "a number in [0, 1)",
            text(getBeta1()))
      .that(isDecay(getBeta2()), "beta2", "a number in [0, 1)",
            text(getBeta2()))
      .positive("epsilon", getEpsilon())
      .that(getWeightDecay().convertToDouble() >= 0, "weight_decay",
            "a number that is not negative", text(getWeightDecay()));
  // C3
  check.element("lr", getLr(), element).element("clip", getClip(), element);
  // C1
  return check.results(
      *this, {"new_parameter", "new_first_moment", "new_second_moment"});
}
