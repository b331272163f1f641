// What this machine can do at most, measured on the spot: the yardsticks of
// `bench` and of the share of peak in training.
#pragma once
#include "runtime/core/ThreadPool.h"

namespace megalodon::cpu {

struct MachineLimits {
  double bytesPerSecond; ///< streaming through memory: two arrays read, one
                         ///< written, counted once each
  double flopsPerSecond; ///< single-precision fused multiply-adds in registers,
                         ///< two operations each
  double flops64PerSecond; ///< the same in double precision
};

/// Takes about a second. All of the pool's workers take part.
MachineLimits measureMachine(ThreadPool &pool);

/// Operations a second of oneDNN's product of large matrices, of f32 or of
/// bf16, one call a worker at a time.
double measureProducts(ThreadPool &pool, bool bf16);

} // namespace megalodon::cpu
