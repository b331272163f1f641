// From whole tensors with layouts to what one rank holds: types become local,
// changes of layout become collectives, and ops that depend on other ranks
// exchange what they need.
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "passes/Entry.h"
#include "passes/Partition/Layout.h"
#include "passes/Partition/Passes.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_PARTITIONOPS
#include "passes/Partition/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

class FunctionPartitioner {
public:
  FunctionPartitioner(func::FuncOp function, const MeshShape &mesh)
      : function(function), mesh(mesh), b(function.getContext()) {}

  LogicalResult run();

private:
  void describePorts();
  void makeLocal(Value value);
  LogicalResult rewrite(Operation &op);
  LogicalResult rewriteReshard(ReshardOp op);
  void rewriteConstant(arith::ConstantOp op);
  void rewriteNorm(GlobalNormOp op);
  void rewriteTimestepNorm(TimestepNormOp op);
  LogicalResult rewriteTimestepNormGrad(TimestepNormGradOp op);
  void rewriteCema(CemaOp op);
  void rewriteCemaGrad(CemaGradOp op);
  void rewriteCrossEntropy(CrossEntropyOp op);
  template <typename Sums, typename Grad> void rewriteRowNormGrad(Grad op);

  //===-- The shard dialect, in one place -------------------------------===//

  SmallVector<int16_t> grid(ArrayRef<Axis> axes) const {
    return llvm::map_to_vector(
        axes, [](Axis axis) { return static_cast<int16_t>(axis); });
  }
  RankedTensorType scaled(Value value, int64_t dimension, int64_t numerator,
                          int64_t denominator) const {
    auto type = cast<RankedTensorType>(value.getType());
    SmallVector<int64_t> shape(type.getShape());
    shape[dimension] = shape[dimension] * numerator / denominator;
    return RankedTensorType::get(shape, type.getElementType());
  }
  Value gather(Location loc, Value value, ArrayRef<Axis> axes,
               int64_t dimension) {
    return shard::AllGatherOp::create(
        b, loc, scaled(value, dimension, mesh.product(axes), 1), kMeshSymbol,
        grid(axes), value, llvm::APInt(64, dimension));
  }
  Value reduce(Location loc, Value value, ArrayRef<Axis> axes) {
    return shard::AllReduceOp::create(b, loc, value, kMeshSymbol, grid(axes),
                                      shard::ReductionKind::Sum);
  }
  Value reduceScatter(Location loc, Value value, ArrayRef<Axis> axes,
                      int64_t dimension) {
    return shard::ReduceScatterOp::create(
        b, loc, scaled(value, dimension, 1, mesh.product(axes)), kMeshSymbol,
        grid(axes), value, shard::ReductionKind::Sum,
        llvm::APInt(64, dimension));
  }
  Value slice(Location loc, Value value, ArrayRef<Axis> axes,
              int64_t dimension) {
    return shard::AllSliceOp::create(
        b, loc, scaled(value, dimension, 1, mesh.product(axes)), value,
        kMeshSymbol, grid(axes), dimension);
  }
  /// This rank's number along an axis.
  Value rank(Location loc, Axis axis) {
    return shard::ProcessMultiIndexOp::create(b, loc, kMeshSymbol, grid({axis}))
        .getResult()[0];
  }

  /// `to` stands where `from` stood, but for what `except` reads: later
  /// rewrites ask for its layout.
  void replace(Value from, Value to, Operation *except = nullptr) {
    Layout layout = layouts.at(from);
    RankedTensorType whole = wholeTypes.at(from);
    layouts[to] = std::move(layout);
    wholeTypes[to] = whole;
    from.replaceUsesWithIf(
        to, [&](OpOperand &use) { return use.getOwner() != except; });
  }

  bool isSplit(Value value, unsigned dimension) const {
    return !layouts.lookup(value).dimensions[dimension].empty();
  }
  int64_t parts(Value value, unsigned dimension) const {
    return mesh.product(layouts.lookup(value).dimensions[dimension]);
  }
  int64_t wholeExtent(Value value, unsigned dimension) const {
    return wholeTypes.lookup(value).getDimSize(dimension);
  }

  func::FuncOp function;
  MeshShape mesh;
  OpBuilder b;
  DenseMap<Value, Layout> layouts;
  DenseMap<Value, RankedTensorType> wholeTypes;
};

