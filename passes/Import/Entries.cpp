// Parsing of the list of entries.
#include "passes/Import/Entries.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Twine.h"
#include <limits>

using namespace llvm;
using namespace megalodon;

static constexpr StringLiteral entryNames[] = {"forward", "score", "grad",
                                               "train", "generate"};

StringRef megalodon::entryName(EntryKind kind) {
  return entryNames[static_cast<int>(kind)];
}

StringRef megalodon::functionName(EntryKind kind) {
  return kind == EntryKind::Train ? "train_step" : entryName(kind);
}

static Error expected(const Twine &what, const Twine &got) {
  return createStringError(inconvertibleErrorCode(),
                           "--entry: expected " + what + ", got " + got);
}

/// Sizes of tensors multiply: each stays far from the limits of i64.
static bool parseSize(StringRef text, int64_t &size) {
  return !text.getAsInteger(10, size) && size >= 1 &&
         size <= std::numeric_limits<int32_t>::max();
}

Expected<SmallVector<EntrySpec>> megalodon::parseEntries(StringRef text,
                                                         DefaultShape shape) {
  SmallVector<EntrySpec> entries;
  for (StringRef item : llvm::split(text, ',')) {
    auto [name, sizes] = item.split(':');
    const auto *found = llvm::find(entryNames, name);
    if (found == std::end(entryNames))
      return expected("forward, score, grad, train or generate",
                      "'" + name + "'");
    EntrySpec entry{static_cast<EntryKind>(found - std::begin(entryNames)),
                    shape.batch, shape.length};
    if (name.size() != item.size()) {
      auto [batch, length] = sizes.split('x');
      if (!parseSize(batch, entry.batch) ||
          (batch.size() != sizes.size() && !parseSize(length, entry.length)))
        return expected("NAME:BATCH or NAME:BATCHxLENGTH", "'" + item + "'");
    }
    if (llvm::any_of(entries, [&](const EntrySpec &other) {
          return other.kind == entry.kind;
        }))
      return expected(name + " once", "it twice");
    entries.push_back(entry);
  }
  return entries;
}
