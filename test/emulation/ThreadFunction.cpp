// A gpu.func as a function of one thread, in which ops of a GPU are calls.
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/NVGPU/IR/NVGPUDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/AttrTypeSubElements.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Interfaces/DataLayoutInterfaces.h"
#include "test/emulation/EmulatedKernel.h"
#include "test/emulation/runtime/Interface.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::megalodon;
namespace emulation = ::megalodon::emulation;

static InFlightDiagnostic refuse(Operation *op, const EmulatedKernel &kernel) {
  return op->emitError() << "kernel '" << kernel.name
                         << "': the emulation does not know op '"
                         << op->getName() << "'";
}

/// Bytes of an element in memory.
static int64_t elementBytes(MemRefType type) {
  DataLayout layout;
  return int64_t(layout.getTypeSize(type.getElementType()));
}

static int64_t bytesOf(MemRefType type) {
  return type.getNumElements() * elementBytes(type);
}

/// Threads, words of parameters, shared memory and buffers of the kernel.
static LogicalResult describe(gpu::GPUFuncOp function, EmulatedKernel &kernel) {
  kernel.name = function.getName().str();
  auto number = [&](StringRef name) -> std::optional<int64_t> {
    if (auto attribute = function->getAttrOfType<IntegerAttr>(name))
      return attribute.getInt();
    return std::nullopt;
  };
  auto threads = number(plan::kThreadsAttr);
  if (!threads || *threads < 1 || *threads > 1024)
    return function.emitOpError()
           << "expected 1 to 1024 threads in attribute 'plan.threads'";
  kernel.threads = *threads;
  if (auto size = function.getKnownBlockSize();
      size && (*size)[0] * (*size)[1] * (*size)[2] != *threads)
    return function.emitOpError() << "expected known_block_size of " << *threads
                                  << " threads, got " << *size;
  for (Type type : function.getFunctionType().getInputs()) {
    if (type.isInteger(64) && kernel.bufferBytes.empty()) {
      ++kernel.words;
      continue;
    }
    auto buffer = dyn_cast<MemRefType>(type);
    if (!buffer || !buffer.hasStaticShape() || !buffer.getLayout().isIdentity())
      return function.emitOpError()
             << "expected i64 words and then buffers of static shape, got "
             << type;
    kernel.bufferBytes.push_back(bytesOf(buffer));
  }
  if (auto words = number(plan::kWordsAttr); words && *words != kernel.words)
    return function.emitOpError() << "expected " << *words << " words, got "
                                  << kernel.words << " i64 arguments";
  for (BlockArgument attribution : function.getWorkgroupAttributions()) {
    kernel.sharedBytes =
        llvm::alignTo(kernel.sharedBytes, emulation::kSharedAlignment);
    kernel.sharedOffsets.push_back(kernel.sharedBytes);
    kernel.sharedBytes += bytesOf(cast<MemRefType>(attribution.getType()));
  }
  if (auto scratch = number(plan::kScratchAttr);
      scratch && *scratch != kernel.sharedBytes)
    return function.emitOpError()
           << "expected " << *scratch << " bytes of workgroup memory, got "
           << kernel.sharedBytes;
  return success();
}

/// One address space, and tokens of copies that carry nothing.
static void eraseSpaces(Operation *root) {
  MLIRContext *context = root->getContext();
  AttrTypeReplacer replacer;
  replacer.addReplacement([](MemRefType type) -> std::optional<Type> {
    if (!type.getMemorySpace())
      return std::nullopt;
    return MemRefType::get(type.getShape(), type.getElementType(),
                           type.getLayout());
  });
  replacer.addReplacement(
      [&](nvgpu::DeviceAsyncTokenType) -> std::optional<Type> {
        return IntegerType::get(context, 32);
      });
  replacer.recursivelyReplaceElementsIn(root, /*replaceAttrs=*/true,
                                        /*replaceLocs=*/false,
                                        /*replaceTypes=*/true);
}

namespace {
/// Replaces the ops of GPU dialects in one function.
class Replacer {
public:
  Replacer(func::FuncOp function, ModuleOp unit, EmulatedKernel &kernel)
      : function(function), unit(unit), kernel(kernel),
        thread(function.getArgument(0)),
        b(function.getLoc(), function.getContext()) {}