void FunctionPartitioner::makeLocal(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || !type.getEncoding())
    return;
  Layout layout = Layout::of(value);
  wholeTypes[value] = type.cloneWithEncoding({});
  value.setType(layout.localType(type, mesh));
  layouts[value] = std::move(layout);
}

/// Notes on an entry's signature what the outside must know: whole shapes, and
/// how they are split.
void FunctionPartitioner::describePorts() {
  auto describe = [&](DictionaryAttr attributes, Value value) {
    NamedAttrList list(attributes);
    RankedTensorType whole = wholeTypes.lookup(value);
    const Layout &layout = layouts.at(value);
    SmallVector<Attribute> splits;
    for (auto [dimension, axes] : llvm::enumerate(layout.dimensions)) {
      if (axes.empty())
        continue;
      SmallVector<int64_t> split{static_cast<int64_t>(dimension)};
      for (Axis axis : axes)
        split.push_back(static_cast<int64_t>(axis));
      splits.push_back(b.getDenseI64ArrayAttr(split));
    }
    if (!list.get(kShapeAttr))
      list.set(kShapeAttr, b.getDenseI64ArrayAttr(whole.getShape()));
    if (!splits.empty())
      list.set(kSplitsAttr, b.getArrayAttr(splits));
    return list.getDictionary(b.getContext());
  };
  for (BlockArgument argument : function.getArguments())
    function.setArgAttrs(
        argument.getArgNumber(),
        describe(function.getArgAttrDict(argument.getArgNumber()), argument));
  for (OpOperand &operand : function.front().getTerminator()->getOpOperands())
    function.setResultAttrs(
        operand.getOperandNumber(),
        describe(function.getResultAttrDict(operand.getOperandNumber()),
                 operand.get()));
  if (Value tokens = findArgument(function, "tokens")) {
    function->setAttr(kBatchAttr, b.getI64IntegerAttr(wholeExtent(tokens, 0)));
    function->setAttr(kLengthAttr, b.getI64IntegerAttr(wholeExtent(tokens, 1)));
  }
}

LogicalResult FunctionPartitioner::rewriteReshard(ReshardOp op) {
  const Layout from = layouts.at(op.getInput()), to = layouts.at(op);
  Location loc = op.getLoc();
  Value value = op.getInput();
  auto made = [&](Value next) {
    value = next;
    next.getDefiningOp()->setDiscardableAttrs(
        op->getDiscardableAttrDictionary());
  };
  // Of each dimension the first axes stay; the others are gathered, and what
  // stands in their place is split anew.
  auto kept = [&](size_t dimension) {
    ArrayRef<Axis> before = from.dimensions[dimension],
                   after = to.dimensions[dimension];
    size_t number = 0;
    while (number < before.size() && number < after.size() &&
           before[number] == after[number])
      ++number;
    return number;
  };
  auto added = [&](size_t dimension) {
    return ArrayRef<Axis>(to.dimensions[dimension]).drop_front(kept(dimension));
  };
  auto endsInSplit = [&](Axis axis) {
    return llvm::any_of(llvm::seq(to.dimensions.size()), [&](size_t dimension) {
      return llvm::is_contained(added(dimension), axis);
    });
  };
  Axes reduced, scattered;
  for (Axis axis : from.sum)
    if (!llvm::is_contained(to.sum, axis))
      (endsInSplit(axis) ? scattered : reduced).push_back(axis);
  for (size_t dimension = 0; dimension < to.dimensions.size(); ++dimension) {
    ArrayRef<Axis> gone =
        ArrayRef<Axis>(from.dimensions[dimension]).drop_front(kept(dimension));
    if (!gone.empty())
      made(gather(loc, value, gone, dimension));
  }
  if (!reduced.empty())
    made(reduce(loc, value, reduced));
  for (size_t dimension = 0; dimension < to.dimensions.size(); ++dimension) {
    Axes scatter, cut;
    for (Axis axis : added(dimension))
      (llvm::is_contained(scattered, axis) ? scatter : cut).push_back(axis);
    if (!scatter.empty() && !cut.empty())
      return op.emitOpError("splits dimension ")
             << dimension << " over sums and whole values at once, expected "
             << "two changes of layout";
    if (!scatter.empty())
      made(reduceScatter(loc, value, scatter, dimension));
    if (!cut.empty())
      made(slice(loc, value, cut, dimension));
  }
  if (value.getType() != op.getType())
    return op.emitOpError("has no collectives that lead to ")
           << op.getType() << ", only to " << value.getType();
  replace(op, value);
  op.erase();
  return success();
}

