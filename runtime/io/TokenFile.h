// Token files: the tokens of many documents in one file that is mapped instead
// of read. docs/data.md has the format's table.
#pragma once
#include "runtime/core/File.h"
#include "runtime/core/Sha256.h"
#include <cstdint>
#include <string>
#include <vector>

namespace megalodon {

inline constexpr char kTokenFileMagic[8] = {'M', 'G', 'D', 'N',
                                            'T', 'O', 'K', 'S'};
inline constexpr uint32_t kTokenFileVersion = 1;

/// The tokenizer of a token file, and what it says about ids.
struct TokenFileHead {
  uint64_t vocabulary = 0;
  int32_t bos = -1, eos = -1;    ///< ids of the marks; -1: it has none
  Sha256::Digest tokenizer = {}; ///< Tokenizer::digest()

  /// Bytes a token takes: the fewest of 1, 2 and 4 that hold all ids.
  uint32_t width() const;
};

/// The bytes of a token file, checked.
class TokenFileView {
public:
  /// A pure function of the bytes, which must outlive the view. Checks all
  /// sizes and the index, so that every access below is inside the bytes;
  /// verify() checks the rest. Throws Error naming `name` and the field.
  TokenFileView(const void *data, size_t bytes, std::string name);

  const TokenFileHead &head() const { return fixed; }
  int64_t documents() const { return documentCount; }
  int64_t tokens() const { return tokenCount; }
  /// Bytes of text that were tokenized.
  int64_t textBytes() const { return text; }
  const Sha256::Digest &digest() const { return stored; }

  /// The tokens, little-endian, head().width() bytes each, 8-byte aligned if
  /// the view's bytes are.
  const std::byte *data() const;
  int32_t token(int64_t position) const;

  /// Where a document begins; tokens() for document documents().
  int64_t begin(int64_t document) const;

  /// Checks digest and ids, which reads everything once. Throws Error naming
  /// the field.
  void verify() const;

private:
  const std::byte *base;
  size_t bytes;
  std::string name;
  TokenFileHead fixed;
  int64_t documentCount = 0, tokenCount = 0, text = 0;
  size_t indexBegin = 0;
  Sha256::Digest stored = {};
};

/// Whether bytes begin as a token file does.
bool isTokenFile(const void *data, size_t bytes);

/// Writes a token file front to back. It appears under its name when commit()
/// has put everything on disk, and not at all otherwise. Keeps 8 bytes a
/// document in memory.
class TokenFileWriter {
public:
  TokenFileWriter(std::string path, const TokenFileHead &head);

  /// Tokens of the document that is open. Throws Error on an id outside the
  /// vocabulary.
  void append(const int32_t *tokens, size_t count);

  /// Ends a document of so many bytes of text. One without tokens leaves no
  /// trace.
  void endDocument(uint64_t textBytes);

  int64_t documents() const { return int64_t(offsets.size()) - 1; }
  int64_t tokens() const { return int64_t(written); }

  /// Throws Error when there is no document.
  void commit();

private:
  void put(const void *data, size_t bytes);

  std::string path;
  TokenFileHead head;
  AtomicFile file;
  Sha256 digest;
  std::vector<uint64_t> offsets = {0};
  std::vector<std::byte> narrow;
  uint64_t written = 0, text = 0;
};

} // namespace megalodon
