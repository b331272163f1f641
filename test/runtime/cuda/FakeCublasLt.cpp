// Stands in for libcublasLt.so.13 beside FakeCuda.cpp: products by plain loops,
// in order on the stand-in's streams. Refuses what the real one would refuse.
#include "test/runtime/cuda/FakeCuda.h"
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <vector>

namespace {

enum { kSuccess = 0, kInvalidValue = 7, kNotSupported = 15 };
enum { kFloat32 = 0, kBfloat16 = 14 };

struct Product {
  int computeType, scaleType;
  int32_t transposeA = 0, transposeB = 0;
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t leading;
};
struct Preference {
  uint64_t workspaceBytes = 0;
  uint32_t schemes = 7, alignment[4] = {256, 256, 256, 256};
};
struct Heuristic {
  uint64_t algorithm[8];
  size_t workspaceBytes;
  int status;
  float waves;
  int reserved[4];
};

/// What an algorithm is for; another product must not use it.
struct Problem {
  Product product;
  Layout a, b, d;
  uint32_t alignment[4];
};
static_assert(sizeof(Problem) <= 256);
std::mutex mutex;
std::vector<Problem> problems;

decltype(&fakeCudaEnqueue) enqueue;
decltype(&fakeCudaTranslate) translate;

size_t widthOf(int type) {
  return type == kFloat32 ? 4 : type == kBfloat16 ? 2 : 0;
}
size_t bytesOf(const Layout &layout) {
  return size_t(layout.leading) * layout.columns * widthOf(layout.type);
}

float load(const char *data, int type, size_t index) {
  float value;
  if (type == kFloat32) {
    std::memcpy(&value, data + 4 * index, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, data + 2 * index, 2);
  const uint32_t bits = uint32_t(half) << 16;
  std::memcpy(&value, &bits, 4);
  return value;
}
void store(char *data, int type, size_t index, float value) {
  if (type == kFloat32) {
    std::memcpy(data + 4 * index, &value, 4);
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const auto half = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  std::memcpy(data + 2 * index, &half, 2);
}

bool isSame(const Layout &left, const Layout &right) {
  return left.type == right.type && left.rows == right.rows &&
         left.columns == right.columns && left.leading == right.leading;
}

bool isSupported(const Product &product, const Layout &a, const Layout &b,
                 const Layout &d) {
  const uint64_t m = product.transposeA ? a.columns : a.rows,
                 k = product.transposeA ? a.rows : a.columns,
                 n = product.transposeB ? b.rows : b.columns,
                 kb = product.transposeB ? b.columns : b.rows;
  return product.computeType == 68 && product.scaleType == kFloat32 &&
         k == kb && d.rows == m && d.columns == n && a.type == b.type &&
         widthOf(a.type) && widthOf(d.type) &&
         !(a.type == kFloat32 && d.type == kBfloat16) &&
         a.leading >= int64_t(a.rows) && b.leading >= int64_t(b.rows) &&
         d.leading >= int64_t(d.rows);
}

struct Work {
  Problem problem;
  float alpha, beta;
  const char *a, *b;
  char *d;
};

void multiply(void *data) {
  const Work &work = *static_cast<Work *>(data);
  const auto &[product, a, b, d, alignment] = work.problem;
  const uint64_t m = d.rows, n = d.columns,
                 k = product.transposeA ? a.rows : a.columns;
  for (uint64_t column = 0; column < n; ++column)
    for (uint64_t row = 0; row < m; ++row) {
      double sum = 0;
      for (uint64_t i = 0; i < k; ++i)
        sum +=
            double(load(work.a, a.type,
                        product.transposeA ? i + row * uint64_t(a.leading)
                                           : row + i * uint64_t(a.leading))) *
            load(work.b, b.type,
                 product.transposeB ? column + i * uint64_t(b.leading)
                                    : i + column * uint64_t(b.leading));
      const size_t at = row + column * size_t(d.leading);
      const float before =
          work.beta != 0 ? work.beta * load(work.d, d.type, at) : 0;
      store(work.d, d.type, at, float(work.alpha * sum) + before);
    }
}

} // namespace

extern "C" {

int cublasLtCreate(void **handle) {
  // The driver that the process has loaded already.
  void *driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  enqueue =
      reinterpret_cast<decltype(enqueue)>(::dlsym(driver, "fakeCudaEnqueue"));
  translate = reinterpret_cast<decltype(translate)>(
      ::dlsym(driver, "fakeCudaTranslate"));
  *handle = &problems;
  return enqueue && translate ? kSuccess : kInvalidValue;
}
int cublasLtDestroy(void *) { return kSuccess; }
size_t cublasLtGetVersion() { return 130001; }
const char *cublasLtGetStatusString(int status) {
  return status == kInvalidValue   ? "CUBLAS_STATUS_INVALID_VALUE"
         : status == kNotSupported ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                   : "CUBLAS_STATUS_SUCCESS";
}
int cublasLtMatmulDescCreate(Product **product, int computeType,
                             int scaleType) {
  *product = new Product{computeType, scaleType};
  return kSuccess;
}
int cublasLtMatmulDescDestroy(Product *product) {
  delete product;
  return kSuccess;
}
int cublasLtMatmulDescSetAttribute(Product *product, int attribute,
                                   const void *value, size_t bytes) {
  if (bytes != 4 || (attribute != 3 && attribute != 4))
    return kInvalidValue;
  std::memcpy(attribute == 3 ? &product->transposeA : &product->transposeB,
              value, 4);
  return kSuccess;
}
int cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows,
                               uint64_t columns, int64_t leading) {
  *layout = new Layout{type, rows, columns, leading};
  return kSuccess;
}
int cublasLtMatrixLayoutDestroy(Layout *layout) {
  delete layout;
  return kSuccess;
}
int cublasLtMatmulPreferenceCreate(Preference **preference) {
  *preference = new Preference;
  return kSuccess;
}
int cublasLtMatmulPreferenceDestroy(Preference *preference) {
  delete preference;
  return kSuccess;
}
int cublasLtMatmulPreferenceSetAttribute(Preference *preference, int attribute,
                                         const void *value, size_t bytes) {
  if (attribute == 1 && bytes == 8)
    std::memcpy(&preference->workspaceBytes, value, 8);
  else if (attribute == 3 && bytes == 4)
    std::memcpy(&preference->schemes, value, 4);
  else if (attribute >= 5 && attribute <= 8 && bytes == 4)
    std::memcpy(&preference->alignment[attribute - 5], value, 4);
  else
    return kInvalidValue;
  return kSuccess;
}
int cublasLtMatmulAlgoGetHeuristic(void *, Product *product, Layout *a,
                                   Layout *b, Layout *c, Layout *d,
                                   Preference *preference, int wanted,
                                   Heuristic *results, int *found) {
  *found = 0;
  if (wanted < 1)
    return kInvalidValue;
  if (!isSupported(*product, *a, *b, *d) || !isSame(*c, *d))
    return kNotSupported;
  Problem problem{*product, *a, *b, *d, {}};
  std::memcpy(problem.alignment, preference->alignment,
              sizeof(problem.alignment));
  const std::lock_guard lock(mutex);
  problems.push_back(problem);
  *results = {};
  results->algorithm[0] = problems.size();
  results->workspaceBytes = preference->workspaceBytes / 2;
  *found = 1;
  return kSuccess;
}
int cublasLtMatmul(void *, Product *product, const float *alpha, const void *a,
                   Layout *layoutA, const void *b, Layout *layoutB,
                   const float *beta, const void *c, Layout *, void *d,
                   Layout *layoutD, const uint64_t *algorithm, void *workspace,
                   size_t workspaceBytes, void *stream) {
  const std::lock_guard lock(mutex);
  if (!algorithm || !algorithm[0] || algorithm[0] > problems.size() || c != d)
    return kInvalidValue;
  const Problem problem = problems[algorithm[0] - 1];
  if (!isSame(problem.a, *layoutA) || !isSame(problem.b, *layoutB) ||
      !isSame(problem.d, *layoutD) ||
      problem.product.transposeA != product->transposeA ||
      problem.product.transposeB != product->transposeB)
    return kNotSupported;
  auto address = [](const void *pointer) {
    return reinterpret_cast<unsigned long long>(pointer);
  };
  if (address(a) % problem.alignment[0] || address(b) % problem.alignment[1] ||
      address(d) % problem.alignment[3])
    return kInvalidValue;
  auto *work =
      new Work{problem,
               *alpha,
               *beta,
               static_cast<char *>(translate(address(a), bytesOf(*layoutA))),
               static_cast<char *>(translate(address(b), bytesOf(*layoutB))),
               static_cast<char *>(translate(address(d), bytesOf(*layoutD)))};
  if (!work->a || !work->b || !work->d ||
      (workspaceBytes && !translate(address(workspace), workspaceBytes))) {
    delete work;
    return kInvalidValue;
  }
  return enqueue(stream, nullptr, multiply, work,
                 [](void *data) { delete static_cast<Work *>(data); });
}
}
