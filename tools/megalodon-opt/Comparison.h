// Compares tensors of a plan with those of the reference interpreter.
#pragma once
#include "dialect/Interpreter/Tensor.h"
#include "llvm/ADT/StringRef.h"
#include <optional>
#include <string>

namespace mlir::megalodon {

/// Where a result is what is left when larger numbers cancel, a difference may
/// be so many times what rounding every number at random does to the result.
inline constexpr double kRoundings = 4;

/// What a difference may be, relative to a tensor's largest magnitude.
struct Tolerances {
  double op, gradientOp;  ///< of one op from the same operands
  double entry, gradient; ///< of a whole entry's results

  static Tolerances of(llvm::StringRef precision);
};

/// The element of a tensor that is worst.
struct Difference {
  SmallVector<int64_t> index;
  double expected = 0, got = 0;
  double tolerance = 0; ///< of this element, absolute
  double ratio = 0;     ///< of the difference to the tolerance
  bool diverges() const { return !(ratio <= 1); }

  /// "at [1, 3]: expected 0.5, got -0.5 (tolerance 5e-06)"
  std::string text() const;
};

/// Unspecified elements of `expected` are left out; integers must be equal.
/// `tolerance` is relative to the largest magnitude, `least` absolute.
Difference compare(const interpreter::Tensor &expected,
                   const interpreter::Tensor &got, double tolerance,
                   double least = 0);

/// The largest difference between two tensors' finite elements.
double distance(const interpreter::Tensor &a, const interpreter::Tensor &b);

} // namespace mlir::megalodon
