// The part of cuBLASLt's interface that the cuda device calls, so that it
// builds without NVIDIA's headers. Enumerations are passed as int. A test
// compares it with cublasLt.h where there is one.
#pragma once
#include "runtime/cuda/DriverApi.h"
#include <cstddef>
#include <cstdint>

namespace megalodon::cuda::lt {

using Handle = struct OpaqueHandle *;
using ProductHandle = struct OpaqueProduct *;       ///< cublasLtMatmulDesc_t
using LayoutHandle = struct OpaqueLayout *;         ///< cublasLtMatrixLayout_t
using PreferenceHandle = struct OpaquePreference *; ///< ...Preference_t

constexpr int kFloat32 = 0, kBfloat16 = 14; ///< cudaDataType
constexpr int kCompute32 = 68;              ///< CUBLAS_COMPUTE_32F: no TF32
constexpr int kTransposeA = 3, kTransposeB = 4;
constexpr int kMaxWorkspaceBytes = 1, kReductionSchemes = 3,
              kAlignmentA = 5; ///< then B, C, D
/// Sums of split products: in the type of the computation only.
constexpr uint32_t kReduceInComputeType = 2;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspaceBytes;
  int status;
  float waves;
  int reserved[4];
};

struct Api {
  int (*cublasLtCreate)(Handle *);
  int (*cublasLtDestroy)(Handle);
  size_t (*cublasLtGetVersion)();
  const char *(*cublasLtGetStatusString)(int status);
  int (*cublasLtMatmulDescCreate)(ProductHandle *, int computeType,
                                  int scaleType);
  int (*cublasLtMatmulDescDestroy)(ProductHandle);
  int (*cublasLtMatmulDescSetAttribute)(ProductHandle, int attribute,
                                        const void *value, size_t bytes);
  int (*cublasLtMatrixLayoutCreate)(LayoutHandle *, int type, uint64_t rows,
                                    uint64_t columns, int64_t leading);
  int (*cublasLtMatrixLayoutDestroy)(LayoutHandle);
  int (*cublasLtMatmulPreferenceCreate)(PreferenceHandle *);
  int (*cublasLtMatmulPreferenceDestroy)(PreferenceHandle);
  int (*cublasLtMatmulPreferenceSetAttribute)(PreferenceHandle, int attribute,
                                              const void *value, size_t bytes);
  int (*cublasLtMatmulAlgoGetHeuristic)(Handle, ProductHandle, LayoutHandle a,
                                        LayoutHandle b, LayoutHandle c,
                                        LayoutHandle d, PreferenceHandle,
                                        int wanted, Heuristic *results,
                                        int *found);
  int (*cublasLtMatmul)(Handle, ProductHandle, const void *alpha, const void *a,
                        LayoutHandle, const void *b, LayoutHandle,
                        const void *beta, const void *c, LayoutHandle, void *d,
                        LayoutHandle, const Algorithm *, void *workspace,
                        size_t workspaceBytes, StreamHandle);
};

} // namespace megalodon::cuda::lt
