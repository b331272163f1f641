// Vector-Jacobian products of the forward ops. Each builds the gradient op that
// MegalodonGradientOps.td pairs with its forward op and hands out its results.
#include "dialect/Megalodon/Mega.h"
#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::megalodon;

using Forward = llvm::function_ref<Value(Value)>;

/// A cotangent that may be absent, made explicit. Only ops whose other results
/// carry cotangents ask for it.
static Value orZeros(OpBuilder &builder, Location loc, Value cotangent,
                     Type type) {
  if (cotangent)
    return cotangent;
  return arith::ConstantOp::create(builder, loc,
                                   cast<TypedAttr>(builder.getZeroAttr(type)));
}

/// The forward value of an optional operand.
static Value forwardOrNone(Forward forward, Value value) {
  return value ? forward(value) : Value();
}

static Type typeOrNone(Value value) { return value ? value.getType() : Type(); }

void EmbeddingOp::buildVectorJacobianProduct(OpBuilder &builder,
                                             ValueRange results,
                                             Forward forward,
                                             const llvm::SmallBitVector &wanted,
                                             MutableArrayRef<Value> operands) {
  if (results[0] && wanted[1])
    operands[1] = EmbeddingGradOp::create(
        builder, getLoc(), getWeight().getType(), forward(getTokens()),
        results[0], forwardOrNone(forward, getRank()), getScaleAttr());
}

void LinearOp::buildVectorJacobianProduct(OpBuilder &builder,
                                          ValueRange results, Forward forward,
                                          const llvm::SmallBitVector &wanted,
                                          MutableArrayRef<Value> operands) {
  Value dy = results[0];
  if (!dy)
    return;
  if (wanted[0])
    operands[0] = LinearGradInputOp::create(builder, getLoc(), getX().getType(),
                                            dy, forward(getWeight()));
  if (wanted[1])
    operands[1] = LinearGradWeightOp::create(
        builder, getLoc(), getWeight().getType(), dy, forward(getX()));
  if (getBias() && wanted[2])
    operands[2] =
        LinearGradBiasOp::create(builder, getLoc(), getBias().getType(), dy);
}

void TimestepNormOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  assert(!results[4] && !results[5] && "residuals have no cotangent");
  Value dmean = results[2], dvar = results[3];
  if (!results[0] && !dmean && !dvar)
    return;
  Value dy = orZeros(builder, getLoc(), results[0], getResult().getType());
  if (dmean || dvar) { // the gradient op takes both or none
    dmean = orZeros(builder, getLoc(), dmean, getNewMean().getType());
    dvar = orZeros(builder, getLoc(), dvar, getNewVar().getType());
  }
  auto grad = TimestepNormGradOp::create(
      builder, getLoc(), getX().getType(), getWeight().getType(),
      getBias().getType(), getMean().getType(), getVar().getType(), dy, dmean,
      dvar, forward(getX()), forward(getWeight()), forward(getCount()),
      forward(getRunningMean()), forward(getRunningRstd()),
      forwardOrNone(forward, getPositions()));
  operands[0] = grad.getDx();
  operands[1] = grad.getDweight();
  operands[2] = grad.getDbias();
  operands[4] = grad.getDmean();
  operands[5] = grad.getDvar();
}

void CemaCoefficientsOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  if (!results[0] && !results[1] && !results[2])
    return;
  auto grad = CemaCoefficientsGradOp::create(
      builder, getLoc(), getAlpha().getType(), getDelta().getType(),
      getTheta().getType(), getGamma().getType(),
      orZeros(builder, getLoc(), results[0], getP().getType()),
      orZeros(builder, getLoc(), results[1], getQ().getType()),
      orZeros(builder, getLoc(), results[2], getG().getType()),
      forward(getAlpha()), forward(getDelta()), forward(getTheta()));
  for (auto [slot, cotangent] : llvm::zip_equal(operands, grad.getResults()))
    slot = cotangent;
}

void CemaOp::buildVectorJacobianProduct(OpBuilder &builder, ValueRange results,
                                        Forward forward,
                                        const llvm::SmallBitVector &wanted,
                                        MutableArrayRef<Value> operands) {
  assert(!results[2] && "residuals have no cotangent");
  if (!results[0] && !results[1])
    return;
  auto grad = CemaGradOp::create(
      builder, getLoc(), getX().getType(), getP().getType(), getQ().getType(),
      getG().getType(), getOmega().getType(), getState().getType(),
      orZeros(builder, getLoc(), results[0], getResult().getType()), results[1],
      forward(getX()), forward(getP()), forward(getQ()), forward(getG()),
      forward(getOmega()), forward(getBlockStates()),
      forwardOrNone(forward, getPositions()), getBlockAttr());
  // Positions, the last operand, have no gradient.
  for (auto [cotangent, slot] : llvm::zip_first(grad.getResults(), operands))
    slot = cotangent;
}

