#include "runtime/cpu/OneDnn.h"
#include "runtime/core/Error.h"
#include <dlfcn.h>

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
  // The library brings its own OpenMP threads. Our pool owns the processors, so
  // each thread that calls it is limited to itself.
  if (void *openMp =
          ::dlopen("libgomp.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD))
    setThreads =
        reinterpret_cast<SetThreads>(::dlsym(openMp, "omp_set_num_threads"));
}

const OneDnn &OneDnn::get() {
  static const OneDnn library;
  return library;
}

void OneDnn::product(bool transA, bool transB, int64_t m, int64_t n, int64_t k,
                     const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc) const {
  static thread_local const bool alone =
      (setThreads ? setThreads(1) : void(), true);
  (void)alone;
  const int status = sgemm(transA ? 'T' : 'N', transB ? 'T' : 'N', m, n, k,
                           1.0f, a, lda, b, ldb, beta, c, ldc);
  if (status != 0)
    throw Error(str("oneDNN refused a product of ", m, " x ", n, " x ", k,
                    " (status ", status, ")"));
}

} // namespace megalodon::cpu
