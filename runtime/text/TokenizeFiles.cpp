#include "runtime/text/TokenizeFiles.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/core/ThreadPool.h"
#include "runtime/io/Json.h"
#include "runtime/io/TokenFile.h"
#include "runtime/train/Data.h"
#include <filesystem>
#include <nlohmann/json.hpp>

using namespace megalodon;

DocumentFormat megalodon::parseDocumentFormat(const std::string &name) {
  if (name == "auto")
    return DocumentFormat::Automatic;
  if (name == "text")
    return DocumentFormat::Text;
  if (name == "jsonl")
    return DocumentFormat::JsonLines;
  throw Error(str("--format: expected auto, text or jsonl, got '", name, "'"));
}

namespace {

/// What one thread encodes on its own: a part of a text file, or a JSON line.
struct Piece {
  std::shared_ptr<const MappedFile> file; ///< keeps `bytes` alive
  std::string_view bytes;
  int64_t line = 0;               ///< of a JSON line, from 1; 0: text
  bool first = true, last = true; ///< of its document

  // The result.
  std::vector<int32_t> tokens;
  size_t textBytes = 0;
  std::string error; ///< why this is no document
};

/// Reads pieces in order, encodes many at once, writes them in order.
class Pipeline {
public:
  Pipeline(const Tokenizer &tokenizer, const TokenizeOptions &options,
           const std::string &out);

  void addFile(const DataFile &entry);
  TokenizeCounts finish();

private:
  void addText(const std::shared_ptr<const MappedFile> &file);
  void addLines(const std::shared_ptr<const MappedFile> &file);
  void add(Piece piece);
  void flush();
  void encode(Piece &piece) const;
  void write(const Piece &piece);
  void reject(const std::string &reason);

  /// Large enough that all threads have work while none waits long.
  static constexpr size_t kBatchBytes = 8 << 20, kBatchPieces = 1 << 14;

  const Tokenizer &tokenizer;
  const TokenizeOptions &options;
  TokenFileWriter writer;
  ThreadPool pool;
  TokenizeCounts counts;
  std::vector<Piece> batch;
  size_t batchBytes = 0;
  uint64_t openBytes = 0; ///< text of the document being written
};

} // namespace

static TokenFileHead headOf(const Tokenizer &tokenizer) {
  return {uint64_t(tokenizer.vocabulary()), tokenizer.bos(), tokenizer.eos(),
          tokenizer.digest()};
}

Pipeline::Pipeline(const Tokenizer &tokenizer, const TokenizeOptions &options,
                   const std::string &out)
    : tokenizer(tokenizer), options(options), writer(out, headOf(tokenizer)),
      pool(options.threads) {}

void Pipeline::addFile(const DataFile &entry) {
  auto file = std::make_shared<const MappedFile>(entry.path);
  if (isTokenFile(file->data(), file->size()))
    throw Error(str(entry.path, ": expected text, got a token file"));
  ++counts.files;
  const std::string extension =
      std::filesystem::path(entry.path).extension().string();
  const bool lines = options.format == DocumentFormat::JsonLines ||
                     (options.format == DocumentFormat::Automatic &&
                      (extension == ".jsonl" || extension == ".ndjson"));
  if (lines)
    addLines(file);
  else
    addText(file);
}

static std::string_view textOf(const MappedFile &file) {
  return {reinterpret_cast<const char *>(file.data()), file.size()};
}

void Pipeline::addText(const std::shared_ptr<const MappedFile> &file) {
  std::string_view text = textOf(*file);
  // Before any part of it: a document is written whole or not at all.
  try {
    tokenizer.verifyText(text);
  } catch (const Error &error) {
    return reject(str(file->path(), ": ", error.what()));
  }
  for (bool first = true; first || !text.empty(); first = false) {
    Piece piece;
    piece.file = file;
    piece.bytes =
        text.substr(0, tokenizer.firstPart(text, Tokenizer::kPartBytes));
    text.remove_prefix(piece.bytes.size());
    piece.first = first;
    piece.last = text.empty();
    add(std::move(piece));
  }
}

