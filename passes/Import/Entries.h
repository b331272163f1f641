// The entries a plan is compiled for: `train:16x512,score:1x512,generate:1`.
#pragma once
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include <cstdint>

namespace megalodon {

enum class EntryKind { Forward, Score, Grad, Train, Generate };

/// "forward", "score", "grad", "train", "generate".
llvm::StringRef entryName(EntryKind kind);
/// The name of the entry's function: the entry's, but "train_step".
llvm::StringRef functionName(EntryKind kind);

struct EntrySpec {
  EntryKind kind;
  int64_t batch;  ///< most rows of a call
  int64_t length; ///< most tokens of a row in a call
  /// Parts into which a pipeline cuts the rows of a call; the function that
  /// import builds works on one of them.
  int64_t microbatches = 1;
  /// Rows may hold several documents, which an input `resets` tells apart.
  bool packed = false;
};

/// What an item of `--entry` without a shape of its own takes.
struct DefaultShape {
  int64_t batch;
  int64_t length;
};

/// Parses `NAME[:B[xL]],...`. Messages speak of `--entry`.
llvm::Expected<llvm::SmallVector<EntrySpec>> parseEntries(llvm::StringRef text,
                                                          DefaultShape shape);

} // namespace megalodon
