// Joins dispatches whose workgroups own the same rows: what one leaves for the
// next is still in the core's cache, and what nobody else reads never becomes a
// tensor.
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/IRMapping.h"
#include "passes/Lowering/KernelBuilder.h"
#include "passes/Lowering/Passes.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::megalodon {
#define GEN_PASS_DEF_FUSEROWS
#include "passes/Lowering/Passes.h.inc"
} // namespace mlir::megalodon

using namespace mlir;
using namespace mlir::megalodon;
using plan::DispatchOp;

namespace {

/// Arguments of a kernel before its buffers: parameters, workgroup, scratch.
constexpr unsigned kFirstBuffer = 3;

/// A buffer of the joined kernel and the arguments it stands for in the two
/// kernels, null where one does not have it.
struct Buffer {
  BlockArgument first, second;
  MemRefType type() const {
    return cast<MemRefType>((first ? first : second).getType());
  }
};

/// A result of the joined dispatch.
struct Result {
  Value old;    ///< the result it replaces
  int64_t tied; ///< the input it updates, or -1
  Buffer buffer;
};

/// The joining of two dispatches of one block, `first` before `second`, which
/// reads a result of the first.
class Fusion {
public:
  Fusion(ModuleOp kernels, DispatchOp first, DispatchOp second,
         int64_t largestScratch)
      : kernels(kernels), largestScratch(largestScratch), first(first),
        second(second), firstKernel(kernelOf(first)),
        secondKernel(kernelOf(second)) {}

  /// Replaces both by the joined dispatch and returns it, or null when they
  /// cannot be joined.
  DispatchOp run();

private:
  func::FuncOp kernelOf(DispatchOp dispatch) {
    return kernels.lookupSymbol<func::FuncOp>(
        dispatch.getKernel().getLeafReference());
  }
  Operation *findPlace();
  bool placeBuffers();
  bool fitsScratch(Value value, const Buffer &buffer);
  std::string buildKernel();

