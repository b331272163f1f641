// Puts tensors that travel the same way into one message.
#include "dialect/Plan/Plan.h"
#include "passes/Lowering/Passes.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_BUCKETCOLLECTIVES
#include "passes/Lowering/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

constexpr int64_t kPipelineAxis = 1, kTensorAxis = 3;

/// Messages that may become one, in program order.
struct Bucket {
  SmallVector<plan::CollectiveOp> messages;
  int64_t bytes = 0;
};

int64_t bytesOf(TypeRange types) {
  int64_t bytes = 0;
  for (Type type : types) {
    auto tensor = cast<RankedTensorType>(type);
    bytes += tensor.getNumElements() * tensor.getElementTypeBitWidth() / 8;
  }
  return bytes;
}

/// What messages of one bucket share.
Attribute keyOf(plan::CollectiveOp op) {
  Builder b(op.getContext());
  Type element =
      cast<RankedTensorType>(op.getInputs().front().getType()).getElementType();
  SmallVector<Attribute> key{op.getKindAttr(), op.getAxesAttr(),
                             op.getDimensionAttr(), TypeAttr::get(element),
                             b.getBoolAttr(op.getLast())};
  if (auto stages = op.getStagesAttr())
    key.push_back(stages);
  return b.getArrayAttr(key);
}

StringRef nameOf(Location location) {
  auto named = dyn_cast<NameLoc>(location);
  return named ? named.getName().getValue() : StringRef("?");
}

struct BucketCollectives
    : mlir::megalodon::impl::BucketCollectivesBase<BucketCollectives> {
  using BucketCollectivesBase::BucketCollectivesBase;

  void runOnOperation() override {
    for (Operation &op : llvm::make_early_inc_range(getOperation().front())) {
      auto message = dyn_cast<plan::CollectiveOp>(op);
      // Activations of the tensor axis are needed soon: they share a message
      // only with what starts in the same place. So do all across the halves
      // of a training step.
      bool border =
          op.hasAttr(plan::kUpdateAttr) || op.hasTrait<OpTrait::IsTerminator>();
      closeIf([&](const Bucket &bucket) {
        plan::CollectiveOp first = bucket.messages.front();
        bool soon = llvm::is_contained(first.getAxes(), kTensorAxis);
        return border || (soon && !message) || isUsed(bucket, op);
      });
      // Stages run different programs, in which different neighbours would
      // join: what they say to each other stays as it is.
      if (!message || llvm::is_contained(message.getAxes(), kPipelineAxis))
        continue;
      Attribute key = keyOf(message);
      int64_t bytes = bytesOf(message.getInputs().getTypes());
      if (open[key].bytes + bytes > bucketBytes)
        close(open[key]);
      open[key].messages.push_back(message);
      open[key].bytes += bytes;
    }
  }

private:
  static bool isUsed(const Bucket &bucket, Operation &op) {
    return llvm::any_of(op.getOperands(), [&](Value operand) {
      return llvm::is_contained(
          bucket.messages,
          dyn_cast_or_null<plan::CollectiveOp>(operand.getDefiningOp()));
    });
  }

  void closeIf(function_ref<bool(const Bucket &)> condition) {
    for (auto &[key, bucket] : open)
      if (!bucket.messages.empty() && condition(bucket))
        close(bucket);
  }

  /// Makes one message, where the last one stands.
  void close(Bucket &bucket) {
    Bucket closed = std::exchange(bucket, {});
    if (closed.messages.size() < 2)
      return;
    SmallVector<Value> inputs;
    SmallVector<Type> types;
    for (plan::CollectiveOp message : closed.messages) {
      llvm::append_range(inputs, message.getInputs());
      llvm::append_range(types, message.getResultTypes());
    }
    plan::CollectiveOp last = closed.messages.back();
    OpBuilder b(last);
    auto name = b.getStringAttr(nameOf(closed.messages.front().getLoc()) +
                                " ... " + nameOf(last.getLoc()));
    auto merged = plan::CollectiveOp::create(
        b, NameLoc::get(name), types, last.getKindAttr(), inputs,
        last.getAxesAttr(), last.getDimensionAttr(), last.getStagesAttr(),
        last.getLastAttr());
    unsigned next = 0;
    for (plan::CollectiveOp message : closed.messages) {
      unsigned results = message.getNumResults();
      message.replaceAllUsesWith(merged.getResults().slice(next, results));
      next += results;
      message.erase();
    }
    numMerged += closed.messages.size();
    ++numBuckets;
  }

  llvm::MapVector<Attribute, Bucket> open;
};
} // namespace
