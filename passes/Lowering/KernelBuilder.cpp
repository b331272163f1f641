#include "passes/Lowering/KernelBuilder.h"
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/OperationSupport.h"
#include "mlir/IR/SymbolTable.h"
#include "runtime/plan/Header.h"

using namespace mlir;
using namespace mlir::megalodon;

// Longest parameter block a kernel may read: the fixed words and a few
// immediates.
static constexpr int64_t kParameterWords = 16;

// Alignment of what a kernel keeps in scratch, bytes: a cache line. Of shared
// memory 128 bytes are one access of a warp.
static int64_t scratchAlignment(int64_t threads) { return threads ? 128 : 64; }

/// Bytes that a thread of a GPU loads at once.
static constexpr int64_t kThreadVectorBytes = 16;

static ModuleOp kernelsModule(Operation *source) {
  auto module = source->getParentOfType<ModuleOp>();
  if (auto kernels = module.lookupSymbol<ModuleOp>(plan::kKernelsModule))
    return kernels;
  auto kernels = ModuleOp::create(module.getLoc(), plan::kKernelsModule);
  module.getBody()->push_back(kernels);
  return kernels;
}

KernelBuilder::KernelBuilder(PatternRewriter &rewriter,
                             const LoweringOptions &options, Operation *source,
                             StringRef name)
    : KernelBuilder(rewriter, options, source, name, /*threads=*/0) {}

KernelBuilder::KernelBuilder(PatternRewriter &rewriter,
                             const LoweringOptions &options, Operation *source,
                             StringRef name, int64_t threads)
    : b(UnknownLoc::get(rewriter.getContext()), rewriter.getContext()),
      rewriter(rewriter), options(options), source(source), name(name),
      threads(threads) {
  assert((threads == 0 || options.target == Target::Cuda) &&
         "thread form is for cuda");
  // The kernel is built free of any module and only inserted by finish(), once
  // it is known to be new.
  kernel = func::FuncOp::create(b.getLoc(), name, b.getFunctionType({}, {}));
  Block *entry = kernel.addEntryBlock();
  auto parametersType = MemRefType::get({kParameterWords}, b.getI64Type());
  parameters = entry->addArgument(parametersType, b.getLoc());
  workgroupValue = entry->addArgument(b.getIndexType(), b.getLoc());
  scratchValue = entry->addArgument(scratchType(0), b.getLoc());
  b.setInsertionPointToEnd(entry);
}

//===-- Arguments
//-------------------------------------------------------------------------------------------------------===//

MemRefType KernelBuilder::scratchType(int64_t bytes) {
  return MemRefType::get(
      {bytes}, b.getI8Type(), MemRefLayoutAttrInterface(),
      threads ? Attribute(gpu::AddressSpaceAttr::get(
                    b.getContext(), gpu::AddressSpace::Workgroup))
              : Attribute());
}

MemRefType KernelBuilder::viewed(Type tensorType, View view) {
  auto type = cast<RankedTensorType>(tensorType);
  ArrayRef<int64_t> shape = type.getShape();
  SmallVector<int64_t> result;
  switch (view) {
  case View::Plain:
    result.assign(shape.begin(), shape.end());
    break;
  case View::Rows:
    assert(shape.size() >= 2 && "expected leading batch and length dimensions");
    result.push_back(shape[0] * shape[1]);
    result.append(shape.begin() + 2, shape.end());
    break;
  case View::Flat:
    result.push_back(type.getNumElements());
    break;
  }
  return MemRefType::get(result, type.getElementType());
}

Value KernelBuilder::argument(MemRefType type) {
  return kernel.getBody().front().addArgument(type, b.getLoc());
}

Value KernelBuilder::read(Value tensor, View view) {
  inputs.push_back(tensor);
  inputArguments.push_back(argument(viewed(tensor.getType(), view)));
  return inputArguments.back();
}

Value KernelBuilder::write(Type tensorType, View view) {
  resultTypes.push_back(tensorType);
  tied.push_back(-1);
  outputArguments.push_back(argument(viewed(tensorType, view)));
  return outputArguments.back();
}

