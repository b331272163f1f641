// Token data: files become one circle of token ids, and the order in which
// training reads it is a pure function of seed and call.
#pragma once
#include "runtime/core/File.h"
#include "runtime/io/Box.h"
#include "runtime/io/TokenFile.h"
#include "runtime/text/Tokenizer.h"
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace megalodon {

/// How a file holds tokens. Automatic: a token file if it begins like one,
/// little-endian ids for *.u16 and *.u32, else text.
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

/// All tokens of some files, one after another. Files of tokens and bytes are
/// memory-mapped; text is tokenized into memory. A token file has its own
/// documents, any other file is one.
class Corpus {
public:
  /// Checks digests and every token against the vocabulary. The tokenizer is
  /// for text (null: bytes), and token files must have been made with it.
  /// Throws Error naming file and field or offset.
  Corpus(const std::vector<DataFile> &files, TokenType type, int64_t vocabulary,
         const Tokenizer *tokenizer = nullptr);

  int64_t size() const { return total; }
  /// Whether every token is a byte of text.
  bool isBytes() const { return onlyBytes; }
  /// Bytes of text that the tokens stand for; 0 when a file does not say.
  int64_t textBytes() const { return text; }

  /// Copies `count` tokens from `begin` on; behind the last token comes the
  /// first again.
  void read(int64_t begin, int64_t count, int32_t *into) const;

  int64_t documents() const { return documentCount; }
  /// Where a document begins; size() for document documents().
  int64_t documentBegin(int64_t document) const;
  /// The document that a position is in.
  int64_t documentAt(int64_t position) const;
  int64_t longestDocument() const;
  /// Sets `starts` to 1 where one of the `count` tokens from `begin` on begins
  /// a document, else to 0.
  void markDocuments(int64_t begin, int64_t count, char *starts) const;

  /// Changes when a file's relative path, type or content does.
  uint64_t fingerprint() const { return hash; }

private:
  struct Source {
    std::optional<MappedFile> file;    ///< owns the tokens,
    std::vector<std::byte> encoded;    ///< or this does
    std::optional<TokenFileView> view; ///< of a token file
    const std::byte *data;
    uint32_t width; ///< bytes a token
    int64_t begin, count, firstDocument;

    int64_t documents() const { return view ? view->documents() : 1; }
  };

  Source openFile(const DataFile &entry, TokenType type, int64_t vocabulary,
                  const Tokenizer *tokenizer);
  Source openTokenFile(const DataFile &entry, MappedFile file,
                       int64_t vocabulary, const Tokenizer *tokenizer);
  Source encodeText(const DataFile &entry, const MappedFile &file,
                    int64_t vocabulary, const Tokenizer &tokenizer);

  std::vector<Source> sources;
  int64_t total = 0, documentCount = 0, text = 0;
  bool onlyBytes = true;
  uint64_t hash = 0;
};

/// A target that counts for nothing.
inline constexpr int32_t kIgnoredTarget = -100;

enum class Order { Stream, Random, Documents };

const char *orderName(Order order);

/// Throws Error naming the orders there are.
Order parseOrder(const std::string &name);

/// Chooses the tokens of each training call. Stream: the corpus, a circle, is
/// cut into one stretch a row; each call takes the next `length` tokens of
/// every row, and after the last whole piece a new lap begins at a random
/// offset. Random: windows anywhere. Documents: as stream, but a lap (an epoch)
/// reads the documents in an order of its own, drawn from the seed. Neither
/// ranks nor earlier calls matter to a call, so a number is all that a
/// checkpoint must keep.
class BatchOrder {
public:
  /// Packed: rows are known to hold several documents that must not see each
  /// other. Then resets are marked, and a document's last token has no target.
  /// Throws Error when the corpus is too short for one call.
  BatchOrder(const Corpus &corpus, Order order, uint64_t seed, int64_t batch,
             int64_t length, bool packed = false);

  /// Fills tokens and their successors, each [batch, length], for call 0, 1,
  /// ...
  void read(int64_t call, int32_t *tokens, int32_t *targets) const;

  /// The same for a box of [batch, length], leaving out what is null. What lies
  /// outside is padding: token 0 and target kIgnoredTarget. `resets` are 1
  /// where a token begins a document, so that state must be forgotten before
  /// it, else 0; always 0 unless rows are packed.
  void read(int64_t call, const Box &box, int32_t *tokens, int32_t *targets,
            int32_t *resets = nullptr) const;

  /// Whether the rows jump before this call, so that carried state must be
  /// fresh.
  bool startsFresh(int64_t call) const;

  /// Where a row begins in a call: in the corpus, or with Order::Documents in
  /// the epoch's order.
  int64_t begin(int64_t call, int64_t row) const;

  /// How often everything was read before a call, and the call's number since.
  struct Position {
    int64_t epoch, index;
  };
  Position position(int64_t call) const;

private:
  /// The documents in the order of one epoch.
  struct Shuffle {
    int64_t epoch = -1;
    std::vector<int64_t> documents;
    std::vector<int64_t> begins; ///< one more: the end of the last
  };

  const Shuffle &shuffleOf(int64_t epoch) const;
  void readWindow(int64_t epoch, int64_t begin, int64_t count, int32_t *tokens,
                  char *starts) const;

  const Corpus &corpus;
  Order order;
  uint64_t seed;
  int64_t batch, length, callsPerLap;
  bool packed;
  mutable Shuffle shuffle; ///< of the epoch read last
};

} // namespace megalodon
