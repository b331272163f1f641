// Token data: files become one circle of token ids, and the order in which
// training reads it is a pure function of seed and call.
#pragma once
#include "runtime/core/File.h"
#include "runtime/io/Box.h"
#include <cstdint>
#include <string>
#include <vector>

namespace megalodon {

/// How a file holds tokens. Automatic: little-endian ids for *.u16 and *.u32,
/// else one token a byte.
enum class TokenType { Automatic, Bytes, Uint16, Uint32 };

/// Throws Error naming the types there are.
TokenType parseTokenType(const std::string &name);

struct DataFile {
  std::string path;
  std::string relative; ///< path inside the folder that was named, or the
                        ///< file's own name
};

/// The files that arguments name: files as they are, folders recursively, in
/// sorted order. Empty files inside folders are left out. Throws Error naming
/// the argument that is missing, empty or not readable.
std::vector<DataFile> listDataFiles(const std::vector<std::string> &arguments);

struct DataSplit {
  std::vector<DataFile> training, validation;
};

/// A file goes to the validation side by the hash of its relative path, so
/// adding files moves no other file. Throws Error when a side stays empty.
/// Fraction 0: everything is for training.
DataSplit splitDataFiles(const std::vector<DataFile> &files, double fraction);

/// All tokens of some files, one after another, memory-mapped.
class Corpus {
public:
  /// Checks every token against the vocabulary. Throws Error naming file and
  /// offset.
  Corpus(const std::vector<DataFile> &files, TokenType type,
         int64_t vocabulary);

  int64_t size() const { return total; }
  bool isBytes() const { return onlyBytes; }

  /// Copies `count` tokens from `begin` on; behind the last token comes the
  /// first again.
  void read(int64_t begin, int64_t count, int32_t *into) const;

  /// Changes when a file's relative path, type or content does.
  uint64_t fingerprint() const { return hash; }

private:
  struct Source {
    MappedFile file;
    TokenType type;
    int64_t begin, count;
  };

  std::vector<Source> sources;
  int64_t total = 0;
  bool onlyBytes = true;
  uint64_t hash = 0;
};

/// A target that counts for nothing.
inline constexpr int32_t kIgnoredTarget = -100;

enum class Order { Stream, Random };

/// Throws Error naming the orders there are.
Order parseOrder(const std::string &name);

/// Chooses the tokens of each training call. Stream: the corpus, a circle, is
/// cut into one stretch a row; each call takes the next `length` tokens of
/// every row, and after the last whole piece a new lap begins at a random
/// offset. Random: windows anywhere.
class BatchOrder {
public:
  /// Throws Error when the corpus is too short for one call.
  BatchOrder(const Corpus &corpus, Order order, uint64_t seed, int64_t batch,
             int64_t length);

  /// Fills tokens and their successors, each [batch, length], for call 0, 1,
  /// ...
  void read(int64_t call, int32_t *tokens, int32_t *targets) const;

  /// The same for a box of [batch, length], leaving out what is null. What lies
  /// outside is padding: token 0 and target kIgnoredTarget.
  void read(int64_t call, const Box &box, int32_t *tokens,
            int32_t *targets) const;

  /// Whether the rows jump before this call, so that carried state must be
  /// fresh.
  bool startsFresh(int64_t call) const;

  /// Where a row begins in a call.
  int64_t begin(int64_t call, int64_t row) const;

private:
  const Corpus &corpus;
  Order order;
  uint64_t seed;
  int64_t batch, length, callsPerLap;
};

} // namespace megalodon
