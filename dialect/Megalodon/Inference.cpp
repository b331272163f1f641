// Shape inference of the megalodon dialect: result types as they follow from
// the operands. The operands are taken to satisfy the op's constraints.
#include "dialect/Megalodon/Mega.h"

using namespace mlir;
using namespace mlir::megalodon;

namespace {

using Types = SmallVectorImpl<Type>;

ArrayRef<int64_t> shapeOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape();
}

/// A tensor of `shape` with the elements of `like`.
Type tensor(ArrayRef<int64_t> shape, Value like) {
  return RankedTensorType::get(
      shape, cast<RankedTensorType>(like.getType()).getElementType());
}

/// A tensor of `shape` of the compute type of `like`'s elements.
Type computed(ArrayRef<int64_t> shape, Value like) {
  return RankedTensorType::get(
      shape,
      computeType(cast<RankedTensorType>(like.getType()).getElementType()));
}

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

} // namespace

// The signature of every rule below; `in` holds operands and attributes.
#define INFER(OP)                                                              \
  LogicalResult OP::inferReturnTypes(MLIRContext *context,                     \
                                     std::optional<Location> location,         \
                                     Adaptor in, Types &types)

//===-- Forward -----------------------------------------------------------===//

INFER(EmbeddingOp) {
  SmallVector<int64_t> shape(shapeOf(in.getTokens()));
  shape.push_back(shapeOf(in.getWeight())[1]);
  types.push_back(tensor(shape, in.getWeight()));
  return success();
}

INFER(LinearOp) {
  SmallVector<int64_t> shape(shapeOf(in.getX()));
  shape.back() = shapeOf(in.getWeight())[0];
  types.push_back(tensor(shape, in.getX()));
  return success();
}

INFER(TimestepNormOp) {
  ArrayRef<int64_t> x = shapeOf(in.getX());
  Type running = tensor({x[0], x[1], shapeOf(in.getMean())[1]}, in.getMean());
  types.append({in.getX().getType(), in.getCount().getType(),
                in.getMean().getType(), in.getMean().getType(), running,
                running});
  return success();
}

INFER(CemaCoefficientsOp) {
  ArrayRef<int64_t> gamma = shapeOf(in.getGamma());
  Type f64 = Float64Type::get(context);
  Type complex = RankedTensorType::get({gamma[0], gamma[1], 2}, f64);
  types.append(
      {RankedTensorType::get({gamma[0], gamma[1]}, f64), complex, complex});
  return success();
}

INFER(CemaOp) {
  ArrayRef<int64_t> x = shapeOf(in.getX()), state = shapeOf(in.getState());
  SmallVector<int64_t> blocks{
      ceilDiv(x[1], static_cast<int64_t>(in.getBlock()))};
  blocks.append(state.begin(), state.end());
  types.append({in.getX().getType(), in.getState().getType(),
                tensor(blocks, in.getState())});
  return success();
}

INFER(RmsNormOp) {
  types.push_back(in.getX().getType());
  return success();
}

INFER(LayerNormOp) {
  types.push_back(in.getX().getType());
  return success();
}

INFER(NormalizedQKOp) {
  types.append(2, in.getZ().getType());
  return success();
}

INFER(RotaryOp) {
  types.push_back(in.getX().getType());
  return success();
}

/// The width of v had it as many heads as q: v's width is to this as k's is to
/// q's.
static int64_t ungroupedWidth(Value q, Value k, Value v) {
  int64_t keys = shapeOf(k)[2];
  return keys > 0 ? shapeOf(v)[2] * shapeOf(q)[2] / keys : 0;
}

INFER(ChunkAttentionOp) {
  ArrayRef<int64_t> q = shapeOf(in.getQ());
  int64_t heads = static_cast<int64_t>(in.getHeads());
  types.append(
      {tensor({q[0], q[1], ungroupedWidth(in.getQ(), in.getK(), in.getV())},
              in.getV())});
  if (in.getFunction() == AttentionFunction::Softmax)
    types.push_back(computed({q[0], q[1], heads}, in.getQ()));
  return success();
}

INFER(AdvanceCountOp) {
  types.push_back(in.getCount().getType());
  return success();
}

