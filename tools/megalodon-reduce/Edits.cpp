#include "tools/megalodon-reduce/Edits.h"
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace mlir::megalodon;

/// Whether a function may change its signature: it has a body, and no one calls
/// it.
static bool isFreeFunction(Operation *op) {
  auto function = dyn_cast<func::FuncOp>(op);
  return function && !function.isExternal() &&
         SymbolTable::symbolKnownUseEmpty(function, function->getParentOp());
}

/// Ops whose results may be replaced: ours, and calls of layer bodies.
static bool hasReplaceableResults(Operation *op) {
  return op->getNumResults() > 0 && !op->use_empty() &&
         (isa<MegalodonDialect>(op->getDialect()) || isa<func::CallOp>(op));
}

//===-- Functions ---------------------------------------------------------===//

static bool hasResults(Operation *op) {
  return isFreeFunction(op) && cast<func::FuncOp>(op).getNumResults() > 0;
}

static void dropResults(Operation *op) {
  auto function = cast<func::FuncOp>(op);
  function.front().getTerminator()->setOperands({});
  (void)function.eraseResults(BitVector(function.getNumResults(), true));
}

static bool hasSeveralResults(Operation *op) {
  return isFreeFunction(op) && cast<func::FuncOp>(op).getNumResults() > 1;
}

static void dropLastResults(Operation *op) {
  auto function = cast<func::FuncOp>(op);
  unsigned count = function.getNumResults(), kept = count / 2;
  function.front().getTerminator()->eraseOperands(kept, count - kept);
  BitVector dropped(count);
  dropped.set(kept, count);
  (void)function.eraseResults(dropped);
}

static void dropFirstResults(Operation *op) {
  auto function = cast<func::FuncOp>(op);
  unsigned count = function.getNumResults(), dropped = (count + 1) / 2;
  function.front().getTerminator()->eraseOperands(0, dropped);
  BitVector results(count);
  results.set(0, dropped);
  (void)function.eraseResults(results);
}

/// Whether the function of an op of ours could return the op's results, and
/// nothing else, instead of what it returns.
static bool canEndFunction(Operation *op) {
  return isa<MegalodonDialect>(op->getDialect()) && op->getNumResults() > 0 &&
         isFreeFunction(op->getParentOp()) &&
         op->getNextNode() != op->getBlock()->getTerminator();
}

static void endFunction(Operation *op) {
  auto function = cast<func::FuncOp>(op->getParentOp());
  Operation *exit = function.front().getTerminator();
  exit->moveAfter(op);
  dropResults(function);
  exit->setOperands(op->getResults());
  for (Type type : op->getResultTypes())
    (void)function.insertResult(function.getNumResults(), type, {});
  while (exit != &function.front().back())
    function.front().back().erase();
}

static BitVector unusedArguments(func::FuncOp function) {
  BitVector unused(function.getNumArguments());
  for (BlockArgument argument : function.getArguments())
    if (argument.use_empty())
      unused.set(argument.getArgNumber());
  return unused;
}

static bool hasUnusedArguments(Operation *op) {
  return isFreeFunction(op) && unusedArguments(cast<func::FuncOp>(op)).any();
}

static void dropUnusedArguments(Operation *op) {
  auto function = cast<func::FuncOp>(op);
  (void)function.eraseArguments(unusedArguments(function));
}

//===-- Ops ---------------------------------------------------------------===//

/// For every result an operand of its type, or null.
static SmallVector<Value> forwardedOperands(Operation *op) {
  SmallVector<Value> values;
  for (Type type : op->getResultTypes()) {
    auto operand = llvm::find_if(op->getOperands(), [&](Value value) {
      return value.getType() == type;
    });
    if (operand == op->operand_end())
      return {};
    values.push_back(*operand);
  }
  return values;
}

static bool canForward(Operation *op) {
  return hasReplaceableResults(op) && !forwardedOperands(op).empty();
}

static void forward(Operation *op) {
  op->replaceAllUsesWith(forwardedOperands(op));
  op->erase();
}

static bool canBeZero(Operation *op) {
  Builder builder(op->getContext());
  return hasReplaceableResults(op) &&
         llvm::all_of(op->getResultTypes(), [&](Type type) {
           return builder.getZeroAttr(type) != nullptr;
         });
}

static void replaceByZeros(Operation *op) {
  OpBuilder builder(op);
  for (Value result : op->getResults())
    result.replaceAllUsesWith(arith::ConstantOp::create(
        builder, op->getLoc(), builder.getZeroAttr(result.getType())));
  op->erase();
}

//===-- The list ----------------------------------------------------------===//

llvm::ArrayRef<Edit> mlir::megalodon::edits() {
  static const Edit list[] = {
      {"erase a function", isFreeFunction, [](Operation *op) { op->erase(); }},
      {"end a function at an op", canEndFunction, endFunction},
      {"drop all results", hasResults, dropResults},
      {"drop the last results", hasSeveralResults, dropLastResults},
      {"drop the first results", hasSeveralResults, dropFirstResults},
      {"replace an op by its operands", canForward, forward},
      {"replace an op by zeros", canBeZero, replaceByZeros},
      {"drop unused arguments", hasUnusedArguments, dropUnusedArguments},
  };
  return list;
}

SmallVector<Operation *> mlir::megalodon::sites(ModuleOp module,
                                                const Edit &edit) {
  SmallVector<Operation *> found;
  module.walk([&](Operation *op) {
    if (op != module && edit.applies(op))
      found.push_back(op);
  });
  return found;
}

void mlir::megalodon::eraseDeadCode(ModuleOp module) {
  for (auto function :
       llvm::make_early_inc_range(module.getOps<func::FuncOp>())) {
    if (function.isExternal())
      continue;
    for (Operation &op :
         llvm::make_early_inc_range(llvm::reverse(function.front())))
      if (!op.hasTrait<OpTrait::IsTerminator>() && op.use_empty() &&
          op.getNumResults() > 0)
        op.erase();
  }
}
