// oneDNN's single-precision product, loaded when the first plan asks for it, so
// that plans without it run without the library.
#pragma once
#include <cstdint>

namespace megalodon::cpu {

class OneDnn {
public:
  /// Loads the library once a process. Throws Error with a next step when it is
  /// not installed.
  static const OneDnn &get();

  /// c[m, n] = op(a) op(b) + beta c, row-major, on the calling thread alone.
  /// Throws Error when the library reports one.
  void product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
               const float *a, int64_t lda, const float *b, int64_t ldb,
               float beta, float *c, int64_t ldc) const;

private:
  OneDnn();

  using Sgemm = int (*)(char transA, char transB, int64_t m, int64_t n,
                        int64_t k, float alpha, const float *a, int64_t lda,
                        const float *b, int64_t ldb, float beta, float *c,
                        int64_t ldc);
  using SetThreads = void (*)(int threads);
  Sgemm sgemm = nullptr;
  SetThreads setThreads = nullptr;
};

} // namespace megalodon::cpu