Value KernelBuilder::update(Value tensor, View view) {
  Value result = read(tensor, view);
  resultTypes.push_back(tensor.getType());
  tied.push_back(inputs.size() - 1);
  return result;
}

Value KernelBuilder::scratch(ArrayRef<int64_t> shape, Type element,
                             int64_t skewBytes) {
  int64_t bytes = element.getIntOrFloatBitWidth() / 8;
  for (int64_t size : shape)
    bytes *= size;
  const int64_t alignment = scratchAlignment(threads);
  int64_t offset = llvm::alignTo(scratchBytes, alignment) +
                   llvm::alignTo(skewBytes, alignment);
  scratchBytes = offset + bytes;
  // Views are made at the top of the kernel so that they dominate all uses.
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(&kernel.getBody().front());
  Value at = arith::ConstantIndexOp::create(b, offset);
  auto space = cast<MemRefType>(scratchValue.getType()).getMemorySpace();
  auto type =
      MemRefType::get(shape, element, MemRefLayoutAttrInterface(), space);
  return memref::ViewOp::create(b, type, scratchValue, at, ValueRange{});
}

Value KernelBuilder::parameterWord(int64_t word) {
  assert(word < kParameterWords && "too many immediates");
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(&kernel.getBody().front());
  Value at = arith::ConstantIndexOp::create(b, word);
  Value loaded = memref::LoadOp::create(b, parameters, at);
  return arith::IndexCastOp::create(b, b.getIndexType(), loaded);
}

Value KernelBuilder::immediate(int64_t value) {
  immediates.push_back(value);
  return parameterWord(::megalodon::plan::kFirstImmediate + immediates.size() -
                       1);
}

Value KernelBuilder::batch() {
  return parameterWord(::megalodon::plan::kBatch);
}
Value KernelBuilder::length() {
  return parameterWord(::megalodon::plan::kLength);
}
Value KernelBuilder::tokens() {
  return parameterWord(::megalodon::plan::kTokens);
}
Value KernelBuilder::rank(Value operand, int64_t word) {
  if (std::optional<int64_t> constant = getConstantIntValue(operand))
    return immediate(*constant);
  return parameterWord(word);
}
Value KernelBuilder::chunkRank(Value operand) {
  return rank(operand, ::megalodon::plan::kChunkRank);
}
Value KernelBuilder::tensorRank(Value operand) {
  return rank(operand, ::megalodon::plan::kTensorRank);
}
Value KernelBuilder::rankAlong(int64_t axis) {
  return parameterWord(::megalodon::plan::kDataRank + axis);
}
Value KernelBuilder::accumulating() {
  Value word = parameterWord(::megalodon::plan::kAccumulate);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointAfterValue(word);
  return arith::CmpIOp::create(b, arith::CmpIPredicate::ne, word, index(0));
}

//===-- Thread form
//-----------------------------------------------------------------------------------------------------===//

Value KernelBuilder::thread() {
  assert(threads && "a kernel in vector form has no threads");
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(&kernel.getBody().front());
  return gpu::ThreadIdOp::create(b, gpu::Dimension::x);
}
Value KernelBuilder::lane() { return rem(thread(), index(kWarpThreads)); }
Value KernelBuilder::warp() { return div(thread(), index(kWarpThreads)); }

void KernelBuilder::barrier() {
  assert(threads && "a kernel in vector form has no threads");
  gpu::BarrierOp::create(b);
}

Value KernelBuilder::shuffleXor(Value scalar, int64_t mask) {
  return gpu::ShuffleOp::create(b, scalar, int32_t(mask), kWarpThreads,
                                gpu::ShuffleMode::XOR)
      .getShuffleResult();
}

Value KernelBuilder::shuffleFrom(Value scalar, Value lane) {
  Type i32 = b.getI32Type();
  Value from = arith::IndexCastOp::create(b, i32, lane);
  Value width = arith::ConstantOp::create(b, b.getI32IntegerAttr(kWarpThreads));
  return gpu::ShuffleOp::create(b, scalar, from, width, gpu::ShuffleMode::IDX)
      .getShuffleResult();
}

