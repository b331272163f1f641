#include "runtime/convert/Tensor.h"
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <cstring>

namespace megalodon::convert {

using Type = StoredTensor::Type;

size_t typeBytes(Type type) {
  switch (type) {
  case Type::F64:
  case Type::I64:
    return 8;
  case Type::F32:
  case Type::I32:
  case Type::U32:
    return 4;
  case Type::F16:
  case Type::BF16:
  case Type::I16:
  case Type::U16:
    return 2;
  default: // U8, I8, Bool
    return 1;
  }
}

const char *typeName(Type type) {
  StoredTensor tensor{};
  tensor.type = type;
  return tensor.typeName();
}

int64_t Tensor::elements() const { return Box::whole(shape).elements(); }

Tensor makeTensor(const std::string &name, Type type,
                  const std::vector<int64_t> &shape,
                  const std::function<void(std::byte *)> &fill) {
  Tensor tensor{name, type, shape, nullptr, 0};
  tensor.bytes = size_t(tensor.elements()) * typeBytes(type);
  std::shared_ptr<std::byte> memory(new std::byte[tensor.bytes],
                                    std::default_delete<std::byte[]>());
  fill(memory.get());
  tensor.data = std::move(memory);
  return tensor;
}

template <typename T> static T load(const Tensor &tensor, int64_t i) {
  T value;
  std::memcpy(&value, tensor.data.get() + size_t(i) * sizeof(T), sizeof(T));
  return value;
}

double element(const Tensor &tensor, int64_t i) {
  switch (tensor.type) {
  case Type::F64:
    return load<double>(tensor, i);
  case Type::F32:
    return load<float>(tensor, i);
  case Type::F16:
    return widenHalf(load<uint16_t>(tensor, i));
  default:
    return widen(load<BFloat16>(tensor, i));
  }
}

Tensor makeFloats(const std::string &name, Type type,
                  const std::vector<int64_t> &shape,
                  const std::function<double(int64_t)> &value) {
  return makeTensor(name, type, shape, [&](std::byte *to) {
    auto store = [&](auto number) {
      std::memcpy(to, &number, sizeof(number));
      to += sizeof(number);
    };
    const int64_t count = Box::whole(shape).elements();
    for (int64_t i = 0; i < count; ++i) {
      if (type == Type::F64)
        store(value(i));
      else if (type == Type::F32)
        store(float(value(i)));
      else if (type == Type::BF16)
        store(narrow(float(value(i))));
      else
        throw Error(str("tensor '", name,
                        "': expected type F64, F32 or BF16, "
                        "got ",
                        typeName(type)));
    }
  });
}

Tensor slice(const Tensor &tensor, size_t dimension, int64_t part,
             int64_t parts) {
  Box box = Box::whole(tensor.shape);
  box.extent[dimension] /= parts;
  box.offset[dimension] = part * box.extent[dimension];
  const size_t width = typeBytes(tensor.type);
  return makeTensor(
      tensor.name, tensor.type, box.extent, [&](std::byte *memory) {
        forEachRun(tensor.shape, box, [&](int64_t from, int64_t to, int64_t n) {
          std::memcpy(memory + size_t(to) * width,
                      tensor.data.get() + size_t(from) * width,
                      size_t(n) * width);
        });
      });
}

Tensor concatenate(const std::vector<const Tensor *> &parts, size_t dimension) {
  const Tensor &first = *parts.front();
  std::vector<int64_t> shape = first.shape;
  shape[dimension] *= int64_t(parts.size());
  const size_t width = typeBytes(first.type);
  return makeTensor(first.name, first.type, shape, [&](std::byte *memory) {
    for (size_t i = 0; i < parts.size(); ++i) {
      Box box = Box::whole(first.shape);
      box.offset[dimension] = int64_t(i) * first.shape[dimension];
      forEachRun(shape, box, [&](int64_t to, int64_t from, int64_t n) {
        std::memcpy(memory + size_t(to) * width,
                    parts[i]->data.get() + size_t(from) * width,
                    size_t(n) * width);
      });
    }
  });
}

TensorSet readSafetensors(const std::string &path) {
  auto file = std::make_shared<const SafetensorsFile>(path);
  TensorSet set{path, {}, file->metadata()};
  for (const StoredTensor &stored : file->tensors())
    set.tensors[stored.name] = {stored.name,
                                stored.type,
                                stored.shape,
                                {file, stored.data},
                                stored.bytes};
  return set;
}

/// The type with which a tensor is written.
static ElementType writtenType(const std::string &path, const Tensor &tensor) {
  switch (tensor.type) {
  case Type::F64:
    return ElementType::F64;
  case Type::F32:
  case Type::F16:
    return ElementType::F32;
  case Type::BF16:
    return ElementType::BF16;
  case Type::I64:
    return ElementType::I64;
  case Type::I32:
    return ElementType::I32;
  default:
    throw Error(str(path, ": tensor '", tensor.name,
                    "': expected a floating type or I64, got ",
                    typeName(tensor.type)));
  }
}

void writeSafetensors(const std::string &path, const TensorSet &set) {
  std::vector<TensorHead> heads;
  for (const auto &[name, tensor] : set.tensors)
    heads.push_back({name, writtenType(set.path, tensor), tensor.shape});
  SafetensorsWriter out(path, heads, set.metadata);
  for (const auto &item : set.tensors) {
    const Tensor &tensor = item.second;
    if (tensor.type != Type::F16) {
      out.write(tensor.data.get(), tensor.bytes);
      continue;
    }
    const Tensor wide =
        makeFloats(item.first, Type::F32, tensor.shape,
                   [&](int64_t i) { return element(tensor, i); });
    out.write(wide.data.get(), wide.bytes);
  }
  out.commit();
}

} // namespace megalodon::convert
