// What the runtime asks of the SentencePiece library, through a module that is
// loaded when a model is named.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace megalodon {

enum class PieceKind { Normal, Unknown, Control, Unused, Byte };

/// A model in memory. All members may be called by several threads at once.
class SentencePieceModel {
public:
  virtual ~SentencePieceModel() = default;

  virtual int32_t size() const = 0;
  virtual int32_t bos() const = 0; ///< -1: none
  virtual int32_t eos() const = 0; ///< -1: none
  virtual std::string piece(int32_t id) const = 0;
  virtual PieceKind kind(int32_t id) const = 0;

  // Both return what went wrong, or an empty text.
  virtual std::string encode(std::string_view text,
                             std::vector<int> &ids) const = 0;
  virtual std::string decode(const std::vector<int> &ids,
                             std::string &text) const = 0;
};

/// The module's only symbol. Null on failure; then `reason` says why.
using OpenSentencePieceModel = SentencePieceModel *(const char *data,
                                                    size_t bytes,
                                                    std::string *reason);
inline constexpr const char *kOpenSentencePieceModel =
    "megalodonOpenSentencePieceModel";

} // namespace megalodon