void RmsNormOp::buildVectorJacobianProduct(OpBuilder &builder,
                                           ValueRange results, Forward forward,
                                           const llvm::SmallBitVector &wanted,
                                           MutableArrayRef<Value> operands) {
  if (!results[0])
    return;
  auto grad = RmsNormGradOp::create(
      builder, getLoc(), getX().getType(), typeOrNone(getWeight()), results[0],
      forward(getX()), forwardOrNone(forward, getWeight()), /*sums=*/Value(),
      getEpsAttr(), /*width=*/IntegerAttr(), getPlainAttr());
  operands[0] = grad.getDx();
  if (getWeight())
    operands[1] = grad.getDweight();
}

void LayerNormOp::buildVectorJacobianProduct(OpBuilder &builder,
                                             ValueRange results,
                                             Forward forward,
                                             const llvm::SmallBitVector &wanted,
                                             MutableArrayRef<Value> operands) {
  if (!results[0])
    return;
  auto grad = LayerNormGradOp::create(
      builder, getLoc(), results[0], forward(getX()),
      forwardOrNone(forward, getWeight()), /*sums=*/Value(), getEpsAttr(),
      /*width=*/IntegerAttr());
  operands[0] = grad.getDx();
  if (getWeight()) {
    operands[1] = grad.getDweight();
    operands[2] = grad.getDbias();
  }
}

void NormalizedQKOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  if (!results[0] && !results[1])
    return;
  auto grad = NormalizedQKGradOp::create(
      builder, getLoc(), getZ().getType(), getGamma().getType(),
      getBeta().getType(),
      orZeros(builder, getLoc(), results[0], getQ().getType()),
      orZeros(builder, getLoc(), results[1], getK().getType()), forward(getZ()),
      forward(getGamma()), getHeadsAttr(), getEpsAttr());
  for (auto [slot, cotangent] : llvm::zip_equal(operands, grad.getResults()))
    slot = cotangent;
}

void RotaryOp::buildVectorJacobianProduct(OpBuilder &builder,
                                          ValueRange results, Forward forward,
                                          const llvm::SmallBitVector &wanted,
                                          MutableArrayRef<Value> operands) {
  // A rotation's transpose is the rotation by the opposite angle; a scaled
  // one's keeps its scale.
  if (results[0] && wanted[0])
    operands[0] = RotaryOp::create(
        builder, getLoc(), getX().getType(), results[0], forward(getCount()),
        forwardOrNone(forward, getPositions()), getHeadsAttr(), getBaseAttr(),
        getChunkAttr(), getInverse() ? UnitAttr() : builder.getUnitAttr(),
        getScaleAttr());
}

void ChunkAttentionOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  if (!results[0])
    return;
  const bool saves = static_cast<bool>(getLse());
  assert((!saves || !results[1]) && "residuals have no cotangent");
  auto grad = ChunkAttentionGradOp::create(
      builder, getLoc(), getQ().getType(), getQ().getType(),
      getResult().getType(), results[0], forward(getQ()), forward(getK()),
      forward(getV()), forward(getCacheK()), forward(getCacheV()),
      forward(getCount()), saves ? forward(getResult()) : Value(),
      saves ? forward(getLse()) : Value(),
      forwardOrNone(forward, getPositions()), getHeadsAttr(),
      getFunctionAttr());
  operands[0] = grad.getDq();
  // Each query head has its part of the gradient of grouped keys and values.
  int64_t width = cast<RankedTensorType>(getQ().getType()).getDimSize(2),
          groups = cast<RankedTensorType>(getK().getType()).getDimSize(2) *
                   static_cast<int64_t>(getHeads()) / width;
  auto grouped = [&](Value ofHeads) -> Value {
    if (groups == static_cast<int64_t>(getHeads()))
      return ofHeads;
    return SumHeadGroupsOp::create(builder, getLoc(), ofHeads, getHeadsAttr(),
                                   builder.getI64IntegerAttr(groups));
  };
  operands[1] = grouped(grad.getDk());
  operands[2] = grouped(grad.getDv());
}

void CacheAppendOp::buildVectorJacobianProduct(OpBuilder &, ValueRange, Forward,
                                               const llvm::SmallBitVector &,
                                               MutableArrayRef<Value>) {
  // The cache is detached.
}

void AdvanceCountOp::buildVectorJacobianProduct(OpBuilder &, ValueRange,
                                                Forward,
                                                const llvm::SmallBitVector &,
                                                MutableArrayRef<Value>) {
  // A number of tokens has no gradient.
}

