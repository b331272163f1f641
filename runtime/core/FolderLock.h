// A folder that one process alone writes into.
#pragma once
#include <string>

namespace megalodon {

/// Holds FOLDER/lock. The kernel lets go of it however the process ends; the
/// file stays and says who held it last.
class FolderLock {
public:
  /// Throws Error naming the process that holds it.
  explicit FolderLock(const std::string &folder);
  ~FolderLock();
  FolderLock(const FolderLock &) = delete;
  FolderLock &operator=(const FolderLock &) = delete;

private:
  int descriptor;
};

} // namespace megalodon
