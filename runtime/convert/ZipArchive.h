// Zip archives as torch.save writes them: a checked reader of bytes in memory,
// and a writer. Entries are stored, not compressed; sizes may need zip64.
#pragma once
#include "runtime/core/File.h"
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace megalodon::convert {

/// CRC-32 as zip defines it.
uint32_t crc32(const std::byte *data, size_t bytes);

struct ZipEntry {
  std::string name;
  const std::byte *data; ///< inside the archive
  size_t bytes;
  uint32_t crc; ///< as the archive says
};

/// The entries of an archive. Throws Error naming `path` and the entry where a
/// structure reaches outside the bytes, entries overlap the directory, are
/// compressed or encrypted, or stand twice. Their contents are not read:
/// verifyEntry does that.
std::vector<ZipEntry> readZip(const std::string &path, const std::byte *data,
                              size_t bytes);

/// Throws Error unless the entry's bytes have the checksum that it gives.
void verifyEntry(const std::string &path, const ZipEntry &entry);

/// Writes an archive entry by entry; without commit() the path stays as it was.
class ZipWriter {
public:
  explicit ZipWriter(const std::string &path) : out(path) {}

  /// Data begins at a multiple of 64 bytes.
  void add(const std::string &name, const void *data, size_t bytes);
  void commit();

private:
  struct Record {
    std::string name;
    uint64_t bytes, offset;
    uint32_t crc;
  };
  AtomicFile out;
  uint64_t position = 0;
  std::vector<Record> records;
};

} // namespace megalodon::convert
