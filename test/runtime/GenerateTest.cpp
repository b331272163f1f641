// Generation: how a prompt is cut, and that the cut changes nothing.
#include "runtime/generate/Generate.h"
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Initialize.h"
#include "runtime/train/Tensors.h"
#include "test/runtime/ToyPlan.h"

using namespace megalodon;
using namespace megalodon::test;

static std::vector<int64_t> pieces(int64_t size, int64_t length,
                                   int64_t chunk) {
  std::vector<int64_t> list;
  for (int64_t position = 0; position < size; position += list.back())
    list.push_back(promptPiece(position, size - position, length, chunk));
  return list;
}

TEST(Generate, CutsThePromptAtChunkBoundaries) {
  using Pieces = std::vector<int64_t>;
  EXPECT_EQ(pieces(20, 8, 4), (Pieces{8, 8, 4}));
  EXPECT_EQ(pieces(10, 8, 4), (Pieces{8, 2}));
  EXPECT_EQ(pieces(11, 7, 4), (Pieces{4, 4, 3}));
  EXPECT_EQ(pieces(11, 3, 4), (Pieces{3, 1, 3, 1, 3}));
  EXPECT_EQ(pieces(5, 1, 4), (Pieces{1, 1, 1, 1, 1}));
  EXPECT_EQ(pieces(5, 8, 16), (Pieces{5}));
}

static std::vector<int32_t> continuation(const std::vector<int32_t> &prompt,
                                         int64_t count,
                                         const Sampling &sampling) {
  Session session = toySession();
  initializeParameters(session, 3);
  std::vector<int32_t> tokens;
  GenerateTimes times = generate(session, prompt, count, sampling,
                                 [&](int32_t t) { tokens.push_back(t); });
  EXPECT_EQ(times.promptCalls,
            int64_t(pieces(int64_t(prompt.size()), 8, 4).size()));
  return tokens;
}

TEST(Generate, ContinuesAPromptAsIfItHadWrittenIt) {
  Sampling sampling;
  sampling.seed = 9;
  std::vector<int32_t> prompt = {1, 2, 3, 4, 5};
  std::vector<int32_t> all = continuation(prompt, 40, sampling);
  ASSERT_EQ(all.size(), 40u);
  // Handing back the first 20 tokens as a prompt must not change the rest: the
  // state after whole calls is that after single tokens, and draws depend on
  // the position only.
  prompt.insert(prompt.end(), all.begin(), all.begin() + 20);
  std::vector<int32_t> rest = continuation(prompt, 20, sampling);
  EXPECT_EQ(rest, std::vector<int32_t>(all.begin() + 20, all.end()));
  sampling.seed = 10;
  EXPECT_NE(continuation(prompt, 20, sampling), rest);
}

TEST(Generate, RefusesABadPrompt) {
  Session session = toySession();
  auto ignore = [](int32_t) {};
  EXPECT_ERROR(generate(session, {}, 1, {}, ignore),
               "the prompt: expected at least one token, got none");
  EXPECT_ERROR(generate(session, {1, 256}, 1, {}, ignore),
               "the prompt: token 1: expected an id from 0 to 255, got 256");
}
