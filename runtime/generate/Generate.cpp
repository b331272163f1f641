#include "runtime/generate/Generate.h"
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/train/Tensors.h"
#include <algorithm>
#include <chrono>

using namespace megalodon;

int64_t megalodon::promptPiece(int64_t position, int64_t remaining,
                               int64_t length, int64_t chunk) {
  int64_t end = position + std::min(remaining, length),
          boundary = end / chunk * chunk;
  return (boundary > position ? boundary : end) - position;
}

static double secondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

GenerateTimes megalodon::generate(Session &session,
                                  const std::vector<int32_t> &prompt,
                                  int64_t maxTokens, const Sampling &sampling,
                                  const std::function<void(int32_t)> &emit,
                                  int32_t last) {
  const plan::LoadedPlan &plan = session.plan();
  size_t function = session.function("generate");
  int64_t length = plan.functions[function].length;
  sampling.verify();
  if (prompt.empty())
    throw Error("the prompt: expected at least one token, got none");
  for (size_t i = 0; i < prompt.size(); ++i)
    if (prompt[i] < 0 || prompt[i] >= plan.vocabSize)
      throw Error(str("the prompt: token ", i, ": expected an id from 0 to ",
                      plan.vocabSize - 1, ", got ", prompt[i]));

  // The last token is not read back.
  const int64_t read =
      static_cast<int64_t>(prompt.size()) + std::max<int64_t>(maxTokens - 1, 0);
  if (plan.context > 0 && read > plan.context)
    throw Error(str(plan.path, ": expected at most ", plan.context,
                    " tokens in a sequence (max_seq_len), got a prompt of ",
                    prompt.size(), " and ", maxTokens,
                    " to generate; ask for fewer, or compile with a larger "
                    "max_seq_len"));

  auto feed = [&](const int32_t *tokens, int64_t count) {
    CallShape shape{1, count};
    TensorView input = session.variable(function, "tokens", shape);
    std::memcpy(input.overwrite(), tokens, count * sizeof(int32_t));
    session.run(function, shape);
  };

  GenerateTimes times;
  auto start = std::chrono::steady_clock::now();
  session.resetState(function);
  session.resetOptionalInputs(function);
  int64_t position = 0, size = static_cast<int64_t>(prompt.size());
  while (position < size) {
    int64_t piece =
        promptPiece(position, size - position, length, plan.chunkSize);
    feed(prompt.data() + position, piece);
    position += piece;
    ++times.promptCalls;
  }
  times.promptSeconds = secondsSince(start);

  start = std::chrono::steady_clock::now();
  std::vector<double> logits(plan.outputSize);
  for (int64_t i = 0; i < maxTokens; ++i) {
    TensorView output = session.variable(function, "logits", {1, 1});
    for (int64_t j = 0; j < plan.outputSize; ++j)
      logits[j] = loadNumber(output, j);
    int32_t token = sampling.choose(logits, size + i);
    emit(token);
    ++times.tokens;
    if (i + 1 == maxTokens || token == last)
      break;
    if (token >= plan.vocabSize)
      throw Error(str("generated token ", token,
                      " is outside the vocabulary of ", plan.vocabSize,
                      " and cannot be read back"));
    feed(&token, 1);
  }
  times.tokenSeconds = secondsSince(start);
  return times;
}
