#include "runtime/io/Safetensors.h"
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include "runtime/io/Json.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

namespace megalodon {

using Type = StoredTensor::Type;

namespace {

struct TypeEntry {
  const char *name;
  size_t bytes;
};

/// Indexed by StoredTensor::Type.
constexpr TypeEntry typeTable[] = {
    {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},
    {"I16", 2}, {"U16", 2}, {"U32", 4}, {"U8", 1},   {"I8", 1},  {"BOOL", 1}};

// The longest header the format allows; a larger number means damage.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

template <typename T> T loadAs(const std::byte *data, int64_t i) {
  T value;
  std::memcpy(&value, data + size_t(i) * sizeof(T), sizeof(T));
  return value;
}

template <typename T> void storeAs(std::byte *data, int64_t i, T value) {
  std::memcpy(data + size_t(i) * sizeof(T), &value, sizeof(T));
}

double loadFloat(Type type, const std::byte *data, int64_t i) {
  switch (type) {
  case Type::F64:
    return loadAs<double>(data, i);
  case Type::F32:
    return loadAs<float>(data, i);
  case Type::F16:
    return widenHalf(loadAs<uint16_t>(data, i));
  default:
    return widen(loadAs<BFloat16>(data, i));
  }
}

int64_t loadInteger(Type type, const std::byte *data, int64_t i) {
  switch (type) {
  case Type::I64:
    return loadAs<int64_t>(data, i);
  case Type::I32:
    return loadAs<int32_t>(data, i);
  case Type::I16:
    return loadAs<int16_t>(data, i);
  case Type::U16:
    return loadAs<uint16_t>(data, i);
  case Type::U32:
    return loadAs<uint32_t>(data, i);
  case Type::I8:
    return loadAs<int8_t>(data, i);
  default: // U8, Bool
    return loadAs<uint8_t>(data, i);
  }
}

bool sameType(Type stored, ElementType wanted) {
  return std::strcmp(typeTable[size_t(stored)].name, elementName(wanted)) == 0;
}

} // namespace

float widenHalf(uint16_t bits) {
  const uint32_t exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  float magnitude;
  if (exponent == 0)
    magnitude = std::ldexp(float(mantissa), -24);
  else if (exponent == 31)
    magnitude = mantissa ? std::numeric_limits<float>::quiet_NaN()
                         : std::numeric_limits<float>::infinity();
  else
    magnitude = std::ldexp(float(mantissa | 1024), int(exponent) - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

std::string shapeText(const std::vector<int64_t> &shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

int64_t StoredTensor::elements() const {
  return int64_t(bytes / typeTable[size_t(type)].bytes);
}
const char *StoredTensor::typeName() const {
  return typeTable[size_t(type)].name;
}

static bool isIndex(const nlohmann::json &value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= uint64_t(std::numeric_limits<int64_t>::max());
}

static bool isIndexFile(const std::string &path) {
  const std::string end = kIndexSuffix;
  return path.size() >= end.size() &&
         path.compare(path.size() - end.size(), end.size(), end) == 0;
}

SafetensorsFile::SafetensorsFile(const std::string &path) : name(path) {
  if (isIndexFile(path))
    openIndex();
  else
    open(path);
  for (size_t i = 0; i < list.size(); ++i)
    index.emplace(list[i].name, i);
}

void SafetensorsFile::openIndex() {
  const std::string text = readText(name);
  const nlohmann::json parsed = parseJson(name, "index", text);
  auto map = parsed.find("weight_map");
  if (map == parsed.end() || !map->is_object())
    throw Error(str(name, ": field 'weight_map': expected an object, got ",
                    map == parsed.end() ? "nothing" : map->type_name()));
  const size_t slash = name.rfind('/');
  const std::string folder =
      slash == std::string::npos ? "" : name.substr(0, slash + 1);
  std::map<std::string, std::string> placed; // where each tensor must be
  std::set<std::string> parts;
  for (const auto &[tensor, part] : map->items()) {
    // Only files beside the index: it must not reach elsewhere.
    if (!part.is_string() || part.get<std::string>().empty() ||
        part.get<std::string>().find('/') != std::string::npos)
      throw Error(str(name, ": field 'weight_map.", tensor,
                      "': expected the name of a file beside this one, got ",
                      part.dump()));
    placed[tensor] = folder + part.get<std::string>();
    parts.insert(placed[tensor]);
  }
  for (const std::string &part : parts)
    open(part);
  size_t found = 0;
  for (const StoredTensor &tensor : list) {
    auto place = placed.find(tensor.name);
    if (place == placed.end())
      throw Error(str(pathOf(tensor), ": tensor '", tensor.name,
                      "' is not listed in ", name));
    if (place->second != pathOf(tensor))
      throw Error(str(name, ": tensor '", tensor.name, "': expected in ",
                      place->second, ", got in ", pathOf(tensor)));
    ++found;
  }
  if (found == placed.size())
    return;
  for (const StoredTensor &tensor : list)
    placed.erase(tensor.name);
  throw Error(str(placed.begin()->second, ": expected tensor '",
                  placed.begin()->first, "' as ", name, " says, got none"));
}

void SafetensorsFile::open(const std::string &path) {
  const size_t first = list.size();
  files.emplace_back(path);
  const MappedFile &file = files.back();
  if (file.size() < 8)
    throw Error(str(path,
                    ": not a safetensors file: expected at least 8 bytes, got ",
                    file.size()));
  const uint64_t headerBytes = loadAs<uint64_t>(file.data(), 0);
  if (headerBytes > kMaxHeaderBytes || headerBytes > file.size() - 8)
    throw Error(str(
        path, ": truncated, or not a safetensors file: expected a header of ",
        headerBytes, " bytes, got ", file.size() - 8,
        " bytes after its length"));
  const nlohmann::json header =
      parseJson(path, "safetensors header",
                {reinterpret_cast<const char *>(file.data()) + 8, headerBytes});
  const std::byte *data = file.data() + 8 + headerBytes;
  const uint64_t dataBytes = file.size() - 8 - headerBytes;

  for (const auto &item : header.items()) {
    const std::string &name = item.key();
    const nlohmann::json &entry = item.value();
    if (name == "__metadata__") {
      if (!entry.is_object())
        throw Error(str(path,
                        ": field '__metadata__': expected an object, got ",
                        entry.type_name()));
      for (auto &[key, value] : entry.items()) {
        if (!value.is_string())
          throw Error(str(path, ": field '__metadata__.", key,
                          "': expected a string, got ", value.type_name()));
        meta[key] = value.get<std::string>();
      }
      continue;
    }
    auto wrong = [&](const auto &...pieces) {
      return Error(str(path, ": tensor '", name, "': ", pieces...));
    };
    if (!entry.is_object())
      throw wrong("expected an object, got ", entry.type_name());
    for (const char *field : {"dtype", "shape", "data_offsets"})
      if (!entry.contains(field))
        throw wrong("field '", field, "' is missing");
    StoredTensor tensor;
    tensor.name = name;
    tensor.file = files.size() - 1;
    if (!entry["dtype"].is_string())
      throw wrong("field 'dtype': expected a string, got ",
                  entry["dtype"].type_name());
    const std::string dtype = entry["dtype"].get<std::string>();
    auto known =
        std::find_if(std::begin(typeTable), std::end(typeTable),
                     [&](const TypeEntry &type) { return dtype == type.name; });
    if (known == std::end(typeTable))
      throw wrong("field 'dtype': unknown type '", dtype, "'");
    tensor.type = Type(known - std::begin(typeTable));
    const nlohmann::json &shape = entry["shape"],
                         &offsets = entry["data_offsets"];
    if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), isIndex))
      throw wrong("field 'shape': expected an array of sizes, got ",
                  shape.dump());
    if (!offsets.is_array() || offsets.size() != 2 || !isIndex(offsets[0]) ||
        !isIndex(offsets[1]))
      throw wrong("field 'data_offsets': expected two offsets, got ",
                  offsets.dump());
    const uint64_t begin = offsets[0].get<uint64_t>(),
                   end = offsets[1].get<uint64_t>();
    if (begin > end || end > dataBytes)
      throw wrong("field 'data_offsets': expected a range inside the file's ",
                  dataBytes, " bytes of data, got [", begin, ", ", end, ")");
    bool empty = false, overflow = false;
    uint64_t bytes = known->bytes;
    for (const nlohmann::json &size : shape) {
      tensor.shape.push_back(size.get<int64_t>());
      empty |= tensor.shape.back() == 0;
    }
    // Of an empty tensor too: somebody may multiply in another order.
    for (int64_t size : tensor.shape)
      overflow |= size && __builtin_mul_overflow(bytes, uint64_t(size), &bytes);
    overflow |= bytes > uint64_t(std::numeric_limits<int64_t>::max());
    if (empty)
      bytes = 0;
    if (overflow || bytes != end - begin)
      throw wrong("expected ", overflow ? "fewer" : std::to_string(bytes),
                  " bytes for ", dtype, " ", shapeText(tensor.shape), ", got ",
                  end - begin);
    tensor.data = data + begin;
    tensor.bytes = end - begin;
    list.push_back(std::move(tensor));
  }

  // The data must be covered without holes or overlaps.
  std::sort(list.begin() + int64_t(first), list.end(),
            [](const StoredTensor &left, const StoredTensor &right) {
              return std::make_pair(left.data, left.bytes) <
                     std::make_pair(right.data, right.bytes);
            });
  uint64_t covered = 0;
  for (size_t i = first; i < list.size(); ++i) {
    const uint64_t begin = uint64_t(list[i].data - data);
    if (begin != covered)
      throw Error(str(path, ": tensor '", list[i].name,
                      "': field 'data_offsets': expected data to begin at ",
                      covered, ", got ", begin,
                      begin < covered ? " (overlaps its predecessor)"
                                      : " (leaves a hole)"));
    covered = begin + list[i].bytes;
  }
  if (covered != dataBytes)
    throw Error(str(path, ": expected ", covered, " bytes of tensor data, got ",
                    dataBytes));
}

const StoredTensor *SafetensorsFile::find(const std::string &name) const {
  auto found = index.find(name);
  return found == index.end() ? nullptr : &list[found->second];
}

void SafetensorsFile::read(const StoredTensor &tensor,
                           const TensorView &into) const {
  read(tensor, into, into.shape, Box::whole(into.shape));
}

void SafetensorsFile::read(const StoredTensor &tensor, const TensorView &into,
                           const std::vector<int64_t> &shape,
                           const Box &box) const {
  auto wrong = [&](const auto &...pieces) {
    return Error(
        str(pathOf(tensor), ": tensor '", tensor.name, "': ", pieces...));
  };
  if (tensor.shape != shape)
    throw wrong("expected shape ", shapeText(shape), ", got ",
                shapeText(tensor.shape));
  const bool same = sameType(tensor.type, into.type);
  if (!same &&
      (tensor.isFloat() != isFloat(into.type) || tensor.type == Type::Bool))
    throw wrong("expected type ", elementName(into.type), ", got ",
                tensor.typeName());
  const size_t width = elementBytes(into.type);
  std::byte *const memory = into.overwrite();
  if (box.validElements(shape) < box.elements())
    std::memset(memory, 0, size_t(box.elements()) * width);
  forEachRun(shape, box, [&](int64_t from, int64_t to, int64_t count) {
    if (same) {
      std::memcpy(memory + size_t(to) * width,
                  tensor.data + size_t(from) * width, size_t(count) * width);
      return;
    }
    auto number = [&](int64_t i) {
      return loadFloat(tensor.type, tensor.data, from + i);
    };
    switch (into.type) {
    case ElementType::F32:
      for (int64_t i = 0; i < count; ++i)
        storeAs(memory, to + i, float(number(i)));
      return;
    case ElementType::F64:
      for (int64_t i = 0; i < count; ++i)
        storeAs(memory, to + i, number(i));
      return;
    case ElementType::BF16:
      for (int64_t i = 0; i < count; ++i)
        storeAs(memory, to + i, narrow(float(number(i))));
      return;
    case ElementType::I64:
      for (int64_t i = 0; i < count; ++i)
        storeAs(memory, to + i,
                loadInteger(tensor.type, tensor.data, from + i));
      return;
    case ElementType::I32:
    case ElementType::I8:
      for (int64_t i = 0; i < count; ++i) {
        const int64_t value = loadInteger(tensor.type, tensor.data, from + i);
        const int64_t limit =
            into.type == ElementType::I32 ? INT32_MAX : INT8_MAX;
        if (value > limit || value < -limit - 1)
          throw wrong("value ", value, " at position ", from + i,
                      " does not fit ", elementName(into.type));
        if (into.type == ElementType::I32)
          storeAs(memory, to + i, int32_t(value));
        else
          storeAs(memory, to + i, int8_t(value));
      }
      return;
    }
  });
}

SafetensorsWriter::SafetensorsWriter(
    const std::string &path, const std::vector<TensorHead> &tensors,
    const std::map<std::string, std::string> &metadata)
    : out(path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty())
    header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorHead &tensor : tensors) {
    nlohmann::ordered_json &entry = header[tensor.name];
    if (!entry.is_null())
      throw Error(
          str(path, ": tensor '", tensor.name, "' would be written twice"));
    entry["dtype"] = elementName(tensor.type);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {offset, offset + tensor.bytes()};
    offset += tensor.bytes();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t headerBytes = text.size();
  out.write(&headerBytes, 8);
  out.write(text);
}

void writeSafetensors(const std::string &path,
                      const std::vector<TensorView> &tensors,
                      const std::map<std::string, std::string> &metadata) {
  std::vector<TensorHead> heads;
  for (const TensorView &tensor : tensors)
    heads.push_back({tensor.name, tensor.type, tensor.shape});
  SafetensorsWriter out(path, heads, metadata);
  for (const TensorView &tensor : tensors)
    out.write(tensor.read(), tensor.bytes);
  out.commit();
}

} // namespace megalodon
