#include "runtime/convert/ZipArchive.h"
#include "runtime/core/Error.h"
#include <array>
#include <cstring>
#include <set>

namespace megalodon::convert {

// The formats are little-endian, as every machine that this runs on.
static constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50,
                          kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                          kLocator64 = 0x07064b50;
static constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22,
                        kEnd64Bytes = 56, kLocatorBytes = 20;
static constexpr uint16_t kExtra64 = 1, kExtraPadding = 0x4246;

uint32_t crc32(const std::byte *data, size_t bytes) {
  // Eight tables: eight bytes a step.
  static const auto tables = [] {
    std::array<std::array<uint32_t, 256>, 8> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit)
        value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
      made[0][i] = value;
    }
    for (size_t t = 1; t < 8; ++t)
      for (size_t i = 0; i < 256; ++i)
        made[t][i] = made[t - 1][i] >> 8 ^ made[0][made[t - 1][i] & 255];
    return made;
  }();
  uint32_t crc = ~0u;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i)
      crc ^= tables[7 - i][word >> (8 * i) & 255];
  }
  for (; bytes; ++data, --bytes)
    crc = crc >> 8 ^ tables[0][(crc ^ uint32_t(*data)) & 255];
  return ~crc;
}

namespace {

/// Fields at a place that has been checked to lie inside the bytes.
template <typename T> T field(const std::byte *at, size_t offset) {
  T value;
  std::memcpy(&value, at + offset, sizeof(T));
  return value;
}

struct Directory {
  uint64_t offset, bytes, entries;
};

class Reader {
public:
  Reader(const std::string &path, const std::byte *data, size_t bytes)
      : path(path), data(data), size(bytes) {}

  std::vector<ZipEntry> read() const {
    const Directory directory = findDirectory();
    std::vector<ZipEntry> list;
    std::set<std::string> names;
    uint64_t at = directory.offset;
    const uint64_t end = directory.offset + directory.bytes;
    for (uint64_t i = 0; i < directory.entries; ++i) {
      list.push_back(readEntry(at, end, directory.offset));
      if (!names.insert(list.back().name).second)
        throw wrong("entry '", list.back().name, "' stands twice");
    }
    if (at != end)
      throw wrong("expected the directory to end at ", end, ", got ", at);
    return list;
  }

private:
  template <typename... Pieces> Error wrong(const Pieces &...pieces) const {
    return Error(str(path, ": ", pieces...));
  }

  const std::byte *checked(uint64_t offset, uint64_t bytes,
                           const char *what) const {
    if (offset > size || bytes > size - offset)
      throw wrong(what, ": expected ", bytes, " bytes at ", offset,
                  ", got a file of ", size);
    return data + offset;
  }

  Directory findDirectory() const {
    if (size < kEndBytes || field<uint32_t>(data, 0) != kLocal)
      throw wrong("expected a zip archive as torch.save has written since "
                  "version 1.6, got another file");
    // A comment of up to 65535 bytes may follow.
    const size_t first =
        size - kEndBytes > 65535 ? size - kEndBytes - 65535 : 0;
    for (size_t at = size - kEndBytes + 1; at-- > first;) {
      const std::byte *end = data + at;
      if (field<uint32_t>(end, 0) != kEnd ||
          at + kEndBytes + field<uint16_t>(end, 20) != size)
        continue;
      Directory found{field<uint32_t>(end, 16), field<uint32_t>(end, 12),
                      field<uint16_t>(end, 10)};
      if (at >= kLocatorBytes &&
          field<uint32_t>(end - kLocatorBytes, 0) == kLocator64) {
        const std::byte *end64 =
            checked(field<uint64_t>(end - kLocatorBytes, 8), kEnd64Bytes,
                    "the zip64 end record");
        if (field<uint32_t>(end64, 0) != kEnd64)
          throw wrong("the zip64 end record is not where its locator says");
        found = {field<uint64_t>(end64, 48), field<uint64_t>(end64, 40),
                 field<uint64_t>(end64, 32)};
      }
      checked(found.offset, found.bytes, "the directory");
      if (found.entries > found.bytes / kCentralBytes)
        throw wrong("expected at most ", found.bytes / kCentralBytes,
                    " entries in a directory of ", found.bytes, " bytes, got ",
                    found.entries);
      return found;
    }
    throw wrong("truncated: the zip archive has no end record");
  }

