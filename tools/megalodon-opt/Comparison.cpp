// Differences between tensors, and what of them rounding explains.
#include "tools/megalodon-opt/Comparison.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/raw_ostream.h"
#include <cmath>

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

Tolerances Tolerances::of(StringRef precision) {
  // Of the ops those of test/numerics/ops.py; through a model of a few layers
  // rounding grows by about ten.
  if (precision == "f64")
    return {1e-11, 1e-10, 1e-9, 1e-8};
  if (precision == "bf16")
    return {1e-2, 4e-2, 8e-2, 2e-1};
  return {1e-5, 1e-4, 1e-4, 1e-3};
}

std::string Difference::text() const {
  std::string text;
  llvm::raw_string_ostream out(text);
  out << "at [";
  llvm::interleaveComma(index, out);
  out << "]: expected " << llvm::format("%.9g", expected) << ", got "
      << llvm::format("%.9g", got) << " (tolerance "
      << llvm::format("%.2g", tolerance) << ")";
  return text;
}

Difference mlir::megalodon::compare(const Tensor &expected, const Tensor &got,
                                    double tolerance, double least) {
  Difference worst;
  auto take = [&](int64_t number, double want, double have, double allowed,
                  double ratio) {
    if (!(ratio > worst.ratio) && !std::isnan(ratio) && number > 0)
      return;
    if (std::isnan(worst.ratio))
      return;
    worst.expected = want;
    worst.got = have;
    worst.tolerance = allowed;
    worst.ratio = ratio;
    worst.index.assign(expected.shape().size(), 0);
    for (size_t d = expected.shape().size(); d > 0; --d) {
      worst.index[d - 1] = number % expected.size(d - 1);
      number /= expected.size(d - 1);
    }
  };
  if (!expected.isReal()) {
    for (int64_t i = 0; i < expected.elements(); ++i)
      take(i, double(expected.integer(i)), double(got.integer(i)), 0,
           expected.integer(i) == got.integer(i) ? 0 : HUGE_VAL);
    return worst;
  }
  double largest = 0;
  for (int64_t i = 0; i < expected.elements(); ++i)
    if (std::isfinite(expected[i]))
      largest = std::max(largest, std::abs(expected[i]));
  // Zeros may come out as the rounding of sums that cancel.
  const double allowed = std::max(tolerance * std::max(largest, 1e-6), least);
  for (int64_t i = 0; i < expected.elements(); ++i)
    if (!isUnspecified(expected[i]))
      take(i, expected[i], got[i], allowed,
           expected[i] == got[i] ? 0
                                 : std::abs(expected[i] - got[i]) / allowed);
  return worst;
}

double mlir::megalodon::distance(const Tensor &a, const Tensor &b) {
  double largest = 0;
  if (a.isReal())
    for (int64_t i = 0; i < a.elements(); ++i)
      if (std::isfinite(a[i]) && std::isfinite(b[i]))
        largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}
