// The counter-based generator: known answers, moments, independence of streams.
#include "runtime/train/Random.h"
#include <algorithm>
#include <gtest/gtest.h>
#include <vector>

using namespace megalodon;

TEST(Random, MatchesThePublishedVectors) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(CounterRandom(0, 0).block(0),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(CounterRandom(~0ull, ~0ull).block(~0ull),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(CounterRandom(0x299f31d0a4093822, 0x0370734413198a2e)
                .block(0x85a308d3243f6a88),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

static void expectMoments(const std::vector<double> &values, double mean,
                          double variance) {
  double sum = 0, squares = 0;
  for (double value : values)
    sum += value, squares += value * value;
  double n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, mean, 0.01);
  EXPECT_NEAR(squares / n - sum / n * sum / n, variance, 0.01);
}

TEST(Random, HasTheMomentsOfItsDistributions) {
  CounterRandom random(7, hashName("moments"));
  std::vector<double> uniform, normal, truncated;
  for (uint64_t i = 0; i < 200000; ++i) {
    uniform.push_back(random.uniform(i));
    normal.push_back(random.normal(i));
    truncated.push_back(random.truncatedNormal(1, 1, i));
  }
  expectMoments(uniform, 0.5, 1.0 / 12);
  expectMoments(normal, 0, 1);
  expectMoments(truncated, 0, 0.2912); // 1 - 2 phi(1) / (2 Phi(1) - 1)
  EXPECT_GT(*std::min_element(uniform.begin(), uniform.end()), 0);
  EXPECT_LT(*std::max_element(uniform.begin(), uniform.end()), 1);
  EXPECT_LE(*std::max_element(truncated.begin(), truncated.end()), 1);
  EXPECT_GE(*std::min_element(truncated.begin(), truncated.end()), -1);
}

TEST(Random, BelowCoversItsRangeEvenly) {
  CounterRandom random(3, 0);
  std::vector<int> hits(10);
  for (uint64_t i = 0; i < 100000; ++i)
    ++hits[random.below(10, i)];
  for (int hit : hits)
    EXPECT_NEAR(hit, 10000, 500);
}

TEST(Random, StreamsAndSeedsDiffer) {
  EXPECT_NE(CounterRandom(1, 1).block(0), CounterRandom(1, 2).block(0));
  EXPECT_NE(CounterRandom(1, 1).block(0), CounterRandom(2, 1).block(0));
  EXPECT_NE(CounterRandom(1, 1).block(0), CounterRandom(1, 1).block(1));
}
