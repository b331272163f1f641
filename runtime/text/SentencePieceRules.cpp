#include "runtime/text/SentencePieceRules.h"
#include "runtime/core/Error.h"
#include <cstdint>
#include <cstring>

using namespace megalodon;

namespace {

/// Walks the fields of a protocol buffer's message. Throws Error at what is
/// none: the library may read on where this stopped.
class Fields {
public:
  explicit Fields(std::string_view message) : rest(message) {}

  /// Moves to the next field that has a length; whether there is one.
  bool next() {
    enum WireType { Varint, Fixed64, Bytes, Fixed32 = 5 };
    while (!rest.empty()) {
      const uint64_t tag = varint();
      number = tag >> 3;
      switch (tag & 7) {
      case Varint:
        varint();
        break;
      case Fixed64:
        take(8);
        break;
      case Bytes:
        content = take(varint());
        return true;
      case Fixed32:
        take(4);
        break;
      default:
        throw Error(str("field ", number, " of unknown type ", tag & 7));
      }
    }
    return false;
  }

  uint64_t number = 0;
  std::string_view content;

private:
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80)
        return value;
    }
    throw Error("a number of more than 64 bits");
  }
  std::string_view take(uint64_t bytes) {
    if (bytes > rest.size())
      throw Error("it ends in the middle of a field");
    const std::string_view taken = rest.substr(0, bytes);
    rest.remove_prefix(bytes);
    return taken;
  }

  std::string_view rest;
};

/// A node of the trie, as darts-clone packs it: bits 0-7 the byte that leads to
/// it, bit 8 whether a rule ends here, bits 9-31 where its children are. With
/// bit 31 set it is a value: where the rule's replacement begins.
struct Node {
  uint32_t bits;

  bool isValue() const { return bits >> 31; }
  bool endsRule() const { return bits >> 8 & 1; }
  uint32_t children(uint32_t self) const {
    return self ^ ((bits >> 10) << ((bits >> 6) & 8));
  }
  uint32_t value() const { return bits & 0x7FFFFFFF; }
};

} // namespace

static constexpr uint32_t kByteValues = 256;

/// `rules`: bytes of the trie (u32), the trie, replacements that end with 0.
static void verifyRules(std::string_view rules) {
  if (rules.empty())
    return;
  uint32_t bytes = 0;
  if (rules.size() >= sizeof(bytes))
    std::memcpy(&bytes, rules.data(), sizeof(bytes));
  if (bytes == 0 || bytes > rules.size() - sizeof(bytes) ||
      bytes % (kByteValues * sizeof(Node)))
    throw Error(str("rewriting rules: expected a trie of a multiple of ",
                    kByteValues * sizeof(Node), " bytes, within the ",
                    rules.size(), " bytes there are, got ", bytes));
  const std::string_view trie = rules.substr(sizeof(bytes), bytes),
                         replacements = rules.substr(sizeof(bytes) + bytes);
  if (replacements.empty() || replacements.back() != '\0')
    throw Error("rewriting rules: expected replacements that end with 0");
  const uint32_t count = bytes / sizeof(Node);
  auto node = [&](uint32_t index) {
    Node result;
    std::memcpy(&result, trie.data() + size_t(index) * sizeof(Node),
                sizeof(Node));
    return result;
  };
  for (uint32_t i = 0; i < count; ++i) {
    if (i > 0 && node(i).isValue())
      continue; // no byte leads to it; the root needs none
    // Any byte may come next: the 256 nodes around are all looked at.
    const uint32_t children = node(i).children(i);
    if (children >= count)
      throw Error(str("rewriting rules: node ", i, " of the trie: expected ",
                      "children below ", count, ", got ", children));
    if (node(i).endsRule() && node(children).value() >= replacements.size())
      throw Error(str("rewriting rules: node ", i, " of the trie: expected a ",
                      "replacement below ", replacements.size(), ", got ",
                      node(children).value()));
  }
}

void megalodon::verifySentencePieceRules(std::string_view model) {
  // Of sentencepiece_model.proto.
  constexpr uint64_t kNormalizer = 3, kDenormalizer = 5, kRules = 2;
  for (Fields fields(model); fields.next();)
    if (fields.number == kNormalizer || fields.number == kDenormalizer)
      for (Fields spec(fields.content); spec.next();)
        if (spec.number == kRules)
          verifyRules(spec.content);
}
