// The one exception type of the runtime. Messages follow LLVM's style: lower
// case, no final period, "expected N, got M".
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace megalodon {

class Error : public std::runtime_error {
public:
  explicit Error(const std::string &message) : std::runtime_error(message) {}
};

/// Concatenates printable pieces into a message.
template <typename... Pieces> std::string str(const Pieces &...pieces) {
  std::ostringstream out;
  (out << ... << pieces);
  return out.str();
}

} // namespace megalodon
