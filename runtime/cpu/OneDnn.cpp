#include "runtime/cpu/OneDnn.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <dlfcn.h>
#include <vector>

namespace megalodon::cpu {

OneDnn::OneDnn() {
  void *library = ::dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *reason = ::dlerror();
    throw Error(str("the plan's matrix products need oneDNN 2 (libdnnl.so.2): ",
                    reason ? reason : "not found",
                    "; install Debian's package libdnnl2, or compile the plan "
                    "with --gemm=generated"));
  }
  sgemm = reinterpret_cast<Sgemm>(::dlsym(library, "dnnl_sgemm"));
  if (!sgemm)
    throw Error("libdnnl.so.2 has no dnnl_sgemm");
  // Not in the library's headers, but part of its interface since version 1; as
  // fast as its matmul primitive on large products and faster on small ones.
  bf16Gemm =
      reinterpret_cast<Bf16Gemm>(::dlsym(library, "dnnl_gemm_bf16bf16f32"));
  // The library brings its own OpenMP threads. Our pool owns the processors, so
  // each thread that calls it is limited to itself.
  if (void *openMp =
          ::dlopen("libgomp.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD))
    setThreads =
        reinterpret_cast<SetThreads>(::dlsym(openMp, "omp_set_num_threads"));
  const BFloat16 one = narrow(1);
  float sum = 0;
  if (!bf16Gemm)
    fallback = "libdnnl.so.2 has no dnnl_gemm_bf16bf16f32";
  else if (bf16Gemm('N', 'N', 1, 1, 1, 1, &one, 1, &one, 1, 0, &sum, 1) != 0)
    fallback = "oneDNN has no bf16 products for this CPU (it needs avx512)";
}

std::string OneDnn::bf16Remark() const {
  if (!fallback.empty())
    return str("products of bf16 run in f32, on copies of their operands: ",
               fallback);
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx512bf16"))
    return "oneDNN emulates products of bf16: this CPU lacks avx512_bf16";
#endif
  return {};
}

void OneDnn::limitThreads() const {
  static thread_local const bool alone =
      (setThreads ? setThreads(1) : void(), true);
  (void)alone;
}

static void check(int status, int64_t m, int64_t n, int64_t k) {
  if (status != 0)
    throw Error(str("oneDNN refused a product of ", m, " x ", n, " x ", k,
                    " (status ", status, ")"));
}

const OneDnn &OneDnn::get() {
  static const OneDnn library;
  return library;
}

void OneDnn::product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
                     const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc) const {
  limitThreads();
  check(sgemm(transA ? 'T' : 'N', transB ? 'T' : 'N', m, n, k, 1, a, lda, b,
              ldb, beta, c, ldc),
        m, n, k);
}

/// A dense copy in f32 of rows that lie `stride` apart.
static std::vector<float> widened(const BFloat16 *from, int64_t rows,
                                  int64_t columns, int64_t stride) {
  std::vector<float> copy(size_t(rows * columns));
  for (int64_t row = 0; row < rows; ++row)
    widen(from + row * stride, size_t(columns), &copy[size_t(row * columns)]);
  return copy;
}

void OneDnn::product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
                     const BFloat16 *a, int64_t lda, const BFloat16 *b,
                     int64_t ldb, float beta, float *c, int64_t ldc) const {
  if (!fallback.empty())
    return productOfCopies(transA, transB, m, n, k, a, lda, b, ldb, beta, c,
                           ldc);
  limitThreads();
  check(bf16Gemm(transA ? 'T' : 'N', transB ? 'T' : 'N', m, n, k, 1, a, lda, b,
                 ldb, beta, c, ldc),
        m, n, k);
}

void OneDnn::productOfCopies(bool transA, bool transB, int64_t m, int64_t n,
                             int64_t k, const BFloat16 *a, int64_t lda,
                             const BFloat16 *b, int64_t ldb, float beta,
                             float *c, int64_t ldc) const {
  const std::vector<float> wideA =
      transA ? widened(a, k, m, lda) : widened(a, m, k, lda);
  const std::vector<float> wideB =
      transB ? widened(b, n, k, ldb) : widened(b, k, n, ldb);
  product(transA, transB, m, n, k, wideA.data(), transA ? m : k, wideB.data(),
          transB ? k : n, beta, c, ldc);
}

void OneDnn::product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
                     const BFloat16 *a, int64_t lda, const BFloat16 *b,
                     int64_t ldb, float beta, BFloat16 *c, int64_t ldc) const {
  // The sums of some rows at a time: few enough to stay in cache.
  constexpr int64_t kSums = 1 << 18, kFewestRows = 64;
  const int64_t block = std::min(m, std::max(kFewestRows, kSums / n));
  static thread_local std::vector<float> sums;
  sums.resize(std::max(sums.size(), size_t(block * n)));
  for (int64_t first = 0; first < m; first += block) {
    const int64_t rows = std::min(block, m - first);
    if (beta != 0)
      for (int64_t row = 0; row < rows; ++row)
        widen(c + (first + row) * ldc, size_t(n), &sums[size_t(row * n)]);
    product(transA, transB, rows, n, k, transA ? a + first : a + first * lda,
            lda, b, ldb, beta, sums.data(), n);
    for (int64_t row = 0; row < rows; ++row)
      narrow(&sums[size_t(row * n)], size_t(n), c + (first + row) * ldc);
  }
}

} // namespace megalodon::cpu
