#include "runtime/train/Data.h"
#include "runtime/core/Error.h"
#include "runtime/train/Random.h"
#include <algorithm>
#include <cstring>
#include <filesystem>

using namespace megalodon;
namespace fs = std::filesystem;

TokenType megalodon::parseTokenType(const std::string &name) {
  if (name == "auto")
    return TokenType::Automatic;
  if (name == "bytes")
    return TokenType::Bytes;
  if (name == "uint16")
    return TokenType::Uint16;
  if (name == "uint32")
    return TokenType::Uint32;
  throw Error(str("--data-type: expected auto, bytes, uint16 or uint32, got '",
                  name, "'"));
}

Order megalodon::parseOrder(const std::string &name) {
  if (name == "stream")
    return Order::Stream;
  if (name == "random")
    return Order::Random;
  if (name == "documents")
    return Order::Documents;
  throw Error(
      str("--order: expected stream, random or documents, got '", name, "'"));
}

const char *megalodon::orderName(Order order) {
  return order == Order::Stream   ? "stream"
         : order == Order::Random ? "random"
                                  : "documents";
}

static void listFolder(const fs::path &folder, std::vector<DataFile> &files) {
  size_t before = files.size();
  for (const fs::directory_entry &entry :
       fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.file_size() > 0)
      files.push_back(
          {entry.path().string(),
           entry.path().lexically_relative(folder).generic_string()});
  if (files.size() == before)
    throw Error(
        str(folder.string(),
            ": expected at least one file that is not empty, got none"));
  std::sort(files.begin() + before, files.end(),
            [](auto &a, auto &b) { return a.relative < b.relative; });
}

std::vector<DataFile>
megalodon::listDataFiles(const std::vector<std::string> &arguments) {
  std::vector<DataFile> files;
  for (const std::string &argument : arguments) {
    try {
      fs::file_status status = fs::status(argument);
      if (!fs::exists(status))
        throw Error(str(argument, ": no such file or folder"));
      if (fs::is_directory(status))
        listFolder(argument, files);
      else if (!fs::is_regular_file(status))
        throw Error(
            str(argument,
                ": expected a regular file or a folder, got something else"));
      else if (fs::file_size(argument) == 0)
        throw Error(str(argument, ": expected data, got an empty file"));
      else
        files.push_back({argument, fs::path(argument).filename().string()});
    } catch (const fs::filesystem_error &error) {
      throw Error(str(error.path1().empty() ? argument : error.path1().string(),
                      ": ", error.code().message()));
    }
  }
  if (files.empty())
    throw Error("--data: expected at least one file or folder, got none");
  return files;
}

DataSplit megalodon::splitDataFiles(const std::vector<DataFile> &files,
                                    double fraction) {
  if (!(fraction >= 0 && fraction < 1))
    throw Error(
        str("--validation-fraction: expected a number from 0 to below 1, got ",
            fraction));
  DataSplit split;
  for (const DataFile &file : files) {
    // The last bytes of a path hardly reach the high bits of its FNV hash; one
    // Philox block mixes them.
    bool held = CounterRandom(0, hashName(file.relative)).uniform(0) < fraction;
    (held ? split.validation : split.training).push_back(file);
  }
  if (fraction > 0 && split.validation.empty())
    throw Error(str("--validation-fraction: ", fraction, " of ", files.size(),
                    " files leaves no validation file: give more files, a "
                    "larger fraction or --validation"));
  if (split.training.empty())
    throw Error(str("--validation-fraction: ", fraction, " of ", files.size(),
                    " files leaves no training file"));
  return split;
}

static TokenType typeOf(const std::string &path, TokenType type) {
  if (type != TokenType::Automatic)
    return type;
  std::string extension = fs::path(path).extension().string();
  return extension == ".u16"   ? TokenType::Uint16
         : extension == ".u32" ? TokenType::Uint32
                               : TokenType::Bytes;
}

static uint32_t bytesPerToken(TokenType type) {
  return type == TokenType::Uint32 ? 4 : type == TokenType::Uint16 ? 2 : 1;
}

