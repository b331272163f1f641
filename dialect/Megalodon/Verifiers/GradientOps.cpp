// Verifiers of the gradients of MegalodonOps.cpp.
#include "dialect/Megalodon/Verifiers/Check.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::verifiers;

LogicalResult EmbeddingGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> tokens = shapeOf(getTokens()),
                    dweight = shapeOf(getDweight());
  // C1
  check.shape("dy", getDy(), {tokens[0], tokens[1], dweight[1]})
      .element("dweight", getDweight(), computeTypeOf(getDy()));
  return check;
}

LogicalResult LinearGradInputOp::verify() {
  Check check(*this);
  int64_t outputs = shapeOf(getWeight())[0];
  // C1
  check
      .that(shapeOf(getDy()).back() == outputs, "dy",
            "a last dimension of " + Twine(outputs),
            Twine(shapeOf(getDy()).back()))
      .activation("weight", getWeight(), computeTypeOf(getDy()));
  return check.results(*this, {"dx"}, /*rounding=*/true);
}

LogicalResult LinearGradWeightOp::verify() {
  Check check(*this);
  SmallVector<int64_t> x(shapeOf(getDy()).drop_back());
  x.push_back(shapeOf(getX()).back());
  // C1
  check.shape("x", getX(), x).activation("x", getX(), computeTypeOf(getDy()));
  return check.results(*this, {"dweight"});
}

LogicalResult LinearGradBiasOp::verify() {
  // C1
  return Check(*this).results(*this, {"dbias"});
}

LogicalResult TimestepNormGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX());
  int64_t groups = shapeOf(getRunningMean())[2];
  Type element = computeTypeOf(getX());
  // C1
  check.type("dy", getDy(), getX());
  // C2
  check.shape("weight", getWeight(), {x[2]})
      .element("weight", getWeight(), element);
  // C3
  check.shape("running_mean", getRunningMean(), {x[0], x[1], groups})
      .element("running_mean", getRunningMean(), element)
      .type("running_rstd", getRunningRstd(), getRunningMean())
      .shape("count", getCount(), {x[0]})
      .divides("groups", groups, "channels", x[2]);
  // C4
  check
      .that(!getDnewMean() == !getDnewVar(), "end",
            "dnew_mean and dnew_var both given or both absent", "one of them")
      .shape("dnew_mean", getDnewMean(), {x[0], groups})
      .element("dnew_mean", getDnewMean(), element)
      .shape("dnew_var", getDnewVar(), {x[0], groups})
      .element("dnew_var", getDnewVar(), element);
  // C5
  check.shape("positions", getPositions(), {x[0], x[1]});
  // C1, C2, C4
  return check.results(*this, {"dx", "dweight", "dbias", "dmean", "dvar"});
}

LogicalResult CemaCoefficientsGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> p = shapeOf(getDp());
  Type element = elementOf(getAlpha());
  // C1
  check.shape("dq", getDq(), {p[0], p[1], 2})
      .shape("dg", getDg(), {p[0], p[1], 2});
  checkLogits(check, getAlpha(), getDelta(), getTheta(), p[0], p[1]);
  check.element("delta", getDelta(), element)
      .element("theta", getTheta(), element);
  return check.results(*this, {"dalpha", "ddelta", "dtheta", "dgamma"});
}

LogicalResult CemaGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX());
  int64_t states = shapeOf(getP())[1];
  Type element = computeTypeOf(getX());
  // C1
  check.type("dy", getDy(), getX());
  // C2
  check.shape("p", getP(), {x[2], states})
      .shape("q", getQ(), {x[2], states, 2})
      .shape("g", getG(), {x[2], states, 2});
  // C3
  check.shape("omega", getOmega(), {x[2], 1})
      .element("omega", getOmega(), element);
  // C4
  check.shape("dnew_state", getDnewState(), {x[0], x[2], states, 2})
      .element("dnew_state", getDnewState(), element);
  // C5
  check.positive("block", getBlock());
  if (!check.ok())
    return failure();
  check
      .shape("block_states", getBlockStates(),
             {ceilDiv(x[1], getBlock()), x[0], x[2], states, 2})
      .element("block_states", getBlockStates(), element);
  // C6
  check.shape("positions", getPositions(), {x[0], x[1]});
  // C1, C2, C3, C4
  return check.results(*this, {"dx", "dp", "dq", "dg", "domega", "dstate"});
}