Value KernelBuilder::warpReduce(Value scalar,
                                function_ref<Value(Value, Value)> combine) {
  for (int64_t mask = kWarpThreads / 2; mask > 0; mask /= 2)
    scalar = combine(scalar, shuffleXor(scalar, mask));
  return scalar;
}
Value KernelBuilder::warpSum(Value scalar) {
  return warpReduce(scalar, [&](Value x, Value y) { return add(x, y); });
}
Value KernelBuilder::warpMaximum(Value scalar) {
  return warpReduce(scalar, [&](Value x, Value y) { return max(x, y); });
}

//===-- Small builders
//----------------------------------------------------------------------------------------------------===//

static Type elementType(Value value) {
  return getElementTypeOrSelf(value.getType());
}
static bool isFloat(Value value) { return isa<FloatType>(elementType(value)); }

Value KernelBuilder::index(int64_t value) {
  return arith::ConstantIndexOp::create(b, value);
}

Value KernelBuilder::constant(double value, Type type) {
  auto element = cast<FloatType>(getElementTypeOrSelf(type));
  auto attribute = FloatAttr::get(element, value);
  if (auto vector = dyn_cast<VectorType>(type))
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(vector, attribute.getValue()));
  return arith::ConstantOp::create(b, attribute);
}

Value KernelBuilder::add(Value x, Value y) {
  return isFloat(x) ? Value(arith::AddFOp::create(b, x, y))
                    : Value(arith::AddIOp::create(b, x, y));
}
Value KernelBuilder::sub(Value x, Value y) {
  return isFloat(x) ? Value(arith::SubFOp::create(b, x, y))
                    : Value(arith::SubIOp::create(b, x, y));
}
Value KernelBuilder::mul(Value x, Value y) {
  return isFloat(x) ? Value(arith::MulFOp::create(b, x, y))
                    : Value(arith::MulIOp::create(b, x, y));
}
Value KernelBuilder::div(Value x, Value y) {
  return isFloat(x) ? Value(arith::DivFOp::create(b, x, y))
                    : Value(arith::DivUIOp::create(b, x, y));
}
Value KernelBuilder::rem(Value x, Value y) {
  return arith::RemUIOp::create(b, x, y);
}
Value KernelBuilder::min(Value x, Value y) {
  return isFloat(x) ? Value(arith::MinNumFOp::create(
                          b, x, y, arith::FastMathFlags::nnan))
                    : Value(arith::MinUIOp::create(b, x, y));
}
Value KernelBuilder::max(Value x, Value y) {
  // nnan makes this one instruction; the callers' values are never NaN unless
  // the model's already are.
  return isFloat(x) ? Value(arith::MaxNumFOp::create(
                          b, x, y, arith::FastMathFlags::nnan))
                    : Value(arith::MaxUIOp::create(b, x, y));
}
Value KernelBuilder::fma(Value x, Value y, Value z) {
  return math::FmaOp::create(b, x, y, z);
}
Value KernelBuilder::less(Value x, Value y) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::ult, x, y);
}
Value KernelBuilder::ceilDiv(Value x, int64_t divisor) {
  return div(add(x, index(divisor - 1)), index(divisor));
}
Value KernelBuilder::select(Value condition, Value x, Value y) {
  return arith::SelectOp::create(b, condition, x, y);
}

Value KernelBuilder::toFloat(Value x, Type type) {
  if (elementType(x) == type)
    return x;
  Type to = type;
  if (auto vector = dyn_cast<VectorType>(x.getType()))
    to = VectorType::get(vector.getShape(), type);
  if (elementType(x).getIntOrFloatBitWidth() < type.getIntOrFloatBitWidth())
    return arith::ExtFOp::create(b, to, x);
  return arith::TruncFOp::create(b, to, x);
}

Value KernelBuilder::intToFloat(Value x, Type type) {
  if (isa<IndexType>(x.getType()))
    x = arith::IndexCastOp::create(b, b.getI64Type(), x);
  return arith::SIToFPOp::create(b, type, x);
}

