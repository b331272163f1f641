#include "runtime/cuda/CublasLt.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <dlfcn.h>

namespace megalodon::cuda {

// What NVIDIA advises for the newest GPUs; earlier ones need less.
static constexpr size_t kWorkspaceBytes = size_t(32) << 20;

CublasLt::CublasLt() {
  void *library = nullptr;
  std::string reasons;
  for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if ((library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)))
      break;
    const char *reason = ::dlerror();
    reasons += str(reasons.empty() ? "" : "; ", reason ? reason : name);
  }
  if (!library)
    throw Error(
        str("the plan's matrix products need cuBLASLt 13 or 12: ", reasons,
            "; install it (CUDA's package libcublas, or pip's "
            "nvidia-cublas) and name its folder in LD_LIBRARY_PATH"));
  auto find = [&](auto &into, const char *name) {
    into =
        reinterpret_cast<std::decay_t<decltype(into)>>(::dlsym(library, name));
    if (!into)
      throw Error(str("the library of cuBLASLt has no ", name));
  };
#define FIND(name) find(name, #name)
  FIND(cublasLtCreate);
  FIND(cublasLtDestroy);
  FIND(cublasLtGetVersion);
  FIND(cublasLtGetStatusString);
  FIND(cublasLtMatmulDescCreate);
  FIND(cublasLtMatmulDescDestroy);
  FIND(cublasLtMatmulDescSetAttribute);
  FIND(cublasLtMatrixLayoutCreate);
  FIND(cublasLtMatrixLayoutDestroy);
  FIND(cublasLtMatmulPreferenceCreate);
  FIND(cublasLtMatmulPreferenceDestroy);
  FIND(cublasLtMatmulPreferenceSetAttribute);
  FIND(cublasLtMatmulAlgoGetHeuristic);
  FIND(cublasLtMatmul);
#undef FIND
}

const CublasLt &CublasLt::get() {
  static const CublasLt library;
  return library;
}

void CublasLt::check(int status, const char *call) const {
  if (status != 0)
    throw Error(str(call, ": ", cublasLtGetStatusString(status)));
}

Products::Products(std::shared_ptr<Context> given)
    : context(std::move(given)), library(CublasLt::get()) {
  context->makeCurrent();
  library.check(library.cublasLtCreate(&handle), "cublasLtCreate");
  workspace = context->allocate(kWorkspaceBytes, "cuBLASLt");
}

void Products::release(Prepared &prepared) {
  library.cublasLtMatmulDescDestroy(prepared.product);
  for (lt::LayoutHandle layout :
       {prepared.first, prepared.second, prepared.result})
    library.cublasLtMatrixLayoutDestroy(layout);
}

Products::~Products() {
  for (auto &[key, prepared] : known)
    release(prepared);
  library.cublasLtDestroy(handle);
}

static int typeOf(ElementType type) {
  return type == ElementType::BF16 ? lt::kBfloat16 : lt::kFloat32;
}

/// The largest power of two up to 256 that divides the address.
static uint32_t alignmentOf(const std::byte *memory) {
  const Address address = addressOf(memory) | 256;
  return uint32_t(address & (~address + 1));
}

const Products::Prepared &
Products::prepare(const ProductShape &shape,
                  const std::array<uint32_t, 3> &alignments) {
  const Key key = {shape.transA,
                   shape.transB,
                   shape.accumulate,
                   shape.m,
                   shape.n,
                   shape.k,
                   int64_t(shape.type),
                   int64_t(shape.resultType),
                   alignments[0],
                   alignments[1],
                   alignments[2]};
  auto found = known.find(key);
  if (found != known.end())
    return found->second;
  // The library counts columns first. A row-major matrix is to it the transpose
  // of what it is to us, and c^T = op(b)^T op(a)^T: b comes first.
  Prepared &prepared = known[key];
  library.check(library.cublasLtMatmulDescCreate(&prepared.product,
                                                 lt::kCompute32, lt::kFloat32),
                "cublasLtMatmulDescCreate");
  const int32_t transposeFirst = shape.transB, transposeSecond = shape.transA;
  library.check(library.cublasLtMatmulDescSetAttribute(
                    prepared.product, lt::kTransposeA, &transposeFirst, 4),
                "cublasLtMatmulDescSetAttribute");
  library.check(library.cublasLtMatmulDescSetAttribute(
                    prepared.product, lt::kTransposeB, &transposeSecond, 4),
                "cublasLtMatmulDescSetAttribute");
  auto layout = [&](lt::LayoutHandle &into, ElementType type, int64_t rows,
                    int64_t columns) {
    library.check(library.cublasLtMatrixLayoutCreate(&into, typeOf(type),
                                                     uint64_t(columns),
                                                     uint64_t(rows), columns),
                  "cublasLtMatrixLayoutCreate");
  };
  layout(prepared.first, shape.type, shape.transB ? shape.n : shape.k,
         shape.transB ? shape.k : shape.n);
  layout(prepared.second, shape.type, shape.transA ? shape.k : shape.m,
         shape.transA ? shape.m : shape.k);
  layout(prepared.result, shape.resultType, shape.m, shape.n);

  lt::PreferenceHandle preference = nullptr;
  library.check(library.cublasLtMatmulPreferenceCreate(&preference),
                "cublasLtMatmulPreferenceCreate");
  auto prefer = [&](int attribute, const auto &value) {
    library.check(library.cublasLtMatmulPreferenceSetAttribute(
                      preference, attribute, &value, sizeof(value)),
                  "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(lt::kMaxWorkspaceBytes, uint64_t(workspace.bytes()));
  prefer(lt::kReductionSchemes, lt::kReduceInComputeType);
  prefer(lt::kAlignmentA, alignments[1]);
  prefer(lt::kAlignmentA + 1, alignments[0]);
  prefer(lt::kAlignmentA + 2, alignments[2]);
  prefer(lt::kAlignmentA + 3, alignments[2]);
  lt::Heuristic heuristic{};
  int count = 0;
  const int status = library.cublasLtMatmulAlgoGetHeuristic(
      handle, prepared.product, prepared.first, prepared.second,
      prepared.result, prepared.result, preference, 1, &heuristic, &count);
  library.cublasLtMatmulPreferenceDestroy(preference);
  if (status != 0 || count == 0) {
    release(prepared);
    known.erase(key);
    throw Error(str("cuBLASLt has no way to multiply ", shape.m, " x ", shape.k,
                    " by ", shape.k, " x ", shape.n, " of ",
                    elementName(shape.type), " to ",
                    elementName(shape.resultType), " on ", context->gpu.name,
                    ": ", library.cublasLtGetStatusString(status)));
  }
  prepared.algorithm = heuristic.algorithm;
  prepared.workspaceBytes = heuristic.workspaceBytes;
  return prepared;
}

void Products::run(const ProductShape &shape, const std::byte *a,
                   const std::byte *b, std::byte *c, const Stream &stream) {
  const Prepared &prepared =
      prepare(shape, {alignmentOf(a), alignmentOf(b), alignmentOf(c)});
  const float one = 1, beta = shape.accumulate ? 1 : 0;
  library.check(library.cublasLtMatmul(
                    handle, prepared.product, &one, b, prepared.first, a,
                    prepared.second, &beta, c, prepared.result, c,
                    prepared.result, &prepared.algorithm, workspace.data(),
                    prepared.workspaceBytes, stream.handle),
                "cublasLtMatmul");
}

} // namespace megalodon::cuda
