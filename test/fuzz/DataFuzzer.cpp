// Data files of every type: refused with an Error, or every token that a
// training call reads is one of the vocabulary.
#include "runtime/core/Error.h"
#include "runtime/train/Data.h"
#include "test/fuzz/Fuzz.h"
#include <algorithm>
#include <cstring>

using namespace megalodon;

namespace {
/// What the first bytes of an input choose.
struct Choice {
  uint8_t type, order, batch, length;
  uint16_t vocabulary, files;
  uint64_t seed, call;
};
} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static fuzz::MemoryFile contents[2];
  Choice choice;
  if (size < sizeof(choice))
    return 0;
  std::memcpy(&choice, data, sizeof(choice));
  data += sizeof(choice);
  size -= sizeof(choice);
  const int64_t vocabulary = 1 + int64_t(choice.vocabulary),
                batch = 1 + choice.batch % 8, length = 1 + choice.length % 32;
  std::vector<DataFile> files = {{contents[0].path(), "first"}};
  const size_t cut = choice.files & 1 ? size / 2 : size;
  contents[0].assign(data, cut);
  if (choice.files & 1) {
    contents[1].assign(data + cut, size - cut);
    files.push_back({contents[1].path(), "second"});
  }
  try {
    const Corpus corpus(files, TokenType(choice.type % 4), vocabulary);
    const BatchOrder order(corpus, Order(choice.order % 3), choice.seed, batch,
                           length);
    std::vector<int32_t> tokens(size_t(batch * length)), targets(tokens.size());
    const auto call = int64_t(choice.call >> 24);
    order.read(call, tokens.data(), targets.data());
    order.startsFresh(call);
    for (const auto &ids : {tokens, targets})
      fuzz::require(
          std::all_of(ids.begin(), ids.end(),
                      [&](int32_t id) { return id >= 0 && id < vocabulary; }),
          "a token outside the vocabulary");
  } catch (const Error &) {
    return 0;
  }
  return 0;
}
