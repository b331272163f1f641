// Fresh parameters: each tensor is filled as its initialiser in the plan says,
// from a random stream of its own.
#pragma once
#include "runtime/core/ThreadPool.h"
#include "runtime/io/Box.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/session.h"

namespace megalodon {

/// Depends on the seed, the parameters' names, shapes and initialisers only:
/// not on their order, nor on the number of threads or the mesh.
void initializeParameters(Session &session, uint64_t seed);

/// Fills `into`, which is `box` of a parameter of `shape`: each element gets
/// the number it has in the whole tensor, padding gets zero.
void initializeBox(const TensorView &into, const std::vector<int64_t> &shape,
                   const Box &box, const plan::Initializer &init, uint64_t seed,
                   ThreadPool &pool);

} // namespace megalodon
