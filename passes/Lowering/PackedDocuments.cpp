#include "passes/Lowering/PackedDocuments.h"

using namespace mlir;
using namespace mlir::megalodon;

Value PackedDocuments::equal(Value x, Value y) {
  return arith::CmpIOp::create(k.b, arith::CmpIPredicate::eq, x, y);
}

Value PackedDocuments::position(Value t) {
  Value token = k.add(k.mul(row, k.length()), t);
  return arith::IndexCastOp::create(k.b, k.b.getIndexType(),
                                    k.loadScalar(positions, {token}));
}

Value PackedDocuments::begins(Value t) {
  return equal(position(t), k.index(0));
}

Value PackedDocuments::goesOn(Value last, Value count) {
  return arith::CmpIOp::create(k.b, arith::CmpIPredicate::uge, position(last),
                               count);
}

void PackedDocuments::whenBegins(Value t, function_ref<void()> body) {
  if (positions)
    k.when(begins(t), body);
}

void PackedDocuments::forRuns(Value first, Value end,
                              function_ref<void()> begin,
                              function_ref<void(Value, Value)> run) {
  if (!positions)
    return run(first, end);
  Value one = k.index(1), last = k.sub(end, one);
  // One place more than there are tokens: the end closes the last run.
  k.loop(k.add(first, one), k.add(end, one), 1, first,
         [&](Value t, ValueRange carried) -> SmallVector<Value> {
           Value closes =
               arith::OrIOp::create(k.b, equal(t, end), begins(k.min(t, last)));
           k.when(closes, [&] {
             run(carried[0], t);
             k.when(k.less(t, end), begin);
           });
           return {k.select(closes, t, carried[0])};
         });
}

void PackedDocuments::forRunsInReverse(Value first, Value count,
                                       function_ref<void()> begin,
                                       function_ref<void(Value, Value)> run) {
  Value zero = k.index(0);
  if (!positions)
    return run(zero, count);
  Value last = k.sub(count, k.index(1));
  k.loop(zero, count, 1, count,
         [&](Value i, ValueRange carried) -> SmallVector<Value> {
           Value t = k.sub(last, i), isFirst = begins(k.add(first, t));
           Value closes = arith::OrIOp::create(k.b, equal(t, zero), isFirst);
           k.when(closes, [&] {
             run(t, carried[0]);
             k.when(isFirst, begin);
           });
           return {k.select(closes, t, carried[0])};
         });
}
