// Calls of the runtime before accesses to memory, so that it can check them.
#include "mlir/Dialect/LLVMIR/LLVMTypes.h"
#include "mlir/Interfaces/DataLayoutInterfaces.h"
#include "test/emulation/EmulatedKernel.h"
#include "test/emulation/runtime/Interface.h"

using namespace mlir;
using namespace mlir::megalodon;
namespace emulation = ::megalodon::emulation;

/// Whether only the thread itself can mean this memory: its own variables,
/// constants, what the runtime told it.
static bool isPrivate(Value address, Value thread) {
  while (auto offset = address.getDefiningOp<LLVM::GEPOp>())
    address = offset.getBase();
  return address == thread ||
         isa_and_present<LLVM::AllocaOp, LLVM::AddressOfOp>(
             address.getDefiningOp());
}

namespace {
class Instrumenter {
public:
  Instrumenter(ModuleOp unit, LLVM::LLVMFuncOp function, EmulatedKernel &kernel)
      : unit(unit), kernel(kernel), thread(function.getArgument(0)),
        layout(DataLayout::closest(function)), b(unit.getContext()) {}

  LogicalResult visit(Operation *op) {
    b.setInsertionPoint(op);
    if (auto load = dyn_cast<LLVM::LoadOp>(op))
      return plain(op, load.getAddr(), load.getType(), load.getAlignment(),
                   load.getOrdering(), 0);
    if (auto store = dyn_cast<LLVM::StoreOp>(op))
      return plain(op, store.getAddr(), store.getValue().getType(),
                   store.getAlignment(), store.getOrdering(),
                   emulation::kStore);
    if (auto load = dyn_cast<LLVM::MaskedLoadOp>(op))
      return masked(op, load.getData(), load.getMask(), load.getType(),
                    load.getAlignment(), 0);
    if (auto store = dyn_cast<LLVM::MaskedStoreOp>(op))
      return masked(op, store.getData(), store.getMask(),
                    store.getValue().getType(), store.getAlignment(),
                    emulation::kStore);
    if (auto gather = dyn_cast<LLVM::masked_gather>(op))
      return spread(op, gather.getPtrs(), gather.getMask(),
                    gather.getResult().getType(), 0);
    if (auto scatter = dyn_cast<LLVM::masked_scatter>(op))
      return spread(op, scatter.getPtrs(), scatter.getMask(),
                    scatter.getValue().getType(), emulation::kStore);
    if (auto copy = dyn_cast<LLVM::MemcpyOp>(op)) {
      lengthy(op, copy.getSrc(), copy.getLen(), 0);
      lengthy(op, copy.getDst(), copy.getLen(), emulation::kStore);
      return success();
    }
    if (auto set = dyn_cast<LLVM::MemsetOp>(op)) {
      lengthy(op, set.getDst(), set.getLen(), emulation::kStore);
      return success();
    }
    if (auto atomic = dyn_cast<LLVM::AtomicRMWOp>(op))
      return plain(op, atomic.getPtr(), atomic.getVal().getType(),
                   atomic.getAlignment(), LLVM::AtomicOrdering::monotonic,
                   emulation::kStore);
    if (auto atomic = dyn_cast<LLVM::AtomicCmpXchgOp>(op))
      return plain(op, atomic.getPtr(), atomic.getVal().getType(),
                   atomic.getAlignment(), LLVM::AtomicOrdering::monotonic,
                   emulation::kStore);
    if (isa<LLVM::MemmoveOp, LLVM::MemcpyInlineOp, LLVM::masked_expandload,
            LLVM::masked_compressstore, LLVM::InlineAsmOp,
            LLVM::CallIntrinsicOp>(op))
      return op->emitError()
             << "kernel '" << kernel.name
             << "': the emulation does not know op '" << op->getName() << "'";
    return success();
  }

private:
  Value number(int64_t value, unsigned bits = 32) {
    return LLVM::ConstantOp::create(
        b, unit.getLoc(), b.getIntegerAttr(b.getIntegerType(bits), value));
  }

