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

TEST(Initialize, PartsGetTheNumbersOfTheWhole) {
  const std::vector<int64_t> shape = {7, 5, 2};
  ThreadPool pool(3);
  for (plan::InitKind kind :
       {plan::InitKind::TruncatedNormal, plan::InitKind::Uniform,
        plan::InitKind::ComplexNormal, plan::InitKind::CemaTheta,
        plan::InitKind::Constant}) {
    const plan::Initializer init{kind, 0.5, 1};
    auto fill = [&](const Box &box) {
      std::vector<double> numbers(size_t(box.elements()), NAN);
      initializeBox({"t", ElementType::F64, box.extent,
                     reinterpret_cast<std::byte *>(numbers.data()),
                     numbers.size() * 8},
                    shape, box, init, 3, pool);
      return numbers;
    };
    const std::vector<double> whole = fill(Box::whole(shape));
    EXPECT_NE(whole[10], 0);
    // Uneven splits of the first and of the second dimension.
    for (const Box &box :
         {Box{{0, 0, 0}, {4, 5, 2}}, Box{{4, 0, 0}, {4, 5, 2}},
          Box{{0, 3, 0}, {7, 3, 2}}, Box{{4, 3, 0}, {4, 3, 2}}}) {
      const std::vector<double> part = fill(box);
      size_t element = 0;
      for (int64_t i = 0; i < box.extent[0]; ++i)
        for (int64_t j = 0; j < box.extent[1]; ++j)
          for (int64_t k = 0; k < 2; ++k, ++element) {
            const int64_t row = box.offset[0] + i, column = box.offset[1] + j;
            EXPECT_EQ(part[element],
                      row < 7 && column < 5
                          ? whole[size_t((row * 5 + column) * 2 + k)]
                          : 0);
          }
    }
  }
}

TEST(Initialize, PermutesCemaFrequencies) {
  // The same values for every seed, in another order.
  std::vector<double> values[2];
  for (int seed : {0, 1}) {
    plan::Variable variable;
    variable.name = "theta";
    variable.type = ElementType::F64;
    variable.role = plan::Role::Parameter;
    variable.shape = variable.localShape = {64, 1, 1};
    variable.dynamic = plan::Dynamic::None;
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
