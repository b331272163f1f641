// oneDNN's products of f32 and of bf16, loaded when the first plan asks for
// them, so that plans without them run without the library.
#pragma once
#include "runtime/core/BFloat16.h"
#include <cstdint>
#include <string>

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
  /// The same of bf16 operands, summed in f32.
  void product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
               const BFloat16 *a, int64_t lda, const BFloat16 *b, int64_t ldb,
               float beta, float *c, int64_t ldc) const;
  /// The same with sums that are rounded once, when they are complete.
  void product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
               const BFloat16 *a, int64_t lda, const BFloat16 *b, int64_t ldb,
               float beta, BFloat16 *c, int64_t ldc) const;

  /// The first of these two by a product of f32 copies of the operands: what a
  /// CPU does for which the library has no products of bf16.
  void productOfCopies(bool transA, bool transB, int64_t m, int64_t n,
                       int64_t k, const BFloat16 *a, int64_t lda,
                       const BFloat16 *b, int64_t ldb, float beta, float *c,
                       int64_t ldc) const;
  /// What makes products of bf16 slower here than they could be, as a text for
  /// people; empty if nothing does.
  std::string bf16Remark() const;

private:
  OneDnn();

  void limitThreads() const;

  using Sgemm = int (*)(char transA, char transB, int64_t m, int64_t n,
                        int64_t k, float alpha, const float *a, int64_t lda,
                        const float *b, int64_t ldb, float beta, float *c,
                        int64_t ldc);
  using Bf16Gemm = int (*)(char transA, char transB, int64_t m, int64_t n,
                           int64_t k, float alpha, const BFloat16 *a,
                           int64_t lda, const BFloat16 *b, int64_t ldb,
                           float beta, float *c, int64_t ldc);
  using SetThreads = void (*)(int threads);
  Sgemm sgemm = nullptr;
  Bf16Gemm bf16Gemm = nullptr;
  /// Why products of bf16 run as products of f32; empty if they do not.
  std::string fallback;
  SetThreads setThreads = nullptr;
};

} // namespace megalodon::cpu