  int64_t bytesOf(Type type) { return int64_t(layout.getTypeSize(type)); }

  /// `what` of megalodon_emulate_access.
  Value describe(int64_t bytes, uint64_t alignment, uint32_t flags) {
    return number(bytes |
                  int64_t(llvm::Log2_64(alignment))
                      << emulation::kAlignmentShift |
                  flags);
  }

  void call(Operation *op, StringRef name, ArrayRef<Value> operands) {
    SmallVector<Value> all = {thread};
    llvm::append_range(all, operands);
    all.push_back(number(kernel.addSite(op)));
    callRuntime(b, op->getLoc(), unit, name, Type(), all);
  }

  LogicalResult plain(Operation *op, Value address, Type type,
                      std::optional<uint64_t> alignment,
                      LLVM::AtomicOrdering ordering, uint32_t flags) {
    if (isPrivate(address, thread))
      return success();
    if (ordering != LLVM::AtomicOrdering::not_atomic)
      flags |= emulation::kAtomic;
    uint64_t relied =
        alignment.value_or(0) ? *alignment : layout.getTypeABIAlignment(type);
    call(op, "megalodon_emulate_access",
         {address, describe(bytesOf(type), relied, flags)});
    return success();
  }

  LogicalResult masked(Operation *op, Value address, Value mask, Type type,
                       uint64_t alignment, uint32_t flags) {
    auto vector = cast<VectorType>(type);
    const int64_t lanes = vector.getNumElements();
    if (isPrivate(address, thread))
      return success();
    if (lanes > 64)
      return op->emitError()
             << "kernel '" << kernel.name
             << "': expected at most 64 masked lanes, got " << lanes;
    Value bits =
        LLVM::BitcastOp::create(b, op->getLoc(), b.getIntegerType(lanes), mask);
    if (lanes < 64)
      bits = LLVM::ZExtOp::create(b, op->getLoc(), b.getI64Type(), bits);
    const int64_t bytes = bytesOf(vector.getElementType());
    call(op, "megalodon_emulate_masked_access",
         {address, bits,
          describe(bytes, std::min<uint64_t>(alignment, bytes), flags)});
    return success();
  }

  LogicalResult spread(Operation *op, Value addresses, Value mask, Type type,
                       uint32_t flags) {
    auto vector = cast<VectorType>(type);
    const int64_t bytes = bytesOf(vector.getElementType());
    Location loc = op->getLoc();
    for (int64_t i = 0; i < vector.getNumElements(); ++i) {
      Value lane = number(i);
      Value address = LLVM::ExtractElementOp::create(b, loc, addresses, lane);
      Value bit = LLVM::ZExtOp::create(
          b, loc, b.getI64Type(),
          LLVM::ExtractElementOp::create(b, loc, mask, lane));
      call(op, "megalodon_emulate_masked_access",
           {address, bit, describe(bytes, bytes, flags)});
    }
    return success();
  }

  void lengthy(Operation *op, Value address, Value bytes, uint32_t flags) {
    if (isPrivate(address, thread))
      return;
    if (bytes.getType() != b.getI64Type())
      bytes = LLVM::ZExtOp::create(b, op->getLoc(), b.getI64Type(), bytes);
    call(op, "megalodon_emulate_long_access", {address, bytes, number(flags)});
  }

  ModuleOp unit;
  EmulatedKernel &kernel;
  Value thread;
  DataLayout layout;
  OpBuilder b;
};
} // namespace

LogicalResult mlir::megalodon::instrumentAccesses(ModuleOp unit,
                                                  EmulatedKernel &kernel) {
  auto function = unit.lookupSymbol<LLVM::LLVMFuncOp>(kernel.threadFunction());
  Instrumenter instrumenter(unit, function, kernel);
  SmallVector<Operation *> ops;
  function.walk([&](Operation *op) { ops.push_back(op); });
  for (Operation *op : ops)
    if (failed(instrumenter.visit(op)))
      return failure();
  return success();
}
