// Well-formed UTF-8, as the Unicode standard's table 3-7 defines it.
#pragma once
#include <cstddef>
#include <string_view>

namespace megalodon {

/// What the first bytes of a text are.
struct Utf8Piece {
  size_t bytes; ///< of the character, or of what stands in its place: 1
  bool valid;   ///< a whole character
  bool cut;     ///< not valid, but the beginning of a character at the end
};

inline Utf8Piece firstUtf8(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80)
    return {1, true, false};
  const size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size())
      return {1, false, true};
    // Neither longer than needed, nor a surrogate, nor beyond U+10FFFF.
    const unsigned char low = i > 1          ? 0x80
                              : lead == 0xE0 ? 0xA0
                              : lead == 0xF0 ? 0x90
                                             : 0x80,
                        high = i > 1          ? 0xBF
                               : lead == 0xED ? 0x9F
                               : lead == 0xF4 ? 0x8F
                                              : 0xBF;
    if (byte(i) < low || byte(i) > high)
      return {1, false, false};
  }
  return length ? Utf8Piece{length, true, false} : Utf8Piece{1, false, false};
}

/// The first byte that begins no character; npos when there is none.
inline size_t firstInvalidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Piece piece = firstUtf8(text.substr(at, 4));
    if (!piece.valid)
      return at;
    at += piece.bytes;
  }
  return std::string_view::npos;
}

} // namespace megalodon
