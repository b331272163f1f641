// Safetensors files: a strict memory-mapped reader, a streaming atomic writer,
// and conversion to the types variables have.
#pragma once
#include "runtime/core/File.h"
#include "runtime/session.h"
#include <map>
#include <unordered_map>

namespace megalodon {

/// A tensor in a safetensors file. Types beyond ElementType are kept by name.
struct StoredTensor {
  enum class Type : uint8_t {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    U16,
    U32,
    U8,
    I8,
    Bool
  };

  std::string name;
  Type type;
  std::vector<int64_t> shape;
  const std::byte *data; ///< inside the mapped file; not aligned
  size_t bytes;

  int64_t elements() const;
  const char *typeName() const;
  bool isFloat() const { return type <= Type::BF16; }
};

class SafetensorsFile {
public:
  /// Maps and validates the file. Throws Error naming the file and the tensor
  /// or field that is wrong.
  explicit SafetensorsFile(const std::string &path);

  const std::string &path() const { return file.path(); }
  const std::vector<StoredTensor> &tensors() const { return list; }
  const StoredTensor *find(const std::string &name) const;
  /// The file's `__metadata__`.
  const std::map<std::string, std::string> &metadata() const { return meta; }

  /// Converts a stored tensor into a variable: the shape must be the
  /// variable's; floating types convert to floating types, integers to integers
  /// of another size if every value fits.
  void read(const StoredTensor &tensor, const TensorView &into) const;

private:
  MappedFile file;
  std::vector<StoredTensor> list;
  std::unordered_map<std::string, size_t> index;
  std::map<std::string, std::string> meta;
};

/// Writes the tensors in the given order, atomically.
void writeSafetensors(const std::string &path,
                      const std::vector<TensorView> &tensors,
                      const std::map<std::string, std::string> &metadata = {});

/// "[2, 3]"
std::string shapeText(const std::vector<int64_t> &shape);

} // namespace megalodon