  /// Reads the directory's entry at `at`, and moves `at` behind it.
  ZipEntry readEntry(uint64_t &at, uint64_t end, uint64_t dataEnd) const {
    if (end - at < kCentralBytes)
      throw wrong("the directory ends inside an entry");
    const std::byte *entry = data + at;
    if (field<uint32_t>(entry, 0) != kCentral)
      throw wrong("expected an entry of the directory at ", at, ", got none");
    const uint64_t nameBytes = field<uint16_t>(entry, 28),
                   extraBytes = field<uint16_t>(entry, 30),
                   commentBytes = field<uint16_t>(entry, 32);
    if (end - at - kCentralBytes < nameBytes + extraBytes + commentBytes)
      throw wrong("the directory ends inside an entry");
    ZipEntry result;
    result.name.assign(reinterpret_cast<const char *>(entry) + kCentralBytes,
                       nameBytes);
    result.crc = field<uint32_t>(entry, 16);
    uint64_t packed = field<uint32_t>(entry, 20),
             bytes = field<uint32_t>(entry, 24),
             offset = field<uint32_t>(entry, 42);
    readExtra64(entry + kCentralBytes + nameBytes, extraBytes, result.name,
                {&bytes, &packed, &offset});
    if (field<uint16_t>(entry, 8) & 1)
      throw wrong("entry '", result.name, "' is encrypted");
    if (field<uint16_t>(entry, 10) != 0 || packed != bytes)
      throw wrong("entry '", result.name,
                  "' is compressed; expected stored entries, as torch.save "
                  "writes them");
    const std::byte *local = checked(offset, kLocalBytes, "a local header");
    if (field<uint32_t>(local, 0) != kLocal)
      throw wrong("entry '", result.name, "': expected a local header at ",
                  offset, ", got none");
    const uint64_t begin = offset + kLocalBytes + field<uint16_t>(local, 26) +
                           field<uint16_t>(local, 28);
    result.data = checked(begin, bytes, "an entry's data");
    if (begin + bytes > dataEnd)
      throw wrong("entry '", result.name, "' reaches into the directory");
    result.bytes = bytes;
    at += kCentralBytes + nameBytes + extraBytes + commentBytes;
    return result;
  }

  /// Replaces fields that do not fit 32 bits, in this order, by what the zip64
  /// extra field holds.
  void readExtra64(const std::byte *extra, uint64_t bytes,
                   const std::string &name,
                   std::initializer_list<uint64_t *> fields) const {
    while (bytes >= 4) {
      const uint16_t id = field<uint16_t>(extra, 0);
      uint64_t left = field<uint16_t>(extra, 2);
      if (left > bytes - 4)
        throw wrong("entry '", name, "': an extra field is cut off");
      const std::byte *at = extra + 4;
      extra += 4 + left;
      bytes -= 4 + left;
      if (id != kExtra64)
        continue;
      for (uint64_t *value : fields)
        if (*value == 0xffffffff) {
          if (left < 8)
            throw wrong("entry '", name, "': the zip64 field is too short");
          *value = field<uint64_t>(at, 0);
          at += 8;
          left -= 8;
        }
    }
  }

  const std::string &path;
  const std::byte *data;
  const size_t size;
};

/// A record under construction.
class Bytes {
public:
  template <typename T> Bytes &put(T value) {
    text.append(reinterpret_cast<const char *>(&value), sizeof(T));
    return *this;
  }
  std::string text;
};

uint32_t narrow32(uint64_t value) {
  return value >= 0xffffffff ? 0xffffffff : uint32_t(value);
}
bool isLarge(uint64_t value) { return value >= 0xffffffff; }

} // namespace

