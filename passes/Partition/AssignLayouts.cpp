// Gives every tensor a layout on the mesh. Parameters, state and inputs have
// theirs from a table; values follow through the ops' rules in program order.
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "mlir/IR/SymbolTable.h"
#include "passes/Entry.h"
#include "passes/Partition/LayoutTable.h"
#include "passes/Partition/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_ASSIGNLAYOUTS
#include "passes/Partition/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

bool isBatchOrToken(char letter) { return letter == 'b' || letter == 'l'; }

/// The axes by which a parameter is computed with: dp and cp split it only to
/// save memory, and it is gathered where it is used.
Axes withoutReplicas(const Axes &axes) {
  Axes left;
  llvm::copy_if(axes, std::back_inserter(left),
                [](Axis axis) { return axis == Axis::Tensor; });
  return left;
}

class LayoutAssigner {
public:
  LayoutAssigner(ModuleOp module, const MeshShape &mesh, unsigned zero)
      : module(module), symbols(module), mesh(mesh), zero(zero) {
    for (Axis axis : {Axis::Data, Axis::Chunk})
      if (mesh[axis] > 1)
        replicas.push_back(axis);
  }

  LogicalResult assignEntry(func::FuncOp entry);
  unsigned numReshards = 0;

private:
  void hideAccumulators(func::FuncOp entry);
  LogicalResult assignBody(func::FuncOp function);
  LogicalResult assignOp(Operation &op);
  LogicalResult assignByRule(Operation &op, const OpRule &rule);
  LogicalResult assignSum(Operation &op);
  void reduceAccumulated(AccumulateOp op);
  LogicalResult assignUpdate(AdamWOp op);
  LogicalResult assignNorm(GlobalNormOp op);
  LogicalResult assignCall(func::CallOp call);
  LogicalResult assignReturn(func::ReturnOp op);
  void collectWishes(func::FuncOp function,
                     ArrayRef<std::optional<Layout>> results);
  Layout portLayout(StringRef name, Role role, RankedTensorType type) const;
  Layout spread(Layout layout, RankedTensorType type) const;
  void setLayout(Value value, const Layout &layout) {
    value.setType(layout.on(cast<RankedTensorType>(value.getType())));
  }
  void change(OpOperand &operand, const Layout &layout, bool early = false);
  LogicalResult refuse(OpOperand &operand, const Layout &wanted) const;

  ModuleOp module;
  SymbolTable symbols;
  MeshShape mesh;
  unsigned zero;
  Axes replicas; ///< axes along which parameters are the same
  bool tied = false;
  func::FuncOp current;
  /// Layouts that values must end in: those of gradients, which follow their
  /// parameters.
  DenseMap<Value, Layout> wishes;
  DenseMap<std::pair<Value, Attribute>, Value> resharded;
  DenseSet<func::FuncOp> assigned;
};

/// A parameter-like tensor split once more over dp and cp: along the first
/// dimension whose local extent divides. Small tensors stay whole.
Layout LayoutAssigner::spread(Layout layout, RankedTensorType type) const {
  int64_t parts = mesh.product(replicas);
  if (parts == 1)
    return layout;
  for (auto [extent, axes] :
       llvm::zip_equal(type.getShape(), layout.dimensions))
    if (extent % (mesh.product(axes) * parts) == 0) {
      axes.append(replicas.begin(), replicas.end());
      break;
    }
  return layout;
}

Layout LayoutAssigner::portLayout(StringRef name, Role role,
                                  RankedTensorType type) const {
  Layout layout = layoutOfPort(name, role, type.getRank(), tied, mesh);
  bool moment = role == Role::FirstMoment || role == Role::SecondMoment;
  bool weight = role == Role::Parameter ||
                (role == Role::Gradient && !name.starts_with("grad.state."));
  if ((moment && zero >= 1) || (weight && zero >= 3))
    layout = spread(std::move(layout), type);
  return layout;
}

