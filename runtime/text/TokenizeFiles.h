// Makes a token file from text files, JSON lines and folders of them.
#pragma once
#include "runtime/text/Tokenizer.h"
#include <functional>

namespace megalodon {

/// Text: a file is a document. JsonLines: a line is one. Automatic: JSON lines
/// in *.jsonl and *.ndjson, else text.
enum class DocumentFormat { Automatic, Text, JsonLines };

/// Throws Error naming the formats there are.
DocumentFormat parseDocumentFormat(const std::string &name);

struct TokenizeCounts {
  int64_t files = 0, documents = 0, tokens = 0;
  int64_t textBytes = 0; ///< of the documents written
  int64_t empty = 0;     ///< documents without text, which are left out
  int64_t bad = 0;       ///< what skipBad left out
};

struct TokenizeOptions {
  std::vector<std::string> inputs; ///< files, and folders recursively in order
  DocumentFormat format = DocumentFormat::Automatic;
  std::string field = "text";    ///< of a JSON line
  bool bos = false, eos = false; ///< mark each document's beginning, end
  bool skipBad = false; ///< leave out what is no text instead of failing
  int threads = 0;      ///< 0: all processors
  /// Told of the counts now and then; null: nobody.
  std::function<void(const TokenizeCounts &)> progress;
};

/// Writes the tokens of all documents to `out`, which appears when it is whole.
/// The result does not depend on the number of threads. Memory does not grow
/// with the files, but with their number of documents (8 bytes each), and holds
/// the longest JSON line. Throws Error naming file and line.
TokenizeCounts tokenizeFiles(const Tokenizer &tokenizer,
                             const TokenizeOptions &options,
                             const std::string &out);

} // namespace megalodon