INFER(DocumentPositionsOp) {
  types.push_back(RankedTensorType::get(shapeOf(in.getResets()),
                                        IntegerType::get(context, 64)));
  return success();
}

INFER(CacheAppendOp) {
  types.push_back(in.getCache().getType());
  return success();
}

INFER(TwoHopResidualOp) {
  types.push_back(in.getX().getType());
  return success();
}

INFER(LastTokenOp) {
  ArrayRef<int64_t> x = shapeOf(in.getX());
  types.push_back(tensor({x[0], x[2]}, in.getX()));
  return success();
}

INFER(CrossEntropyOp) {
  types.append(2, tensor(shapeOf(in.getLogits()).drop_back(), in.getLogits()));
  return success();
}

INFER(MeanOp) {
  types.push_back(tensor({}, in.getX()));
  return success();
}

INFER(LossSumOp) {
  types.append({tensor({}, in.getNll()),
                RankedTensorType::get({}, IntegerType::get(context, 64))});
  return success();
}

//===-- MEGA --------------------------------------------------------------===//

INFER(EmaCoefficientsOp) {
  ArrayRef<int64_t> gamma = shapeOf(in.getGamma());
  Type f64 = Float64Type::get(context);
  Type complex = RankedTensorType::get({gamma[0], gamma[1], 2}, f64);
  types.append({RankedTensorType::get(gamma, f64), complex, complex});
  return success();
}

INFER(MegaQKOp) {
  ArrayRef<int64_t> z = shapeOf(in.getZ());
  types.append(2, tensor({z[0], z[1], 2 * z[2]}, in.getZ()));
  return success();
}

INFER(EmaCoefficientsGradOp) {
  types.append({in.getAlpha().getType(), in.getDelta().getType(),
                in.getBeta().getType(),
                tensor(shapeOf(in.getDp()), in.getAlpha())});
  return success();
}

INFER(MegaQKGradOp) {
  types.push_back(in.getZ().getType());
  types.append(3, in.getGamma().getType());
  return success();
}

INFER(UpdateGateGradOp) {
  types.append(3, in.getX().getType());
  return success();
}

//===-- Backward ----------------------------------------------------------===//

INFER(LinearGradInputOp) {
  SmallVector<int64_t> shape(shapeOf(in.getDy()));
  shape.back() = shapeOf(in.getWeight())[1];
  types.push_back(tensor(shape, in.getDy()));
  return success();
}

INFER(LinearGradWeightOp) {
  types.push_back(computed(
      {shapeOf(in.getDy()).back(), shapeOf(in.getX()).back()}, in.getDy()));
  return success();
}

INFER(LinearGradBiasOp) {
  types.push_back(computed({shapeOf(in.getDy()).back()}, in.getDy()));
  return success();
}

INFER(TimestepNormGradOp) {
  Type statistics =
      tensor({shapeOf(in.getX())[0], shapeOf(in.getRunningMean())[2]},
             in.getRunningMean());
  types.append({in.getX().getType(), in.getWeight().getType(),
                in.getWeight().getType(), statistics, statistics});
  return success();
}

INFER(CemaCoefficientsGradOp) {
  types.append({in.getAlpha().getType(), in.getDelta().getType(),
                in.getTheta().getType(),
                tensor(shapeOf(in.getDg()), in.getAlpha())});
  return success();
}

INFER(CemaGradOp) {
  types.append(
      {in.getX().getType(), in.getP().getType(), in.getQ().getType(),
       in.getG().getType(), in.getOmega().getType(),
       tensor(shapeOf(in.getBlockStates()).drop_front(), in.getBlockStates())});
  return success();
}

INFER(RmsNormGradOp) {
  types.push_back(in.getX().getType());
  if (in.getWeight())
    types.push_back(in.getWeight().getType());
  return success();
}

INFER(LayerNormGradOp) {
  types.push_back(in.getX().getType());
  if (in.getWeight())
    types.append(2, in.getWeight().getType());
  return success();
}

INFER(NormalizedQKGradOp) {
  types.append(
      {in.getZ().getType(), in.getGamma().getType(), in.getGamma().getType()});
  return success();
}

