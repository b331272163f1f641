#include "test/fuzz/Fuzz.h"
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sys/mman.h>
#include <unistd.h>

namespace megalodon::fuzz {

void require(bool ok, const char *what) {
  if (ok)
    return;
  std::fprintf(stderr, "finding: %s\n", what);
  std::abort();
}

MemoryFile::MemoryFile()
    : descriptor(::memfd_create("megalodon-fuzz", MFD_CLOEXEC)) {
  require(descriptor >= 0, "cannot create a file in memory");
}

MemoryFile::~MemoryFile() { ::close(descriptor); }

void MemoryFile::assign(const void *data, size_t bytes) {
  require(::ftruncate(descriptor, 0) == 0 &&
              ::pwrite(descriptor, data, bytes, 0) == ssize_t(bytes),
          "cannot write a file in memory");
}

std::string MemoryFile::path() const {
  return "/proc/self/fd/" + std::to_string(descriptor);
}

Folder::Folder()
    : name((std::filesystem::temp_directory_path() / "megalodon-fuzz.XXXXXX")
               .string()) {
  require(::mkdtemp(name.data()), "cannot create a folder");
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(name, ignored);
}

void Folder::link(const std::string &file, const MemoryFile &content) const {
  std::filesystem::create_symlink(content.path(), name + "/" + file);
}

} // namespace megalodon::fuzz