/// Calls body with a pointer to tokens in their own type.
template <typename Body>
static void withTokens(const std::byte *data, uint32_t width, Body body) {
  if (width == 2)
    body(reinterpret_cast<const uint16_t *>(data));
  else if (width == 4)
    body(reinterpret_cast<const uint32_t *>(data));
  else
    body(reinterpret_cast<const uint8_t *>(data));
}

/// Not cryptographic: it notices changed data at the speed of memory.
static uint64_t mixContent(uint64_t hash, const std::byte *data, size_t bytes) {
  auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 29;
  };
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    mix(word);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, data, bytes);
  mix(rest);
  mix(bytes);
  return hash;
}

Corpus::Source Corpus::openTokenFile(const DataFile &entry, MappedFile file,
                                     int64_t vocabulary,
                                     const Tokenizer *tokenizer) {
  TokenFileView view(file.data(), file.size(), entry.path);
  const TokenFileHead &head = view.head();
  if (tokenizer && head.tokenizer != tokenizer->digest())
    throw Error(str(entry.path, ": tokenizer: expected ",
                    Sha256::hex(tokenizer->digest()), " (", tokenizer->name(),
                    "), got ", Sha256::hex(head.tokenizer)));
  const bool bytes = head.tokenizer == Tokenizer::open("bytes")->digest();
  if (head.vocabulary > uint64_t(vocabulary) || (bytes && vocabulary > 256))
    throw Error(str(entry.path, ": vocabulary: expected ",
                    bytes ? "" : "at most ", vocabulary,
                    " as the plan has, got ", head.vocabulary));
  view.verify();
  hash =
      mixContent(hash ^ hashName(entry.relative) ^ head.width(),
                 reinterpret_cast<const std::byte *>(view.digest().data()), 32);
  onlyBytes &= bytes;
  text += view.textBytes();
  Source source{std::move(file), {}, view,          view.data(),
                head.width(),    0,  view.tokens(), 0};
  return source;
}

Corpus::Source Corpus::encodeText(const DataFile &entry, const MappedFile &file,
                                  int64_t vocabulary,
                                  const Tokenizer &tokenizer) {
  verifyVocabulary(tokenizer, vocabulary, entry.path);
  std::vector<int32_t> tokens;
  try {
    tokenizer.encode({reinterpret_cast<const char *>(file.data()), file.size()},
                     tokens);
  } catch (const Error &error) {
    throw Error(str(entry.path, ": ", error.what()));
  }
  if (tokens.empty())
    throw Error(str(entry.path, ": expected text, got none that the tokenizer "
                                "keeps"));
  const uint32_t width =
      TokenFileHead{uint64_t(tokenizer.vocabulary()), -1, -1, {}}.width();
  std::vector<std::byte> encoded(tokens.size() * width);
  for (size_t i = 0; i < tokens.size(); ++i)
    std::memcpy(encoded.data() + i * width, &tokens[i], width);
  hash = mixContent(hash ^ hashName(entry.relative) ^
                        hashName(Sha256::hex(tokenizer.digest())),
                    file.data(), file.size());
  onlyBytes = false;
  text += int64_t(file.size());
  const std::byte *data = encoded.data();
  return {std::nullopt,
          std::move(encoded),
          std::nullopt,
          data,
          width,
          0,
          int64_t(tokens.size()),
          0};
}

