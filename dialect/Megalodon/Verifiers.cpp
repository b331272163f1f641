// Verifiers of the megalodon dialect: the constraints are numbered as in the
// op's description. Ranks and kinds of elements are checked by the operand
// types; shapes of results are written once, in Inference.cpp, and compared
// here.
#include "dialect/Megalodon/Mega.h"
#include "llvm/ADT/SmallString.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

ArrayRef<int64_t> shapeOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape();
}

Type elementOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getElementType();
}

/// The type in which the elements are computed: F, of a value of type A or F.
Type computeTypeOf(Value value) { return computeType(elementOf(value)); }

/// A chain of checks of one op. The first that fails reports; later ones are
/// skipped. Absent optional values pass.
class Check {
public:
  explicit Check(Operation *op) : op(op) {}

  Check &shape(StringRef name, Value value, ArrayRef<int64_t> expected) {
    if (passed && value && shapeOf(value) != expected)
      report(name) << "expected [" << expected << "], got [" << shapeOf(value)
                   << "]";
    return *this;
  }

  Check &element(StringRef name, Value value, Type expected) {
    if (passed && value && elementOf(value) != expected)
      report(name) << "expected elements of " << expected << ", got "
                   << elementOf(value);
    return *this;
  }

  /// Elements of type A or F, F being `expected`.
  Check &activation(StringRef name, Value value, Type expected) {
    if (passed && value && computeTypeOf(value) != expected)
      report(name) << "expected elements of " << expected
                   << (expected.isF32() ? " or bf16" : "") << ", got "
                   << elementOf(value);
    return *this;
  }

  Check &type(StringRef name, Value value, Value like) {
    return shape(name, value, shapeOf(like))
        .element(name, value, elementOf(like));
  }

  Check &positive(StringRef name, int64_t value) {
    if (passed && value <= 0)
      report(name) << "expected a positive number, got " << value;
    return *this;
  }

  Check &positive(StringRef name, const APFloat &value) {
    if (passed && !(value.convertToDouble() > 0))
      report(name) << "expected a positive number, got "
                   << value.convertToDouble();
    return *this;
  }

  /// `divisor`, named `name`, divides `extent`.
  Check &divides(StringRef name, int64_t divisor, StringRef extentName,
                 int64_t extent) {
    if (passed && (divisor <= 0 || extent % divisor != 0))
      report(name) << "expected a divisor of " << extentName << " " << extent
                   << ", got " << divisor;
    return *this;
  }

  /// A condition of its own words.
  Check &that(bool holds, StringRef name, const Twine &expected,
              const Twine &got) {
    if (passed && !holds)
      report(name) << "expected " << expected << ", got " << got;
    return *this;
  }

  /// The results are those that follow from the operands; with `rounding` their
  /// elements may be of either type A or F.
  template <typename OpT>
  LogicalResult results(OpT typedOp, ArrayRef<StringRef> names,
                        bool rounding = false) {
    if (!passed)
      return failure();
    SmallVector<Type> inferred;
    if (failed(OpT::inferReturnTypes(op->getContext(), op->getLoc(),
                                     typename OpT::Adaptor(typedOp), inferred)))
      return failure();
    if (inferred.size() != op->getNumResults())
      return op->emitOpError() << "expected " << inferred.size()
                               << " results, got " << op->getNumResults();
    for (auto [name, type, result] :
         llvm::zip(names, inferred, op->getResults())) {
      shape(name, result, cast<RankedTensorType>(type).getShape());
      Type expected = cast<RankedTensorType>(type).getElementType();
      if (rounding)
        activation(name, result, computeType(expected));
      else
        element(name, result, expected);
    }
    return *this;
  }

  bool ok() const { return passed; }
  operator LogicalResult() const { return success(passed); }

private:
  InFlightDiagnostic report(StringRef name) {
    passed = false;
    return op->emitOpError() << name << ": ";
  }

  Operation *op;
  bool passed = true;
};

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace

//===-- Forward -----------------------------------------------------------===//

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

/// What cema_coefficients and its gradient ask of the logits.
static void checkLogits(Check &check, Value alpha, Value delta, Value theta,
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

/// A plain gain has nothing to be where there is no weight.
static void checkPlain(Check &check, bool plain, Value weight) {
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

/// What chunk_attention and its gradient ask of q, k, v and the caches. Keys
/// and values have as many heads as k's width holds, which `heads` is a
/// multiple of.
static void checkAttention(Check &check, Value q, Value k, Value v,
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

//===-- MEGA --------------------------------------------------------------===//

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

//===-- Backward ----------------------------------------------------------===//

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

//===-- Optimizer ---------------------------------------------------------===//

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

//===-- Parallel ----------------------------------------------------------===//

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

//===-- Layouts -----------------------------------------------------------===//

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
