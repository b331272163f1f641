// Large zeroed memory from the system: page-aligned, huge pages advised,
// touched only when used.
#pragma once
#include "runtime/core/Error.h"
#include <cstddef>
#include <string>
#include <sys/mman.h>
#include <utility>

namespace megalodon::cpu {

class Memory {
public:
  Memory() = default;
  Memory(size_t bytes, const std::string &purpose) : size(bytes) {
    if (bytes == 0)
      return;
    void *mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
      throw Error(str("cannot allocate ", bytes, " bytes for ", purpose));
    ::madvise(mapped, bytes, MADV_HUGEPAGE);
    base = static_cast<std::byte *>(mapped);
  }
  ~Memory() {
    if (base)
      ::munmap(base, size);
  }
  Memory(Memory &&other) noexcept
      : base(std::exchange(other.base, nullptr)),
        size(std::exchange(other.size, 0)) {}
  Memory &operator=(Memory &&other) noexcept {
    std::swap(base, other.base);
    std::swap(size, other.size);
    return *this;
  }

  std::byte *data() const { return base; }
  size_t bytes() const { return size; }

private:
  std::byte *base = nullptr;
  size_t size = 0;
};

} // namespace megalodon::cpu
