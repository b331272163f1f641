// Matrix products of a plan on a GPU: cuBLASLt, loaded when the first plan asks
// for it.
#pragma once
#include "runtime/core/ElementType.h"
#include "runtime/cuda/CublasLtApi.h"
#include "runtime/cuda/Driver.h"
#include <array>
#include <map>

namespace megalodon::cuda {

class CublasLt : public lt::Api {
public:
  /// Loads the library once a process. Throws Error with a next step when it is
  /// not installed.
  static const CublasLt &get();

  /// 130001: 13.0.1
  size_t version() const { return cublasLtGetVersion(); }
  void check(int status, const char *call) const;

private:
  CublasLt();
};

/// c[m, n] = op(a) op(b) + beta c, all row-major and dense, as in a plan. Sums
/// are f32, without TF32.
struct ProductShape {
  bool transA, transB, accumulate;
  int64_t m, n, k;
  ElementType type, resultType;
};

/// Products on one stream. What the library needs to know of a shape is found
/// out once.
class Products {
public:
  explicit Products(std::shared_ptr<Context> context);
  ~Products();
  Products(const Products &) = delete;
  Products &operator=(const Products &) = delete;

  void run(const ProductShape &shape, const std::byte *a, const std::byte *b,
           std::byte *c, const Stream &stream);

private:
  struct Prepared {
    lt::ProductHandle product = nullptr;
    lt::LayoutHandle first = nullptr, second = nullptr, result = nullptr;
    lt::Algorithm algorithm{};
    size_t workspaceBytes = 0;
  };
  using Key = std::array<int64_t, 11>;

  const Prepared &prepare(const ProductShape &shape,
                          const std::array<uint32_t, 3> &alignments);
  void release(Prepared &prepared);

  const std::shared_ptr<Context> context;
  const CublasLt &library;
  lt::Handle handle = nullptr;
  Block workspace;
  std::map<Key, Prepared> known;
};

} // namespace megalodon::cuda
