// Fresh parameters: each tensor is filled as its initialiser in the plan says,
// from a random stream of its own.
#pragma once
#include "runtime/session.h"

namespace megalodon {

/// Depends on the seed, the parameters' names, shapes and initialisers only:
/// not on their order, nor on the number of threads.
void initializeParameters(Session &session, uint64_t seed);

} // namespace megalodon
