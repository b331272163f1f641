// Evaluation: the stream is one sequence however it is cut into calls, sums and
// buckets add up, and the trigram model is a distribution.
#include "runtime/generate/Evaluate.h"
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Initialize.h"
#include "runtime/train/Tensors.h"
#include "test/runtime/ToyPlan.h"
#include <cmath>

using namespace megalodon;
using namespace megalodon::test;

namespace {
struct EvaluateTest : testing::Test {
  Session session = toySession();
  std::string path = temporaryPath("text");
  std::optional<Corpus> corpus;

  void SetUp() override {
    initializeParameters(session, 1);
    TensorView scale = session.parameters()[1];
    for (int64_t i = 0; i < 256; ++i)
      storeNumber(scale, i, std::sin(double(i)));
    writeText(path, toyText(101));
    corpus.emplace(listDataFiles({path}), TokenType::Bytes, 256);
  }
  std::vector<double> losses(EvaluateOptions options) {
    std::vector<double> all;
    options.sink = [&](const double *values, int64_t count) {
      all.insert(all.end(), values, values + count);
    };
    evaluate(session, *corpus, options);
    return all;
  }
};
} // namespace

TEST_F(EvaluateTest, CarriesTheStateThroughTheStream) {
  std::vector<double> got = losses({});
  ASSERT_EQ(got.size(), 100u); // 12 calls of 8 and one of 4
  std::vector<int32_t> ids(101);
  corpus->read(0, 101, ids.data());
  TensorView table = session.parameters()[0], scale = session.parameters()[1];
  double mean = 0;
  for (int i = 0; i < 100; ++i) {
    mean = 0.9 * mean + 0.1 * ids[i] / 256;
    double sum = 0, chosen = 0;
    for (int j = 0; j < 256; ++j) {
      double logit =
          loadNumber(table, ids[i] * 256 + j) + mean * loadNumber(scale, j);
      sum += std::exp(logit);
      chosen = j == ids[i + 1] ? logit : chosen;
    }
    EXPECT_NEAR(got[i], std::log(sum) - chosen, 1e-4) << i;
  }
}

TEST_F(EvaluateTest, ResettingTheStateShowsWhatItIsWorth) {
  EvaluateOptions reset;
  reset.resetState = true;
  std::vector<double> carried = losses({}), fresh = losses(reset);
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(carried[i], fresh[i]);
  EXPECT_NE(carried[8], fresh[8]);
}

TEST_F(EvaluateTest, ForgetsAfterAsManyTokensAsItIsTold) {
  const std::string piece = temporaryPath("piece");
  std::vector<double> whole = losses({});
  for (int64_t every : {1, 7, 8, 20, 99, 100, 101}) {
    EvaluateOptions options;
    options.resetEvery = every;
    std::vector<double> got = losses(options);
    ASSERT_EQ(got.size(), 100u) << every;
    // Every stretch has the losses of a text of its own.
    for (int64_t begin = 0; begin < 100; begin += every) {
      const int64_t end = std::min<int64_t>(begin + every, 100);
      writeText(piece, toyText(101).substr(begin, end - begin + 1));
      Corpus part(listDataFiles({piece}), TokenType::Bytes, 256);
      std::vector<double> alone;
      EvaluateOptions plain;
      plain.sink = [&](const double *values, int64_t count) {
        alone.insert(alone.end(), values, values + count);
      };
      evaluate(session, part, plain);
      for (int64_t i = begin; i < end; ++i)
        EXPECT_EQ(got[i], alone[i - begin]) << every << ' ' << i;
    }
    if (every < 100) {
      EXPECT_NE(got[every], whole[every]) << every;
      EXPECT_EQ(got[every - 1], whole[every - 1]) << every;
    } else {
      EXPECT_EQ(got, whole) << every;
    }
  }
  EvaluateOptions buckets;
  buckets.resetEvery = 10;
  const Evaluation result = evaluate(session, *corpus, buckets);
  ASSERT_EQ(result.positions.size(), 5u);
  EXPECT_EQ(result.positions[0].tokens, 10);
  EXPECT_EQ(result.positions[4].tokens, 20); // 9 and 10 tokens of context
}

TEST_F(EvaluateTest, SumsAndBucketsAddUp) {
  EvaluateOptions options;
  options.maxTokens = 20;
  Evaluation result = evaluate(session, *corpus, options);
  EXPECT_EQ(result.tokens, 20);
  std::vector<int64_t> first, last, tokens;
  double sum = 0;
  for (const PositionLoss &bucket : result.positions) {
    first.push_back(bucket.first);
    last.push_back(bucket.last);
    tokens.push_back(bucket.tokens);
    sum += bucket.nll;
  }
  EXPECT_EQ(first, (std::vector<int64_t>{1, 2, 3, 5, 9, 17}));
  EXPECT_EQ(last, (std::vector<int64_t>{1, 2, 4, 8, 16, 32}));
  EXPECT_EQ(tokens, (std::vector<int64_t>{1, 1, 2, 4, 8, 4}));
  EXPECT_NEAR(sum, result.nll, 1e-9);
  EXPECT_GT(result.firstRate, 0);
  EXPECT_GT(result.lastRate, 0);
}

TEST_F(EvaluateTest, NeedsTwoTokensAndFiniteLosses) {
  writeText(path, "x");
  Corpus one(listDataFiles({path}), TokenType::Bytes, 256);
  EXPECT_ERROR(evaluate(session, one, {}),
               "evaluation data: expected at least 2 tokens, got 1");
  storeNumber(session.parameters()[1], 0, NAN);
  EXPECT_ERROR(evaluate(session, *corpus, {}),
               "token 1: expected a finite loss, got");
}

TEST(Trigram, IsADistributionThatLearns) {
  Trigram trigram;
  EXPECT_DOUBLE_EQ(trigram.probability(1, 2, 3), 1.0 / 256);
  std::string text = toyText(5000);
  auto bytes = reinterpret_cast<const uint8_t *>(text.data());
  trigram.add(bytes, 3000);
  trigram.add(bytes + 3000, 2000); // the same as in one piece
  Trigram whole;
  whole.add(bytes, 5000);
  for (const char *context : {"ca", "rr", "zz"}) {
    double sum = 0;
    for (int next = 0; next < 256; ++next) {
      double p = trigram.probability(context[0], context[1], next);
      EXPECT_EQ(p, whole.probability(context[0], context[1], next));
      EXPECT_GT(p, 0);
      sum += p;
    }
    EXPECT_NEAR(sum, 1, 1e-9);
  }
  EXPECT_GT(trigram.probability('h', 'u', 'n'), 0.9);
}
