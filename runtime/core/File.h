// Files: read-only memory maps, and writing that replaces a file only when
// everything is safely on disk.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace megalodon {

/// A whole file mapped read-only. Page-aligned, so the data has any alignment
/// an element type needs.
class MappedFile {
public:
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile &&other) noexcept;
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  const std::string &path() const { return filePath; }
  const std::byte *data() const { return base; }
  size_t size() const { return bytes; }

private:
  std::string filePath;
  const std::byte *base = nullptr;
  size_t bytes = 0;
};

/// Writes to a temporary name beside `path`; commit() syncs, renames over
/// `path` and syncs the folder. Without commit() the temporary file is removed
/// and `path` stays as it was.
class AtomicFile {
public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile &) = delete;
  AtomicFile &operator=(const AtomicFile &) = delete;

  void write(const void *data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

private:
  void flush();

  std::string path, temporary, buffer;
  int descriptor = -1;
};

/// The whole content of a file, in memory of its own: it cannot change or
/// become unreadable afterwards.
std::string readText(const std::string &path);

/// Replaces `path` by `text`, atomically.
void writeText(const std::string &path, std::string_view text);

/// Writes all bytes to an open file; `path` is for the error.
void writeAll(int descriptor, std::string_view bytes, const std::string &path);

/// Makes what was written to an open file durable; `path` is for the error.
void syncFile(int descriptor, const std::string &path);

/// Creates a folder and those above it that are missing, durably.
void createFolders(const std::string &path);

/// Makes a rename or removal in `folder` durable.
void syncFolder(const std::string &folder);

} // namespace megalodon
