#include "runtime/text/Tokenizer.h"
#include "runtime/core/Error.h"
#include <algorithm>

using namespace megalodon;

namespace {

class ByteDecoder final : public TextDecoder {
public:
  std::string push(int32_t token) override {
    if (token < 0 || token > 255)
      throw Error(str("token: expected a byte from 0 to 255, got ", token));
    return {static_cast<char>(token)};
  }
  std::string finish() override { return {}; }
};

class ByteTokenizer final : public Tokenizer {
public:
  const std::string &name() const override { return ownName; }
  const Sha256::Digest &digest() const override { return ownDigest; }
  int64_t vocabulary() const override { return 256; }
  bool isBytes() const override { return true; }
  size_t firstPart(std::string_view text, size_t partBytes) const override {
    return std::min(text.size(), partBytes);
  }
  void encodePart(std::string_view part, bool,
                  std::vector<int32_t> &tokens) const override {
    for (unsigned char byte : part)
      tokens.push_back(byte);
  }
  std::unique_ptr<TextDecoder> decoder() const override {
    return std::make_unique<ByteDecoder>();
  }

private:
  std::string ownName = "bytes";
  Sha256::Digest ownDigest = Sha256::of("bytes", 5);
};

} // namespace

std::shared_ptr<const Tokenizer> Tokenizer::open(const std::string &name) {
  if (name == "bytes")
    return std::make_shared<ByteTokenizer>();
  return openSentencePiece(name);
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t> &tokens,
                       size_t partBytes) const {
  verifyText(text);
  for (bool continues = false; !text.empty(); continues = true) {
    const size_t bytes = firstPart(text, partBytes);
    encodePart(text.substr(0, bytes), continues, tokens);
    text.remove_prefix(bytes);
  }
}

void megalodon::verifyVocabulary(const Tokenizer &tokenizer, int64_t vocabulary,
                                 const std::string &where) {
  // Models pad their vocabulary to round numbers, so more ids are fine; but of
  // bytes there are no more, and it is the wrong tokenizer.
  if (tokenizer.isBytes() && vocabulary > 256)
    throw Error(str(where, ": expected a vocabulary of 256 for bytes, got ",
                    vocabulary, ": give --tokenizer FILE.model or token ids"));
  if (vocabulary < tokenizer.vocabulary())
    throw Error(str(where, ": expected a vocabulary of at least ",
                    tokenizer.vocabulary(), " for the tokenizer ",
                    tokenizer.name(), ", got ", vocabulary));
}