void FunctionPartitioner::rewriteConstant(arith::ConstantOp op) {
  auto elements = cast<SplatElementsAttr>(op.getValue());
  op.setValueAttr(
      SplatElementsAttr::get(cast<ShapedType>(op.getResult().getType()),
                             elements.getSplatValue<Attribute>()));
}

/// The sum of squares of each group of gradients that are split alike is summed
/// over the axes that split them; what is the same on several ranks so counts
/// once.
void FunctionPartitioner::rewriteNorm(GlobalNormOp op) {
  llvm::MapVector<uint32_t, SmallVector<Value>> groups;
  for (Value gradient : op.getGradients()) {
    uint32_t axes = 0;
    for (const Axes &dimension : layouts.at(gradient).dimensions)
      for (Axis axis : dimension)
        axes |= 1u << static_cast<uint32_t>(axis);
    groups[axes].push_back(gradient);
  }
  SmallVector<Value> sums;
  bool first = true;
  for (auto &[mask, gradients] : groups) {
    auto square = SumOfSquaresOp::create(b, op.getLoc(), gradients);
    if (std::exchange(first, false) && op->hasAttr(plan::kUpdateAttr))
      square->setAttr(plan::kUpdateAttr, b.getUnitAttr());
    Axes axes;
    for (Axis axis : {Axis::Data, Axis::Chunk, Axis::Tensor})
      if (mask & (1u << static_cast<uint32_t>(axis)))
        axes.push_back(axis);
    sums.push_back(axes.empty() ? square.getResult()
                                : reduce(op.getLoc(), square, axes));
  }
  auto norm = NormOfSquaresOp::create(b, op.getLoc(), op.getType(), sums);
  replace(op, norm.getResult());
  op.erase();
}

void FunctionPartitioner::rewriteTimestepNorm(TimestepNormOp op) {
  Location loc = op.getLoc();
  int64_t groups = cast<RankedTensorType>(op.getMean().getType()).getDimSize(1);
  Value index = rank(loc, Axis::Chunk);
  Value summary = TimestepStatisticsOp::create(b, loc, op.getX(),
                                               b.getI64IntegerAttr(groups));
  Value summaries = gather(loc, summary, {Axis::Chunk}, 1);
  auto prefix = TimestepPrefixOp::create(b, loc, summaries, op.getCount(),
                                         op.getMean(), op.getVar(), index);
  op.getCountMutable().assign(prefix.getLocalCount());
  op.getMeanMutable().assign(prefix.getLocalMean());
  op.getVarMutable().assign(prefix.getLocalVar());
  replace(op.getNewCount(), prefix.getNewCount());
  replace(op.getNewMean(), prefix.getNewMean());
  replace(op.getNewVar(), prefix.getNewVar());
}

LogicalResult
FunctionPartitioner::rewriteTimestepNormGrad(TimestepNormGradOp op) {
  if (op.getDnewMean())
    return op.emitOpError("takes cotangents of the end state, expected none on "
                          "several ranks along cp");
  Location loc = op.getLoc();
  Value index = rank(loc, Axis::Chunk);
  op.getCountMutable().assign(
      LocalCountOp::create(b, loc, op.getCount(), index));
  b.setInsertionPointAfter(op);
  auto share = TimestepMomentsGradOp::create(
      b, loc, op.getDmean(), op.getDvar(), op.getX(), op.getCount(),
      op.getRunningMean());
  Value shares = gather(loc, share, {Axis::Chunk}, 1);
  auto suffix =
      TimestepSuffixGradOp::create(b, loc, op.getDx(), op.getX(), shares,
                                   op.getCount(), op.getRunningMean(), index);
  replace(op.getDx(), suffix.getResult(), suffix);
  // Only the first rank knows the statistics in front of all tokens.
  auto sendFirst = [&](Value own, Value first) {
    if (!llvm::hasSingleElement(own.getUses()))
      replace(own, reduce(loc, first, {Axis::Chunk}), share);
  };
  sendFirst(op.getDmean(), suffix.getDmean());
  sendFirst(op.getDvar(), suffix.getDvar());
  return success();
}

