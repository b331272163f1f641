#include "runtime/core/File.h"
#include "runtime/core/Error.h"
#include "runtime/core/MapErrors.h"
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace megalodon {

[[noreturn]] static void fail(const std::string &path, const char *action) {
  throw Error(str(path, ": cannot ", action, ": ", std::strerror(errno)));
}

MappedFile::MappedFile(std::string path) : filePath(std::move(path)) {
  // A pipe without a writer would be waited for; it is refused below.
  int descriptor = ::open(filePath.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    fail(filePath, "open");
  struct stat status;
  bool ok = ::fstat(descriptor, &status) == 0;
  if (ok && !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error(str(filePath, ": expected a regular file"));
  }
  void *mapped = MAP_FAILED;
  if (ok && status.st_size > 0)
    mapped = ::mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE,
                    descriptor, 0);
  int error = errno;
  ::close(descriptor);
  errno = error;
  if (!ok || (status.st_size > 0 && mapped == MAP_FAILED))
    fail(filePath, "read");
  if (status.st_size > 0) {
    base = static_cast<const std::byte *>(mapped);
    bytes = size_t(status.st_size);
    rememberMapping(base, bytes, filePath.c_str());
  }
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : filePath(std::move(other.filePath)),
      base(std::exchange(other.base, nullptr)),
      bytes(std::exchange(other.bytes, 0)) {}

MappedFile::~MappedFile() {
  if (!base)
    return;
  forgetMapping(base);
  ::munmap(const_cast<std::byte *>(base), bytes);
}

static std::string folderOf(const std::string &path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos)
    return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void writeAll(int descriptor, std::string_view bytes, const std::string &path) {
  while (!bytes.empty()) {
    ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR)
      continue;
    if (written == 0)
      errno = EIO;
    if (written <= 0)
      fail(path, "write");
    bytes.remove_prefix(size_t(written));
  }
}

/// fsync() to its end, signals or not. An error is final: the kernel may have
/// dropped what it could not write, so asking again would succeed without it.
static int syncDescriptor(int descriptor) {
  int result;
  do
    result = ::fsync(descriptor);
  while (result != 0 && errno == EINTR);
  return result;
}

void syncFile(int descriptor, const std::string &path) {
  if (syncDescriptor(descriptor) != 0)
    fail(path, "sync");
}

void syncFolder(const std::string &folder) {
  int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0)
    fail(folder, "open");
  int result = syncDescriptor(descriptor);
  int error = errno;
  ::close(descriptor);
  // Some file systems do not sync folders; there the rename is as durable as it
  // gets.
  if (result != 0 && error != EINVAL) {
    errno = error;
    fail(folder, "sync");
  }
}

void createFolders(const std::string &path) {
  if (::mkdir(path.c_str(), 0777) != 0) {
    const int error = errno;
    if (error == ENOENT && folderOf(path) != path) {
      createFolders(folderOf(path));
      return createFolders(path);
    }
    struct stat status;
    if (error == EEXIST && ::stat(path.c_str(), &status) == 0 &&
        S_ISDIR(status.st_mode))
      return;
    errno = error;
    fail(path, "create the folder");
  }
  syncFolder(folderOf(path));
}

AtomicFile::AtomicFile(std::string target)
    : path(std::move(target)),
      temporary(path + ".tmp." + std::to_string(::getpid())) {
  descriptor =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0)
    fail(path, "write");
  buffer.reserve(1 << 20);
}

AtomicFile::~AtomicFile() {
  if (descriptor >= 0)
    ::close(descriptor);
  if (!temporary.empty())
    ::unlink(temporary.c_str());
}

void AtomicFile::flush() {
  writeAll(descriptor, buffer, path);
  buffer.clear();
}

void AtomicFile::write(const void *data, size_t bytes) {
  if (buffer.size() + bytes > buffer.capacity())
    flush();
  if (bytes > buffer.capacity())
    writeAll(descriptor, {static_cast<const char *>(data), bytes}, path);
  else
    buffer.append(static_cast<const char *>(data), bytes);
}

void AtomicFile::commit() {
  flush();
  syncFile(descriptor, path);
  if (::close(std::exchange(descriptor, -1)) != 0)
    fail(path, "write");
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    fail(path, "replace");
  temporary.clear();
  syncFolder(folderOf(path));
}

std::string readText(const std::string &path) {
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    fail(path, "open");
  struct stat status;
  std::string text;
  int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  const bool regular = error == 0 && S_ISREG(status.st_mode);
  size_t filled = 0;
  if (regular) {
    text.resize(size_t(status.st_size));
    while (filled < text.size()) {
      ssize_t got =
          ::read(descriptor, text.data() + filled, text.size() - filled);
      if (got < 0 && errno == EINTR)
        continue;
      if (got <= 0) {
        error = got < 0 ? errno : 0;
        break;
      }
      filled += size_t(got);
    }
  }
  ::close(descriptor);
  if (error) {
    errno = error;
    fail(path, "read");
  }
  if (!regular)
    throw Error(str(path, ": expected a regular file"));
  text.resize(filled);
  return text;
}

void writeText(const std::string &path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

} // namespace megalodon