  ModuleOp kernels;
  int64_t largestScratch;
  DispatchOp first, second;
  func::FuncOp firstKernel, secondKernel;
  llvm::MapVector<Value, Buffer> inputs;
  SmallVector<Result> results;
  SmallVector<Buffer> intermediates; ///< in scratch
  int64_t scratchBytes = 0;
  double savedBytes = 0; ///< traffic that the joined kernel no longer has
};

BlockArgument inputArgument(func::FuncOp kernel, unsigned input) {
  return kernel.getArgument(kFirstBuffer + input);
}
BlockArgument resultArgument(DispatchOp dispatch, func::FuncOp kernel,
                             unsigned result) {
  ArrayRef<int64_t> tied = dispatch.getTied();
  if (tied[result] >= 0)
    return inputArgument(kernel, tied[result]);
  return inputArgument(kernel, dispatch.getInputs().size() +
                                   llvm::count(tied.take_front(result), -1));
}
int64_t scratchOf(func::FuncOp kernel) {
  return kernel->getAttrOfType<IntegerAttr>(plan::kScratchAttr).getInt();
}
double bytesOf(Type type) {
  auto tensor = cast<RankedTensorType>(type);
  return double(tensor.getNumElements()) *
         (tensor.getElementTypeBitWidth() / 8);
}

/// Where the joined dispatch may stand: at the first if the second's operands
/// are there already, at the second if nobody needs the first's results before.
Operation *Fusion::findPlace() {
  bool early = llvm::all_of(second.getInputs(), [&](Value input) {
    Operation *producer = input.getDefiningOp();
    return !producer || producer == first || producer->isBeforeInBlock(first);
  });
  if (early)
    return first;
  bool late = llvm::all_of(first->getUsers(), [&](Operation *user) {
    return user == second || second->isBeforeInBlock(user);
  });
  return late ? second.getOperation() : nullptr;
}

bool Fusion::placeBuffers() {
  auto isTied = [](DispatchOp dispatch, int64_t input) {
    return llvm::is_contained(dispatch.getTied(), input);
  };
  llvm::DenseMap<Value, int64_t> read; // by the second
  for (auto [index, input] : llvm::enumerate(second.getInputs()))
    if (!read.try_emplace(input, index).second)
      return false; // two arguments for one tensor
  for (auto [index, input] : llvm::enumerate(first.getInputs())) {
    Buffer buffer{inputArgument(firstKernel, index), {}};
    if (!inputs.insert({input, buffer}).second)
      return false;
    // What the first updates, the second must not need in its old form.
    if (isTied(first, index) && read.count(input))
      return false;
  }

  // What the first makes: an intermediate, a result, or updated by the second
  // and then a result of the second.
  scratchBytes = llvm::alignTo(
      std::max(scratchOf(firstKernel), scratchOf(secondKernel)), 64);
  llvm::DenseMap<Value, Result> updated;
  for (auto [index, value] : llvm::enumerate(first.getResults())) {
    Result result{value,
                  first.getTied()[index],
                  {resultArgument(first, firstKernel, index), {}}};
    bool updates = false;
    if (auto use = read.find(value); use != read.end()) {
      result.buffer.second = inputArgument(secondKernel, use->second);
      if (result.buffer.second.getType() != result.buffer.first.getType())
        return false;
      savedBytes += bytesOf(value.getType());
      updates = isTied(second, use->second);
      if (updates && !value.hasOneUse())
        return false;
    }
    if (result.tied >= 0)
      inputs[first.getInputs()[result.tied]].second = result.buffer.second;
    if (updates)
      updated[value] = result;
    else if (result.tied < 0 && fitsScratch(value, result.buffer))
      intermediates.push_back(result.buffer);
    else
      results.push_back(result);
  }

  for (auto [index, input] : llvm::enumerate(second.getInputs())) {
    if (input.getDefiningOp() == first)
      continue;
    BlockArgument argument = inputArgument(secondKernel, index);
    Buffer &buffer = inputs[input];
    if (buffer.first) {
      if (buffer.first.getType() != argument.getType())
        return false;
      savedBytes += bytesOf(input.getType());
    }
    buffer.second = argument;
  }
  for (auto [index, value] : llvm::enumerate(second.getResults())) {
    Result result{value,
                  second.getTied()[index],
                  {{}, resultArgument(second, secondKernel, index)}};
    if (result.tied >= 0) {
      Value input = second.getInputs()[result.tied];
      if (auto earlier = updated.find(input); earlier != updated.end()) {
        result.tied = earlier->second.tied;
        result.buffer.first = earlier->second.buffer.first;
      } else {
        result.tied = inputs.find(input) - inputs.begin();
      }
    }
    results.push_back(result);
  }
  return true;
}

/// Whether only the two kernels see the value and reach it by rows; if so,
/// takes scratch for a workgroup's rows.
bool Fusion::fitsScratch(Value value, const Buffer &buffer) {
  MemRefType type = buffer.type();
  if (!buffer.second || !value.hasOneUse() || type.getRank() != 2)
    return false;
  for (BlockArgument argument : {buffer.first, buffer.second})
    for (Operation *user : argument.getUsers())
      if (!isa<vector::LoadOp, vector::StoreOp, vector::MaskedLoadOp,
               vector::MaskedStoreOp, memref::LoadOp, memref::StoreOp>(user))
        return false;
  int64_t bytes =
      llvm::alignTo(first.getGrid().getDivisor() * type.getDimSize(1) *
                        (type.getElementTypeBitWidth() / 8),
                    64);
  if (scratchBytes + bytes > largestScratch)
    return false;
  scratchBytes += bytes;
  savedBytes += bytesOf(value.getType());
  return true;
}

/// The first kernel's body, then the second's, on common arguments.
std::string Fusion::buildKernel() {
  Location loc = first.getLoc();
  ImplicitLocOpBuilder b(loc, kernels.getContext());
  auto kernel = func::FuncOp::create(loc, "joined", b.getFunctionType({}, {}));
  Block *entry = kernel.addEntryBlock();
  b.setInsertionPointToStart(entry);

  IRMapping firstMap, secondMap;
  auto map = [&](const Buffer &buffer, Value to) {
    if (buffer.first)
      firstMap.map(buffer.first, to);
    if (buffer.second)
      secondMap.map(buffer.second, to);
  };
  auto addArgument = [&](const Buffer &buffer, Type type) {
    Value argument = entry->addArgument(type, loc);
    map(buffer, argument);
    return argument;
  };
  auto common = [&](unsigned index) {
    return Buffer{firstKernel.getArgument(index),
                  secondKernel.getArgument(index)};
  };
  addArgument(common(0), firstKernel.getArgument(0).getType());
  Value workgroup = addArgument(common(1), b.getIndexType());
  Value scratch =
      addArgument(common(2), MemRefType::get({scratchBytes}, b.getI8Type()));
  for (auto &[value, buffer] : inputs)
    addArgument(buffer, buffer.type());
  for (const Result &result : results)
    if (result.tied < 0)
      addArgument(result.buffer, result.buffer.type());

  // Intermediates hold a workgroup's rows behind the scratch of the kernels.
  int64_t rows = first.getGrid().getDivisor(), offset = scratchBytes;
  SmallVector<Value> views;
  for (const Buffer &buffer : intermediates) {
    auto type = MemRefType::get({rows, buffer.type().getDimSize(1)},
                                buffer.type().getElementType());
    offset -= llvm::alignTo(
        type.getNumElements() * (type.getElementTypeBitWidth() / 8), 64);
    Value at = arith::ConstantIndexOp::create(b, offset);
    views.push_back(memref::ViewOp::create(b, type, scratch, at, ValueRange{}));
    map(buffer, views.back());
  }
  Value firstRow = arith::MulIOp::create(
      b, workgroup, arith::ConstantIndexOp::create(b, rows));
  for (auto [from, mapping] :
       {std::pair(firstKernel, &firstMap), std::pair(secondKernel, &secondMap)})
    for (Operation &op : from.getBody().front().without_terminator())
      b.clone(op, *mapping);
  func::ReturnOp::create(b);
  // Kernels count rows from the call's first token.
  for (Value view : views)
    for (OpOperand &use : view.getUses()) {
      Operation *user = use.getOwner();
      OpOperand &row = user->getOpOperand(use.getOperandNumber() + 1);
      b.setInsertionPoint(user);
      row.set(arith::SubIOp::create(b, row.get(), firstRow));
    }

  kernel.setFunctionType(b.getFunctionType(entry->getArgumentTypes(), {}));
  kernel->setAttr(plan::kScratchAttr, b.getI64IntegerAttr(scratchBytes));
  kernel->setAttr(plan::kRowsAttr, b.getUnitAttr());
  auto joined = [&](StringRef attribute) {
    return b.getStringAttr(
        firstKernel->getAttrOfType<StringAttr>(attribute).getValue() + "+" +
        secondKernel->getAttrOfType<StringAttr>(attribute).getValue());
  };
  kernel->setAttr(plan::kSourceAttr, joined(plan::kSourceAttr));
  auto baseName = [](func::FuncOp function) {
    StringRef name = function.getName(), base = name.rtrim("0123456789");
    return base.size() < name.size() && base.ends_with("_") ? base.drop_back()
                                                            : name;
  };
  return insertKernel(
      kernels, kernel,
      (baseName(firstKernel) + "." + baseName(secondKernel)).str());
}

DispatchOp Fusion::run() {
  if (!firstKernel->hasAttr(plan::kRowsAttr) ||
      !secondKernel->hasAttr(plan::kRowsAttr) ||
      first.getGrid() != second.getGrid() ||
      first.getGrid().getInner() != plan::Inner::Tokens ||
      !first.getImmediates().empty() || !second.getImmediates().empty())
    return nullptr;
  Operation *place = findPlace();
  if (!place || !placeBuffers())
    return nullptr;

  OpBuilder builder(place);
  MLIRContext *context = builder.getContext();
  auto kernel =
      SymbolRefAttr::get(context, plan::kKernelsModule,
                         {FlatSymbolRefAttr::get(context, buildKernel())});
  SmallVector<Value> operands;
  for (auto &[value, buffer] : inputs)
    operands.push_back(value);
  SmallVector<Type> types;
  SmallVector<int64_t> tied;
  for (const Result &result : results) {
    types.push_back(result.old.getType());
    tied.push_back(result.tied);
  }
  double flops =
      first.getFlops().convertToDouble() + second.getFlops().convertToDouble();
  double bytes = first.getBytes().convertToDouble() +
                 second.getBytes().convertToDouble() - savedBytes;
  auto joined = DispatchOp::create(
      builder, first.getLoc(), types, kernel, operands, first.getGrid(),
      builder.getDenseI64ArrayAttr(tied), builder.getDenseI64ArrayAttr({}),
      builder.getF64FloatAttr(flops), builder.getF64FloatAttr(bytes));
  for (auto [result, value] : llvm::zip_equal(results, joined.getResults()))
    result.old.replaceAllUsesWith(value);
  second.erase();
  first.erase();
  return joined;
}

struct FuseRows : mlir::megalodon::impl::FuseRowsBase<FuseRows> {
  using FuseRowsBase::FuseRowsBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto kernels = module.lookupSymbol<ModuleOp>(plan::kKernelsModule);
    if (!kernels)
      return;
    for (auto function : module.getOps<func::FuncOp>())
      if (!function.isExternal())
        fuse(kernels, function.getBody().front());

    llvm::DenseSet<StringRef> used;
    module.walk([&](DispatchOp dispatch) {
      used.insert(dispatch.getKernel().getLeafReference());
    });
    for (auto kernel :
         llvm::make_early_inc_range(kernels.getOps<func::FuncOp>()))
      if (!used.contains(kernel.getName()))
        kernel.erase();
  }

  void fuse(ModuleOp kernels, Block &block) {
    for (Operation *op = &block.front(); op;) {
      DispatchOp joined;
      if (auto second = dyn_cast<DispatchOp>(op))
        for (Value input : second.getInputs())
          if (auto first = input.getDefiningOp<DispatchOp>())
            if ((joined = Fusion(kernels, first, second, largestScratch).run()))
              break;
      // The joined dispatch may join its producers in turn.
      numJoined += static_cast<bool>(joined);
      op = joined ? joined.getOperation() : op->getNextNode();
    }
  }
};

} // namespace
