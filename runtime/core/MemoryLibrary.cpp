#include "runtime/core/MemoryLibrary.h"
#include "runtime/core/Error.h"
#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

using namespace megalodon;

static std::string pathOf(int descriptor) {
  return str("/proc/self/fd/", descriptor);
}

/// dlopen() knows a library by its path, and a path with the number of a closed
/// descriptor may be that of a library which is still there: of another plan,
/// or of one that was closed but has thread-local objects to destroy. Asked for
/// such a path it would give back the old library. So this moves the descriptor
/// to a number that stands for none; negative when there are no more.
static int withFreshPath(int descriptor) {
  while (descriptor >= 0) {
    void *old = ::dlopen(pathOf(descriptor).c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (!old)
      break;
    ::dlclose(old);
    const int next = ::fcntl(descriptor, F_DUPFD_CLOEXEC, descriptor + 1);
    ::close(descriptor);
    descriptor = next;
  }
  return descriptor;
}

void *megalodon::openLibrary(const char *name, const void *image, size_t bytes,
                             std::string &reason) {
  const int descriptor = withFreshPath(::memfd_create(name, MFD_CLOEXEC));
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
  void *handle = ::dlopen(pathOf(descriptor).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *message = ::dlerror();
    reason = message ? message : "unknown reason";
  }
  ::close(descriptor);
  return handle;
}