void FunctionPartitioner::rewriteCema(CemaOp op) {
  Location loc = op.getLoc();
  Value index = rank(loc, Axis::Chunk);
  Value summary =
      CemaSummaryOp::create(b, loc, op.getX(), op.getP(), op.getQ());
  auto prefix =
      CemaPrefixOp::create(b, loc, gather(loc, summary, {Axis::Chunk}, 1),
                           op.getQ(), op.getState(), index, UnitAttr());
  op.getStateMutable().assign(prefix.getLocalState());
  replace(op.getNewState(), prefix.getNewState());
}

void FunctionPartitioner::rewriteCemaGrad(CemaGradOp op) {
  Location loc = op.getLoc();
  Value index = rank(loc, Axis::Chunk);
  Value summary =
      CemaGradSummaryOp::create(b, loc, op.getDy(), op.getQ(), op.getG());
  Value end = op.getDnewState();
  if (!end)
    end = arith::ConstantOp::create(
        b, loc, cast<TypedAttr>(b.getZeroAttr(op.getDstate().getType())));
  auto prefix =
      CemaPrefixOp::create(b, loc, gather(loc, summary, {Axis::Chunk}, 1),
                           op.getQ(), end, index, b.getUnitAttr());
  op.getDnewStateMutable().assign(prefix.getLocalState());
  replace(op.getDstate(), prefix.getNewState());
}

/// A rank has a slice of each row; the sums over whole rows are all that the
/// ranks exchange.
template <typename Sums, typename Grad>
void FunctionPartitioner::rewriteRowNormGrad(Grad op) {
  if (!isSplit(op.getX(), 2))
    return;
  Location loc = op.getLoc();
  Value sums;
  if constexpr (std::is_same_v<Sums, RmsNormGradSumsOp>)
    sums = Sums::create(b, loc, op.getDy(), op.getX(), op.getWeight(),
                        op.getPlain());
  else
    sums = Sums::create(b, loc, op.getDy(), op.getX(), op.getWeight());
  op.getSumsMutable().assign(reduce(loc, sums, {Axis::Tensor}));
  op.setWidth(wholeExtent(op.getX(), 2));
}

/// Each rank sees its columns of the logits; two numbers a token make the loss.
void FunctionPartitioner::rewriteCrossEntropy(CrossEntropyOp op) {
  Location loc = op.getLoc();
  Value summary = CrossEntropySummaryOp::create(
      b, loc, op.getLogits(), op.getTargets(), rank(loc, Axis::Tensor),
      b.getI64IntegerAttr(wholeExtent(op.getLogits(), 2)));
  auto combined = CrossEntropyCombineOp::create(
      b, loc, gather(loc, summary, {Axis::Tensor}, 2), op.getTargets());
  replace(op.getNll(), combined.getNll());
  replace(op.getLse(), combined.getLse());
  op.erase();
}

