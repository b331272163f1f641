// Numbers and tables as people read them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace megalodon {

/// "7,385,817,088"
inline std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  const int first = number < 0 ? 1 : 0;
  for (int at = int(digits.size()) - 3; at > first; at -= 3)
    digits.insert(size_t(at), ",");
  return digits;
}

/// A number with a fixed number of decimals.
inline std::string decimal(double number, int decimals) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", decimals, number);
  return text;
}

/// Rows under a head, columns as wide as needed; those named in `left` are
/// left-aligned.
inline void printTable(const std::vector<std::vector<std::string>> &rows,
                       const std::vector<size_t> &left = {0}) {
  std::vector<size_t> widths;
  for (const std::vector<std::string> &row : rows)
    for (size_t i = 0; i < row.size(); ++i) {
      widths.resize(std::max(widths.size(), row.size()));
      widths[i] = std::max(widths[i], row[i].size());
    }
  for (const std::vector<std::string> &row : rows) {
    std::string line = "  ";
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      bool leftAligned = false;
      for (size_t column : left)
        leftAligned |= column == i;
      line += (leftAligned ? row[i] + padding : padding + row[i]) + "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    std::puts(line.c_str());
  }
}

} // namespace megalodon
