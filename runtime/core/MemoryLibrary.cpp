#include "runtime/core/MemoryLibrary.h"
#include "runtime/core/Error.h"
#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

void *megalodon::openLibrary(const char *name, const void *image, size_t bytes,
                             std::string &reason) {
  const int descriptor = ::memfd_create(name, MFD_CLOEXEC);
  if (descriptor < 0) {
    reason = str("cannot create memory: ", std::strerror(errno));
    return nullptr;
  }
  auto *next = static_cast<const char *>(image);
  while (bytes > 0) {
    const ssize_t piece = ::write(descriptor, next, bytes);
    if (piece < 0 && errno == EINTR)
      continue;
    if (piece <= 0) {
      reason = str("cannot store it in memory: ", std::strerror(errno));
      ::close(descriptor);
      return nullptr;
    }
    next += piece;
    bytes -= size_t(piece);
  }
  void *handle = ::dlopen(str("/proc/self/fd/", descriptor).c_str(),
                          RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *message = ::dlerror();
    reason = message ? message : "unknown reason";
  }
  ::close(descriptor);
  return handle;
}
