#include "passes/Codegen/SharedAccesses.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include <numeric>

using namespace mlir;
using namespace mlir::megalodon;

int64_t mlir::megalodon::knownMultiple(Value index) {
  if (std::optional<int64_t> constant = getConstantIntValue(index))
    return std::abs(*constant);
  if (auto argument = dyn_cast<BlockArgument>(index)) {
    auto loop = dyn_cast<scf::ForOp>(argument.getOwner()->getParentOp());
    if (loop && argument == loop.getInductionVar())
      return std::gcd(knownMultiple(loop.getLowerBound()),
                      knownMultiple(loop.getStep()));
    return 1;
  }
  Operation *op = index.getDefiningOp();
  auto multiple = [&](unsigned operand) {
    return knownMultiple(op->getOperand(operand));
  };
  if (isa<arith::AddIOp, arith::SubIOp, arith::MinUIOp, arith::MaxUIOp>(op))
    return std::gcd(multiple(0), multiple(1));
  if (isa<arith::MulIOp>(op)) {
    // Bounded: only small powers of two matter to those who ask.
    constexpr int64_t kLargest = int64_t(1) << 30;
    int64_t x = multiple(0), y = multiple(1);
    if (x > kLargest)
      x = std::gcd(x, kLargest);
    if (y > kLargest)
      y = std::gcd(y, kLargest);
    return x * y;
  }
  if (isa<arith::SelectOp>(op))
    return std::gcd(multiple(1), multiple(2));
  return 1;
}

SharedAccesses::SharedAccesses(func::FuncOp kernel, int64_t threads)
    : threads(threads) {
  findMemories(kernel);
  Pending pending;
  scan(kernel.getBody().front(), pending, /*place=*/true);
}

void SharedAccesses::findMemories(func::FuncOp kernel) {
  unsigned next = 0;
  for (BlockArgument argument :
       kernel.getArguments().drop_front(kFirstBufferArgument))
    memories[argument] = next++;
  // Kernels that were joined use the same scratch one after the other, so views
  // may overlap.
  struct View {
    int64_t begin, end;
    Value value;
  };
  SmallVector<View> views;
  for (Operation *user : kernel.getArgument(kScratchArgument).getUsers()) {
    auto view = cast<memref::ViewOp>(user);
    MemRefType type = view.getType();
    int64_t begin = getConstantIntValue(view.getByteShift()).value_or(0);
    views.push_back(
        {begin,
         begin + type.getNumElements() * type.getElementTypeBitWidth() / 8,
         view});
  }
  llvm::sort(views,
             [](const View &x, const View &y) { return x.begin < y.begin; });
  int64_t end = -1;
  for (const View &view : views) {
    if (view.begin >= end)
      ++next;
    memories[view.value] = next;
    end = std::max(end, view.end);
  }
}

std::optional<SharedAccesses::Access>
SharedAccesses::accessOf(Operation *op) const {
  auto vectorAccess = [&](auto access, bool writes) -> std::optional<Access> {
    auto type = access.getVectorType();
    const int64_t lanes = type.getDimSize(0),
                  bytes = lanes / threads * type.getElementTypeBitWidth() / 8;
    const bool aligned = knownMultiple(access.getIndices().back()) % lanes == 0;
    return Access{memories.at(access.getBase()), writes,
                  aligned ? bytes : -bytes};
  };
  if (auto load = dyn_cast<vector::LoadOp>(op))
    return vectorAccess(load, false);
  if (auto load = dyn_cast<vector::MaskedLoadOp>(op))
    return vectorAccess(load, false);
  if (auto store = dyn_cast<vector::StoreOp>(op))
    return vectorAccess(store, true);
  if (auto store = dyn_cast<vector::MaskedStoreOp>(op))
    return vectorAccess(store, true);
  if (auto load = dyn_cast<memref::LoadOp>(op))
    if (auto found = memories.find(load.getMemRef()); found != memories.end())
      return Access{found->second, false, 0};
  if (auto store = dyn_cast<memref::StoreOp>(op))
    return Access{memories.at(store.getMemRef()), true, 0};
  return std::nullopt;
}

bool SharedAccesses::conflict(const Access &before, const Access &after) {
  if (before.memory != after.memory || !(before.writes || after.writes))
    return false;
  if (before.share != after.share || before.share < 0)
    return true;
  // The first thread writes scalars, all read them.
  return before.share == 0 && !(before.writes && after.writes);
}

void SharedAccesses::addTo(Pending &pending, ArrayRef<Access> accesses) {
  for (const Access &access : accesses)
    if (!llvm::is_contained(pending, access))
      pending.push_back(access);
}

void SharedAccesses::scan(Block &block, Pending &pending, bool place) {
  for (Operation &op : block) {
    if (std::optional<Access> access = accessOf(&op)) {
      bool waits = llvm::any_of(pending, [&](const Access &before) {
        return conflict(before, *access);
      });
      if (waits) {
        pending.clear();
        if (place)
          barriers.insert(&op);
      }
      addTo(pending, *access);
      continue;
    }
    if (op.getNumRegions() == 0)
      continue;
    const Pending before = pending;
    Pending after = pending;
    if (isa<scf::ForOp>(op)) {
      // What one round leaves, the next one finds.
      Pending once = pending;
      scan(op.getRegion(0).front(), once, /*place=*/false);
      Pending entering = before;
      addTo(entering, once);
      scan(op.getRegion(0).front(), entering, place);
      addTo(after, entering);
    } else {
      for (Region &region : op.getRegions()) {
        if (region.empty())
          continue;
        Pending branch = before;
        scan(region.front(), branch, place);
        addTo(after, branch);
      }
    }
    pending = std::move(after);
  }
}
