// Tokenizers: bytes, and SentencePiece models trained here with the settings of
// LLaMA's (BPE, identity normalizer, byte fallback, dummy prefix) and others.
#include "runtime/text/Tokenizer.h"
#include "runtime/core/File.h"
#include "runtime/core/Utf8.h"
#include "runtime/train/Random.h"
#include "test/runtime/ToyPlan.h"
#include <filesystem>
#ifdef MEGALODON_TEST_SENTENCEPIECE
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#endif

using namespace megalodon;
using namespace megalodon::test;

static std::vector<int32_t> encode(const Tokenizer &tokenizer,
                                   std::string_view text,
                                   size_t partBytes = Tokenizer::kPartBytes) {
  std::vector<int32_t> tokens;
  tokenizer.encode(text, tokens, partBytes);
  return tokens;
}

static std::string decode(const Tokenizer &tokenizer,
                          const std::vector<int32_t> &tokens) {
  const std::unique_ptr<TextDecoder> decoder = tokenizer.decoder();
  std::string text;
  for (int32_t token : tokens)
    text += decoder->push(token);
  return text + decoder->finish();
}

TEST(Utf8, IsTheStandardsTable) {
  auto invalid = [](std::string_view text) { return firstInvalidUtf8(text); };
  EXPECT_EQ(invalid("a\xC2\x80\xE2\x96\x81\xF0\x9F\xA6\x88z"),
            std::string::npos);
  for (const char *bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
        "\xE2\x96", "\xC3"})
    EXPECT_EQ(invalid(std::string("ok") + bad), 2u) << bad;
}

TEST(Tokenizer, BytesAreTokens) {
  const auto tokenizer = Tokenizer::open("bytes");
  std::string all;
  for (int byte = 0; byte < 256; ++byte)
    all += char(byte);
  EXPECT_EQ(encode(*tokenizer, all).size(), 256u);
  EXPECT_EQ(encode(*tokenizer, "\xFF").front(), 255);
  EXPECT_EQ(decode(*tokenizer, encode(*tokenizer, all, 7)), all);
  EXPECT_EQ(tokenizer->bos(), -1);
  EXPECT_EQ(tokenizer->vocabulary(), 256);
  EXPECT_ERROR(decode(*tokenizer, {256}), "expected a byte from 0 to 255");
  verifyVocabulary(*tokenizer, 256, "p");
  EXPECT_ERROR(verifyVocabulary(*tokenizer, 255, "p"),
               "p: expected a vocabulary of at least 256");
  EXPECT_ERROR(verifyVocabulary(*tokenizer, 32000, "p"),
               "p: expected a vocabulary of 256 for bytes, got 32000");
}

TEST(Tokenizer, NamesAModelThatCannotBeRead) {
  EXPECT_ERROR(Tokenizer::open("/no/such.model"), "/no/such.model: ");
}

#ifdef MEGALODON_TEST_SENTENCEPIECE

namespace {

/// Trains a model on toy text.
std::string trainModel(const std::string &name, const std::string &options) {
  const std::string path = temporaryPath(name);
  writeText(path + ".txt", toyText(20000) +
                               "\nthe shark swims\n  indented  words\n"
                               "caf\xC3\xA9 na\xC3\xAFve\n\n\nlast line\n");
  const auto status = sentencepiece::SentencePieceTrainer::Train(str(
      "--input=", path, ".txt --model_prefix=", path,
      " --minloglevel=2 --num_threads=1 --hard_vocab_limit=false ", options));
  EXPECT_TRUE(status.ok()) << status.ToString();
  return path + ".model";
}

std::string llamaModel() {
  return trainModel("llama",
                    "--model_type=bpe --vocab_size=400 --byte_fallback=true "
                    "--normalization_rule_name=identity "
                    "--remove_extra_whitespaces=false --split_digits=true "
                    "--allow_whitespace_only_pieces=true");
}

/// Text of words, spaces, line ends and characters outside the vocabulary.
std::string randomText(size_t pieces, uint64_t seed) {
  static const char *const kPieces[] = {"the ",
                                        "shark",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\n\n",
                                        "\t",
                                        "\r\n",
                                        "swims",
                                        "42",
                                        "caf\xC3\xA9",
                                        "\xE6\xBC\xA2",
                                        "\xF0\x9F\xA6\x88",
                                        ".",
                                        "carry "};
  const CounterRandom random(seed, 3);
  std::string text;
  for (size_t i = 0; i < pieces; ++i)
    text += kPieces[random.below(std::size(kPieces), i)];
  return text;
}

} // namespace

TEST(SentencePiece, LlamasSettingsRoundTrip) {
  const std::string path = llamaModel();
  const auto tokenizer = Tokenizer::open(path);
  EXPECT_EQ(tokenizer->name(), path);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  const std::string file = readText(path);
  EXPECT_EQ(tokenizer->digest(), Sha256::of(file.data(), file.size()));
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::string text = randomText(40, seed);
    EXPECT_EQ(decode(*tokenizer, encode(*tokenizer, text)), text);
  }
  EXPECT_EQ(decode(*tokenizer, encode(*tokenizer, " leading")), " leading");
  EXPECT_EQ(encode(*tokenizer, ""), std::vector<int32_t>());
  EXPECT_EQ(decode(*tokenizer, {}), "");
  EXPECT_ERROR(encode(*tokenizer, "ok\xFF"),
               "byte 2: expected UTF-8, got 0xff");
}

