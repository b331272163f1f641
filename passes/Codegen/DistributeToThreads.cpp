// Kernels in vector form for a GPU: the threads of a warp share every vector.
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "passes/Codegen/Passes.h"
#include "passes/Codegen/SharedAccesses.h"
#include <numeric>

namespace mlir::megalodon {
#define GEN_PASS_DEF_DISTRIBUTETOTHREADS
#include "passes/Codegen/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;

namespace {

/// Bytes that a thread can load or store at once.
constexpr int64_t kWidestAccess = 16;

/// One kernel. A vector of n lanes becomes n / threads lanes of each thread,
/// the first thread having the first ones. Scalars are the same in all threads.
class Distribution {
public:
  Distribution(func::FuncOp kernel, int64_t threads)
      : kernel(kernel), threads(threads), b(kernel.getContext()) {}
  LogicalResult run();

private:
  LogicalResult convert(Operation *op);
  LogicalResult convertConstant(arith::ConstantOp op);
  LogicalResult convertShuffle(vector::ShuffleOp op);
  void convertMask(Operation *op);
  void convertReduction(vector::ReductionOp op);
  template <typename OpTy> void convertAccess(OpTy op);
  void convertScalarStore(memref::StoreOp op);
  void moveScratchToSharedMemory();
  void insertBarriers();

  /// A thread's part of a vector type; null if it cannot be shared.
  VectorType share(VectorType type) {
    if (type.getRank() != 1 || type.isScalable() ||
        type.getDimSize(0) % threads)
      return {};
    return VectorType::get(type.getDimSize(0) / threads, type.getElementType());
  }
  Value constant(Location loc, int64_t value) {
    return arith::ConstantIndexOp::create(b, loc, value);
  }
  /// thread * lanes: the first of a thread's lanes.
  Value firstLane(Location loc, int64_t lanes) {
    return arith::MulIOp::create(b, loc, thread, constant(loc, lanes));
  }
  Value isFirstThread(Location loc) {
    return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, thread,
                                 constant(loc, 0));
  }
  /// Makes the last index that of this thread's first lane.
  void shiftIndex(Operation *op, MutableOperandRange indices, int64_t lanes);

  func::FuncOp kernel;
  int64_t threads;
  OpBuilder b;
  Value thread;
  /// Constants that were replaced, until nobody walks over them any more.
  SmallVector<Operation *> dead;
};

} // namespace

LogicalResult Distribution::run() {
  Block &entry = kernel.getBody().front();
  b.setInsertionPointToStart(&entry);
  thread = gpu::ThreadIdOp::create(b, kernel.getLoc(), gpu::Dimension::x);

  SmallVector<Operation *> operations;
  kernel.walk([&](Operation *op) { operations.push_back(op); });
  // Barriers are placed while accesses still say what the workgroup touches.
  insertBarriers();

  // Types first: what an op needs of its old type is in its attributes, or n =
  // lanes * threads.
  auto shareType = [&](Value value, Operation *op) -> LogicalResult {
    auto type = dyn_cast<VectorType>(value.getType());
    if (!type)
      return success();
    VectorType part = share(type);
    if (!part)
      return op->emitOpError() << "has a vector of type " << type << ", which "
                               << threads << " threads cannot share";
    value.setType(part);
    return success();
  };
  for (Operation *op : operations) {
    if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
      if (failed(convertConstant(constant)))
        return failure();
      continue;
    }
    if (auto shuffle = dyn_cast<vector::ShuffleOp>(op))
      if (failed(convertShuffle(shuffle)))
        return failure();
  }
  for (Operation *op : operations) {
    if (isa<arith::ConstantOp>(op))
      continue;
    for (Value result : op->getResults())
      if (failed(shareType(result, op)))
        return failure();
    for (Region &region : op->getRegions())
      for (Block &block : region)
        for (Value argument : block.getArguments())
          if (failed(shareType(argument, op)))
            return failure();
  }
  for (Operation *op : operations)
    if (failed(convert(op)))
      return failure();
  for (Operation *op : dead)
    op->erase();
  moveScratchToSharedMemory();
  kernel->setAttr(plan::kThreadsAttr, b.getI64IntegerAttr(threads));
  return success();
}