Corpus::Source Corpus::openFile(const DataFile &entry, TokenType wanted,
                                int64_t vocabulary,
                                const Tokenizer *tokenizer) {
  MappedFile file(entry.path);
  if (file.size() == 0)
    throw Error(str(entry.path, ": expected data, got an empty file"));
  if (isTokenFile(file.data(), file.size())) {
    if (wanted != TokenType::Automatic)
      throw Error(str(entry.path, ": --data-type: expected auto for a token "
                                  "file, which says its type itself"));
    return openTokenFile(entry, std::move(file), vocabulary, tokenizer);
  }
  if (fs::path(entry.path).extension() == ".tokens")
    throw Error(str(entry.path, ": magic: expected a token file, got something "
                                "else: make one with megalodon-run tokenize"));
  const TokenType type = typeOf(entry.path, wanted);
  if (type == TokenType::Bytes && tokenizer && !tokenizer->isBytes())
    return encodeText(entry, file, vocabulary, *tokenizer);
  if (type == TokenType::Bytes && vocabulary > 256)
    throw Error(str(entry.path,
                    ": bytes need a vocabulary of 256, the plan has ",
                    vocabulary,
                    ": give --tokenizer FILE.model or token ids (*.tokens, "
                    "*.u16, *.u32 or --data-type)"));
  const uint32_t width = bytesPerToken(type);
  if (file.size() % width)
    throw Error(str(entry.path, ": expected a multiple of ", width,
                    " bytes, got ", file.size()));
  hash = mixContent(hash ^ hashName(entry.relative) ^ width, file.data(),
                    file.size());
  onlyBytes &= type == TokenType::Bytes;
  if (type == TokenType::Bytes)
    text += int64_t(file.size());
  const std::byte *data = file.data();
  const auto count = int64_t(file.size() / width);
  return {std::move(file), {}, std::nullopt, data, width, 0, count, 0};
}

Corpus::Corpus(const std::vector<DataFile> &files, TokenType wanted,
               int64_t vocabulary, const Tokenizer *tokenizer) {
  bool knownText = true;
  for (const DataFile &entry : files) {
    const int64_t textBefore = text;
    Source source = openFile(entry, wanted, vocabulary, tokenizer);
    knownText &= text > textBefore;
    withTokens(source.data, source.width, [&](auto *tokens) {
      // The maximum first: a loop without exits is vectorised, and data is
      // nearly always sound.
      uint32_t largest = 0;
      for (int64_t i = 0; i < source.count; ++i)
        largest = std::max<uint32_t>(largest, tokens[i]);
      if (largest < vocabulary)
        return;
      for (int64_t i = 0; i < source.count; ++i)
        if (tokens[i] >= vocabulary)
          throw Error(str(entry.path, ": token ", i, ": expected an id below ",
                          vocabulary, ", got ", +tokens[i]));
    });
    source.begin = total;
    source.firstDocument = documentCount;
    total += source.count;
    documentCount += source.documents();
    sources.push_back(std::move(source));
  }
  if (!knownText)
    text = 0;
}

void Corpus::read(int64_t begin, int64_t count, int32_t *into) const {
  begin %= total;
  auto source = std::upper_bound(sources.begin(), sources.end(), begin,
                                 [](int64_t position, const Source &s) {
                                   return position < s.begin;
                                 }) -
                1;
  while (count > 0) {
    int64_t first = begin - source->begin,
            piece = std::min(count, source->count - first);
    withTokens(source->data, source->width,
               [&](auto *tokens) { std::copy_n(tokens + first, piece, into); });
    into += piece;
    count -= piece;
    begin += piece;
    if (++source == sources.end()) {
      source = sources.begin();
      begin = 0;
    }
  }
}

int64_t Corpus::documentBegin(int64_t document) const {
  if (document == documentCount)
    return total;
  auto source = std::upper_bound(sources.begin(), sources.end(), document,
                                 [](int64_t wanted, const Source &s) {
                                   return wanted < s.firstDocument;
                                 }) -
                1;
  return source->begin +
         (source->view ? source->view->begin(document - source->firstDocument)
                       : 0);
}

int64_t Corpus::longestDocument() const {
  int64_t longest = 0;
  for (int64_t document = 0; document < documents(); ++document)
    longest = std::max(longest,
                       documentBegin(document + 1) - documentBegin(document));
  return longest;
}

void Corpus::markDocuments(int64_t begin, int64_t count, char *starts) const {
  std::fill_n(starts, count, 0);
  begin %= size();
  for (int64_t document = documentAt(begin), lap = 0;;) {
    const int64_t at = documentBegin(document) + lap * size() - begin;
    if (at >= count)
      return;
    if (at >= 0)
      starts[at] = 1;
    if (++document == documents()) {
      document = 0;
      ++lap;
    }
  }
}

int64_t Corpus::documentAt(int64_t position) const {
  int64_t first = 0, end = documentCount;
  while (end - first > 1) {
    const int64_t middle = first + (end - first) / 2;
    (documentBegin(middle) <= position ? first : end) = middle;
  }
  return first;
}