/// What the gradients of row norms ask of a slice's sums over whole rows.
static void checkSlice(Check &check, Value x, Value sums,
                       std::optional<uint64_t> width, int64_t count) {
  ArrayRef<int64_t> shape = shapeOf(x);
  check
      .that(!sums == !width, "sums", "sums and width both given or both absent",
            "one of them")
      .shape("sums", sums, {shape[0], shape[1], count});
  if (width)
    check.that(static_cast<int64_t>(*width) >= shape[2], "width",
               "at least " + Twine(shape[2]) + " channels",
               Twine(static_cast<int64_t>(*width)));
}

LogicalResult RmsNormGradOp::verify() {
  Check check(*this);
  // C1
  check.type("dy", getDy(), getX());
  // C2
  check.shape("weight", getWeight(), {shapeOf(getX())[2]})
      .element("weight", getWeight(), computeTypeOf(getX()));
  // C3
  checkSlice(check, getX(), getSums(), getWidth(), 2);
  // C4
  checkPlain(check, getPlain(), getWeight());
  return check.results(*this, {"dx", "dweight"});
}

LogicalResult LayerNormGradOp::verify() {
  Check check(*this);
  // C1
  check.type("dy", getDy(), getX());
  // C2
  check.shape("weight", getWeight(), {shapeOf(getX())[2]})
      .element("weight", getWeight(), computeTypeOf(getX()));
  // C3
  checkSlice(check, getX(), getSums(), getWidth(), 4);
  return check.results(*this, {"dx", "dweight", "dbias"});
}

LogicalResult NormalizedQKGradOp::verify() {
  Check check(*this);
  int64_t width = shapeOf(getZ())[2];
  // C1
  check.type("dq", getDq(), getZ()).type("dk", getDk(), getZ());
  // C2
  check.shape("gamma", getGamma(), {2, width})
      .element("gamma", getGamma(), computeTypeOf(getZ()));
  // C3
  check.divides("heads", getHeads(), "width", width);
  // C1, C2
  return check.results(*this, {"dz", "dgamma", "dbeta"});
}

LogicalResult ChunkAttentionGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> q = shapeOf(getQ());
  int64_t heads = static_cast<int64_t>(getHeads());
  // C1, C3
  checkAttention(check, getQ(), getK(), getV(), getCacheK(), getCacheV(),
                 getCount(), getPositions(), heads);
  if (!check.ok())
    return failure();
  int64_t width = shapeOf(getV())[2] * q[2] / shapeOf(getK())[2];
  check.shape("out", getOut(), {q[0], q[1], width})
      .element("out", getOut(), elementOf(getQ()))
      .shape("dout", getDout(), {q[0], q[1], width})
      .element("dout", getDout(), elementOf(getQ()));
  // C2
  const bool softmax = getFunction() == AttentionFunction::Softmax;
  check.that(bool(getOut()) == softmax && bool(getLse()) == softmax, "saved",
             softmax ? "out and lse" : "nothing with laplace",
             getOut() ? "out and lse" : "nothing");
  check.shape("lse", getLse(), {q[0], q[1], heads})
      .element("lse", getLse(), computeTypeOf(getQ()));
  // C1
  return check.results(*this, {"dq", "dk", "dv"});
}

LogicalResult SumHeadGroupsOp::verify() {
  Check check(*this);
  // C1
  check.divides("heads", getHeads(), "width", shapeOf(getX())[2]);
  // C2
  check.divides("groups", getGroups(), "heads", getHeads());
  return check.results(*this, {"result"});
}

LogicalResult GateGradOp::verify() {
  Check check(*this);
  // C1
  check.type("dy", getDy(), getValue()).type("gate", getGate(), getValue());
  return check.results(*this, {"dvalue", "dgate"});
}

LogicalResult TwoHopResidualGradOp::verify() {
  Check check(*this);
  // C1
  check.type("dy", getDy(), getBranch());
  // C2
  check.shape("alpha", getAlpha(), {shapeOf(getBranch())[2]})
      .element("alpha", getAlpha(), computeTypeOf(getBranch()));
  return check.results(*this, {"dbranch", "dalpha"});
}

LogicalResult CrossEntropyGradOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> positions = shapeOf(getLogits()).drop_back();
  Type element = elementOf(getLogits());
  // C1
  check.shape("dnll", getDnll(), positions)
      .element("dnll", getDnll(), element)
      .shape("targets", getTargets(), positions)
      .shape("lse", getLse(), positions)
      .element("lse", getLse(), element);
  // C2
  check.that(!getRank() == !getVocabulary(), "rank",
             "rank and vocabulary both given or both absent", "one of them");
  if (getVocabulary())
    check.positive("vocabulary", *getVocabulary());
  // C1
  return check.results(*this, {"dlogits"}, /*rounding=*/true);
}

LogicalResult MeanGradOp::verify() {
  // C1, C2
  return Check(*this)
      .element("dx", getDx(), elementOf(getDy()))
      .positive("parts", getParts());
}