/// Walks backwards from the gradients that `function` returns and notes how the
/// ops that make them should lay them out.
void LayoutAssigner::collectWishes(func::FuncOp function,
                                   ArrayRef<std::optional<Layout>> results) {
  Block &block = function.front();
  auto wish = [&](Value value, const Layout &layout) {
    wishes.try_emplace(value, layout);
  };
  for (auto [value, layout] :
       llvm::zip_equal(block.getTerminator()->getOperands(), results))
    if (layout)
      wish(value, *layout);
  for (Operation &op : llvm::reverse(block.without_terminator())) {
    if (isa<AddOp, AccumulateOp>(op)) {
      auto found = wishes.find(op.getResult(0));
      if (found != wishes.end()) {
        Layout layout = found->second;
        for (Value operand : op.getOperands())
          wish(operand, layout);
      }
    } else if (auto call = dyn_cast<func::CallOp>(op)) {
      auto callee = symbols.lookup<func::FuncOp>(call.getCallee());
      SmallVector<std::optional<Layout>> inner;
      bool any = false;
      for (Value result : call.getResults()) {
        auto found = wishes.find(result);
        inner.push_back(found == wishes.end()
                            ? std::nullopt
                            : std::optional<Layout>(found->second));
        any |= inner.back().has_value();
      }
      if (any && !assigned.contains(callee))
        collectWishes(callee, inner);
    }
  }
}

/// Makes `operand` read its value in another layout, made right in front of its
/// op or, early, right behind the value.
void LayoutAssigner::change(OpOperand &operand, const Layout &layout,
                            bool early) {
  Operation *user = operand.getOwner();
  Value value = operand.get();
  auto type = layout.on(cast<RankedTensorType>(value.getType()));
  Value &made = resharded[{value, type.getEncoding()}];
  if (!made || made.getParentBlock() != user->getBlock()) {
    OpBuilder builder(user);
    if (early)
      builder.setInsertionPointAfterValue(value);
    if (auto constant = value.getDefiningOp<arith::ConstantOp>()) {
      auto elements = cast<SplatElementsAttr>(constant.getValue());
      made = arith::ConstantOp::create(
          builder, constant.getLoc(),
          SplatElementsAttr::get(type, elements.getSplatValue<Attribute>()));
    } else {
      made = ReshardOp::create(builder, user->getLoc(), type, value);
      ++numReshards;
    }
  }
  operand.set(made);
}

LogicalResult LayoutAssigner::refuse(OpOperand &operand,
                                     const Layout &wanted) const {
  auto type = cast<RankedTensorType>(operand.get().getType());
  RankedTensorType local = Layout::of(operand.get()).localType(type, mesh);
  return operand.getOwner()->emitOpError()
         << "operand " << operand.getOperandNumber() << " is laid out as "
         << type.getEncoding() << ", expected "
         << wanted.attribute(type.getContext())
         << "; no change of layout is planned here: "
         << local.getNumElements() * local.getElementTypeBitWidth() / 8
         << " bytes a rank would move; insert a megalodon.reshard";
}