LogicalResult Distribution::convert(Operation *op) {
  b.setInsertionPoint(op);
  if (auto load = dyn_cast<vector::LoadOp>(op))
    convertAccess(load);
  else if (auto store = dyn_cast<vector::StoreOp>(op))
    convertAccess(store);
  else if (auto load = dyn_cast<vector::MaskedLoadOp>(op))
    shiftIndex(load, load.getIndicesMutable(),
               load.getVectorType().getDimSize(0));
  else if (auto store = dyn_cast<vector::MaskedStoreOp>(op))
    shiftIndex(store, store.getIndicesMutable(),
               store.getVectorType().getDimSize(0));
  else if (isa<vector::ConstantMaskOp, vector::CreateMaskOp>(op))
    convertMask(op);
  else if (auto reduction = dyn_cast<vector::ReductionOp>(op))
    convertReduction(reduction);
  else if (auto store = dyn_cast<memref::StoreOp>(op))
    convertScalarStore(store);
  else if (isa<memref::PrefetchOp>(op))
    op->erase(); // many warps hide the latency instead
  else if (isa<vector::VectorDialect>(op->getDialect()) &&
           !isa<vector::BroadcastOp, vector::ShuffleOp, vector::InterleaveOp,
                vector::DeinterleaveOp>(op))
    return op->emitOpError() << "has no form that threads could share";
  return success();
}

//===-- Values
//-----------------------------------------------------------------------------------------------------------===//

/// A splat, a pattern that every thread's part repeats, or one that grows from
/// part to part by the same step.
LogicalResult Distribution::convertConstant(arith::ConstantOp op) {
  auto values = dyn_cast<DenseElementsAttr>(op.getValue());
  if (!values || !isa<VectorType>(values.getType()))
    return success();
  VectorType part = share(cast<VectorType>(values.getType()));
  if (!part)
    return op.emitOpError() << "has a vector of type " << values.getType()
                            << ", which " << threads << " threads cannot share";
  auto rebuild = [&](Attribute value) {
    op.setValueAttr(cast<TypedAttr>(value));
    op.getResult().setType(part);
    return success();
  };
  if (values.isSplat())
    return rebuild(
        DenseElementsAttr::get(part, values.getSplatValue<Attribute>()));
  SmallVector<Attribute> all(values.getValues<Attribute>());
  const size_t lanes = part.getDimSize(0);
  ArrayRef<Attribute> first = ArrayRef(all).take_front(lanes);
  bool repeats = true;
  for (size_t i = lanes; i < all.size(); ++i)
    repeats &= all[i] == first[i % lanes];
  if (repeats)
    return rebuild(DenseElementsAttr::get(part, first));

  auto number = [](Attribute value) {
    return cast<FloatAttr>(value).getValueAsDouble();
  };
  if (!isa<FloatType>(part.getElementType()))
    return op.emitOpError() << "has no pattern that threads could share";
  const double step = number(all[lanes]) - number(all[0]);
  for (size_t i = lanes; i < all.size(); ++i)
    if (number(all[i]) != number(first[i % lanes]) + double(i / lanes) * step)
      return op.emitOpError() << "has no pattern that threads could share";
  b.setInsertionPoint(op);
  Location loc = op.getLoc();
  auto element = cast<FloatType>(part.getElementType());
  Value base =
      arith::ConstantOp::create(b, loc, DenseElementsAttr::get(part, first));
  Value index = arith::IndexCastOp::create(b, loc, b.getI64Type(), thread);
  Value offset = arith::MulFOp::create(
      b, loc, arith::SIToFPOp::create(b, loc, element, index),
      arith::ConstantOp::create(b, loc, b.getFloatAttr(element, step)));
  Value sum = arith::AddFOp::create(
      b, loc, base, vector::BroadcastOp::create(b, loc, part, offset));
  op.getResult().replaceAllUsesWith(sum);
  dead.push_back(op);
  return success();
}

LogicalResult Distribution::convertShuffle(vector::ShuffleOp op) {
  ArrayRef<int64_t> mask = op.getMask();
  const int64_t lanes = op.getV1VectorType().getDimSize(0) / threads,
                results = int64_t(mask.size()) / threads;
  if (op.getV1VectorType() != op.getV2VectorType() ||
      op.getV1VectorType().getDimSize(0) % threads ||
      int64_t(mask.size()) % threads)
    return op.emitOpError() << "moves lanes between threads";
  SmallVector<int64_t> part;
  for (auto [i, from] : llvm::enumerate(mask)) {
    const int64_t n = lanes * threads, vector = from / n,
                  owner = from % n / lanes,
                  local = vector * lanes + from % lanes;
    if (owner != int64_t(i) / results)
      return op.emitOpError() << "moves lanes between threads";
    if (int64_t(i) < results)
      part.push_back(local);
    else if (part[i % results] != local)
      return op.emitOpError() << "is not the same for all threads";
  }
  op.setMask(part);
  return success();
}

