// The tensors of the reference interpreter, and how they are cut into parts.
#include "dialect/Interpreter/Tensor.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/bit.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

static constexpr uint64_t kUnspecifiedBits = 0x7ff8'0000'6d65'6761;

double interpreter::unspecified() {
  return llvm::bit_cast<double>(kUnspecifiedBits);
}

bool interpreter::isUnspecified(double value) {
  return llvm::bit_cast<uint64_t>(value) == kUnspecifiedBits;
}

Tensor::Tensor(ArrayRef<int64_t> shape, bool isReal)
    : extents(shape), real(isReal) {
  (real ? reals.resize(elements()) : integers.resize(elements()));
}

Tensor::Tensor(Type type) {
  real = isa<FloatType>(getElementTypeOrSelf(type));
  if (auto shaped = dyn_cast<ShapedType>(type))
    extents.assign(shaped.getShape().begin(), shaped.getShape().end());
  (real ? reals.resize(elements()) : integers.resize(elements()));
}

int64_t Tensor::elements() const {
  int64_t number = 1;
  for (int64_t extent : extents)
    number *= extent;
  return number;
}

void Tensor::reshape(ArrayRef<int64_t> shape) {
  [[maybe_unused]] int64_t before = elements();
  extents.assign(shape.begin(), shape.end());
  assert(elements() == before && "a reshape keeps all elements");
}

/// Calls `copy(number in the whole, number in the part)` for every element that
/// both have.
static void forEachShared(ArrayRef<int64_t> whole, ArrayRef<int64_t> part,
                          size_t dimension, int64_t number,
                          llvm::function_ref<void(int64_t, int64_t)> copy) {
  int64_t outer = 1, inner = 1;
  for (size_t d = 0; d < whole.size(); ++d)
    (d < dimension ? outer : inner) *= d == dimension ? 1 : whole[d];
  const int64_t extent = whole[dimension], own = part[dimension];
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t row = 0; row < own && number * own + row < extent; ++row)
      for (int64_t i = 0; i < inner; ++i)
        copy((o * extent + number * own + row) * inner + i,
             (o * own + row) * inner + i);
}

Tensor interpreter::slice(const Tensor &whole, size_t dimension, int64_t part,
                          int64_t parts) {
  SmallVector<int64_t> shape(whole.shape());
  shape[dimension] = (shape[dimension] + parts - 1) / parts;
  Tensor result(shape, whole.isReal());
  forEachShared(whole.shape(), shape, dimension, part,
                [&](int64_t from, int64_t to) {
                  if (whole.isReal())
                    result[to] = whole[from];
                  else
                    result.integer(to) = whole.integer(from);
                });
  return result;
}

void interpreter::insertPart(Tensor &whole, const Tensor &part,
                             size_t dimension, int64_t number) {
  forEachShared(whole.shape(), part.shape(), dimension, number,
                [&](int64_t to, int64_t from) {
                  if (whole.isReal())
                    whole[to] = part[from];
                  else
                    whole.integer(to) = part.integer(from);
                });
}
