// Tensors between two formats: whole, dense, in memory or in a mapped file.
#pragma once
#include "runtime/io/Safetensors.h"
#include <functional>
#include <map>
#include <memory>

namespace megalodon::convert {

struct Tensor {
  std::string name;
  StoredTensor::Type type;
  std::vector<int64_t> shape;
  std::shared_ptr<const std::byte> data; ///< not aligned
  size_t bytes;

  int64_t elements() const;
};

/// Tensors by name, and the file that each message about them names.
struct TensorSet {
  std::string path;
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

size_t typeBytes(StoredTensor::Type type);
const char *typeName(StoredTensor::Type type);

/// A dense tensor of that type and shape, to be filled through `fill`.
Tensor makeTensor(const std::string &name, StoredTensor::Type type,
                  const std::vector<int64_t> &shape,
                  const std::function<void(std::byte *)> &fill);

/// Element `i` of a floating tensor.
double element(const Tensor &tensor, int64_t i);

/// A tensor of floating type `type` whose element `i` is `value(i)`, rounded.
Tensor makeFloats(const std::string &name, StoredTensor::Type type,
                  const std::vector<int64_t> &shape,
                  const std::function<double(int64_t)> &value);

/// Part `part` of `parts` equal ones along a dimension, and their union.
Tensor slice(const Tensor &tensor, size_t dimension, int64_t part,
             int64_t parts);
Tensor concatenate(const std::vector<const Tensor *> &parts, size_t dimension);

/// A safetensors file or index. The set keeps the file mapped.
TensorSet readSafetensors(const std::string &path);
/// Writes them; F16 becomes F32, which holds the same numbers.
void writeSafetensors(const std::string &path, const TensorSet &set);

} // namespace megalodon::convert