  LogicalResult replace(Operation *op) {
    b.setInsertionPoint(op);
    b.setLoc(op->getLoc());
    return llvm::TypeSwitch<Operation *, LogicalResult>(op)
        .Case([&](gpu::ThreadIdOp id) {
          return identity(id, id.getDimension(),
                          field(offsetof(emulation::Thread, thread)), 0);
        })
        .Case([&](gpu::BlockIdOp id) {
          return identity(id, id.getDimension(),
                          field(offsetof(emulation::Thread, block)), 0);
        })
        .Case([&](gpu::BlockDimOp size) {
          return identity(size, size.getDimension(), index(kernel.threads), 1);
        })
        .Case([&](gpu::GridDimOp size) -> LogicalResult {
          // The cpu device does not say how many workgroups there are.
          if (size.getDimension() == gpu::Dimension::x)
            return refuse(op, kernel);
          return done(op, index(1));
        })
        .Case([&](gpu::LaneIdOp) {
          return done(op, field(offsetof(emulation::Thread, lane)));
        })
        .Case([&](gpu::SubgroupIdOp) {
          return done(op, field(offsetof(emulation::Thread, warp)));
        })
        .Case([&](gpu::SubgroupSizeOp) {
          return done(op, index(emulation::kWarp));
        })
        .Case([&](gpu::NumSubgroupsOp) {
          return done(
              op, index(llvm::divideCeil(kernel.threads, emulation::kWarp)));
        })
        .Case<gpu::BarrierOp, NVVM::Barrier0Op>([&](auto) {
          meet("megalodon_emulate_barrier", {thread}, Type());
          return done(op, {});
        })
        .Case([&](NVVM::BarrierOp) -> LogicalResult {
          if (op->getNumOperands() > 0 || op->getNumResults() > 0)
            return refuse(op, kernel) << " with a number or a reduction";
          meet("megalodon_emulate_barrier", {thread}, Type());
          return done(op, {});
        })
        .Case([&](NVVM::SyncWarpOp sync) {
          meet("megalodon_emulate_warp_barrier", {thread, sync.getMask()},
               Type());
          return done(op, {});
        })
        .Case([&](gpu::ShuffleOp shuffle) { return replaceShuffle(shuffle); })
        .Case([&](NVVM::MmaOp mma) { return replaceMma(mma); })
        .Case([&](nvgpu::LdMatrixOp load) { return replaceLdMatrix(load); })
        .Case([&](nvgpu::DeviceAsyncCopyOp copy) { return replaceCopy(copy); })
        .Case([&](nvgpu::DeviceAsyncCreateGroupOp) {
          call("megalodon_emulate_copy_group", {thread});
          return done(op, integer(0));
        })
        .Case([&](nvgpu::DeviceAsyncWaitOp wait) {
          call("megalodon_emulate_copy_wait",
               {thread, integer(wait.getNumGroups().value_or(0))});
          return done(op, {});
        })
        .Case([&](gpu::ReturnOp) {
          func::ReturnOp::create(b);
          return done(op, {});
        })
        .Default([&](Operation *) -> LogicalResult {
          if (isa_and_present<gpu::GPUDialect, nvgpu::NVGPUDialect,
                              NVVM::NVVMDialect>(op->getDialect()) ||
              isa<LLVM::InlineAsmOp, LLVM::CallIntrinsicOp>(op))
            return refuse(op, kernel);
          return success();
        });
  }

private:
  LogicalResult done(Operation *op, ValueRange with) {
    op->replaceAllUsesWith(with);
    op->erase();
    return success();
  }

  /// An op with a dimension, of which only x is more than one element wide.
  LogicalResult identity(Operation *op, gpu::Dimension dimension, Value x,
                         int64_t otherwise) {
    return done(op, dimension == gpu::Dimension::x ? x : index(otherwise));
  }

  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value integer(int64_t value, unsigned bits = 32) {
    return arith::ConstantOp::create(
        b, b.getIntegerAttr(b.getIntegerType(bits), value));
  }
  Type pointer() { return LLVM::LLVMPointerType::get(b.getContext()); }

  Value offsetBy(Value base, int64_t bytes) {
    return LLVM::GEPOp::create(b, b.getLoc(), pointer(), b.getI8Type(), base,
                               ArrayRef<LLVM::GEPArg>{int32_t(bytes)});
  }

  /// A 32-bit field of the thread.
  Value field(int64_t offset) {
    auto load =
        LLVM::LoadOp::create(b, b.getI32Type(), offsetBy(thread, offset));
    load.setInvariant(true);
    return arith::IndexCastUIOp::create(b, b.getIndexType(), load);
  }

  LLVM::CallOp call(StringRef name, ValueRange operands, Type result = Type()) {
    return callRuntime(b, b.getLoc(), unit, name, result, operands);
  }

  /// A call at which threads wait for each other.
  LLVM::CallOp meet(StringRef name, ArrayRef<Value> operands, Type result) {
    kernel.meets = true;
    SmallVector<Value> all(operands);
    all.push_back(site());
    return call(name, all, result);
  }

  Value site() {
    Operation *op = &*b.getInsertionPoint();
    return integer(kernel.addSite(op));
  }

