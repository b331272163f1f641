// Shared objects that exist only in memory: a plan's kernels, and modules that
// the runtime carries inside itself.
#pragma once
#include <cstddef>
#include <string>

namespace megalodon {

/// dlopen() of an image in memory, with all symbols bound and none exported.
/// Null when that fails; then `reason` says why.
void *openLibrary(const char *name, const void *image, size_t bytes,
                  std::string &reason);

} // namespace megalodon
