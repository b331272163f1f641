// Shared by the kernels that work on rows, and the reduction of partial rows
// that ends every sum over tokens.
#include "passes/Lowering/RowKernel.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::megalodon {

double bytesOf(Operation *op) {
  double bytes = 0;
  for (Type type : op->getOperandTypes())
    if (isa<RankedTensorType>(type)) // not the number of a rank
      bytes += bytesOf(type);
  for (Type type : op->getResultTypes())
    bytes += bytesOf(type);
  return bytes;
}

int64_t rowsPerWorkgroup(const LoweringOptions &options, int64_t width) {
  return options.target == Target::Cuda
             ? std::clamp<int64_t>(8192 / width, 1, 8)
             : std::clamp<int64_t>(32768 / width, 1, 64);
}

void forTokens(KernelBuilder &k, int64_t rows, function_ref<void(Value)> body) {
  k.ownsRows();
  Value from = k.mul(k.workgroup(), k.index(rows));
  k.loop(from, k.min(k.add(from, k.index(rows)), k.tokens()), 1, body);
}

SmallVector<SmallVector<Value>>
accumulateRow(KernelBuilder &k, int64_t n, Type element, ValueRange initial,
              function_ref<void(Value, Value, MutableArrayRef<Value>)> body) {
  constexpr int64_t kSets = 4;
  int64_t lanes = k.lanes(element), step = kSets * lanes,
          count = initial.size();
  // A row of few vectors is not worth four sets.
  int64_t sets = std::min<int64_t>(kSets, llvm::divideCeil(n, lanes));
  SmallVector<Value> accumulators;
  for (int64_t set = 0; set < sets; ++set)
    llvm::append_range(accumulators, initial);
  int64_t unrolled = n / step * step;
  auto visit = [&](Value index, Value mask, int64_t set) {
    body(index, mask,
         MutableArrayRef<Value>(accumulators).slice(set * count, count));
  };
  if (unrolled) {
    accumulators = k.loop(
        k.index(0), k.index(unrolled), step, accumulators,
        [&](Value index, ValueRange carried) {
          accumulators.assign(carried.begin(), carried.end());
          for (int64_t set = 0; set < kSets; ++set)
            visit(set ? k.add(index, k.index(set * lanes)) : index, {}, set);
          return accumulators;
        });
  }
  for (int64_t at = unrolled; at < n; at += lanes) {
    Value mask;
    if (n - at < lanes)
      mask = vector::ConstantMaskOp::create(
          k.b, VectorType::get({lanes}, k.b.getI1Type()),
          ArrayRef<int64_t>{n - at});
    visit(k.index(at), mask, (at - unrolled) / lanes);
  }
  SmallVector<SmallVector<Value>> result;
  for (int64_t set = 0; set < sets; ++set)
    result.emplace_back(
        ArrayRef<Value>(accumulators).slice(set * count, count));
  return result;
}

SmallVector<Value>
sumRow(KernelBuilder &k, int64_t n, Type element, unsigned count,
       function_ref<void(Value, Value, MutableArrayRef<Value>)> body) {
  SmallVector<Value> zeros(count, k.constant(0, k.vectorType(element)));
  SmallVector<SmallVector<Value>> sets =
      accumulateRow(k, n, element, zeros, body);
  SmallVector<Value> sums;
  for (unsigned i = 0; i < count; ++i) {
    Value total = sets[0][i];
    for (const SmallVector<Value> &set : llvm::drop_begin(sets))
      total = k.add(total, set[i]);
    sums.push_back(k.sum(total));
  }
  return sums;
}

Value fillMasked(KernelBuilder &k, Value vector, Value mask, Value fill) {
  return mask ? k.select(mask, vector, fill) : vector;
}

Value inverseRoot(KernelBuilder &k, Value sum, int64_t n, double eps) {
  Type type = sum.getType();
  Value mean = k.mul(sum, k.constant(1.0 / n, type));
  return k.div(k.constant(1, type), k.sqrt(k.add(mean, k.constant(eps, type))));
}

//===-- Partial sums over tokens
//-----------------------------------------------------------------------------------------------------===//

RankedTensorType partialRowsType(RankedTensorType tokens, int64_t rows,
                                 int64_t width) {
  int64_t count = tokens.getDimSize(0) * tokens.getDimSize(1);
  return RankedTensorType::get({(int64_t)llvm::divideCeil(count, rows), width},
                               computeType(tokens.getElementType()));
}

