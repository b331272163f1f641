// Verifiers of MEGA's ops and their gradients.
#include "dialect/Megalodon/Verifiers/Check.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::verifiers;

/// What ema_coefficients and its gradient ask of the logits.
static void checkEmaLogits(Check &check, Value alpha, Value delta, Value beta,
                           int64_t channels, int64_t states) {
  SmallVector<int64_t> shape{channels, states, 1};
  Type element = elementOf(alpha);
  check.shape("alpha", alpha, shape)
      .shape("delta", delta, shape)
      .element("delta", delta, element)
      .shape("beta", beta, shape)
      .element("beta", beta, element);
}

LogicalResult EmaCoefficientsOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> gamma = shapeOf(getGamma());
  // C1, C2
  checkEmaLogits(check, getAlpha(), getDelta(), getBeta(), gamma[0], gamma[1]);
  check.element("gamma", getGamma(), elementOf(getAlpha()));
  // C1
  return check.results(*this, {"p", "q", "g"});
}

/// What mega_qk and its gradient ask beside their results.
static void checkMegaQK(Check &check, Value z, Value gamma, Value count,
                        Value positions, const APFloat &base, int64_t chunk) {
  ArrayRef<int64_t> shape = shapeOf(z);
  // C1
  check.that(shape[2] % 2 == 0, "z", "an even width", Twine(shape[2]));
  // C2
  check.shape("gamma", gamma, {2, shape[2]})
      .element("gamma", gamma, computeTypeOf(z));
  // C3
  check.shape("count", count, {shape[0]})
      .shape("positions", positions, {shape[0], shape[1]});
  // C4
  check.positive("base", base).positive("chunk", chunk);
}

LogicalResult MegaQKOp::verify() {
  Check check(*this);
  // C1, C2, C3, C4
  checkMegaQK(check, getZ(), getGamma(), getCount(), getPositions(), getBase(),
              static_cast<int64_t>(getChunk()));
  // C2
  check.type("beta", getBeta(), getGamma())
      .type("relative", getRelative(), getGamma());
  // C1
  return check.results(*this, {"q", "k"});
}

LogicalResult EmaCoefficientsGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> p = shapeOf(getDp());
  // C1
  check.shape("dq", getDq(), {p[0], p[1], 2})
      .shape("dg", getDg(), {p[0], p[1], 2});
  checkEmaLogits(check, getAlpha(), getDelta(), getBeta(), p[0], p[1]);
  return check.results(*this, {"dalpha", "ddelta", "dbeta", "dgamma"});
}

LogicalResult MegaQKGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> z = shapeOf(getZ());
  // C1, C2, C3, C4
  checkMegaQK(check, getZ(), getGamma(), getCount(), getPositions(), getBase(),
              static_cast<int64_t>(getChunk()));
  // C1
  SmallVector<int64_t> wide{z[0], z[1], 2 * z[2]};
  check.shape("dq", getDq(), wide)
      .element("dq", getDq(), elementOf(getZ()))
      .type("dk", getDk(), getDq());
  // C1, C2
  return check.results(*this, {"dz", "dgamma", "dbeta", "drelative"});
}

LogicalResult UpdateGateGradOp::verify() {
  Check check(*this);
  // C1
  check.type("dy", getDy(), getX())
      .type("candidate", getCandidate(), getX())
      .type("gate", getGate(), getX());
  return check.results(*this, {"dx", "dcandidate", "dgate"});
}
