// Puts independent work between a collective and the first op that needs its
// result. The plan starts a collective where it stands and waits for it at that
// first op, so order is all that overlap takes.
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Shard/IR/ShardDialect.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "passes/Partition/Passes.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_OVERLAPCOLLECTIVES
#include "passes/Partition/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

bool isCollective(Operation *op) {
  return isa<shard::AllGatherOp, shard::AllReduceOp, shard::ReduceScatterOp>(
      op);
}

/// Ranks along the pipeline run different functions; what they say to each
/// other must keep its order.
bool isBetweenStages(Operation *op) {
  auto reduce = dyn_cast<shard::AllReduceOp>(op);
  return reduce && llvm::is_contained(reduce.getGridAxes(),
                                      static_cast<int16_t>(Axis::Pipeline));
}

/// Work that is long enough to hide a message behind.
bool isLong(Operation *op) {
  return isa<LinearOp, LinearGradInputOp, LinearGradWeightOp, ChunkAttentionOp,
             ChunkAttentionGradOp, CemaOp, CemaGradOp, func::CallOp>(op);
}

/// Orders `ops`, which stand together in one block, anew: collectives as early
/// as they can start, then the first op that waits for no message still under
/// way; a message is under way until one long op was put behind it.
unsigned reorder(ArrayRef<Operation *> ops) {
  if (ops.empty())
    return 0;
  DenseMap<Operation *, unsigned> missing; // operands not computed yet
  DenseMap<Operation *, SmallVector<Operation *>> users;
  DenseSet<Operation *> inside(ops.begin(), ops.end());
  for (Operation *op : ops) {
    llvm::SmallPtrSet<Operation *, 8> producers;
    for (Value operand : op->getOperands())
      if (Operation *producer = operand.getDefiningOp();
          producer && inside.contains(producer))
        producers.insert(producer);
    missing[op] = producers.size();
    for (Operation *producer : producers)
      users[producer].push_back(op);
  }

  DenseSet<Operation *> underWay;
  auto waits = [&](Operation *op) {
    return llvm::any_of(op->getOperands(), [&](Value operand) {
      return underWay.contains(operand.getDefiningOp());
    });
  };
  SmallVector<Operation *> left(ops), order;
  unsigned hidden = 0;
  while (!left.empty()) {
    auto free = [&](Operation *op) { return missing[op] == 0 && !waits(op); };
    Operation **next = llvm::find_if(
        left, [&](Operation *op) { return isCollective(op) && free(op); });
    if (next == left.end())
      next = llvm::find_if(left, free);
    if (next == left.end())
      next =
          llvm::find_if(left, [&](Operation *op) { return missing[op] == 0; });
    Operation *op = *next;
    left.erase(next);
    for (Value operand : op->getOperands())
      underWay.erase(operand.getDefiningOp());
    if (isLong(op)) {
      hidden += underWay.size();
      underWay.clear();
    }
    if (isCollective(op))
      underWay.insert(op);
    for (Operation *user : users[op])
      --missing[user];
    order.push_back(op);
  }

  Block *block = ops.front()->getBlock();
  Block::iterator end = std::next(Block::iterator(ops.back()));
  for (Operation *op : order)
    op->moveBefore(block, end);
  return hidden;
}

struct OverlapCollectives
    : mlir::megalodon::impl::OverlapCollectivesBase<OverlapCollectives> {
  void runOnOperation() override {
    if (llvm::none_of(getOperation().getOps(),
                      [](Operation &op) { return isCollective(&op); }))
      return;
    // The halves of a training step stay apart, and nothing passes a message
    // between stages.
    SmallVector<Operation *> section;
    for (Operation &op : llvm::make_early_inc_range(
             getOperation().front().without_terminator())) {
      bool between = isBetweenStages(&op);
      if (op.hasAttr(plan::kUpdateAttr) || between) {
        numHidden += reorder(section);
        section.clear();
      }
      if (!between)
        section.push_back(&op);
    }
    numHidden += reorder(section);
  }
};
} // namespace
