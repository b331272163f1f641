// Verifiers of MEGALODON's and LLaMA's forward ops.
#include "dialect/Megalodon/Verifiers/Check.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::verifiers;

LogicalResult EmbeddingOp::verify() {
  // C1, C2
  Check check(*this);
  if (elementOf(getWeight()).isBF16())
    check.element("result", getResult(), elementOf(getWeight()));
  return check.results(*this, {"result"}, /*rounding=*/true);
}

LogicalResult LinearOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> weight = shapeOf(getWeight());
  // C1
  check.that(shapeOf(getX()).back() == weight[1], "x",
             "a last dimension of " + Twine(weight[1]),
             Twine(shapeOf(getX()).back()));
  // C3
  check.shape("bias", getBias(), {weight[0]});
  // C4
  check.activation("weight", getWeight(), computeTypeOf(getX()))
      .element("bias", getBias(), computeTypeOf(getX()));
  // C2, C4
  return check.results(*this, {"result"}, /*rounding=*/true);
}

LogicalResult TimestepNormOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX());
  int64_t groups = shapeOf(getMean())[1];
  Type element = computeTypeOf(getX());
  // C2
  check.shape("weight", getWeight(), {x[2]}).shape("bias", getBias(), {x[2]});
  // C3
  check.shape("count", getCount(), {x[0]})
      .shape("mean", getMean(), {x[0], groups})
      .shape("var", getVar(), {x[0], groups});
  // C4
  check.divides("groups", groups, "channels", x[2])
      .that(groups < x[2], "groups", "less than " + Twine(x[2]) + " channels",
            Twine(groups));
  // C6
  check.positive("eps", getEps());
  // C7
  check.element("weight", getWeight(), element)
      .element("bias", getBias(), element)
      .element("mean", getMean(), element)
      .element("var", getVar(), element);
  // C8
  check.shape("positions", getPositions(), {x[0], x[1]});
  // C1, C3, C5, C7
  return check.results(*this, {"result", "new_count", "new_mean", "new_var",
                               "running_mean", "running_rstd"});
}

void verifiers::checkLogits(Check &check, Value alpha, Value delta, Value theta,
                            int64_t channels, int64_t states) {
  check.shape("alpha", alpha, {channels, states, 1})
      .shape("delta", delta, {channels, states, 1})
      .shape("theta", theta, {channels, 1, 1});
}

LogicalResult CemaCoefficientsOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> gamma = shapeOf(getGamma());
  Type element = elementOf(getAlpha());
  // C1
  check.that(gamma.size() == 3, "gamma", "rank 3", Twine(gamma.size()));
  if (!check.ok())
    return failure();
  check.shape("gamma", getGamma(), {gamma[0], gamma[1], 2});
  checkLogits(check, getAlpha(), getDelta(), getTheta(), gamma[0], gamma[1]);
  // C2
  check.element("delta", getDelta(), element)
      .element("theta", getTheta(), element)
      .element("gamma", getGamma(), element);
  // C1
  return check.results(*this, {"p", "q", "g"});
}

LogicalResult CemaOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX());
  int64_t states = shapeOf(getP())[1];
  Type element = computeTypeOf(getX());
  // C2
  check.shape("p", getP(), {x[2], states})
      .shape("q", getQ(), {x[2], states, 2})
      .shape("g", getG(), {x[2], states, 2});
  // C3
  check.shape("omega", getOmega(), {x[2], 1});
  // C4
  check.shape("state", getState(), {x[0], x[2], states, 2});
  // C5
  check.positive("block", getBlock());
  // C6
  check.element("omega", getOmega(), element)
      .element("state", getState(), element);
  // C7
  check.shape("positions", getPositions(), {x[0], x[1]});
  // C1, C4, C5, C6
  return check.results(*this, {"result", "new_state", "block_states"});
}

void verifiers::checkPlain(Check &check, bool plain, Value weight) {
  check.that(!plain || weight, "plain", "a weight", "none");
}

LogicalResult RmsNormOp::verify() {
  Check check(*this);
  // C2
  check.shape("weight", getWeight(), {shapeOf(getX())[2]})
      .element("weight", getWeight(), computeTypeOf(getX()));
  // C3
  check.positive("eps", getEps());
  // C4
  checkPlain(check, getPlain(), getWeight());
  // C1
  return check.results(*this, {"result"});
}

LogicalResult LayerNormOp::verify() {
  Check check(*this);
  int64_t channels = shapeOf(getX())[2];
  Type element = computeTypeOf(getX());
  // C2
  check
      .that(!getWeight() == !getBias(), "affine",
            "weight and bias both given or both absent", "one of them")
      .shape("weight", getWeight(), {channels})
      .element("weight", getWeight(), element)
      .shape("bias", getBias(), {channels})
      .element("bias", getBias(), element);
  // C3
  check.positive("eps", getEps());
  // C1
  return check.results(*this, {"result"});
}