void Pipeline::addLines(const std::shared_ptr<const MappedFile> &file) {
  std::string_view text = textOf(*file);
  for (int64_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    Piece piece;
    piece.file = file;
    piece.bytes = text.substr(0, end);
    piece.line = line;
    text.remove_prefix(std::min(end + 1, text.size()));
    if (piece.bytes.find_first_not_of(" \t\r\n") != piece.bytes.npos)
      add(std::move(piece));
  }
}

void Pipeline::add(Piece piece) {
  batchBytes += piece.bytes.size();
  batch.push_back(std::move(piece));
  if (batchBytes >= kBatchBytes || batch.size() >= kBatchPieces)
    flush();
}

void Pipeline::flush() {
  pool.run(int64_t(batch.size()),
           [&](int64_t i, int) { encode(batch[size_t(i)]); });
  for (const Piece &piece : batch)
    write(piece);
  batch.clear();
  batchBytes = 0;
  counts.documents = writer.documents();
  counts.tokens = writer.tokens();
  if (options.progress)
    options.progress(counts);
}

/// The text of a JSON line. Throws Error without the line's place.
static std::string lineText(std::string_view line, const std::string &field) {
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(
        line.begin(), line.end(),
        [](int depth, nlohmann::json::parse_event_t, nlohmann::json &) {
          if (depth > kMaxJsonDepth)
            throw Error(str("expected at most ", kMaxJsonDepth,
                            " levels of nesting, got more"));
          return true;
        });
  } catch (const nlohmann::json::parse_error &error) {
    throw Error(str("not valid JSON at byte ", error.byte));
  }
  if (!value.is_object())
    throw Error(str("expected a JSON object, got ", value.type_name()));
  auto found = value.find(field);
  if (found == value.end())
    throw Error(str("field '", field, "' is missing"));
  if (!found->is_string())
    throw Error(str("field '", field, "': expected a string, got ",
                    found->type_name()));
  return found->get<std::string>();
}

void Pipeline::encode(Piece &piece) const {
  auto encodeText = [&](std::string_view text, auto body) {
    piece.textBytes = text.size();
    if (text.empty())
      return;
    if (options.bos && piece.first)
      piece.tokens.push_back(tokenizer.bos());
    body();
    if (options.eos && piece.last)
      piece.tokens.push_back(tokenizer.eos());
  };
  if (piece.line == 0)
    return encodeText(piece.bytes, [&] {
      tokenizer.encodePart(piece.bytes, !piece.first, piece.tokens);
    });
  try {
    const std::string text = lineText(piece.bytes, options.field);
    encodeText(text, [&] { tokenizer.encode(text, piece.tokens); });
  } catch (const Error &error) {
    piece.error = error.what();
  }
}

void Pipeline::write(const Piece &piece) {
  if (!piece.error.empty())
    return reject(
        str(piece.file->path(), ": line ", piece.line, ": ", piece.error));
  if (piece.tokens.empty() && piece.first && piece.last) {
    ++counts.empty;
    return;
  }
  writer.append(piece.tokens.data(), piece.tokens.size());
  counts.textBytes += int64_t(piece.textBytes);
  openBytes += piece.textBytes;
  if (!piece.last)
    return;
  writer.endDocument(openBytes);
  openBytes = 0;
}

void Pipeline::reject(const std::string &reason) {
  if (!options.skipBad)
    throw Error(reason + ": repair it or give --skip-bad");
  ++counts.bad;
}

TokenizeCounts Pipeline::finish() {
  flush();
  writer.commit();
  return counts;
}

TokenizeCounts megalodon::tokenizeFiles(const Tokenizer &tokenizer,
                                        const TokenizeOptions &options,
                                        const std::string &out) {
  auto needs = [&](const char *option, const char *what, int32_t id) {
    if (id < 0)
      throw Error(str(option, ": expected a tokenizer with ", what, ", got '",
                      tokenizer.name(), "', which has none"));
  };
  if (options.bos)
    needs("--bos", "a mark for a document's beginning", tokenizer.bos());
  if (options.eos)
    needs("--append-eos", "a mark for a document's end", tokenizer.eos());
  // Listed before anything is written: the output may lie in a folder of them.
  const std::vector<DataFile> files = listDataFiles(options.inputs);
  Pipeline pipeline(tokenizer, options, out);
  for (const DataFile &file : files)
    pipeline.addFile(file);
  return pipeline.finish();
}
