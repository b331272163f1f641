// Returns intermediate values through calls, callees first.
#include "tools/megalodon-opt/ExposeValues.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "passes/Entry.h"
#include "llvm/ADT/DenseMap.h"

using namespace mlir;
using namespace mlir::megalodon;

bool mlir::megalodon::isExposed(Value value) {
  Operation *op = value.getDefiningOp();
  // Only cema_grad reads block states, so lowerings order their numbers as
  // suits both.
  if (auto cema = dyn_cast_or_null<CemaOp>(op);
      cema && value == cema.getBlockStates())
    return false;
  return op && !isa<func::CallOp, arith::ConstantOp>(op) &&
         isa<RankedTensorType>(value.getType()) && !value.use_empty();
}

std::string mlir::megalodon::exposedName(int64_t number) {
  return "value." + std::to_string(number);
}

namespace {
class Exposer {
public:
  explicit Exposer(ModuleOp module) : module(module) {}

  /// How many results a function has got.
  unsigned expose(func::FuncOp function);

private:
  ModuleOp module;
  DenseMap<Operation *, unsigned> added;
};
} // namespace

unsigned Exposer::expose(func::FuncOp function) {
  if (auto known = added.find(function); known != added.end())
    return known->second;
  // What to expose is decided before anything gets another use.
  SmallVector<SmallVector<Value>> exposed;
  SmallVector<Operation *> ops;
  for (Operation &op : function.front().without_terminator()) {
    ops.push_back(&op);
    auto &values = exposed.emplace_back();
    llvm::copy_if(op.getResults(), std::back_inserter(values), isExposed);
  }
  SmallVector<Value> all;
  for (auto [op, values] : llvm::zip_equal(ops, exposed)) {
    auto call = dyn_cast<func::CallOp>(op);
    if (!call) {
      llvm::append_range(all, values);
      continue;
    }
    auto callee = module.lookupSymbol<func::FuncOp>(call.getCallee());
    const unsigned number = expose(callee);
    OpBuilder b(call);
    auto larger =
        func::CallOp::create(b, call.getLoc(), callee, call.getOperands());
    larger->setDiscardableAttrs(call->getDiscardableAttrDictionary());
    call.replaceAllUsesWith(larger.getResults().drop_back(number));
    llvm::append_range(all, larger.getResults().take_back(number));
    call.erase();
  }
  Operation *terminator = function.front().getTerminator();
  terminator->insertOperands(terminator->getNumOperands(), all);
  const unsigned before = function.getNumResults();
  SmallVector<unsigned> positions(all.size(), before);
  SmallVector<DictionaryAttr> attributes;
  for (auto [number, value] : llvm::enumerate(all)) {
    NamedAttrList list(getPortAttributes(function.getContext(),
                                         exposedName(number), Role::Output));
    // To the outside a row of numbers: no extent of a rank's part may look like
    // the rows or tokens of the whole call.
    int64_t elements = cast<RankedTensorType>(value.getType()).getNumElements();
    list.set(kShapeAttr,
             DenseI64ArrayAttr::get(function.getContext(), {1, 1, elements}));
    attributes.push_back(list.getDictionary(function.getContext()));
  }
  (void)function.insertResults(
      positions, llvm::to_vector(ValueRange(all).getTypes()), attributes);
  return added[function] = all.size();
}

void mlir::megalodon::exposeValues(ModuleOp module) {
  Exposer exposer(module);
  for (auto function : llvm::to_vector(module.getOps<func::FuncOp>()))
    if (!function.isExternal())
      exposer.expose(function);
}