LogicalResult LayoutAssigner::assignByRule(Operation &op, const OpRule &rule) {
  std::array<std::optional<Axes>, 128> axes;
  auto single = [&](Axis axis) { return mesh[axis] > 1 ? Axes{axis} : Axes(); };
  axes['b'] = single(Axis::Data);
  axes['l'] = single(Axis::Chunk);
  uint32_t taken = 0;
  auto take = [&](char letter, const Axes &chosen) {
    axes[letter] = chosen;
    for (Axis axis : chosen)
      taken |= 1u << static_cast<uint32_t>(axis);
  };
  for (char letter : {'b', 'l'})
    take(letter, *axes[letter]);
  // A wish for a result comes first, then what cannot be moved, then the rest.
  bool wishful = isa<LinearGradWeightOp, LinearGradBiasOp, EmbeddingGradOp>(op);
  for (auto [result, tensor] : llvm::zip_equal(op.getResults(), rule.results))
    if (auto found = wishes.find(result); wishful && found != wishes.end())
      for (auto [letter, chosen] :
           llvm::zip_equal(tensor.letters, found->second.dimensions))
        if (!isBatchOrToken(letter))
          take(letter, withoutReplicas(chosen));
  // What must be moved anyway, to resolve its sum, has the last word.
  for (int turn : {0, 1, 2})
    for (auto [operand, tensor] :
         llvm::zip_equal(op.getOpOperands(), rule.operands)) {
      if (operand.get().getDefiningOp<arith::ConstantOp>())
        continue;
      Layout layout = Layout::of(operand.get());
      bool movable = tensor.reshardable;
      if (turn != (movable ? (layout.sum.empty() ? 1 : 2) : 0))
        continue;
      for (auto [letter, chosen] :
           llvm::zip_equal(tensor.letters, layout.dimensions)) {
        if (axes[letter])
          continue;
        Axes wanted = withoutReplicas(chosen);
        bool whole = tensor.whole.find(letter) != std::string::npos;
        bool clash = llvm::any_of(wanted, [&](Axis axis) {
          return taken & (1u << static_cast<uint32_t>(axis));
        });
        take(letter, whole || (movable && clash) ? Axes() : wanted);
      }
    }

  Axes passed; // sums that go through a linear op
  for (auto [number, pair] :
       llvm::enumerate(llvm::zip_equal(op.getOpOperands(), rule.operands))) {
    auto &[operand, tensor] = pair;
    Layout has = Layout::of(operand.get()), wanted;
    for (char letter : tensor.letters)
      wanted.dimensions.push_back(axes[letter].value_or(Axes()));
    if (number < rule.linearOperands &&
        !operand.get().getDefiningOp<arith::ConstantOp>()) {
      if (passed.empty())
        passed = has.sum;
      wanted.sum = passed;
    }
    if (has == wanted)
      continue;
    // Sharded parameters are gathered where they are used.
    bool gathered =
        has.sum.empty() &&
        llvm::all_of(llvm::zip_equal(has.dimensions, wanted.dimensions),
                     [&](auto pair) {
                       auto &[from, to] = pair;
                       return withoutReplicas(from) == to;
                     });
    if (!tensor.reshardable && !gathered &&
        !operand.get().getDefiningOp<arith::ConstantOp>())
      return refuse(operand, wanted);
    change(operand, wanted);
  }

  std::string operandLetters;
  for (const TensorRule &tensor : rule.operands)
    operandLetters += tensor.letters;
  for (auto [result, tensor] : llvm::zip_equal(op.getResults(), rule.results)) {
    Layout layout;
    for (char letter : tensor.letters)
      layout.dimensions.push_back(axes[letter].value_or(Axes()));
    layout.sum = passed;
    if (tensor.sum)
      for (Axis axis : {Axis::Data, Axis::Chunk, Axis::Tensor})
        for (char letter : {'b', 'l', 'd', 'h', 'm', 'k', 'v'})
          if (operandLetters.find(letter) != std::string::npos &&
              tensor.letters.find(letter) == std::string::npos &&
              axes[letter] && llvm::is_contained(*axes[letter], axis))
            layout.sum.push_back(axis);
    setLayout(result, layout);
  }
  return success();
}

/// Terms of a sum have one layout: that of a term that is no partial sum and is
/// split most, so that the others move least; in an accumulation that of the
/// accumulator.
LogicalResult LayoutAssigner::assignSum(Operation &op) {
  auto splits = [](const Layout &layout) {
    int64_t number = layout.sum.empty() ? 0 : -100;
    for (const Axes &axes : layout.dimensions)
      number += static_cast<int64_t>(axes.size());
    return number;
  };
  std::optional<Layout> best;
  for (Value operand : op.getOperands())
    if (!operand.getDefiningOp<arith::ConstantOp>())
      if (Layout layout = Layout::of(operand);
          !best || splits(layout) > splits(*best))
        best = layout;
  if (!best)
    best = Layout::of(op.getOperand(0));
  // An accumulator is a variable: what is added to a slice of it would be lost
  // with the call, so a gradient of which a rank has a slice is gathered first.
  if (auto accumulate = dyn_cast<AccumulateOp>(op))
    if (Layout into = Layout::of(accumulate.getInto()); into.sum == best->sum)
      best = into;
  for (OpOperand &operand : op.getOpOperands())
    if (Layout::of(operand.get()) != *best)
      change(operand, *best);
  setLayout(op.getResult(0), *best);
  if (auto accumulate = dyn_cast<AccumulateOp>(op))
    reduceAccumulated(accumulate);
  return success();
}

/// What a rank has added up over a step's microbatches is summed over ranks as
/// soon as the last microbatch is in it, while backward goes on.
void LayoutAssigner::reduceAccumulated(AccumulateOp op) {
  for (Operation *user : op.getResult().getUsers()) {
    auto update = dyn_cast<AdamWOp>(user);
    if (!update)
      continue;
    Layout used = Layout::of(update.getFirstMoment());
    if (Layout::of(op.getResult()) == used)
      return;
    OpBuilder builder(op->getContext());
    builder.setInsertionPointAfter(op);
    auto type = used.on(cast<RankedTensorType>(op.getType()));
    auto reduced =
        ReshardOp::create(builder, op.getLoc(), type, op.getResult());
    reduced->setAttr(plan::kLastAttr, builder.getUnitAttr());
    resharded[{op.getResult(), type.getEncoding()}] = reduced;
    ++numReshards;
    return;
  }
}

