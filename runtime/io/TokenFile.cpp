#include "runtime/io/TokenFile.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <cstring>

using namespace megalodon;

namespace {

struct FixedHeader {
  char magic[8];
  uint32_t version, width;
  uint64_t vocabulary;
  int32_t bos, eos;
  uint8_t tokenizer[32];
};
static_assert(sizeof(FixedHeader) == 64);

/// At the end, because a stream knows its counts when it has ended. The digest
/// comes last and covers everything before it.
struct FixedTrailer {
  uint64_t documents, tokens, textBytes, reserved;
  uint8_t digest[32];
};
static_assert(sizeof(FixedTrailer) == 64);

constexpr size_t kFixedBytes = sizeof(FixedHeader) + sizeof(FixedTrailer);

/// Ids are int32 everywhere else.
constexpr uint64_t kMaxVocabulary = uint64_t(1) << 31;

template <typename T> T loadAs(const std::byte *from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

} // namespace

uint32_t TokenFileHead::width() const {
  return vocabulary <= 1u << 8 ? 1 : vocabulary <= 1u << 16 ? 2 : 4;
}

bool megalodon::isTokenFile(const void *data, size_t bytes) {
  return bytes >= sizeof(kTokenFileMagic) &&
         std::memcmp(data, kTokenFileMagic, sizeof(kTokenFileMagic)) == 0;
}

TokenFileView::TokenFileView(const void *data, size_t bytes, std::string label)
    : base(static_cast<const std::byte *>(data)), bytes(bytes),
      name(std::move(label)) {
  auto wrong = [&](const auto &...pieces) {
    return Error(str(name, ": ", pieces...));
  };
  if (!isTokenFile(data, bytes))
    throw wrong("magic: expected a token file, got something else: make one "
                "with megalodon-run tokenize");
  if (bytes < kFixedBytes)
    throw wrong("header: expected at least ", kFixedBytes, " bytes, got ",
                bytes, ": the file was truncated");
  const auto header = loadAs<FixedHeader>(base);
  const auto trailer =
      loadAs<FixedTrailer>(base + (bytes - sizeof(FixedTrailer)));
  if (header.version != kTokenFileVersion)
    throw wrong("version: expected ", kTokenFileVersion, ", got ",
                header.version);
  if (header.vocabulary < 1 || header.vocabulary > kMaxVocabulary)
    throw wrong("vocabulary: expected 1 to ", kMaxVocabulary, ", got ",
                header.vocabulary);
  fixed.vocabulary = header.vocabulary;
  if (header.width != fixed.width())
    throw wrong("token width: expected ", fixed.width(),
                " bytes for a vocabulary of ", header.vocabulary, ", got ",
                header.width);
  for (auto [field, id] : {std::pair{"bos", header.bos}, {"eos", header.eos}})
    if (id < -1 || id >= int64_t(header.vocabulary))
      throw wrong(field, ": expected an id below ", header.vocabulary,
                  " or -1, got ", id);
  fixed.bos = header.bos;
  fixed.eos = header.eos;
  std::copy_n(header.tokenizer, 32, fixed.tokenizer.begin());

  // Bounds before products, so that none overflows.
  const uint64_t room = bytes - kFixedBytes;
  if (trailer.tokens < 1 || trailer.tokens > room / header.width)
    throw wrong("tokens: expected 1 to ", room / header.width, " in ", bytes,
                " bytes, got ", trailer.tokens,
                ": the file was truncated or altered");
  if (trailer.documents < 1 || trailer.documents > trailer.tokens)
    throw wrong("documents: expected 1 to ", trailer.tokens, ", got ",
                trailer.documents, ": the file was truncated or altered");
  const uint64_t tokenBytes = trailer.tokens * header.width;
  if (trailer.documents > room / 8 ||
      padded(tokenBytes) + 8 * (trailer.documents + 1) != room)
    throw wrong("size: ", trailer.tokens, " tokens in ", trailer.documents,
                " documents do not fill ", bytes,
                " bytes: the file was truncated or altered");
  if (trailer.reserved != 0)
    throw wrong("reserved: expected 0, got ", trailer.reserved);
  if (trailer.textBytes > uint64_t(INT64_MAX))
    throw wrong("text bytes: expected at most ", INT64_MAX, ", got ",
                trailer.textBytes);
  documentCount = int64_t(trailer.documents);
  tokenCount = int64_t(trailer.tokens);
  text = int64_t(trailer.textBytes);
  std::copy_n(trailer.digest, 32, stored.begin());
  indexBegin = sizeof(FixedHeader) + padded(tokenBytes);

  for (uint64_t i = tokenBytes; i < padded(tokenBytes); ++i)
    if (base[sizeof(FixedHeader) + i] != std::byte(0))
      throw wrong("padding: expected 0, got ",
                  int(base[sizeof(FixedHeader) + i]));
  if (begin(0) != 0)
    throw wrong("offsets: document 0: expected to begin at 0, got ",
                uint64_t(begin(0)));
  for (int64_t i = 1; i <= documentCount; ++i)
    if (begin(i) <= begin(i - 1) || begin(i) > tokenCount)
      throw wrong("offsets: document ", i - 1, ": expected to end at ",
                  begin(i - 1) + 1, " to ", tokenCount, ", got ",
                  uint64_t(begin(i)));
  if (begin(documentCount) != tokenCount)
    throw wrong("offsets: document ", documentCount - 1,
                ": expected to end at ", tokenCount, ", got ",
                begin(documentCount));
}

const std::byte *TokenFileView::data() const {
  return base + sizeof(FixedHeader);
}

int64_t TokenFileView::begin(int64_t document) const {
  return loadAs<int64_t>(base + indexBegin + 8 * size_t(document));
}

int32_t TokenFileView::token(int64_t position) const {
  const uint32_t width = fixed.width();
  const std::byte *from = data() + size_t(position) * width;
  return width == 1   ? int32_t(loadAs<uint8_t>(from))
         : width == 2 ? int32_t(loadAs<uint16_t>(from))
                      : loadAs<int32_t>(from);
}

void TokenFileView::verify() const {
  const Sha256::Digest digest = Sha256::of(base, bytes - stored.size());
  if (digest != stored)
    throw Error(str(name, ": digest: expected ", Sha256::hex(stored), ", got ",
                    Sha256::hex(digest), ": the file was altered"));
  for (int64_t i = 0; i < tokenCount; ++i)
    if (token(i) < 0 || uint64_t(token(i)) >= fixed.vocabulary)
      throw Error(str(name, ": token ", i, ": expected an id below ",
                      fixed.vocabulary, ", got ", uint32_t(token(i))));
}

TokenFileWriter::TokenFileWriter(std::string target, const TokenFileHead &head)
    : path(std::move(target)), head(head), file(path) {
  if (head.vocabulary < 1 || head.vocabulary > kMaxVocabulary)
    throw Error(str(path, ": vocabulary: expected 1 to ", kMaxVocabulary,
                    ", got ", head.vocabulary));
  FixedHeader header = {};
  std::memcpy(header.magic, kTokenFileMagic, sizeof(kTokenFileMagic));
  header.version = kTokenFileVersion;
  header.width = head.width();
  header.vocabulary = head.vocabulary;
  header.bos = head.bos;
  header.eos = head.eos;
  std::copy(head.tokenizer.begin(), head.tokenizer.end(), header.tokenizer);
  put(&header, sizeof(header));
}

void TokenFileWriter::put(const void *data, size_t bytes) {
  digest.update(data, bytes);
  file.write(data, bytes);
}

void TokenFileWriter::append(const int32_t *tokens, size_t count) {
  const uint32_t width = head.width();
  narrow.resize(count * width);
  for (size_t i = 0; i < count; ++i) {
    if (tokens[i] < 0 || uint64_t(tokens[i]) >= head.vocabulary)
      throw Error(str(path, ": token ", written + i, ": expected an id below ",
                      head.vocabulary, ", got ", tokens[i]));
    std::memcpy(narrow.data() + i * width, &tokens[i], width);
  }
  put(narrow.data(), narrow.size());
  written += count;
}

void TokenFileWriter::endDocument(uint64_t textBytes) {
  text += textBytes;
  if (offsets.back() != written)
    offsets.push_back(written);
}

void TokenFileWriter::commit() {
  if (offsets.size() < 2 || offsets.back() != written)
    throw Error(
        str(path, ": expected at least one document with text, got ", "none"));
  const uint64_t zero = 0, tokenBytes = written * head.width();
  put(&zero, padded(tokenBytes) - tokenBytes);
  put(offsets.data(), offsets.size() * sizeof(uint64_t));
  FixedTrailer trailer = {};
  trailer.documents = offsets.size() - 1;
  trailer.tokens = written;
  trailer.textBytes = text;
  digest.update(&trailer, sizeof(trailer) - sizeof(trailer.digest));
  const Sha256::Digest sum = digest.finish();
  std::copy(sum.begin(), sum.end(), trailer.digest);
  file.write(&trailer, sizeof(trailer));
  file.commit();
}
