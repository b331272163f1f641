// Writes text: feeds a prompt in whole calls of the function `generate`, then
// token by token what sampling chooses.
#pragma once
#include "runtime/generate/Sampling.h"
#include "runtime/session.h"
#include <functional>
#include <vector>

namespace megalodon {

/// The largest next piece of a prompt: at most `length` tokens, and ending at a
/// chunk boundary rather than crossing one.
int64_t promptPiece(int64_t position, int64_t remaining, int64_t length,
                    int64_t chunk);

struct GenerateTimes {
  double promptSeconds = 0, tokenSeconds = 0;
  int64_t promptCalls = 0, tokens = 0; ///< tokens: how many were chosen
};

/// Calls `emit` with each token as soon as it is chosen. Starts from fresh
/// state, ends after maxTokens or with the token `last`.
GenerateTimes generate(Session &session, const std::vector<int32_t> &prompt,
                       int64_t maxTokens, const Sampling &sampling,
                       const std::function<void(int32_t)> &emit,
                       int32_t last = -1);

} // namespace megalodon
