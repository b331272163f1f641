// SentencePiece models and what is encoded with them: refused with an Error, or
// every token is one of the vocabulary and can be decoded.
#include "runtime/core/Error.h"
#include "runtime/text/Tokenizer.h"
#include "test/fuzz/Fuzz.h"
#include <algorithm>

using namespace megalodon;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static fuzz::MemoryFile model;
  if (size == 0)
    return 0;
  // The first byte is the length of the text, which comes next.
  const size_t textBytes = std::min<size_t>(data[0], size - 1);
  const std::string text(reinterpret_cast<const char *>(data + 1), textBytes);
  model.assign(data + 1 + textBytes, size - 1 - textBytes);
  try {
    const auto tokenizer = Tokenizer::open(model.path());
    tokenizer->verifyText(text);
    std::vector<int32_t> tokens;
    tokenizer->encode(text, tokens);
    const auto decoder = tokenizer->decoder();
    std::string decoded;
    for (int32_t token : tokens) {
      fuzz::require(token >= 0 && token < tokenizer->vocabulary(),
                    "a token outside the vocabulary");
      decoded += decoder->push(token);
    }
    decoded += decoder->finish();
  } catch (const Error &) {
    return 0;
  }
  return 0;
}