/// Parameter, moments and gradient lie as the moments do.
LogicalResult LayoutAssigner::assignUpdate(AdamWOp op) {
  Layout layout = Layout::of(op.getFirstMoment());
  for (OpOperand &operand : op->getOpOperands().take_front(4))
    if (Layout::of(operand.get()) != layout)
      change(operand, layout);
  for (Value result : op.getResults())
    setLayout(result, layout);
  return success();
}

/// Gradients are reduced once, into the layout in which they are used; those
/// that microbatches add up are reduced already.
LogicalResult LayoutAssigner::assignNorm(GlobalNormOp op) {
  for (OpOperand &operand : op->getOpOperands()) {
    std::optional<Layout> used;
    for (Operation *user : operand.get().getUsers())
      if (auto update = dyn_cast<AdamWOp>(user))
        used = Layout::of(update.getFirstMoment());
    if (!used) {
      used = Layout::of(operand.get());
      used->sum.clear();
    }
    if (Layout::of(operand.get()) != *used)
      change(operand, *used);
  }
  setLayout(op.getNorm(), Layout::whole(0));
  return success();
}

/// Sums over the tensor axis become slices of the channels: the residual stream
/// crosses functions that way.
static std::optional<Layout> resolved(const Layout &layout) {
  if (!llvm::is_contained(layout.sum, Axis::Tensor))
    return std::nullopt;
  Layout to = layout;
  llvm::erase(to.sum, Axis::Tensor);
  to.dimensions.back().push_back(Axis::Tensor);
  return to;
}

LogicalResult LayoutAssigner::assignCall(func::CallOp call) {
  auto callee = symbols.lookup<func::FuncOp>(call.getCallee());
  bool first = assigned.insert(callee).second;
  for (auto [operand, argument] :
       llvm::zip_equal(call->getOpOperands(), callee.getArguments())) {
    if (first) {
      if (auto to = resolved(Layout::of(operand.get())))
        change(operand, *to);
      argument.setType(operand.get().getType());
    } else if (operand.get().getType() != argument.getType()) {
      Layout wanted = Layout::of(argument);
      std::optional<Layout> to = resolved(Layout::of(operand.get()));
      if (to != wanted && !operand.get().getDefiningOp<arith::ConstantOp>())
        return refuse(operand, wanted);
      change(operand, wanted);
    }
  }
  if (first) {
    func::FuncOp outer = std::exchange(current, callee);
    if (failed(assignBody(callee)))
      return failure();
    current = outer;
  }
  for (auto [result, type] :
       llvm::zip_equal(call.getResults(), callee.getResultTypes()))
    result.setType(type);
  return success();
}

LogicalResult LayoutAssigner::assignReturn(func::ReturnOp op) {
  bool isEntry = !getEntryKind(current).empty();
  SmallVector<Type> types;
  for (OpOperand &operand : op->getOpOperands()) {
    unsigned index = operand.getOperandNumber();
    Layout has = Layout::of(operand.get());
    if (isEntry) {
      StringRef name = nameOfResult(current, index);
      auto role = current.getResultAttrOfType<RoleAttr>(index, kRoleAttr);
      if (role.getValue() == Role::Residual) {
        types.push_back(operand.get().getType());
        continue;
      }
      Layout wanted =
          portLayout(name, role.getValue(),
                     cast<RankedTensorType>(operand.get().getType()));
      if (has != wanted)
        change(operand, wanted, /*early=*/true);
    } else if (auto found = wishes.find(operand.get()); found != wishes.end()) {
      // A gradient leaves as its parameter lies; that of a sharded parameter is
      // reduced as soon as it is there.
      Layout wish = found->second, unreduced = wish;
      for (Axes &axes : unreduced.dimensions)
        axes = withoutReplicas(axes);
      unreduced.sum = has.sum;
      if (has != unreduced)
        change(operand, unreduced);
      if (!has.sum.empty() && zero >= 3)
        change(operand, wish);
    } else if (std::optional<Layout> to = resolved(has)) {
      change(operand, *to);
    }
    types.push_back(operand.get().getType());
  }
  current.setType(FunctionType::get(op.getContext(),
                                    current.front().getArgumentTypes(), types));
  return success();
}

