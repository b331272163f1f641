// Small helpers on host tensors: element access by number, and the search for
// numbers that are not finite.
#pragma once
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include "runtime/session.h"
#include <cstring>

namespace megalodon {

inline int64_t elementCount(const TensorView &tensor) {
  int64_t count = 1;
  for (int64_t extent : tensor.shape)
    count *= extent;
  return count;
}

inline double loadNumber(const TensorView &tensor, int64_t element) {
  auto read = [&](auto value) {
    std::memcpy(&value, tensor.read() + element * sizeof(value), sizeof(value));
    return value;
  };
  switch (tensor.type) {
  case ElementType::F32:
    return read(float());
  case ElementType::F64:
    return read(double());
  case ElementType::I32:
    return read(int32_t());
  case ElementType::I64:
    return static_cast<double>(read(int64_t()));
  case ElementType::BF16:
    return widen(read(BFloat16()));
  default:
    throw Error(str(tensor.name,
                    ": expected F32, F64, BF16, I32 or I64, got another type"));
  }
}

inline void storeNumber(const TensorView &tensor, int64_t element,
                        double number) {
  auto write = [&](auto value) {
    std::memcpy(tensor.write() + element * sizeof(value), &value,
                sizeof(value));
  };
  switch (tensor.type) {
  case ElementType::F32:
    return write(static_cast<float>(number));
  case ElementType::F64:
    return write(number);
  case ElementType::I32:
    return write(static_cast<int32_t>(number));
  case ElementType::I64:
    return write(static_cast<int64_t>(number));
  case ElementType::BF16:
    return write(narrow(static_cast<float>(number)));
  default:
    throw Error(str(tensor.name,
                    ": expected F32, F64, BF16, I32 or I64, got another type"));
  }
}

} // namespace megalodon