TEST(SentencePiece, TokensAreTheLibrarysWhereverDocumentsAreCut) {
  const std::string unigram = trainModel(
      "unigram", "--model_type=unigram --vocab_size=120 --byte_fallback=false");
  // Pieces over words, and a line's end is a space: no cut is safe.
  const std::string across =
      trainModel("across", "--model_type=bpe --vocab_size=400 "
                           "--split_by_whitespace=false");
  for (const std::string &path : {llamaModel(), unigram, across}) {
    const auto tokenizer = Tokenizer::open(path);
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.Load(path).ok());
    EXPECT_EQ(tokenizer->vocabulary(), library.GetPieceSize());
    size_t cuts = 0;
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const std::string text = randomText(60, seed);
      const std::vector<int> wanted = library.EncodeAsIds(text);
      for (size_t partBytes : {1, 7, 50, 1000}) {
        EXPECT_EQ(encode(*tokenizer, text, partBytes), wanted)
            << path << " seed " << seed << " part " << partBytes;
        cuts += tokenizer->firstPart(text, partBytes) < text.size();
      }
    }
    EXPECT_EQ(cuts > 0, path != across) << path;
  }
}

TEST(SentencePiece, StreamsWhatTheLibraryDecodesAtOnce) {
  for (const std::string &path :
       {llamaModel(),
        trainModel("noprefix",
                   "--model_type=bpe --vocab_size=400 --byte_fallback=true "
                   "--add_dummy_prefix=false --remove_extra_whitespaces=false "
                   "--normalization_rule_name=identity")}) {
    const auto tokenizer = Tokenizer::open(path);
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.Load(path).ok());
    const CounterRandom random(9, 9);
    // Random ids: bytes that make no character, marks, unknowns.
    for (uint64_t i = 0; i < 300; ++i) {
      std::vector<int32_t> ids;
      for (uint64_t j = 0; j < 12; ++j) {
        const uint64_t counter = 100 * i + j;
        // Half of them bytes, and of these half of the lead and trail kind.
        ids.push_back(int32_t(
            j % 2 ? random.below(uint64_t(tokenizer->vocabulary()), counter)
                  : 3 + 0x80 + random.below(0x80, counter)));
      }
      EXPECT_EQ(decode(*tokenizer, ids), library.DecodeIds(ids)) << path;
    }
  }
}

TEST(SentencePiece, ACharacterOfSeveralTokensComesWithTheLast) {
  const auto tokenizer = Tokenizer::open(llamaModel());
  const auto byte = [](int value) { return 3 + value; }; // after unk, bos, eos
  const auto decoder = tokenizer->decoder();
  EXPECT_EQ(decoder->push(byte(0xF0)), "");
  EXPECT_EQ(decoder->push(byte(0x9F)), "");
  EXPECT_EQ(decoder->push(byte(0xA6)), "");
  EXPECT_EQ(decoder->push(byte(0x88)), "\xF0\x9F\xA6\x88");
  EXPECT_EQ(decoder->push(byte('a')), "a");
  EXPECT_EQ(decoder->push(byte(0xE2)), "");
  EXPECT_EQ(decoder->finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder->push(tokenizer->eos()), "");
  EXPECT_ERROR(decoder->push(int32_t(tokenizer->vocabulary())),
               "expected an id below the tokenizer's ");
  EXPECT_ERROR(decoder->push(-1), "got -1");
}

TEST(SentencePiece, RefusesDamagedModels) {
  const std::string model = readText(llamaModel()),
                    path = temporaryPath("damaged.model");
  for (const std::string &bytes :
       {std::string(), std::string("not a model\n"), std::string(1000, '\xFF'),
        model.substr(0, model.size() / 2),
        std::string(model).replace(0, 100, 100, '\x0A')}) {
    writeText(path, bytes);
    EXPECT_ERROR(Tokenizer::open(path),
                 path + ": expected a SentencePiece model");
  }
}

TEST(SentencePiece, RefusesRulesThatLeadOutside) {
  const std::string rules = temporaryPath("rules.tsv"),
                    path = temporaryPath("hostile.model");
  writeText(rules, "41\t61\n42 43\t62\n");
  const std::string model = readText(trainModel(
      "rules",
      "--model_type=char --vocab_size=60 --normalization_rule_tsv=" + rules));
  // The root of the trie follows its size, and is the first node that has
  // children.
  const std::string head("\0\4\0\0", 4);
  const size_t root = model.find(head) + head.size();
  ASSERT_LT(root, model.size());
  auto refused = [&](size_t at, std::string_view bytes, const char *why) {
    writeText(path, std::string(model).replace(at, bytes.size(), bytes));
    EXPECT_ERROR(Tokenizer::open(path),
                 str(path,
                     ": expected a SentencePiece model, got something "
                     "else (rewriting rules: ",
                     why));
  };
  writeText(path, model);
  EXPECT_NO_THROW(Tokenizer::open(path));
  refused(root, "\xFF\xFF\xFF\x7F", "node 0 of the trie: expected children");
  refused(root, "\xFF\xFF\xFF\xFF", "node 0 of the trie: expected children");
  refused(root - head.size(), "\1", "expected a trie of a multiple of 1024");
  refused(root - head.size(), std::string_view("\0\0", 2),
          "expected a trie of a multiple");
}

#endif