/// Lanes below a bound: of this thread those below the bound less its first
/// lane.
void Distribution::convertMask(Operation *op) {
  Location loc = op->getLoc();
  auto type = cast<VectorType>(op->getResult(0).getType());
  const int64_t lanes = type.getDimSize(0);
  Value bound;
  if (auto fixed = dyn_cast<vector::ConstantMaskOp>(op))
    bound = constant(loc, fixed.getMaskDimSizes()[0]);
  else
    bound = op->getOperand(0);
  Value rest = arith::SubIOp::create(b, loc, bound, firstLane(loc, lanes));
  Value none = constant(loc, 0);
  rest = arith::MaxSIOp::create(b, loc, rest, none);
  auto mask = vector::CreateMaskOp::create(b, loc, type, rest);
  op->getResult(0).replaceAllUsesWith(mask);
  op->erase();
}

/// Inside each thread, then over the threads in a butterfly, which gives all of
/// them one result.
void Distribution::convertReduction(vector::ReductionOp op) {
  Location loc = op.getLoc();
  auto combine = [&](Value x, Value y) {
    return vector::makeArithReduction(b, loc, op.getKind(), x, y,
                                      op.getFastmathAttr());
  };
  Value value = vector::ReductionOp::create(b, loc, op.getKind(),
                                            op.getVector(), op.getFastmath());
  for (int64_t mask = threads / 2; mask > 0; mask /= 2)
    value = combine(value, gpu::ShuffleOp::create(b, loc, value, int32_t(mask),
                                                  int32_t(threads),
                                                  gpu::ShuffleMode::XOR)
                               .getShuffleResult());
  if (op.getAcc())
    value = combine(op.getAcc(), value);
  op.replaceAllUsesWith(value);
  op.erase();
}

//===-- Memory
//-----------------------------------------------------------------------------------------------------------===//

void Distribution::shiftIndex(Operation *op, MutableOperandRange indices,
                              int64_t lanes) {
  Location loc = op->getLoc();
  OpOperand &last = *std::prev(indices.end());
  last.set(arith::AddIOp::create(b, loc, last.get(), firstLane(loc, lanes)));
}

/// The largest access that every address of an access is aligned to.
static int64_t alignmentOf(MemRefType type, OperandRange indices) {
  const int64_t bytes = type.getElementTypeBitWidth() / 8;
  int64_t common = kWidestAccess, stride = bytes;
  ArrayRef<int64_t> shape = type.getShape();
  for (int64_t i = int64_t(indices.size()) - 1; i >= 0; --i) {
    common = std::gcd(common, knownMultiple(indices[i]) * stride);
    stride *= shape[i];
  }
  return common;
}

template <typename OpTy> void Distribution::convertAccess(OpTy op) {
  const int64_t lanes = op.getVectorType().getDimSize(0);
  op.setAlignment(
      std::gcd(alignmentOf(op.getMemRefType(), op.getIndices()),
               lanes * op.getMemRefType().getElementTypeBitWidth() / 8));
  shiftIndex(op, op.getIndicesMutable(), lanes);
}

void Distribution::convertScalarStore(memref::StoreOp op) {
  auto only = scf::IfOp::create(b, op.getLoc(), isFirstThread(op.getLoc()),
                                /*withElseRegion=*/false);
  op->moveBefore(only.thenBlock()->getTerminator());
}

void Distribution::moveScratchToSharedMemory() {
  Value scratch = kernel.getArgument(kScratchArgument);
  auto shared = gpu::AddressSpaceAttr::get(kernel.getContext(),
                                           gpu::AddressSpace::Workgroup);
  auto inShared = [&](Type type) {
    auto memref = cast<MemRefType>(type);
    return MemRefType::get(memref.getShape(), memref.getElementType(),
                           memref.getLayout(), shared);
  };
  scratch.setType(inShared(scratch.getType()));
  for (Operation *view : scratch.getUsers())
    view->getResult(0).setType(inShared(view->getResult(0).getType()));
  SmallVector<Type> types(kernel.getBody().front().getArgumentTypes());
  kernel.setFunctionType(b.getFunctionType(types, {}));
}

void Distribution::insertBarriers() {
  SharedAccesses accesses(kernel, threads);
  for (Operation *op : accesses.placesOfBarriers()) {
    b.setInsertionPoint(op);
    gpu::BarrierOp::create(b, op->getLoc());
  }
}

namespace {
struct DistributeToThreads
    : mlir::megalodon::impl::DistributeToThreadsBase<DistributeToThreads> {
  using DistributeToThreadsBase::DistributeToThreadsBase;
  void runOnOperation() override {
    func::FuncOp kernel = getOperation();
    if (kernel.isExternal() || kernel->hasAttr(plan::kThreadsAttr))
      return;
    if (!kernel->hasAttr(plan::kScratchAttr))
      return;
    if (failed(Distribution(kernel, threads).run()))
      signalPassFailure();
  }
};
} // namespace