LogicalResult FunctionPartitioner::rewrite(Operation &op) {
  b.setInsertionPoint(&op);
  bool chunked = mesh[Axis::Chunk] > 1;
  int64_t shares = mesh[Axis::Data] * mesh[Axis::Chunk];
  auto divideHeads = [&](auto op, Value columns) {
    op.setHeads(op.getHeads() / parts(columns, 2));
  };
  auto limitBlock = [&](auto op) {
    op.setBlock(std::min<int64_t>(
        op.getBlock(),
        cast<RankedTensorType>(op.getX().getType()).getDimSize(1)));
  };
  // Ranks cut a row where chunks end, and documents end elsewhere.
  auto refusePositions = [&](Operation *op) -> LogicalResult {
    return op->emitOpError("has chunks of packed documents, which may lie on "
                           "two ranks: expected a mesh with cp=1, got cp=")
           << mesh[Axis::Chunk];
  };
  return llvm::TypeSwitch<Operation *, LogicalResult>(&op)
      .Case([&](ReshardOp op) { return rewriteReshard(op); })
      .Case(
          [&](arith::ConstantOp op) { return rewriteConstant(op), success(); })
      .Case([&](GlobalNormOp op) { return rewriteNorm(op), success(); })
      .Case([&](CrossEntropyOp op) {
        if (isSplit(op.getLogits(), 2))
          rewriteCrossEntropy(op);
        return success();
      })
      .Case([&](CrossEntropyGradOp op) {
        if (isSplit(op.getLogits(), 2)) {
          op.getRankMutable().assign(rank(op.getLoc(), Axis::Tensor));
          op.setVocabulary(wholeExtent(op.getLogits(), 2));
        }
        return success();
      })
      .Case([&](RmsNormGradOp op) {
        return rewriteRowNormGrad<RmsNormGradSumsOp>(op), success();
      })
      .Case([&](LayerNormGradOp op) {
        return rewriteRowNormGrad<LayerNormGradSumsOp>(op), success();
      })
      .Case([&](EmbeddingOp op) {
        if (isSplit(op.getWeight(), 0))
          op.getRankMutable().assign(rank(op.getLoc(), Axis::Tensor));
        return success();
      })
      .Case([&](EmbeddingGradOp op) {
        if (isSplit(op.getDweight(), 0))
          op.getRankMutable().assign(rank(op.getLoc(), Axis::Tensor));
        return success();
      })
      .Case<NormalizedQKOp, NormalizedQKGradOp>(
          [&](auto op) { return divideHeads(op, op.getZ()), success(); })
      .Case([&](RotaryOp op) { return divideHeads(op, op.getX()), success(); })
      .Case<ChunkAttentionOp, ChunkAttentionGradOp>(
          [&](auto op) -> LogicalResult {
            if (chunked && op.getPositions())
              return refusePositions(op);
            return divideHeads(op, op.getQ()), success();
          })
      .Case([&](CacheAppendOp op) -> LogicalResult {
        return chunked && op.getPositions() ? refusePositions(op) : success();
      })
      .Case([&](SumHeadGroupsOp op) {
        op.setGroups(op.getGroups() / parts(op.getX(), 2));
        return divideHeads(op, op.getX()), success();
      })
      .Case([&](AdvanceCountOp op) -> LogicalResult {
        // What attends to all tokens has no form for a slice of them.
        if (chunked)
          return op.emitOpError(
              "counts the tokens of one rank: expected a mesh with cp=1");
        return success();
      })
      .Case([&](DocumentPositionsOp op) -> LogicalResult {
        // Documents begin anywhere, so a slice of a row would have to know of
        // the resets in front of it.
        if (chunked)
          return op.emitOpError("counts inside one rank's part of a row: "
                                "packed documents expect a mesh with cp=1");
        return success();
      })
      .Case<MeanOp, MeanGradOp>([&](auto op) {
        return op.setParts(op.getParts() * shares), success();
      })
      .Case([&](TimestepNormOp op) {
        if (chunked)
          rewriteTimestepNorm(op);
        return success();
      })
      .Case([&](TimestepNormGradOp op) {
        return chunked ? rewriteTimestepNormGrad(op) : success();
      })
      .Case([&](CemaOp op) {
        limitBlock(op);
        if (chunked)
          rewriteCema(op);
        return success();
      })
      .Case([&](CemaGradOp op) {
        limitBlock(op);
        if (chunked)
          rewriteCemaGrad(op);
        return success();
      })
      .Default([](Operation *) { return success(); });
}

LogicalResult FunctionPartitioner::run() {
  Block &block = function.front();
  for (BlockArgument argument : block.getArguments())
    makeLocal(argument);
  SmallVector<Operation *> ops;
  for (Operation &op : block) {
    ops.push_back(&op);
    for (Value result : op.getResults())
      makeLocal(result);
  }
  Operation *terminator = block.getTerminator();
  if (!getEntryKind(function).empty())
    describePorts();
  for (Operation *op : ops)
    if (failed(rewrite(*op)))
      return failure();
  function.setType(FunctionType::get(b.getContext(), block.getArgumentTypes(),
                                     terminator->getOperandTypes()));
  return success();
}

struct PartitionOps : mlir::megalodon::impl::PartitionOpsBase<PartitionOps> {
  using PartitionOpsBase::PartitionOpsBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    MeshShape mesh = getMesh(module);
    if (mesh.ranks() == 1)
      return;
    for (auto function : module.getOps<func::FuncOp>())
      if (failed(FunctionPartitioner(function, mesh).run()))
        return signalPassFailure();
    module.walk([&](Operation *op) {
      if (isa<shard::AllGatherOp, shard::AllReduceOp, shard::ReduceScatterOp>(
              op))
        ++numCollectives;
    });
  }
};
} // namespace