LogicalResult LayoutAssigner::assignOp(Operation &op) {
  if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
    // Each use makes its own, in the layout it needs.
    auto elements = dyn_cast<SplatElementsAttr>(constant.getValue());
    if (!elements)
      return op.emitOpError("expected all elements alike on a mesh");
    auto type = cast<RankedTensorType>(constant.getType());
    type = Layout::whole(type.getRank()).on(type);
    constant.setValueAttr(
        SplatElementsAttr::get(type, elements.getSplatValue<Attribute>()));
    constant.getResult().setType(type);
    return success();
  }
  if (auto call = dyn_cast<func::CallOp>(op))
    return assignCall(call);
  if (auto terminator = dyn_cast<func::ReturnOp>(op))
    return assignReturn(terminator);
  if (isa<AddOp, AccumulateOp>(op))
    return assignSum(op);
  if (auto update = dyn_cast<AdamWOp>(op))
    return assignUpdate(update);
  if (auto norm = dyn_cast<GlobalNormOp>(op))
    return assignNorm(norm);
  if (isa<ReshardOp>(op))
    return success();
  if (std::optional<OpRule> rule = ruleOf(&op))
    return assignByRule(op, *rule);
  return op.emitOpError("has no rule for a mesh of several ranks");
}

LogicalResult LayoutAssigner::assignBody(func::FuncOp function) {
  for (Operation &op : llvm::make_early_inc_range(function.front()))
    if (failed(assignOp(op)))
      return failure();
  return success();
}

/// With the optimizer's state sharded no rank ever holds whole reduced
/// gradients: what a rank has added up is nobody's business outside.
void LayoutAssigner::hideAccumulators(func::FuncOp entry) {
  auto residual = RoleAttr::get(entry.getContext(), Role::Residual);
  for (unsigned index : llvm::seq(entry.getNumArguments()))
    if (hasArgumentRole(entry, index, Role::Gradient))
      entry.setArgAttr(index, kRoleAttr, residual);
  for (unsigned index : llvm::seq(entry.getNumResults()))
    if (hasResultRole(entry, index, Role::Gradient))
      entry.setResultAttr(index, kRoleAttr, residual);
}

LogicalResult LayoutAssigner::assignEntry(func::FuncOp entry) {
  current = entry;
  tied = !findArgument(entry, "output.output.weight") &&
         !findArgument(entry, "output.weight");
  for (BlockArgument argument : entry.getArguments()) {
    unsigned index = argument.getArgNumber();
    auto type = cast<RankedTensorType>(argument.getType());
    auto role = entry.getArgAttrOfType<RoleAttr>(index, kRoleAttr);
    if (!role)
      return entry.emitOpError("expected a role on argument ") << index;
    Layout layout =
        portLayout(nameOfArgument(entry, index), role.getValue(), type);
    // An accumulator holds what its rank has added up, unless each gradient is
    // reduced before it is added.
    if (role.getValue() == Role::Gradient && zero < 3)
      layout.sum = replicas;
    setLayout(argument, layout);
  }
  SmallVector<std::optional<Layout>> results(entry.getNumResults());
  for (unsigned index : llvm::seq(entry.getNumResults()))
    if (hasResultRole(entry, index, Role::Gradient) &&
        !nameOfResult(entry, index).starts_with("grad.state."))
      results[index] =
          portLayout(nameOfResult(entry, index), Role::Gradient,
                     cast<RankedTensorType>(entry.getResultTypes()[index]));
  collectWishes(entry, results);
  if (zero == 1 && !replicas.empty() && getEntryKind(entry) == "train")
    hideAccumulators(entry);
  return assignBody(entry);
}

struct AssignLayouts : mlir::megalodon::impl::AssignLayoutsBase<AssignLayouts> {
  using AssignLayoutsBase::AssignLayoutsBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    llvm::Expected<MeshShape> shape = MeshShape::parse(mesh);
    if (!shape) {
      module.emitError("mesh: ") << llvm::toString(shape.takeError());
      return signalPassFailure();
    }
    if (shape->ranks() == 1)
      return;
    if (zero != 0 && zero != 1 && zero != 3) {
      module.emitError("zero: expected 0, 1 or 3, got ") << zero;
      return signalPassFailure();
    }
    OpBuilder builder = OpBuilder::atBlockBegin(module.getBody());
    shard::GridOp::create(builder, module.getLoc(), kMeshSymbol, shape->sizes);
    LayoutAssigner assigner(module, *shape, zero);
    for (auto function : module.getOps<func::FuncOp>())
      if (!getEntryKind(function).empty() &&
          failed(assigner.assignEntry(function)))
        return signalPassFailure();
    numReshards += assigner.numReshards;
  }
};
} // namespace