void KernelBuilder::loop(Value from, Value to, int64_t step,
                         function_ref<void(Value)> body) {
  auto loopOp = scf::ForOp::create(b, from, to, index(step));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loopOp.getBody());
  body(loopOp.getInductionVar());
}

SmallVector<Value>
KernelBuilder::loop(Value from, Value to, int64_t step, ValueRange carried,
                    function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto loopOp = scf::ForOp::create(b, from, to, index(step), carried);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loopOp.getBody());
  SmallVector<Value> next =
      body(loopOp.getInductionVar(), loopOp.getRegionIterArgs());
  // With carried values the builder leaves the terminator to us.
  if (!carried.empty())
    scf::YieldOp::create(b, next);
  return SmallVector<Value>(loopOp.getResults());
}

void KernelBuilder::when(Value condition, function_ref<void()> then,
                         function_ref<void()> otherwise) {
  auto ifOp = scf::IfOp::create(
      b, condition, /*withElseRegion=*/static_cast<bool>(otherwise));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(ifOp.thenBlock());
  then();
  if (otherwise) {
    b.setInsertionPointToStart(ifOp.elseBlock());
    otherwise();
  }
}

int64_t KernelBuilder::lanes(Type element) const {
  int64_t bytes = threads ? kThreadVectorBytes : options.vectorBytes;
  return bytes * 8 / computeType(element).getIntOrFloatBitWidth();
}
VectorType KernelBuilder::vectorType(Type element) const {
  return VectorType::get({lanes(element)}, computeType(element));
}

static Value tailMask(ImplicitLocOpBuilder &b, int64_t lanes, int64_t valid) {
  return vector::ConstantMaskOp::create(
      b, VectorType::get({lanes}, b.getI1Type()), ArrayRef<int64_t>{valid});
}

void KernelBuilder::forLanes(int64_t n, Type element,
                             function_ref<void(Value, Value)> body) {
  forLanes(n, element, {}, [&](Value at, Value mask, ValueRange) {
    body(at, mask);
    return SmallVector<Value>();
  });
}

SmallVector<Value> KernelBuilder::forLanes(
    int64_t n, Type element, ValueRange carried,
    function_ref<SmallVector<Value>(Value, Value, ValueRange)> body) {
  int64_t width = lanes(element), whole = n / width * width;
  SmallVector<Value> values(carried.begin(), carried.end());
  if (whole == width) {
    values = body(index(0), Value(), values);
  } else if (whole > 0 && values.empty()) {
    loop(index(0), index(whole), width,
         [&](Value at) { body(at, Value(), {}); });
  } else if (whole > 0) {
    values = loop(
        index(0), index(whole), width, values,
        [&](Value at, ValueRange args) { return body(at, Value(), args); });
  }
  if (whole < n)
    values = body(index(whole), tailMask(b, width, n - whole), values);
  return values;
}

Value KernelBuilder::load(Value memref, ValueRange indices, Value mask) {
  Type element = cast<MemRefType>(memref.getType()).getElementType();
  auto type = VectorType::get({lanes(element)}, element);
  if (!mask)
    return toFloat(vector::LoadOp::create(b, type, memref, indices),
                   computeType(element));
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
  return toFloat(
      vector::MaskedLoadOp::create(b, type, memref, indices, mask, zero),
      computeType(element));
}

/// Numbers as a buffer holds them: of another type only where that is bf16.
static Value stored(KernelBuilder &k, Value value, Value memref) {
  Type element = cast<MemRefType>(memref.getType()).getElementType();
  return element.isBF16() ? k.toFloat(value, element) : value;
}

void KernelBuilder::store(Value vector, Value memref, ValueRange indices,
                          Value mask) {
  vector = stored(*this, vector, memref);
  if (mask)
    vector::MaskedStoreOp::create(b, memref, indices, mask, vector);
  else
    vector::StoreOp::create(b, vector, memref, indices);
}