INFER(ChunkAttentionGradOp) {
  types.append(
      {in.getQ().getType(), in.getQ().getType(), in.getDout().getType()});
  return success();
}

INFER(SumHeadGroupsOp) {
  SmallVector<int64_t> shape(shapeOf(in.getX()));
  // Of sizes that do not divide the verifier speaks.
  if (in.getHeads() > 0)
    shape.back() = shape.back() / static_cast<int64_t>(in.getHeads()) *
                   static_cast<int64_t>(in.getGroups());
  types.push_back(tensor(shape, in.getX()));
  return success();
}

INFER(GateGradOp) {
  types.append(2, in.getValue().getType());
  return success();
}

INFER(TwoHopResidualGradOp) {
  types.append({in.getBranch().getType(), in.getAlpha().getType()});
  return success();
}

INFER(CrossEntropyGradOp) {
  types.push_back(in.getLogits().getType());
  return success();
}

//===-- Optimizer ---------------------------------------------------------===//

INFER(GlobalNormOp) {
  if (in.getGradients().empty())
    return emitOptionalError(location, "expected at least one gradient, got "
                                       "none");
  types.push_back(tensor({}, in.getGradients().front()));
  return success();
}

INFER(ClipOp) {
  types.push_back(in.getNorm().getType());
  return success();
}

INFER(AdamWOp) {
  types.append(3, in.getParameter().getType());
  return success();
}

//===-- Parallel ----------------------------------------------------------===//

INFER(TimestepStatisticsOp) {
  types.push_back(computed(
      {shapeOf(in.getX())[0], 1, 2, static_cast<int64_t>(in.getGroups())},
      in.getX()));
  return success();
}

INFER(TimestepPrefixOp) {
  for (int state = 0; state < 2; ++state)
    types.append({in.getCount().getType(), in.getMean().getType(),
                  in.getVar().getType()});
  return success();
}

INFER(LocalCountOp) {
  types.push_back(in.getCount().getType());
  return success();
}

INFER(TimestepMomentsGradOp) {
  ArrayRef<int64_t> dmean = shapeOf(in.getDmean());
  types.push_back(tensor({dmean[0], 1, 2, dmean[1]}, in.getDmean()));
  return success();
}

INFER(TimestepSuffixGradOp) {
  ArrayRef<int64_t> shares = shapeOf(in.getShares());
  Type statistics = tensor({shares[0], shares[3]}, in.getShares());
  types.append({in.getX().getType(), statistics, statistics});
  return success();
}

INFER(CemaSummaryOp) {
  ArrayRef<int64_t> x = shapeOf(in.getX());
  types.push_back(
      computed({x[0], 1, x[2], shapeOf(in.getQ())[1], 2}, in.getX()));
  return success();
}

INFER(CemaGradSummaryOp) {
  ArrayRef<int64_t> dy = shapeOf(in.getDy());
  types.push_back(
      computed({dy[0], 1, dy[2], shapeOf(in.getQ())[1], 2}, in.getDy()));
  return success();
}

INFER(CemaPrefixOp) {
  types.append(2, in.getState().getType());
  return success();
}

INFER(CrossEntropySummaryOp) {
  ArrayRef<int64_t> logits = shapeOf(in.getLogits());
  types.push_back(tensor({logits[0], logits[1], 2}, in.getLogits()));
  return success();
}

INFER(CrossEntropyCombineOp) {
  types.append(
      2, tensor(shapeOf(in.getSummaries()).drop_back(), in.getSummaries()));
  return success();
}

/// `count` sums in f64 for every token of x.
static Type rowSums(Value x, int64_t count) {
  return RankedTensorType::get({shapeOf(x)[0], shapeOf(x)[1], count},
                               Float64Type::get(x.getContext()));
}

INFER(RmsNormGradSumsOp) {
  types.push_back(rowSums(in.getX(), 2));
  return success();
}

INFER(LayerNormGradSumsOp) {
  types.push_back(rowSums(in.getX(), 4));
  return success();
}

INFER(SumOfSquaresOp) {
  types.push_back(RankedTensorType::get({}, Float64Type::get(context)));
  return success();
}

