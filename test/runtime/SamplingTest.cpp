// Sampling: each cut keeps exactly the tokens it says, and draws follow the
// distribution.
#include "runtime/generate/Sampling.h"
#include "test/runtime/TestPlan.h"
#include <cmath>

using namespace megalodon;

static const std::vector<double> kLogits = {std::log(4.0), std::log(2.0),
                                            std::log(8.0), std::log(2.0)};

static void expectDistribution(const Sampling &sampling,
                               const std::vector<double> &wanted) {
  std::vector<double> got = sampling.distribution(kLogits);
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], wanted[i], 1e-12) << i;
}

TEST(Sampling, CutsTheDistribution) {
  Sampling sampling;
  expectDistribution(sampling, {0.25, 0.125, 0.5, 0.125});
  sampling.temperature = 0.5;
  expectDistribution(sampling, {16. / 88, 4. / 88, 64. / 88, 4. / 88});
  sampling = {};
  sampling.topK = 2;
  expectDistribution(sampling, {1. / 3, 0, 2. / 3, 0});
  sampling.topK = 3; // the third and the fourth tie: both stay
  expectDistribution(sampling, {0.25, 0.125, 0.5, 0.125});
  sampling = {};
  sampling.topP = 0.5; // the second is kept: the mass before it is not more
  expectDistribution(sampling, {1. / 3, 0, 2. / 3, 0});
  sampling.topP = 0.49;
  expectDistribution(sampling, {0, 0, 1, 0});
  sampling = {};
  sampling.minP = 0.3;
  expectDistribution(sampling, {1. / 3, 0, 2. / 3, 0});
  sampling = {};
  sampling.temperature = 0;
  expectDistribution(sampling, {0, 0, 1, 0});
}

TEST(Sampling, IsGreedyAtTemperatureZero) {
  Sampling sampling;
  sampling.temperature = 0;
  EXPECT_EQ(sampling.choose({1, 3, 3, 2}, 0), 1); // the first of a tie
}

TEST(Sampling, DrawsFollowTheDistribution) {
  Sampling sampling;
  std::vector<int> hits(4);
  for (int64_t position = 0; position < 40000; ++position) {
    int32_t token = sampling.choose(kLogits, position);
    EXPECT_EQ(token, sampling.choose(kLogits, position));
    ++hits[token];
  }
  EXPECT_NEAR(hits[0], 10000, 400);
  EXPECT_NEAR(hits[1], 5000, 400);
  EXPECT_NEAR(hits[2], 20000, 400);
  EXPECT_NEAR(hits[3], 5000, 400);
}

TEST(Sampling, RefusesNonsense) {
  Sampling sampling;
  EXPECT_ERROR(sampling.choose({0, NAN}, 0),
               "logits: expected finite numbers, got nan for token 1");
  sampling.topP = 0;
  EXPECT_ERROR(sampling.verify(), "--top-p");
  sampling = {};
  sampling.temperature = -1;
  EXPECT_ERROR(sampling.verify(), "--temperature");
  sampling = {};
  sampling.minP = 1.5;
  EXPECT_ERROR(sampling.verify(), "--min-p");
}