  /// A variable of the thread, which does not grow the stack in a loop.
  Value variable(Type element, int64_t count) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(&function.getBody().front());
    return LLVM::AllocaOp::create(b, pointer(), element, integer(count), 16);
  }

  Value addressOf(Value memref, ValueRange indices) {
    auto type = cast<MemRefType>(memref.getType());
    auto metadata = memref::ExtractStridedMetadataOp::create(b, memref);
    Value elements = metadata.getOffset();
    for (auto [i, position] : llvm::enumerate(indices))
      elements = arith::AddIOp::create(
          b, elements,
          arith::MulIOp::create(b, position, metadata.getStrides()[i]));
    Value address = arith::AddIOp::create(
        b,
        memref::ExtractAlignedPointerAsIndexOp::create(
            b, metadata.getBaseBuffer()),
        arith::MulIOp::create(b, elements, index(elementBytes(type))));
    Value word = arith::IndexCastOp::create(b, b.getI64Type(), address);
    return LLVM::IntToPtrOp::create(b, pointer(), word);
  }

  LogicalResult replaceShuffle(gpu::ShuffleOp op) {
    Type type = op.getValue().getType(), word = b.getI64Type();
    if (!type.isIntOrFloat() || (type.getIntOrFloatBitWidth() != 32 &&
                                 type.getIntOrFloatBitWidth() != 64))
      return refuse(op, kernel) << " on " << type;
    const unsigned bits = type.getIntOrFloatBitWidth();
    Type asInteger = b.getIntegerType(bits);
    Value value = op.getValue();
    if (value.getType() != asInteger)
      value = arith::BitcastOp::create(b, asInteger, value);
    if (bits < 64)
      value = arith::ExtUIOp::create(b, word, value);
    auto mode = [&] {
      switch (op.getMode()) {
      case gpu::ShuffleMode::XOR:
        return emulation::Shuffle::Xor;
      case gpu::ShuffleMode::UP:
        return emulation::Shuffle::Up;
      case gpu::ShuffleMode::DOWN:
        return emulation::Shuffle::Down;
      case gpu::ShuffleMode::IDX:
        return emulation::Shuffle::Index;
      }
      llvm_unreachable("unknown shuffle mode");
    }();
    Value valid = variable(b.getI8Type(), 1);
    Value result = meet("megalodon_emulate_shuffle",
                        {thread, value, op.getOffset(), op.getWidth(),
                         integer(int64_t(mode)), valid},
                        word)
                       .getResult();
    if (bits < 64)
      result = arith::TruncIOp::create(b, asInteger, result);
    if (type != asInteger)
      result = arith::BitcastOp::create(b, type, result);
    Value flag = arith::TruncIOp::create(
        b, b.getI1Type(), LLVM::LoadOp::create(b, b.getI8Type(), valid));
    return done(op, {result, flag});
  }

  LogicalResult replaceMma(NVVM::MmaOp op) {
    NVVM::MMAShapeAttr shape = op.getShape();
    auto is = [&](int64_t k, NVVM::MMATypes type) {
      return shape.getM() == 16 && shape.getN() == 8 && shape.getK() == k &&
             op.getMultiplicandAPtxType() == type &&
             op.getMultiplicandBPtxType() == type;
    };
    emulation::Mma form;
    if (is(16, NVVM::MMATypes::bf16))
      form = emulation::Mma::M16N8K16Bf16;
    else if (is(8, NVVM::MMATypes::tf32))
      form = emulation::Mma::M16N8K8Tf32;
    else
      return refuse(op, kernel) << " of this shape and type; expected m16n8k16 "
                                   "of bf16 or m16n8k8 of tf32";
    if (op.getLayoutA() != NVVM::MMALayout::row ||
        op.getLayoutB() != NVVM::MMALayout::col || op.getB1Op() ||
        op.getIntOverflowBehavior())
      return refuse(op, kernel) << " of this layout; expected row and col";
    SmallVector<Value> operands(op.getOperandA());
    llvm::append_range(operands, op.getOperandB());
    llvm::append_range(operands, op.getOperandC());
    const int64_t count = operands.size(), results = 4;
    if (op.getOperandA().size() != 4 || op.getOperandB().size() != 2 ||
        op.getOperandC().size() != 4)
      return refuse(op, kernel) << " with " << count << " registers";
    Value registers = variable(b.getI32Type(), count + results);
    for (auto [i, operand] : llvm::enumerate(operands))
      LLVM::StoreOp::create(b, operand, offsetBy(registers, 4 * i));
    meet("megalodon_emulate_mma", {thread, integer(int64_t(form)), registers},
         Type());
    return done(op, Value(LLVM::LoadOp::create(
                        b, op.getType(), offsetBy(registers, 4 * count))));
  }

