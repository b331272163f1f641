// A dense tensor of the reference interpreter: every real number is a double,
// every integer 64 bits wide, whatever the type in the IR.
#pragma once
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/SmallVector.h"
#include <cassert>
#include <complex>
#include <memory>
#include <vector>

namespace mlir::megalodon::interpreter {

using Complex = std::complex<double>;

class Tensor {
public:
  Tensor() = default;
  /// Zero, of a tensor type of static shape or the type index.
  explicit Tensor(Type type);
  Tensor(ArrayRef<int64_t> shape, bool isReal);

  ArrayRef<int64_t> shape() const { return extents; }
  int64_t size(size_t dimension) const { return extents[dimension]; }
  int64_t elements() const;
  bool isReal() const { return real; }
  /// Number of rows of the last dimension.
  int64_t rows() const {
    return extents.empty() ? 1 : elements() / extents.back();
  }
  void reshape(ArrayRef<int64_t> shape);

  /// Elements by their index or, of a tensor of any rank, by their number.
  template <typename... Index> double &operator()(Index... index) {
    return reals[offset({static_cast<int64_t>(index)...})];
  }
  template <typename... Index> double operator()(Index... index) const {
    return reals[offset({static_cast<int64_t>(index)...})];
  }
  double &operator[](int64_t number) { return reals[number]; }
  double operator[](int64_t number) const { return reals[number]; }
  int64_t &integer(int64_t number) { return integers[number]; }
  int64_t integer(int64_t number) const { return integers[number]; }
  int64_t &integer(int64_t row, int64_t column) {
    return integers[offset({row, column})];
  }
  int64_t integer(int64_t row, int64_t column) const {
    return integers[offset({row, column})];
  }

  /// Complex numbers are pairs (re, im) along the last dimension.
  template <typename... Index> Complex complex(Index... index) const {
    size_t first = offset({static_cast<int64_t>(index)..., 0});
    return {reals[first], reals[first + 1]};
  }
  template <typename... Index> void set(Complex value, Index... index) {
    size_t first = offset({static_cast<int64_t>(index)..., 0});
    reals[first] = value.real();
    reals[first + 1] = value.imag();
  }

private:
  size_t offset(std::initializer_list<int64_t> index) const {
    assert(index.size() == extents.size() && "one index a dimension");
    size_t number = 0, dimension = 0;
    for (int64_t i : index)
      number = number * extents[dimension++] + i;
    return number;
  }

  SmallVector<int64_t, 4> extents;
  bool real = true;
  std::vector<double> reals;
  std::vector<int64_t> integers;
};

/// Values do not change once they are computed, so they are shared.
using TensorRef = std::shared_ptr<const Tensor>;

/// What an op leaves unspecified (rows of a cache beyond the open chunk). It
/// spreads like any NaN if something reads it, but is told apart from those.
double unspecified();
bool isUnspecified(double value);

/// The part numbered `part` of `parts` equal ones of a dimension; the last ones
/// are filled up with zeros.
Tensor slice(const Tensor &whole, size_t dimension, int64_t part,
             int64_t parts);
/// Writes such a part into a whole tensor, without what was filled up.
void insertPart(Tensor &whole, const Tensor &part, size_t dimension,
                int64_t number);

} // namespace mlir::megalodon::interpreter
