#include "runtime/core/FolderLock.h"
#include "runtime/core/Error.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace megalodon {

/// Who a lock's file says holds it: "process 12 on HOST".
static std::string holderOf(int descriptor) {
  char text[256];
  const ssize_t bytes = ::pread(descriptor, text, sizeof(text), 0);
  std::string holder(text, bytes > 0 ? size_t(bytes) : 0);
  holder.resize(std::min(holder.find('\n'), holder.size()));
  // Between taking the lock and writing its name it is nobody.
  return holder.empty() ? "another process" : holder;
}

FolderLock::FolderLock(const std::string &folder) {
  const std::string path = folder + "/lock";
  descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0)
    throw Error(str(path, ": cannot open: ", std::strerror(errno)));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const std::string holder = holderOf(descriptor);
    ::close(descriptor);
    if (error != EWOULDBLOCK)
      throw Error(str(path, ": cannot lock: ", std::strerror(error)));
    throw Error(str(folder,
                    ": another training run is writing into this "
                    "folder: ",
                    holder, "; stop it or choose another --out"));
  }
  char host[128] = "";
  ::gethostname(host, sizeof(host) - 1);
  const std::string holder = str("process ", ::getpid(), " on ", host, "\n");
  // The name is for people; the lock holds without it, on a full disk too.
  if (::ftruncate(descriptor, 0) == 0)
    (void)!::pwrite(descriptor, holder.data(), holder.size(), 0);
}

FolderLock::~FolderLock() { ::close(descriptor); }

} // namespace megalodon