void DocumentPositionsOp::buildVectorJacobianProduct(
    OpBuilder &, ValueRange, Forward, const llvm::SmallBitVector &,
    MutableArrayRef<Value>) {
  // Nor has a position.
}

void SiluOp::buildVectorJacobianProduct(OpBuilder &builder, ValueRange results,
                                        Forward forward,
                                        const llvm::SmallBitVector &wanted,
                                        MutableArrayRef<Value> operands) {
  if (results[0])
    operands[0] =
        SiluGradOp::create(builder, getLoc(), results[0], forward(getX()));
}

void GateOp::buildVectorJacobianProduct(OpBuilder &builder, ValueRange results,
                                        Forward forward,
                                        const llvm::SmallBitVector &wanted,
                                        MutableArrayRef<Value> operands) {
  if (!results[0])
    return;
  auto grad = GateGradOp::create(builder, getLoc(), getValue().getType(),
                                 getGate().getType(), results[0],
                                 forward(getValue()), forward(getGate()));
  operands[0] = grad.getDvalue();
  operands[1] = grad.getDgate();
}

void AddOp::buildVectorJacobianProduct(OpBuilder &, ValueRange results, Forward,
                                       const llvm::SmallBitVector &,
                                       MutableArrayRef<Value> operands) {
  for (Value &slot : operands)
    slot = results[0];
}

void TwoHopResidualOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  Value dy = results[0];
  operands[0] = dy;
  if (!getAlpha()) {
    operands[1] = dy;
    return;
  }
  if (!dy)
    return;
  auto grad = TwoHopResidualGradOp::create(
      builder, getLoc(), getBranch().getType(), getAlpha().getType(), dy,
      forward(getBranch()), forward(getAlpha()));
  operands[1] = grad.getDbranch();
  operands[2] = grad.getDalpha();
}

void EmaCoefficientsOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  if (!results[0] && !results[1] && !results[2])
    return;
  auto grad = EmaCoefficientsGradOp::create(
      builder, getLoc(), getAlpha().getType(), getDelta().getType(),
      getBeta().getType(), getGamma().getType(),
      orZeros(builder, getLoc(), results[0], getP().getType()),
      orZeros(builder, getLoc(), results[1], getQ().getType()),
      orZeros(builder, getLoc(), results[2], getG().getType()),
      forward(getAlpha()), forward(getDelta()), forward(getBeta()));
  for (auto [slot, cotangent] : llvm::zip_equal(operands, grad.getResults()))
    slot = cotangent;
}

void MegaQKOp::buildVectorJacobianProduct(OpBuilder &builder,
                                          ValueRange results, Forward forward,
                                          const llvm::SmallBitVector &wanted,
                                          MutableArrayRef<Value> operands) {
  if (!results[0] && !results[1])
    return;
  auto grad = MegaQKGradOp::create(
      builder, getLoc(), getZ().getType(), getGamma().getType(),
      getBeta().getType(), getRelative().getType(),
      orZeros(builder, getLoc(), results[0], getQ().getType()),
      orZeros(builder, getLoc(), results[1], getK().getType()), forward(getZ()),
      forward(getGamma()), forward(getCount()),
      forwardOrNone(forward, getPositions()), getBaseAttr(), getChunkAttr(),
      getPerKeyAttr());
  // Not of count and positions.
  for (auto [slot, cotangent] :
       llvm::zip_equal(operands.take_front(4), grad.getResults()))
    slot = cotangent;
}

void UpdateGateOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  if (!results[0])
    return;
  auto grad = UpdateGateGradOp::create(
      builder, getLoc(), getX().getType(), getCandidate().getType(),
      getGate().getType(), results[0], forward(getX()), forward(getCandidate()),
      forward(getGate()));
  for (auto [slot, cotangent] : llvm::zip_equal(operands, grad.getResults()))
    slot = cotangent;
}

void CrossEntropyOp::buildVectorJacobianProduct(
    OpBuilder &builder, ValueRange results, Forward forward,
    const llvm::SmallBitVector &wanted, MutableArrayRef<Value> operands) {
  assert(!results[1] && "residuals have no cotangent");
  if (results[0] && wanted[0])
    operands[0] = CrossEntropyGradOp::create(
        builder, getLoc(), getLogits().getType(), results[0],
        forward(getLogits()), forward(getTargets()), forward(getLse()),
        /*rank=*/Value(), /*vocabulary=*/IntegerAttr());
}

void MeanOp::buildVectorJacobianProduct(OpBuilder &builder, ValueRange results,
                                        Forward forward,
                                        const llvm::SmallBitVector &wanted,
                                        MutableArrayRef<Value> operands) {
  if (results[0] && wanted[0])
    operands[0] = MeanGradOp::create(builder, getLoc(), getX().getType(),
                                     results[0], getPartsAttr());
}
