// Mapped files that cannot be read after all. The disk's error, or that
// somebody made the file shorter, arrives as SIGBUS, which by itself would end
// the process without a word.
#pragma once
#include <cstddef>

namespace megalodon {

/// From now on such a read ends the process with code 1 and a message that
/// names the file. For programs; a library leaves signals to its host.
void reportMapErrors();

/// Remembers which file lies where, until forgetMapping().
void rememberMapping(const std::byte *begin, size_t bytes, const char *path);
void forgetMapping(const std::byte *begin);

} // namespace megalodon
