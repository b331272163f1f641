// What all ranks of a world must decide alike: a failure of one is a failure of
// all, with one message.
#pragma once
#include "runtime/parallel/Communicator.h"
#include <functional>
#include <string>

namespace megalodon {

/// Runs body() on every rank; where it throws, all ranks throw once all are
/// done: the first failed rank its own error, the others the same text with
/// that rank's number in front. body() must not leave others waiting.
void together(World &world, const WaitContext &context,
              const std::function<void()> &body);

/// A text of one rank, on all ranks.
std::string shareText(World &world, const WaitContext &context,
                      const std::string &text, int root);

/// The texts of all ranks, on all ranks.
std::vector<std::string> gatherTexts(World &world, const WaitContext &context,
                                     const std::string &text);

} // namespace megalodon
