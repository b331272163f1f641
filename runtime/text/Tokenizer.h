// Tokenizers turn documents into token ids and ids back into text: bytes, or a
// SentencePiece model.
#pragma once
#include "runtime/core/Sha256.h"
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace megalodon {

/// Turns tokens into text one by one. Text comes out as soon as it is certain:
/// of a character that several tokens spell, with the last of them.
class TextDecoder {
public:
  virtual ~TextDecoder() = default;

  /// Throws Error on an id outside the vocabulary.
  virtual std::string push(int32_t token) = 0;

  /// What is left when no more tokens come: U+FFFD for each byte of a character
  /// that was never finished.
  virtual std::string finish() = 0;
};

/// All members may be called by several threads at once.
class Tokenizer {
public:
  /// "bytes", or the path of a SentencePiece model. Throws Error naming it.
  static std::shared_ptr<const Tokenizer> open(const std::string &name);

  virtual ~Tokenizer() = default;

  virtual const std::string &name() const = 0;
  /// SHA-256 of what the tokenizer is made of.
  virtual const Sha256::Digest &digest() const = 0;
  virtual int64_t vocabulary() const = 0;
  virtual bool isBytes() const { return false; }

  // The ids that mark a document's beginning and end; -1: there is none.
  virtual int32_t bos() const { return -1; }
  virtual int32_t eos() const { return -1; }

  /// Throws Error naming the byte when this is no text the tokenizer can read.
  virtual void verifyText(std::string_view text) const {}

  /// Documents are encoded in parts of about so many bytes, so that neither
  /// memory nor time grows faster than their length.
  static constexpr size_t kPartBytes = 256 << 10;

  /// The bytes of a text's first part, which is encoded on its own: the tokens
  /// of all parts are those of the whole. A text that cannot be cut is one
  /// part.
  virtual size_t firstPart(std::string_view text,
                           size_t partBytes = kPartBytes) const = 0;

  /// Appends the tokens of a part of a verified document; `continues` says that
  /// it is not the first.
  virtual void encodePart(std::string_view part, bool continues,
                          std::vector<int32_t> &tokens) const = 0;

  /// Appends the tokens of a document. Throws Error as verifyText() does.
  void encode(std::string_view text, std::vector<int32_t> &tokens,
              size_t partBytes = kPartBytes) const;

  virtual std::unique_ptr<TextDecoder> decoder() const = 0;
};

/// Throws Error when a model has too few ids for a tokenizer, or bytes are
/// given to one that has more; `where` names the plan.
void verifyVocabulary(const Tokenizer &tokenizer, int64_t vocabulary,
                      const std::string &where);

/// The implementation behind Tokenizer::open() for the path of a model.
std::shared_ptr<const Tokenizer> openSentencePiece(const std::string &path);

} // namespace megalodon
