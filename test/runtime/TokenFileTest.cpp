// Token files: what is written is read, and damaged or hostile bytes are
// refused with the field named.
#include "runtime/io/TokenFile.h"
#include "test/runtime/Messages.h"
#include "test/runtime/TestPlan.h"
#include <cstring>
#include <filesystem>

using namespace megalodon;
using namespace megalodon::test;

namespace {

/// Two documents, [1, 2, 255] and [7], of one byte a token.
std::string smallFile() {
  const std::string path = temporaryPath("small.tokens");
  TokenFileWriter writer(path, {256, 1, 2, Sha256::of("x", 1)});
  const int32_t first[] = {1, 2, 255}, second[] = {7};
  writer.append(first, 2);
  writer.append(first + 2, 1);
  writer.endDocument(10);
  writer.endDocument(0); // nothing since: no document
  writer.append(second, 1);
  writer.endDocument(3);
  writer.commit();
  return readText(path);
}

// Where the fields of smallFile() lie: header, 4 tokens, 4 bytes of padding, 3
// offsets, trailer.
constexpr size_t kVersion = 8, kWidth = 12, kVocabulary = 16, kBos = 24,
                 kEos = 28, kTokens = 64, kPadding = 68, kIndex = 72,
                 kTrailer = 96, kSize = 160;

TokenFileView view(const std::string &bytes) {
  return {bytes.data(), bytes.size(), "f"};
}

std::string with(size_t at, uint64_t value, size_t width = 8) {
  std::string bytes = smallFile();
  std::memcpy(bytes.data() + at, &value, width);
  return bytes;
}

} // namespace

TEST(TokenFile, HoldsDocumentsOfTokens) {
  const std::string bytes = smallFile();
  ASSERT_EQ(bytes.size(), kSize);
  const TokenFileView file = view(bytes);
  EXPECT_EQ(file.documents(), 2);
  EXPECT_EQ(file.tokens(), 4);
  EXPECT_EQ(file.textBytes(), 13);
  EXPECT_EQ(file.head().vocabulary, 256u);
  EXPECT_EQ(file.head().bos, 1);
  EXPECT_EQ(file.head().eos, 2);
  EXPECT_EQ(file.head().tokenizer, Sha256::of("x", 1));
  EXPECT_EQ(file.begin(0), 0);
  EXPECT_EQ(file.begin(1), 3);
  EXPECT_EQ(file.begin(2), 4);
  EXPECT_EQ(file.token(2), 255);
  EXPECT_EQ(file.token(3), 7);
  // The digest is of everything in front of it.
  EXPECT_EQ(file.digest(), Sha256::of(bytes.data(), bytes.size() - 32));
  file.verify();
}

TEST(TokenFile, TakesTheFewestBytesThatHoldTheVocabulary) {
  for (auto [vocabulary, width] : {std::pair<uint64_t, uint32_t>{256, 1},
                                   {257, 2},
                                   {65536, 2},
                                   {65537, 4},
                                   {uint64_t(1) << 31, 4}}) {
    const std::string path = temporaryPath("wide.tokens");
    TokenFileWriter writer(path, {vocabulary, -1, -1, {}});
    const int32_t tokens[] = {0, int32_t(vocabulary - 1), 3};
    writer.append(tokens, 3);
    writer.endDocument(1);
    writer.commit();
    const std::string bytes = readText(path);
    const TokenFileView file = view(bytes);
    EXPECT_EQ(file.head().width(), width);
    for (int64_t i = 0; i < 3; ++i)
      EXPECT_EQ(file.token(i), tokens[i]);
    file.verify();
  }
}

TEST(TokenFile, WriterRefusesWhatNoReaderWouldTake) {
  const std::string path = temporaryPath("refused.tokens");
  {
    TokenFileWriter writer(path, {100, -1, -1, {}});
    const int32_t high[] = {5, 100}, low[] = {-1};
    EXPECT_ERROR(writer.append(high, 2),
                 path + ": token 1: expected an id below 100, got 100");
    EXPECT_ERROR(writer.append(low, 1), "expected an id below 100, got -1");
    EXPECT_ERROR(writer.commit(), path + ": expected at least one document");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_ERROR(TokenFileWriter(path, {0, -1, -1, {}}), "vocabulary: expected");
}

TEST(TokenFile, RefusesATruncatedFileAtEveryLength) {
  const std::string bytes = smallFile();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    EXPECT_ERROR(view(cut), size < 8     ? "f: magic: "
                            : size < 128 ? "f: header: expected at least 128 "
                                         : "truncated or altered");
  }
  EXPECT_ERROR(view(bytes + std::string(8, '\0')), "truncated or altered");
}