#undef INFER

//===-- Compatibility -----------------------------------------------------===//

/// A result's type may carry an encoding, which says how ranks share the
/// tensor; what follows from the operands is the shape and the elements.
static bool sameShapesAndElements(TypeRange left, TypeRange right) {
  return llvm::equal(left, right, [](Type a, Type b) {
    auto x = cast<RankedTensorType>(a), y = cast<RankedTensorType>(b);
    return x.getShape() == y.getShape() &&
           x.getElementType() == y.getElementType();
  });
}

/// Of some ops the operands leave open in which of its two types (A or F of the
/// dialect's description) a result is wanted; the verifier asks more.
static bool sameShapesUpToRounding(TypeRange left, TypeRange right) {
  return llvm::equal(left, right, [](Type a, Type b) {
    auto x = cast<RankedTensorType>(a), y = cast<RankedTensorType>(b);
    return x.getShape() == y.getShape() &&
           computeType(x.getElementType()) == computeType(y.getElementType());
  });
}

#define ROUNDING(OP)                                                           \
  bool OP::isCompatibleReturnTypes(TypeRange left, TypeRange right) {          \
    return sameShapesUpToRounding(left, right);                                \
  }
ROUNDING(EmbeddingOp)
ROUNDING(LinearOp)
ROUNDING(LinearGradInputOp)
ROUNDING(CrossEntropyGradOp)
#undef ROUNDING

#define COMPATIBLE(OP)                                                         \
  bool OP::isCompatibleReturnTypes(TypeRange left, TypeRange right) {          \
    return sameShapesAndElements(left, right);                                 \
  }
COMPATIBLE(TimestepNormOp)
COMPATIBLE(CemaCoefficientsOp)
COMPATIBLE(CemaOp)
COMPATIBLE(RmsNormOp)
COMPATIBLE(LayerNormOp)
COMPATIBLE(NormalizedQKOp)
COMPATIBLE(RotaryOp)
COMPATIBLE(ChunkAttentionOp)
COMPATIBLE(CacheAppendOp)
COMPATIBLE(AdvanceCountOp)
COMPATIBLE(DocumentPositionsOp)
COMPATIBLE(TwoHopResidualOp)
COMPATIBLE(LastTokenOp)
COMPATIBLE(CrossEntropyOp)
COMPATIBLE(MeanOp)
COMPATIBLE(LossSumOp)
COMPATIBLE(EmaCoefficientsOp)
COMPATIBLE(MegaQKOp)
COMPATIBLE(EmaCoefficientsGradOp)
COMPATIBLE(MegaQKGradOp)
COMPATIBLE(UpdateGateGradOp)
COMPATIBLE(LinearGradWeightOp)
COMPATIBLE(LinearGradBiasOp)
COMPATIBLE(TimestepNormGradOp)
COMPATIBLE(CemaCoefficientsGradOp)
COMPATIBLE(CemaGradOp)
COMPATIBLE(RmsNormGradOp)
COMPATIBLE(LayerNormGradOp)
COMPATIBLE(NormalizedQKGradOp)
COMPATIBLE(ChunkAttentionGradOp)
COMPATIBLE(SumHeadGroupsOp)
COMPATIBLE(GateGradOp)
COMPATIBLE(TwoHopResidualGradOp)
COMPATIBLE(GlobalNormOp)
COMPATIBLE(ClipOp)
COMPATIBLE(AdamWOp)
COMPATIBLE(TimestepStatisticsOp)
COMPATIBLE(TimestepPrefixOp)
COMPATIBLE(LocalCountOp)
COMPATIBLE(TimestepMomentsGradOp)
COMPATIBLE(TimestepSuffixGradOp)
COMPATIBLE(CemaSummaryOp)
COMPATIBLE(CemaGradSummaryOp)
COMPATIBLE(CemaPrefixOp)
COMPATIBLE(CrossEntropySummaryOp)
COMPATIBLE(CrossEntropyCombineOp)
COMPATIBLE(RmsNormGradSumsOp)
COMPATIBLE(LayerNormGradSumsOp)
COMPATIBLE(SumOfSquaresOp)
#undef COMPATIBLE
