// Element types of host tensors and their sizes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace megalodon {

/// Names and sizes as in safetensors; the order is that of the plan's schema.
enum class ElementType : uint8_t { F32, F64, I32, I64, BF16, I8 };

constexpr size_t elementBytes(ElementType type) {
  switch (type) {
  case ElementType::F32:
  case ElementType::I32:
    return 4;
  case ElementType::F64:
  case ElementType::I64:
    return 8;
  case ElementType::BF16:
    return 2;
  case ElementType::I8:
    return 1;
  }
  return 0;
}

constexpr const char *elementName(ElementType type) {
  switch (type) {
  case ElementType::F32:
    return "F32";
  case ElementType::F64:
    return "F64";
  case ElementType::I32:
    return "I32";
  case ElementType::I64:
    return "I64";
  case ElementType::BF16:
    return "BF16";
  case ElementType::I8:
    return "I8";
  }
  return "?";
}

constexpr bool isFloat(ElementType type) {
  return type == ElementType::F32 || type == ElementType::F64 ||
         type == ElementType::BF16;
}

} // namespace megalodon
