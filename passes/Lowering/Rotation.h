// Rotary angles for kernels that visit tokens in order: cosines and sines of
// the current token, in f64, advanced from token to token by one turn instead
// of being computed anew.
#pragma once
#include "passes/Lowering/KernelBuilder.h"

namespace mlir::megalodon {

/// The rotation of rows of `width` columns by position * base^(-2j/width) for
/// the pair of columns 2j, 2j + 1. With `inverse` by the opposite angle.
class Rotation {
public:
  /// Outside the loop over tokens.
  Rotation(KernelBuilder &k, int64_t width, double base, Type element,
           bool inverse = false, double scale = 1);

  /// Turns to a token's `position`. `follows` (i1) says that it is one further
  /// than the last; only where it is not are cos and sin computed.
  void turnTo(Value position, Value follows);

  /// The vector at column i, rotated. `vector` holds whole pairs.
  Value apply(Value vector, Value i, Value mask);
  /// The vector at column i, rotated the other way.
  Value applyInverse(Value vector, Value i, Value mask);

private:
  void table(Value position, Value cosines, Value sines);
  void advance();
  Value perLane(VectorType type, function_ref<double(int64_t lane)> value);
  Value swapPairs(Value vector);

  KernelBuilder &k;
  int64_t width;
  double base, scale;
  bool inverse;
  Type element, f64;
  Value cosine, sine, stepCosine, stepSine;
  /// What one column takes from itself and from its partner, in the compute
  /// type; the sign of the even columns' sine is in `cross`.
  Value own, cross;
};

} // namespace mlir::megalodon