void clearPartialRow(KernelBuilder &k, Value partial) {
  auto type = cast<MemRefType>(partial.getType());
  Type element = type.getElementType();
  k.forLanes(type.getDimSize(1), element, [&](Value i, Value mask) {
    k.store(k.constant(0, k.vectorType(element)), partial, {k.workgroup(), i},
            mask);
  });
}

void addToPartialRow(KernelBuilder &k, Value partial, Value column, Value term,
                     Value mask) {
  k.store(k.add(k.load(partial, {k.workgroup(), column}, mask), term), partial,
          {k.workgroup(), column}, mask);
}

Value reducePartialRows(PatternRewriter &rewriter,
                        const LoweringOptions &options, Operation *source,
                        Value partial, Type result, const Grid &rows) {
  auto partialType = tensorOf(partial);
  auto resultType = cast<RankedTensorType>(result);
  Type from = partialType.getElementType(), to = resultType.getElementType();
  int64_t width = resultType.getNumElements();
  KernelBuilder k(rewriter, options, source, "reduce_rows");
  Value input = k.read(partial), output = k.write(result, View::Flat);

  Value count = k.index(partialType.getDimSize(0));
  if (rows.divisor != 0) {
    Value inner = rows.inner == plan::Inner::Tokens   ? k.tokens()
                  : rows.inner == plan::Inner::Length ? k.length()
                                                      : k.index(1);
    count = k.ceilDiv(inner, rows.divisor);
    if (rows.outer == plan::Outer::Batch)
      count = k.mul(count, k.batch());
    if (rows.factor != 1)
      count = k.mul(count, k.index(rows.factor));
  }

  // A workgroup sums a block of columns in f64 registers, row by row: the order
  // is fixed and the rounding does not grow with the rows.
  int64_t lanes = k.lanes(from), vectors = 4, block = vectors * lanes,
          groups = llvm::divideCeil(width, block);
  auto wide = VectorType::get({lanes}, k.b.getF64Type());
  Value first = k.mul(k.workgroup(), k.index(block));
  SmallVector<Value> columns, masks;
  for (int64_t v = 0; v < vectors; ++v) {
    columns.push_back(k.add(first, k.index(v * lanes)));
    Value mask;
    if (width % block)
      mask = vector::CreateMaskOp::create(
          k.b, VectorType::get({lanes}, k.b.getI1Type()),
          k.sub(k.index(width), columns.back()));
    masks.push_back(mask);
  }
  SmallVector<Value> zeros(vectors, k.constant(0, wide));
  SmallVector<Value> sums =
      k.loop(k.index(0), count, 1, zeros, [&](Value row, ValueRange carried) {
        SmallVector<Value> next;
        for (auto [column, mask, sum] : llvm::zip(columns, masks, carried))
          next.push_back(
              k.add(sum, k.toFloat(k.load(input, {row, column}, mask),
                                   k.b.getF64Type())));
        return next;
      });
  for (auto [column, mask, sum] : llvm::zip(columns, masks, sums))
    k.store(k.toFloat(sum, to), output, {column}, mask);
  double elements = partialType.getNumElements();
  return k.finish({groups}, elements, bytesOf(partialType) + bytesOf(result))
      .front();
}

//===-- Flat tensors
//-----------------------------------------------------------------------------------------------------------------===//

SmallVector<Value>
forElements(KernelBuilder &k, int64_t n, Type element, ValueRange carried,
            function_ref<SmallVector<Value>(Value, Value, ValueRange)> body) {
  int64_t lanes = k.lanes(element), whole = n / lanes * lanes,
          groups = flatWorkgroups(n);
  Value from = k.mul(k.workgroup(), k.index(kElementsPerWorkgroup));
  Value to = k.min(k.add(from, k.index(kElementsPerWorkgroup)), k.index(whole));
  SmallVector<Value> results =
      k.loop(from, to, lanes, carried,
             [&](Value i, ValueRange values) { return body(i, {}, values); });
  if (whole == n)
    return results;
  // The last, partial vector belongs to the last workgroup; the others visit it
  // with no lane.
  Value rest = k.index(n - whole);
  if (groups > 1)
    rest =
        k.select(k.less(k.workgroup(), k.index(groups - 1)), k.index(0), rest);
  Value mask = vector::CreateMaskOp::create(
      k.b, VectorType::get({lanes}, k.b.getI1Type()), rest);
  return body(k.index(whole), mask, results);
}

void forElements(KernelBuilder &k, int64_t n, Type element,
                 function_ref<void(Value, Value)> body) {
  forElements(k, n, element, ValueRange(),
              [&](Value i, Value mask, ValueRange) {
                body(i, mask);
                return SmallVector<Value>();
              });
}

} // namespace mlir::megalodon