TEST(TokenFile, NamesTheFieldThatIsWrong) {
  EXPECT_ERROR(view(with(0, 0)), "f: magic: expected a token file");
  EXPECT_ERROR(view(with(kVersion, 2, 4)), "f: version: expected 1, got 2");
  EXPECT_ERROR(view(with(kWidth, 2, 4)),
               "f: token width: expected 1 bytes for a vocabulary of 256, "
               "got 2");
  EXPECT_ERROR(view(with(kWidth, 0, 4)), "f: token width: ");
  EXPECT_ERROR(view(with(kVocabulary, 0)), "f: vocabulary: expected 1 to ");
  EXPECT_ERROR(view(with(kVocabulary, uint64_t(-1))), "f: vocabulary: ");
  EXPECT_ERROR(view(with(kBos, 256, 4)), "f: bos: expected an id below 256");
  EXPECT_ERROR(view(with(kEos, uint32_t(-2), 4)), "f: eos: expected an id");
  EXPECT_ERROR(view(with(kPadding, 1, 1)), "f: padding: expected 0, got 1");
  EXPECT_ERROR(view(with(kTrailer, 0)), "f: documents: expected 1 to 4, got 0");
  EXPECT_ERROR(view(with(kTrailer, uint64_t(-1))), "f: documents: ");
  EXPECT_ERROR(view(with(kTrailer, 3)), "f: size: 4 tokens in 3 documents");
  EXPECT_ERROR(view(with(kTrailer + 8, 0)), "f: tokens: expected 1 to 32");
  EXPECT_ERROR(view(with(kTrailer + 8, uint64_t(-1))), "f: tokens: ");
  EXPECT_ERROR(view(with(kTrailer + 8, 20)), "f: size: 20 tokens");
  EXPECT_ERROR(view(with(kTrailer + 16, uint64_t(-1))), "f: text bytes: ");
  EXPECT_ERROR(view(with(kTrailer + 24, 1)), "f: reserved: expected 0, got 1");
}

TEST(TokenFile, RefusesAnIndexThatIsNotMonotone) {
  EXPECT_ERROR(view(with(kIndex, 1)),
               "f: offsets: document 0: expected to begin at 0, got 1");
  EXPECT_ERROR(view(with(kIndex + 8, 0)),
               "f: offsets: document 0: expected to end at 1 to 4, got 0");
  EXPECT_ERROR(view(with(kIndex + 8, 5)), "f: offsets: document 0: ");
  EXPECT_ERROR(view(with(kIndex + 8, uint64_t(-1))), "f: offsets: document 0");
  EXPECT_ERROR(view(with(kIndex + 16, 3)), "f: offsets: document 1: ");
}

TEST(TokenFile, RefusesEveryFlippedBit) {
  const std::string sound = smallFile();
  for (size_t at = 0; at < sound.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = sound;
      bytes[at] = char(bytes[at] ^ (1 << bit));
      EXPECT_NE(messageOf([&] { view(bytes).verify(); }), "")
          << "byte " << at << " bit " << bit;
    }
  std::string bytes = sound;
  bytes[kTokens] = 9;
  EXPECT_ERROR(view(bytes).verify(), "f: digest: expected ");
}

TEST(TokenFile, ChecksIdsWhereTheWidthHoldsMore) {
  const std::string path = temporaryPath("ids.tokens");
  TokenFileWriter writer(path, {100, -1, -1, {}});
  const int32_t tokens[] = {1, 2, 3};
  writer.append(tokens, 3);
  writer.endDocument(1);
  writer.commit();
  // Somebody who knows the digest's rule writes an id beyond the vocabulary.
  std::string bytes = readText(path);
  bytes[kTokens + 1] = 100;
  const Sha256::Digest digest = Sha256::of(bytes.data(), bytes.size() - 32);
  std::memcpy(bytes.data() + bytes.size() - 32, digest.data(), 32);
  EXPECT_ERROR(view(bytes).verify(),
               "f: token 1: expected an id below 100, got 100");
}
