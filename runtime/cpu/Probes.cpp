#include "runtime/cpu/Probes.h"
#include "runtime/cpu/Memory.h"
#include "runtime/cpu/OneDnn.h"
#include <algorithm>
#include <chrono>

namespace megalodon::cpu {

namespace {

// Enough independent chains to cover the latency of two pipelined multiply-add
// units.
constexpr int kChains = 16;
constexpr int64_t kRounds = 200'000;

// The best of many short runs: other processes disturb few of them.
constexpr int kArithmeticRepeats = 40, kMemoryRepeats = 8, kProductRepeats = 8;

/// Rounds of kChains multiply-adds on vectors of `Bytes` bytes. Returns a value
/// that depends on all of them.
template <typename Element, int Bytes>
[[gnu::always_inline]] inline Element chains(Element factor) {
  typedef Element Vector __attribute__((vector_size(Bytes)));
  Vector sums[kChains], scale, step;
  for (int lane = 0; lane < Bytes / int(sizeof(Element)); ++lane) {
    scale[lane] = factor;
    step[lane] = factor / 2;
    for (int chain = 0; chain < kChains; ++chain)
      sums[chain][lane] = Element(chain);
  }
  for (int64_t round = 0; round < kRounds; ++round)
#pragma GCC unroll 16
    for (int chain = 0; chain < kChains; ++chain)
      sums[chain] = sums[chain] * scale + step;
  Element total = 0;
  for (const Vector &sum : sums)
    total += sum[0];
  return total;
}

struct Variant {
  float (*single)(float);
  double (*twice)(double);
  int bytes;
};

#if defined(__x86_64__)
[[gnu::target("avx512f")]] float single512(float factor) {
  return chains<float, 64>(factor);
}
[[gnu::target("avx512f")]] double double512(double factor) {
  return chains<double, 64>(factor);
}
[[gnu::target("avx2,fma")]] float single256(float factor) {
  return chains<float, 32>(factor);
}
[[gnu::target("avx2,fma")]] double double256(double factor) {
  return chains<double, 32>(factor);
}
#endif
float single128(float factor) { return chains<float, 16>(factor); }
double double128(double factor) { return chains<double, 16>(factor); }

Variant widest() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    return {single512, double512, 64};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {single256, double256, 32};
#endif
  return {single128, double128, 16};
}

/// The shortest of some runs of body() on every worker at once.
template <typename Body>
double shortest(ThreadPool &pool, int repeats, Body body) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    pool.run(pool.size(), [&](int64_t part, int) { body(part); });
    best = std::min(
        best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

} // namespace

MachineLimits measureMachine(ThreadPool &pool) {
  const Variant variant = widest();
  const double operations = 2.0 * kRounds * kChains * pool.size();
  std::vector<double> sink(size_t(pool.size()) *
                           8); // keeps the results alive, a cache line each
  const double single = shortest(pool, kArithmeticRepeats, [&](int64_t part) {
    sink[size_t(part) * 8] += double(variant.single(0.5f));
  });
  const double twice = shortest(pool, kArithmeticRepeats, [&](int64_t part) {
    sink[size_t(part) * 8] += variant.twice(0.5);
  });

  constexpr size_t kElements = size_t(12)
                               << 20; // 48 MiB an array: beyond the caches
  Memory memory(3 * kElements * sizeof(float), "the memory probe");
  auto *a = reinterpret_cast<float *>(memory.data()), *b = a + kElements,
       *c = b + kElements;
  std::fill(
      a, c,
      1.0f); // pages never written are one page of zeros, which the caches hold
  const size_t piece = kElements / size_t(pool.size());
  const double streaming = shortest(pool, kMemoryRepeats, [&](int64_t part) {
    for (size_t i = size_t(part) * piece, end = i + piece; i < end; ++i)
      c[i] = a[i] + 0.5f * b[i];
  });
  return {3.0 * sizeof(float) * double(piece) * pool.size() / streaming,
          operations * (variant.bytes / sizeof(float)) / single,
          operations * (variant.bytes / sizeof(double)) / twice};
}

template <typename Operand>
static double measureProductsOf(ThreadPool &pool, Operand one) {
  constexpr int64_t kSize = 768;
  const OneDnn &library = OneDnn::get();
  const size_t workers = size_t(pool.size());
  std::vector<Operand> a(kSize * kSize, one), b(kSize * kSize, one);
  std::vector<float> c(kSize * kSize * workers);
  const double seconds = shortest(pool, kProductRepeats, [&](int64_t part) {
    library.product(false, true, kSize, kSize, kSize, a.data(), kSize, b.data(),
                    kSize, 0, c.data() + part * kSize * kSize, kSize);
  });
  return 2.0 * kSize * kSize * kSize * double(workers) / seconds;
}

double measureProducts(ThreadPool &pool, bool bf16) {
  return bf16 ? measureProductsOf(pool, narrow(1))
              : measureProductsOf(pool, 1.0f);
}

} // namespace megalodon::cpu
