#include "runtime/io/Json.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace megalodon {

using nlohmann::json;

json parseJson(const std::string &path, const char *what,
               std::string_view text) {
  std::string duplicate;
  std::vector<std::vector<std::string>> keys;
  auto watch = [&](int depth, json::parse_event_t event, json &parsed) {
    using Event = json::parse_event_t;
    if (depth > kMaxJsonDepth)
      throw Error(str(path, ": expected at most ", kMaxJsonDepth,
                      " levels of nesting in the ", what, ", got more"));
    if (event == Event::object_start) {
      keys.emplace_back();
    } else if (event == Event::object_end) {
      std::vector<std::string> &names = keys.back();
      std::sort(names.begin(), names.end());
      auto twice = std::adjacent_find(names.begin(), names.end());
      if (twice != names.end())
        duplicate = *twice;
      keys.pop_back();
    } else if (event == Event::key) {
      keys.back().push_back(parsed.get<std::string>());
    }
    return true;
  };
  json value;
  try {
    value = json::parse(text, watch);
  } catch (const json::exception &error) {
    throw Error(
        str(path, ": the ", what, " is not valid JSON (", error.what(), ")"));
  }
  if (!duplicate.empty())
    throw Error(
        str(path, ": name '", duplicate, "' stands twice in the ", what));
  if (!value.is_object())
    throw Error(str(path, ": expected the ", what, " to be a JSON object, got ",
                    value.type_name()));
  return value;
}

} // namespace megalodon