std::vector<ZipEntry> readZip(const std::string &path, const std::byte *data,
                              size_t bytes) {
  return Reader(path, data, bytes).read();
}

void verifyEntry(const std::string &path, const ZipEntry &entry) {
  const uint32_t crc = crc32(entry.data, entry.bytes);
  if (crc != entry.crc)
    throw Error(str(path, ": entry '", entry.name, "': expected checksum ",
                    entry.crc, ", got ", crc, ": the file is damaged"));
}

void ZipWriter::add(const std::string &name, const void *data, size_t bytes) {
  records.push_back({name, bytes, position,
                     crc32(static_cast<const std::byte *>(data), bytes)});
  const bool large = isLarge(bytes);
  Bytes extra;
  if (large)
    extra.put(kExtra64)
        .put(uint16_t(16))
        .put(uint64_t(bytes))
        .put(uint64_t(bytes));
  const uint64_t unpadded =
      position + kLocalBytes + name.size() + extra.text.size() + 4;
  const uint16_t padding = uint16_t((64 - unpadded % 64) % 64);
  extra.put(kExtraPadding).put(padding);
  extra.text.append(padding, 'Z');
  Bytes header;
  header.put(kLocal)
      .put(uint16_t(large ? 45 : 20))
      .put(uint16_t(0))          // flags
      .put(uint16_t(0))          // stored
      .put(uint32_t(0x00210000)) // 1 January 1980: files depend on tensors only
      .put(records.back().crc)
      .put(narrow32(bytes))
      .put(narrow32(bytes))
      .put(uint16_t(name.size()))
      .put(uint16_t(extra.text.size()));
  header.text += name + extra.text;
  out.write(header.text);
  out.write(data, bytes);
  position += header.text.size() + bytes;
}

void ZipWriter::commit() {
  const uint64_t directory = position;
  for (const Record &record : records) {
    Bytes extra;
    if (isLarge(record.bytes))
      extra.put(record.bytes).put(record.bytes);
    if (isLarge(record.offset))
      extra.put(record.offset);
    Bytes entry;
    entry.put(kCentral)
        .put(uint16_t(45))
        .put(uint16_t(extra.text.empty() ? 20 : 45))
        .put(uint16_t(0))
        .put(uint16_t(0))
        .put(uint32_t(0x00210000))
        .put(record.crc)
        .put(narrow32(record.bytes))
        .put(narrow32(record.bytes))
        .put(uint16_t(record.name.size()))
        .put(uint16_t(extra.text.empty() ? 0 : extra.text.size() + 4))
        .put(uint16_t(0)) // comment
        .put(uint16_t(0)) // disk
        .put(uint16_t(0)) // attributes
        .put(uint32_t(0))
        .put(narrow32(record.offset));
    entry.text += record.name;
    if (!extra.text.empty())
      entry.put(kExtra64).put(uint16_t(extra.text.size()));
    entry.text += extra.text;
    out.write(entry.text);
    position += entry.text.size();
  }
  const uint64_t count = records.size(), bytes = position - directory;
  Bytes end;
  if (count >= 0xffff || isLarge(directory) || isLarge(bytes)) {
    end.put(kEnd64).put(uint64_t(kEnd64Bytes - 12)).put(uint16_t(45));
    end.put(uint16_t(45)).put(uint32_t(0)).put(uint32_t(0));
    end.put(count).put(count).put(bytes).put(directory);
    end.put(kLocator64).put(uint32_t(0)).put(position).put(uint32_t(1));
  }
  const uint16_t count16 = count >= 0xffff ? 0xffff : uint16_t(count);
  end.put(kEnd).put(uint16_t(0)).put(uint16_t(0)).put(count16).put(count16);
  end.put(narrow32(bytes)).put(narrow32(directory)).put(uint16_t(0));
  out.write(end.text);
  out.commit();
}

} // namespace megalodon::convert
