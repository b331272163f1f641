// Safetensors files: a strict memory-mapped reader, a streaming atomic writer,
// and conversion to the types variables have.
#pragma once
#include "runtime/core/File.h"
#include "runtime/io/SpreadTensor.h"
#include <deque>
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
  size_t file = 0; ///< which of the files that an index lists

  int64_t elements() const;
  const char *typeName() const;
  bool isFloat() const { return type <= Type::BF16; }
};

/// How an index file's name ends: tensors spread over several files.
inline constexpr const char *kIndexSuffix = ".safetensors.index.json";

/// One safetensors file, or all files that an index lists, as one.
class SafetensorsFile {
public:
  /// Maps and validates the file, or the index and its files. Throws Error
  /// naming the file and the tensor or field that is wrong.
  explicit SafetensorsFile(const std::string &path);

  /// What was opened: the file, or the index.
  const std::string &path() const { return name; }
  /// The file that holds a tensor.
  const std::string &pathOf(const StoredTensor &tensor) const {
    return files[tensor.file].path();
  }
  const std::vector<StoredTensor> &tensors() const { return list; }
  const StoredTensor *find(const std::string &name) const;
  /// The `__metadata__` of the file or files.
  const std::map<std::string, std::string> &metadata() const { return meta; }

  /// Converts a stored tensor into a variable: the shape must be the
  /// variable's; floating types convert to floating types, integers to integers
  /// of another size if every value fits.
  void read(const StoredTensor &tensor, const TensorView &into) const;

  /// The same for a part: the stored tensor must have `shape`, `into` is dense
  /// and receives `box` of it, zero where the box reaches beyond.
  void read(const StoredTensor &tensor, const TensorView &into,
            const std::vector<int64_t> &shape, const Box &box) const;

private:
  void open(const std::string &path);
  void openIndex();

  std::string name;
  std::deque<MappedFile> files;
  std::vector<StoredTensor> list;
  std::unordered_map<std::string, size_t> index;
  std::map<std::string, std::string> meta;
};

/// Writes a file piece by piece; without commit() the path stays as it was.
class SafetensorsWriter {
public:
  SafetensorsWriter(const std::string &path,
                    const std::vector<TensorHead> &tensors,
                    const std::map<std::string, std::string> &metadata = {});

  /// The tensors' bytes, in the order of the header.
  void write(const void *data, size_t bytes) { out.write(data, bytes); }
  void commit() { out.commit(); }

private:
  AtomicFile out;
};

/// Writes the tensors in the given order, atomically.
void writeSafetensors(const std::string &path,
                      const std::vector<TensorView> &tensors,
                      const std::map<std::string, std::string> &metadata = {});

/// An F16 as the number it stands for.
float widenHalf(uint16_t bits);

/// "[2, 3]"
std::string shapeText(const std::vector<int64_t> &shape);

} // namespace megalodon