LogicalResult NormalizedQKOp::verify() {
  Check check(*this);
  int64_t width = shapeOf(getZ())[2];
  // C2
  check.divides("heads", getHeads(), "width", width);
  // C3
  check.shape("gamma", getGamma(), {2, width})
      .element("gamma", getGamma(), computeTypeOf(getZ()))
      .shape("beta", getBeta(), {2, width})
      .element("beta", getBeta(), computeTypeOf(getZ()));
  // C4
  check.positive("eps", getEps());
  // C1
  return check.results(*this, {"q", "k"});
}

LogicalResult RotaryOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> x = shapeOf(getX());
  // C2
  check.divides("heads", getHeads(), "width", x[2]);
  if (!check.ok())
    return failure();
  check.that(x[2] / getHeads() % 2 == 0, "heads", "an even width a head",
             Twine(x[2] / getHeads()));
  // C3
  check.shape("count", getCount(), {x[0]});
  // C5
  check.shape("positions", getPositions(), {x[0], x[1]});
  // C4
  check.positive("base", getBase())
      .positive("chunk", getChunk())
      .positive("scale", getScale());
  // C1
  return check.results(*this, {"result"});
}

void verifiers::checkAttention(Check &check, Value q, Value k, Value v,
                               Value cacheK, Value cacheV, Value count,
                               Value positions, int64_t heads) {
  ArrayRef<int64_t> queries = shapeOf(q), keys = shapeOf(k),
                    values = shapeOf(v);
  Type element = elementOf(q);
  // C3
  check.divides("heads", heads, "query width", queries[2]);
  if (!check.ok())
    return;
  // C1
  int64_t head = queries[2] / heads;
  check.shape("k", k, {queries[0], queries[1], keys[2]})
      .element("k", k, element)
      .divides("the query width of a head", head, "key width", keys[2]);
  if (!check.ok())
    return;
  int64_t groups = keys[2] / head;
  check.divides("the number of key heads", groups, "heads", heads);
  // C2, C3
  check.shape("v", v, {queries[0], queries[1], values[2]})
      .element("v", v, element)
      .divides("the number of key heads", groups, "value width", values[2]);
  // C4, C6
  int64_t capacity = shapeOf(cacheK)[1];
  check.positive("capacity of cache_k", capacity)
      .shape("cache_k", cacheK, {queries[0], capacity, keys[2]})
      .element("cache_k", cacheK, element)
      .shape("cache_v", cacheV, {queries[0], capacity, values[2]})
      .element("cache_v", cacheV, element)
      .shape("count", count, {queries[0]})
      .shape("positions", positions, {queries[0], queries[1]});
}

LogicalResult ChunkAttentionOp::verify() {
  Check check(*this);
  // C1, C2, C3, C4, C6
  checkAttention(check, getQ(), getK(), getV(), getCacheK(), getCacheV(),
                 getCount(), getPositions(), static_cast<int64_t>(getHeads()));
  // C2, C5
  return check.results(*this, {"result", "lse"});
}

LogicalResult AdvanceCountOp::verify() {
  Check check(*this);
  // C1
  ArrayRef<int64_t> x = shapeOf(getX());
  check.shape("count", getCount(), {x[0]});
  // C2
  check.shape("positions", getPositions(), {x[0], x[1]});
  return check.results(*this, {"result"});
}

LogicalResult DocumentPositionsOp::verify() {
  Check check(*this);
  // C2
  check.shape("count", getCount(), {shapeOf(getResets())[0]});
  // C1
  return check.results(*this, {"positions"});
}

LogicalResult CacheAppendOp::verify() {
  Check check(*this);
  ArrayRef<int64_t> cache = shapeOf(getCache());
  // C2
  check.shape("rows", getRows(), {cache[0], shapeOf(getRows())[1], cache[2]})
      .element("rows", getRows(), elementOf(getCache()));
  // C3
  check.shape("count", getCount(), {cache[0]})
      .shape("positions", getPositions(), {cache[0], shapeOf(getRows())[1]});
  // C1
  return check.results(*this, {"result"});
}

LogicalResult TwoHopResidualOp::verify() {
  Check check(*this);
  // C1
  check.type("branch", getBranch(), getX());
  // C2
  check.shape("alpha", getAlpha(), {shapeOf(getX())[2]})
      .element("alpha", getAlpha(), computeTypeOf(getX()));
  // C1
  return check.results(*this, {"result"});
}

LogicalResult LastTokenOp::verify() {
  // C1
  return Check(*this).results(*this, {"result"});
}

LogicalResult CrossEntropyOp::verify() {
  Check check(*this);
  // C1
  check.shape("targets", getTargets(), shapeOf(getLogits()).drop_back());
  // C1, C2
  return check.results(*this, {"nll", "lse"});
}

LogicalResult MeanOp::verify() {
  // C2, C1
  return Check(*this).positive("parts", getParts()).results(*this, {"result"});
}

LogicalResult LossSumOp::verify() {
  Check check(*this);
  // C1
  check.shape("targets", getTargets(), shapeOf(getNll()));
  return check.results(*this, {"sum", "count"});
}
