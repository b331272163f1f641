// Chooses the next token from logits. The choice is a pure function of the
// logits, the options and the position.
#pragma once
#include <cstdint>
#include <vector>

namespace megalodon {

struct Sampling {
  double temperature = 1; ///< 0 = the most likely token
  int64_t topK = 0; ///< keep the K most likely tokens and all that tie with the
                    ///< last of them; 0 = all
  double topP = 1; ///< keep tokens while the mass of the more likely ones is at
                   ///< most this; 1 = all
  double minP = 0; ///< keep tokens at least this likely relative to the most
                   ///< likely one; 0 = all
  uint64_t seed = 1;

  /// Throws Error naming the option that makes no sense.
  void verify() const;

  /// The probabilities after temperature and all cuts, summing to one. Throws
  /// Error on a logit that is not finite.
  std::vector<double> distribution(const std::vector<double> &logits) const;

  /// The token at `position` of the text.
  int32_t choose(const std::vector<double> &logits, int64_t position) const;
};

} // namespace megalodon