  LogicalResult replaceLdMatrix(nvgpu::LdMatrixOp op) {
    auto type = cast<VectorType>(op.getType());
    const int64_t tiles = op.getNumTiles();
    auto memory = cast<MemRefType>(op.getSrcMemref().getType());
    if (type.getRank() != 2 || type.getDimSize(0) != tiles ||
        type.getDimSize(1) * elementBytes(memory) != 4)
      return refuse(op, kernel) << " with result " << type;
    auto row = VectorType::get({type.getDimSize(1)}, type.getElementType());
    Value registers = variable(b.getI32Type(), tiles);
    meet("megalodon_emulate_ldmatrix",
         {thread, addressOf(op.getSrcMemref(), op.getIndices()), integer(tiles),
          integer(op.getTranspose(), 1), registers},
         Type());
    Value result = arith::ConstantOp::create(b, b.getZeroAttr(type));
    for (int64_t i = 0; i < tiles; ++i)
      result = vector::InsertOp::create(
          b, LLVM::LoadOp::create(b, row, offsetBy(registers, 4 * i)), result,
          ArrayRef<int64_t>{i});
    return done(op, result);
  }

  LogicalResult replaceCopy(nvgpu::DeviceAsyncCopyOp op) {
    auto type = cast<MemRefType>(op.getDst().getType());
    const int64_t element = elementBytes(type),
                  bytes = element * op.getDstElements().getSExtValue();
    Value sourceBytes = integer(bytes, 64);
    if (Value elements = op.getSrcElements())
      sourceBytes = arith::IndexCastOp::create(
          b, b.getI64Type(),
          arith::MulIOp::create(b, elements, index(element)));
    call("megalodon_emulate_copy",
         {thread, addressOf(op.getDst(), op.getDstIndices()),
          addressOf(op.getSrc(), op.getSrcIndices()), integer(bytes),
          sourceBytes, integer(op.getBypassL1Attr() ? 1 : 0, 1), site()});
    return done(op, integer(0));
  }

  func::FuncOp function;
  ModuleOp unit;
  EmulatedKernel &kernel;
  Value thread;
  ImplicitLocOpBuilder b;
};
} // namespace

LogicalResult mlir::megalodon::makeThreadFunction(gpu::GPUFuncOp original,
                                                  ModuleOp unit,
                                                  EmulatedKernel &kernel) {
  if (failed(describe(original, kernel)))
    return failure();
  OpBuilder builder(original.getContext());
  Location loc = original.getLoc();
  builder.setInsertionPointToStart(unit.getBody());
  auto copy = cast<gpu::GPUFuncOp>(builder.clone(*original));
  // Functions that kernels may call, and their constants.
  for (Operation &other : *original->getBlock())
    if (!isa<gpu::GPUFuncOp>(other))
      builder.clone(other);
  const unsigned inputs = copy.getFunctionType().getNumInputs();

  // (thread, workgroup attributions..., arguments...)
  Block &entry = copy.getBody().front();
  SmallVector<Type> types = {LLVM::LLVMPointerType::get(unit.getContext())};
  for (BlockArgument attribution : copy.getWorkgroupAttributions())
    types.push_back(attribution.getType());
  const unsigned leading = types.size();
  llvm::append_range(types, copy.getFunctionType().getInputs());
  auto function = func::FuncOp::create(builder, loc, kernel.threadFunction(),
                                       builder.getFunctionType(types, {}));
  Block *body = function.addEntryBlock();
  for (unsigned i = 0; i < inputs; ++i)
    entry.getArgument(i).replaceAllUsesWith(body->getArgument(leading + i));
  for (unsigned i = 0; i + 1 < leading; ++i)
    entry.getArgument(inputs + i).replaceAllUsesWith(body->getArgument(1 + i));
  builder.setInsertionPointToStart(body);
  for (BlockArgument attribution : copy.getPrivateAttributions())
    attribution.replaceAllUsesWith(memref::AllocaOp::create(
        builder, loc,
        MemRefType::get(
            cast<MemRefType>(attribution.getType()).getShape(),
            cast<MemRefType>(attribution.getType()).getElementType())));
  body->getOperations().splice(body->end(), entry.getOperations());
  if (!llvm::hasSingleElement(copy.getBody()))
    return copy.emitOpError() << "expected one block";
  copy.erase();
  eraseSpaces(unit);

  Replacer replacer(function, unit, kernel);
  SmallVector<Operation *> ops;
  function.walk([&](Operation *op) { ops.push_back(op); });
  for (Operation *op : ops)
    if (failed(replacer.replace(op)))
      return failure();
  return success();
}
