// Every op of the dialect has an evaluation in the reference interpreter.
#include "dialect/Interpreter/Interpreter.h"
#include "dialect/Interpreter/Evaluation.h"
#include "mlir/IR/MLIRContext.h"
#include <gtest/gtest.h>

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

TEST(Interpreter, EvaluatesEveryOpOfTheDialect) {
  MLIRContext context;
  context.getOrLoadDialect<MegalodonDialect>();
  int ops = 0;
  for (RegisteredOperationName name : context.getRegisteredOperations()) {
    if (name.getDialectNamespace() != "megalodon")
      continue;
    ++ops;
    EXPECT_TRUE(Evaluations::get().has(name.getStringRef()))
        << name.getStringRef().str()
        << " has no evaluation: add one in dialect/Interpreter "
           "(docs/adding-an-op.md)";
  }
  EXPECT_GE(ops, 50);
}

TEST(Interpreter, PartsOfATensorMakeItAgain) {
  Tensor whole({5, 3}, true);
  for (int64_t i = 0; i < whole.elements(); ++i)
    whole[i] = double(i + 1);
  Tensor last = slice(whole, 0, 1, 2);
  EXPECT_EQ(last.size(0), 3);
  EXPECT_EQ(last(0, 0), 10);
  EXPECT_EQ(last(2, 2), 0); // padding
  Tensor again({5, 3}, true);
  for (int64_t part : {0, 1})
    insertPart(again, slice(whole, 0, part, 2), 0, part);
  for (int64_t i = 0; i < whole.elements(); ++i)
    EXPECT_EQ(again[i], whole[i]);
}

TEST(Interpreter, RanksCountTheTensorAxisFastest) {
  Grid grid{{2, 1, 3, 2}};
  EXPECT_EQ(grid.ranks(), 12);
  EXPECT_EQ(grid.coordinate(7, 0), 1);
  EXPECT_EQ(grid.coordinate(7, 2), 0);
  EXPECT_EQ(grid.coordinate(7, 3), 1);
  EXPECT_EQ(grid.place(11, {3, 0}), 3);
}

TEST(Interpreter, RoundsAtRandomByNoMoreThanTheTypeDoes) {
  MLIRContext context;
  RandomRounding rounding(1);
  const Type bf16 = BFloat16Type::get(&context);
  double largest = 0;
  for (int i = 0; i < 1000; ++i)
    largest = std::max(largest, std::abs(rounding(3.0, 3.0, bf16) - 3.0));
  EXPECT_LE(largest, 3.0 / 256);
  EXPECT_GT(largest, 2.5 / 256);
  EXPECT_NE(rounding(0.0, 3.0, bf16), 0); // what is left of larger terms
  EXPECT_EQ(rounding(HUGE_VAL, HUGE_VAL, bf16), HUGE_VAL);
  EXPECT_TRUE(isUnspecified(rounding(unspecified(), unspecified(), bf16)));
}

TEST(Interpreter, TellsUnspecifiedFromOtherNaNs) {
  EXPECT_TRUE(isUnspecified(unspecified()));
  EXPECT_FALSE(isUnspecified(std::numeric_limits<double>::quiet_NaN()));
}