Value KernelBuilder::loadScalar(Value memref, ValueRange indices) {
  Value value = memref::LoadOp::create(b, memref, indices);
  return value.getType().isBF16() ? toFloat(value, b.getF32Type()) : value;
}
void KernelBuilder::storeScalar(Value value, Value memref, ValueRange indices) {
  memref::StoreOp::create(b, stored(*this, value, memref), memref, indices);
}
Value KernelBuilder::splat(Value scalar) {
  return vector::BroadcastOp::create(b, vectorType(scalar.getType()), scalar);
}
Value KernelBuilder::sum(Value vector) {
  return vector::ReductionOp::create(b, vector::CombiningKind::ADD, vector,
                                     arith::FastMathFlags::reassoc);
}
Value KernelBuilder::maximum(Value vector) {
  return vector::ReductionOp::create(b, vector::CombiningKind::MAXNUMF, vector,
                                     arith::FastMathFlags::nnan);
}
Value KernelBuilder::exp(Value x) { return math::ExpOp::create(b, x); }
Value KernelBuilder::log(Value x) { return math::LogOp::create(b, x); }
Value KernelBuilder::sqrt(Value x) { return math::SqrtOp::create(b, x); }
Value KernelBuilder::sigmoid(Value x) {
  Value one = constant(1.0, x.getType());
  return div(one, add(one, exp(arith::NegFOp::create(b, x))));
}

std::string mlir::megalodon::insertKernel(ModuleOp kernels, func::FuncOp kernel,
                                          StringRef name) {
  // One kernel for all dispatches with the same body.
  SymbolTable table(kernels);
  std::string symbol = name.str();
  for (unsigned suffix = 1;; ++suffix) {
    auto existing = table.lookup<func::FuncOp>(symbol);
    kernel.setName(symbol);
    if (!existing) {
      kernels.getBody()->push_back(kernel);
      return symbol;
    }
    if (OperationEquivalence::isEquivalentTo(
            existing, kernel, OperationEquivalence::IgnoreLocations)) {
      kernel.erase();
      return symbol;
    }
    symbol = (name + "_" + std::to_string(suffix)).str();
  }
}

//===-- Finishing
//-----------------------------------------------------------------------------------------------------------===//

SmallVector<Value> KernelBuilder::finish(const Grid &grid, double flops,
                                         double bytes) {
  func::ReturnOp::create(b);
  Block &entry = kernel.getBody().front();
  scratchValue.setType(scratchType(scratchBytes));

  // Buffers were added in the order of the calls; the dispatch wants inputs
  // first, then untied results.
  SmallVector<Value> order = {parameters, workgroupValue, scratchValue};
  llvm::append_range(order, inputArguments);
  llvm::append_range(order, outputArguments);
  SmallVector<BlockArgument> fresh;
  unsigned oldCount = entry.getNumArguments();
  for (Value old : order) {
    BlockArgument argument = entry.addArgument(old.getType(), old.getLoc());
    old.replaceAllUsesWith(argument);
  }
  entry.eraseArguments(0, oldCount);
  kernel.setFunctionType(b.getFunctionType(entry.getArgumentTypes(), {}));
  kernel->setAttr(plan::kScratchAttr, b.getI64IntegerAttr(scratchBytes));
  if (threads)
    kernel->setAttr(plan::kThreadsAttr, b.getI64IntegerAttr(threads));
  kernel->setAttr(plan::kSourceAttr,
                  b.getStringAttr(source->getName().getStringRef()));

  std::string symbol = insertKernel(kernelsModule(source), kernel, name);
  kernel = nullptr;

  MLIRContext *context = rewriter.getContext();
  auto reference = SymbolRefAttr::get(
      context, plan::kKernelsModule, {FlatSymbolRefAttr::get(context, symbol)});
  auto gridAttr = plan::GridAttr::get(context, grid.factor, grid.outer,
                                      grid.inner, grid.divisor);
  auto dispatch = plan::DispatchOp::create(
      rewriter, source->getLoc(), resultTypes, reference, inputs, gridAttr,
      rewriter.getDenseI64ArrayAttr(tied),
      rewriter.getDenseI64ArrayAttr(immediates),
      rewriter.getF64FloatAttr(flops), rewriter.getF64FloatAttr(bytes));
  return SmallVector<Value>(dispatch.getResults());
}
