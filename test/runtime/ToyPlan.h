// A plan that trains, scores and generates with hand-written kernels, so that
// the runtime's applications are tested without the compiler: a bigram model
// with a carried moving average. Batch 2, length 8, chunks of 4, vocabulary
// 256.
#pragma once
#include "runtime/parallel/Communicator.h"
#include "test/runtime/TestPlan.h"

namespace megalodon::test {

/// The toy plan's bytes. With several ranks each of them holds and computes
/// everything.
std::vector<uint8_t> buildToyPlan(bool untouched = false, int ranks = 1);

/// Session on the toy plan. `untouched`: a parameter has no initialiser.
Session toySession(int threads = 1, bool untouched = false);

/// Session of one rank of a world on a toy plan for all its ranks, each of
/// which holds and computes everything.
Session toySession(World &world);

/// The toy plan as a file in the test's temporary folder.
std::string toyPlanFile();

/// A fresh, empty folder of this test.
std::string temporaryFolder(const std::string &name);

/// Text with some structure, the same for the same seed.
std::string toyText(size_t bytes, uint64_t seed = 1);

/// SHA-256 of the bytes of a session's parameters.
std::string parameterDigest(Session &session);

} // namespace megalodon::test
