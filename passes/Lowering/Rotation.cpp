// Tables of cosines and sines in scratch, and the turn of adjacent pairs.
#include "passes/Lowering/Rotation.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include <cmath>

namespace mlir::megalodon {

Rotation::Rotation(KernelBuilder &k, int64_t width, double base, Type element,
                   bool inverse, double scale)
    : k(k), width(width), base(base), scale(scale), inverse(inverse),
      element(element), f64(k.b.getF64Type()) {
  for (Value *memory : {&cosine, &sine, &stepCosine, &stepSine})
    *memory = k.scratch({width}, f64);
  for (Value *memory : {&own, &cross})
    *memory = k.scratch({width}, element);
  table(k.constant(1, f64), stepCosine, stepSine);
}

Value Rotation::perLane(VectorType type, function_ref<double(int64_t)> value) {
  SmallVector<Attribute> values;
  for (int64_t lane = 0; lane < type.getDimSize(0); ++lane)
    values.push_back(FloatAttr::get(type.getElementType(), value(lane)));
  return arith::ConstantOp::create(k.b, DenseElementsAttr::get(type, values));
}

void Rotation::table(Value position, Value cosines, Value sines) {
  VectorType type = k.vectorType(f64);
  k.forLanes(width, f64, [&](Value i, Value mask) {
    // 2j of every column i = 2j or 2j + 1.
    Value exponent =
        k.add(k.splat(k.intToFloat(i, f64)),
              perLane(type, [](int64_t lane) { return double(lane / 2 * 2); }));
    Value frequency = k.exp(
        k.mul(exponent, k.constant(-std::log(base) / double(width), type)));
    Value angle = k.mul(frequency, k.splat(position));
    k.store(math::CosOp::create(k.b, angle), cosines, {i}, mask);
    k.store(math::SinOp::create(k.b, angle), sines, {i}, mask);
  });
}

void Rotation::advance() {
  k.forLanes(width, f64, [&](Value i, Value mask) {
    Value c = k.load(cosine, {i}, mask), s = k.load(sine, {i}, mask),
          dc = k.load(stepCosine, {i}, mask), ds = k.load(stepSine, {i}, mask);
    k.store(k.sub(k.mul(c, dc), k.mul(s, ds)), cosine, {i}, mask);
    k.store(k.fma(s, dc, k.mul(c, ds)), sine, {i}, mask);
  });
}

void Rotation::turnTo(Value position, Value follows) {
  k.when(
      follows, [&] { advance(); },
      [&] { table(k.intToFloat(position, f64), cosine, sine); });
  VectorType type = k.vectorType(f64);
  double even = inverse ? 1 : -1;
  Value sign =
      perLane(type, [&](int64_t lane) { return lane % 2 ? -even : even; });
  auto scaled = [&](Value vector) {
    return scale == 1 ? vector : k.mul(vector, k.constant(scale, type));
  };
  k.forLanes(width, f64, [&](Value i, Value mask) {
    k.store(k.toFloat(scaled(k.load(cosine, {i}, mask)), element), own, {i},
            mask);
    k.store(k.toFloat(scaled(k.mul(k.load(sine, {i}, mask), sign)), element),
            cross, {i}, mask);
  });
}

Value Rotation::swapPairs(Value vector) {
  SmallVector<int64_t> partner;
  for (int64_t lane = 0; lane < k.lanes(element); ++lane)
    partner.push_back(lane ^ 1);
  return vector::ShuffleOp::create(k.b, vector, vector, partner);
}

Value Rotation::apply(Value vector, Value i, Value mask) {
  return k.fma(vector, k.load(own, {i}, mask),
               k.mul(swapPairs(vector), k.load(cross, {i}, mask)));
}

Value Rotation::applyInverse(Value vector, Value i, Value mask) {
  return k.sub(k.mul(vector, k.load(own, {i}, mask)),
               k.mul(swapPairs(vector), k.load(cross, {i}, mask)));
}

} // namespace mlir::megalodon
