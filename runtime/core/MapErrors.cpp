#include "runtime/core/MapErrors.h"
#include <csignal>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <unistd.h>

namespace megalodon {

namespace {

struct Mapping {
  size_t bytes;
  std::string path;
};

/// Never destroyed: files may be mapped until the very end.
struct Registry {
  std::mutex mutex;
  std::map<const std::byte *, Mapping> mappings;
};

Registry &registry() {
  static Registry &only = *new Registry;
  return only;
}

void say(const char *text) {
  (void)!::write(STDERR_FILENO, text, strlen(text));
}

/// SIGBUS comes from a read of mapped memory, so the thread holds none of the
/// registry's locks; another thread may, and is waited for no longer than it
/// takes to change a map.
void report(int signal, siginfo_t *info, void *) {
  const auto *address = static_cast<const std::byte *>(info->si_addr);
  Registry &known = registry();
  {
    std::lock_guard lock(known.mutex);
    auto next = known.mappings.upper_bound(address);
    if (next != known.mappings.begin()) {
      const auto &[begin, mapping] = *std::prev(next);
      if (address < begin + mapping.bytes) {
        say("error: ");
        say(mapping.path.c_str());
        say(": cannot read: the disk failed, or the file was made shorter "
            "while in use\n");
        ::_exit(1);
      }
    }
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

} // namespace

void reportMapErrors() {
  registry();
  struct sigaction action = {};
  action.sa_sigaction = report;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

void rememberMapping(const std::byte *begin, size_t bytes, const char *path) {
  Registry &known = registry();
  std::lock_guard lock(known.mutex);
  known.mappings.insert_or_assign(begin, Mapping{bytes, path});
}

void forgetMapping(const std::byte *begin) {
  Registry &known = registry();
  std::lock_guard lock(known.mutex);
  known.mappings.erase(begin);
}

} // namespace megalodon
