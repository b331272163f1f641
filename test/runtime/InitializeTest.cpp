// Initialisation: the plan's distributions, from streams of their own; the same
// bits for any number of threads.
#include "runtime/train/Initialize.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Tensors.h"
#include "test/runtime/ToyPlan.h"
#include <algorithm>
#include <cmath>

using namespace megalodon;
using namespace megalodon::test;

TEST(Initialize, DependsOnTheSeedOnly) {
  Session one = toySession(1), three = toySession(3);
  initializeParameters(one, 1);
  initializeParameters(three, 1);
  EXPECT_EQ(parameterDigest(one), parameterDigest(three));
  initializeParameters(three, 2);
  EXPECT_NE(parameterDigest(one), parameterDigest(three));
}

TEST(Initialize, FollowsTheInitialisers) {
  Session session = toySession();
  initializeParameters(session, 1);
  TensorView table = session.parameters()[0], scale = session.parameters()[1];
  double squares = 0, largest = 0;
  for (int64_t i = 0; i < elementCount(table); ++i) {
    squares += loadNumber(table, i) * loadNumber(table, i);
    largest = std::max(largest, std::abs(loadNumber(table, i)));
  }
  // A normal distribution cut at three deviations loses 2.7 % of its variance.
  EXPECT_NEAR(std::sqrt(squares / 65536), 0.05 * std::sqrt(0.9733), 0.0005);
  EXPECT_LE(largest, 0.15);
  EXPECT_GT(largest, 0.14);
  for (int64_t i = 0; i < 256; ++i)
    EXPECT_EQ(loadNumber(scale, i), 0);
}

TEST(Initialize, PermutesCemaFrequencies) {
  // The same values for every seed, in another order.
  std::vector<double> values[2];
  for (int seed : {0, 1}) {
    plan::Variable variable{
        "theta",    ElementType::F64,    plan::Role::Parameter,
        {64, 1, 1}, plan::Dynamic::None, {}};
    variable.init.kind = plan::InitKind::CemaTheta;
    auto plan = std::make_shared<plan::LoadedPlan>();
    plan->variables.push_back(variable);
    plan->features = 0;
    Session session(plan, {1});
    initializeParameters(session, seed);
    for (int64_t i = 0; i < 64; ++i)
      values[seed].push_back(loadNumber(session.parameters()[0], i));
  }
  EXPECT_NE(values[0], values[1]);
  std::sort(values[0].begin(), values[0].end());
  std::sort(values[1].begin(), values[1].end());
  EXPECT_EQ(values[0], values[1]);
  EXPECT_NEAR(values[0].front(), std::log(1.0 / 63), 1e-12);
  double f = std::exp(-std::log(64.0) / 64);
  EXPECT_NEAR(values[0].back(), std::log(f / (1 - f)), 1e-12);
}

TEST(Initialize, RefusesUntouchedParameters) {
  Session session = toySession(1, true);
  EXPECT_ERROR(initializeParameters(session, 1),
               "toy.plan: parameter 'scale': expected an initialiser, got "
               "init_mode none: give start weights with --weights");
}
