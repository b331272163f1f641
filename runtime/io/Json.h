// JSON that somebody else wrote, parsed with limits.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace megalodon {

/// Levels of nesting that JSON may have; no file of ours is deeper than four.
inline constexpr int kMaxJsonDepth = 32;

/// Parses the JSON object `text`. Throws Error naming `path` and `what` ("the
/// WHAT is not ...") when it is something else, when a name stands twice in an
/// object (a parser would silently keep one), or when it is nested so deeply
/// that whoever walks it by recursion would run out of stack.
nlohmann::json parseJson(const std::string &path, const char *what,
                         std::string_view text);

} // namespace megalodon
