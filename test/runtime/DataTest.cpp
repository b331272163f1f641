// Data: listing, splitting, reading as a circle, checks, and an order that is a
// pure function of seed and call.
#include "runtime/train/Data.h"
#include "runtime/core/Error.h"
#include "test/runtime/ToyPlan.h"
#include <algorithm>
#include <filesystem>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

using namespace megalodon;
using namespace megalodon::test;

static std::string write(const std::string &path, const std::string &text) {
  writeText(path, text);
  return path;
}

TEST(Data, ListsFilesAndFoldersInOrder) {
  std::string folder = temporaryFolder("data");
  std::filesystem::create_directories(folder + "/b/c");
  write(folder + "/b/c/2.txt", "22");
  write(folder + "/b/1.txt", "1");
  write(folder + "/a.txt", "a");
  write(folder + "/empty", "");
  std::vector<DataFile> files = listDataFiles({folder, folder + "/b/1.txt"});
  std::vector<std::string> names;
  for (const DataFile &file : files)
    names.push_back(file.relative);
  EXPECT_EQ(names, (std::vector<std::string>{"a.txt", "b/1.txt", "b/c/2.txt",
                                             "1.txt"}));
  EXPECT_ERROR(listDataFiles({folder + "/empty"}),
               folder + "/empty: expected data, got an empty file");
  EXPECT_ERROR(listDataFiles({folder + "/none"}),
               folder + "/none: no such file or folder");
  EXPECT_ERROR(listDataFiles({"/dev/null"}), "/dev/null: expected a regular");
  EXPECT_ERROR(listDataFiles({temporaryFolder("nothing")}),
               "nothing: expected at least one file that is not empty");
}

TEST(Data, NamesAFileThatCannotBeRead) {
  if (geteuid() == 0)
    GTEST_SKIP() << "root reads everything";
  std::string path = write(temporaryPath("secret"), "text");
  chmod(path.c_str(), 0);
  EXPECT_ERROR(Corpus({{path, "secret"}}, TokenType::Automatic, 256),
               path + ": cannot open");
}

TEST(Data, SplitsByTheHashOfThePath) {
  std::vector<DataFile> files;
  for (int i = 0; i < 1000; ++i)
    files.push_back({"", str("file", i, ".h")});
  DataSplit split = splitDataFiles(files, 0.1);
  EXPECT_NEAR(split.validation.size(), 100, 30);
  EXPECT_EQ(split.training.size() + split.validation.size(), 1000u);
  std::set<std::string> held;
  for (const DataFile &file : split.validation)
    held.insert(file.relative);
  files.resize(500); // fewer files move nothing to the other side
  for (const DataFile &file : splitDataFiles(files, 0.1).validation)
    EXPECT_TRUE(held.count(file.relative));
  EXPECT_ERROR(splitDataFiles({{"", "x"}}, 0.001), "leaves no validation file");
  EXPECT_ERROR(splitDataFiles({{"", "x"}}, 0.9999999),
               "leaves no training file");
  EXPECT_ERROR(splitDataFiles(files, 1), "--validation-fraction: expected");
}

TEST(Data, ReadsACircleOfAllTokenTypes) {
  std::string folder = temporaryFolder("data");
  uint16_t narrow[] = {300, 301};
  uint32_t wide[] = {70000, 5};
  write(folder + "/1.u16", std::string(reinterpret_cast<char *>(narrow), 4));
  write(folder + "/2.u32", std::string(reinterpret_cast<char *>(wide), 8));
  Corpus corpus(listDataFiles({folder}), TokenType::Automatic, 100000);
  EXPECT_EQ(corpus.size(), 4);
  EXPECT_FALSE(corpus.isBytes());
  std::vector<int32_t> tokens(7);
  corpus.read(3, 7, tokens.data());
  EXPECT_EQ(tokens, (std::vector<int32_t>{5, 300, 301, 70000, 5, 300, 301}));
  std::string bytes = write(temporaryPath("text"), "abc");
  Corpus text(listDataFiles({bytes}), TokenType::Automatic, 256);
  EXPECT_TRUE(text.isBytes());
  text.read(4, 2, tokens.data());
  EXPECT_EQ(tokens[0], 'b');
  EXPECT_EQ(tokens[1], 'c');
}

TEST(Data, ChecksEveryToken) {
  uint16_t ids[] = {1, 2, 99, 100};
  std::string path = write(temporaryPath("u16"),
                           std::string(reinterpret_cast<char *>(ids), 8));
  EXPECT_ERROR(Corpus(listDataFiles({path}), TokenType::Uint16, 100),
               path + ": token 3: expected an id below 100, got 100");
  EXPECT_ERROR(Corpus(listDataFiles({path}), TokenType::Bytes, 1000),
               path + ": bytes need a vocabulary of 256, the plan has 1000");
  std::string odd = write(temporaryPath("odd.u32"), "12345");
  EXPECT_ERROR(Corpus(listDataFiles({odd}), TokenType::Automatic, 100),
               odd + ": expected a multiple of 4 bytes, got 5");
  std::string text = write(temporaryPath("text"), "ab\xff");
  EXPECT_ERROR(Corpus(listDataFiles({text}), TokenType::Automatic, 128),
               text + ": token 2: expected an id below 128, got 255");
}

TEST(Data, FingerprintNoticesChanges) {
  std::string path = temporaryPath("text");
  auto fingerprint = [&](const std::string &text, const char *name) {
    write(path, text);
    return Corpus({{path, name}}, TokenType::Automatic, 256).fingerprint();
  };
  uint64_t first = fingerprint("the same text", "a");
  EXPECT_EQ(first, fingerprint("the same text", "a"));
  EXPECT_NE(first, fingerprint("the same tex!", "a"));
  EXPECT_NE(first, fingerprint("the same text", "b"));
}

TEST(Data, StreamRowsReadOnWhereTheyStopped) {
  std::string path = write(temporaryPath("text"), toyText(1000));
  Corpus corpus(listDataFiles({path}), TokenType::Automatic, 256);
  const int64_t batch = 3, length = 16, perLap = 1000 / (batch * length);
  BatchOrder order(corpus, Order::Stream, 5, batch, length);
  std::vector<int32_t> tokens(batch * length), targets(batch * length),
      all(1000);
  corpus.read(0, 1000, all.data());
  for (int64_t call = 0; call < 3 * perLap; ++call) {
    EXPECT_EQ(order.startsFresh(call), call % perLap == 0);
    order.read(call, tokens.data(), targets.data());
    for (int64_t row = 0; row < batch; ++row) {
      int64_t begin = order.begin(call, row);
      if (!order.startsFresh(call))
        EXPECT_EQ(begin, (order.begin(call - 1, row) + length) % 1000);
      for (int64_t i = 0; i < length; ++i) {
        EXPECT_EQ(tokens[row * length + i], all[(begin + i) % 1000]);
        EXPECT_EQ(targets[row * length + i], all[(begin + i + 1) % 1000]);
      }
    }
  }
  // A lap reads no token twice.
  std::set<int64_t> seen;
  for (int64_t call = 0; call < perLap; ++call)
    for (int64_t row = 0; row < batch; ++row)
      EXPECT_TRUE(seen.insert(order.begin(call, row)).second);
  EXPECT_NE(order.begin(0, 0), order.begin(perLap, 0));
}

TEST(Data, OrderIsAPureFunctionOfSeedAndCall) {
  std::string path = write(temporaryPath("text"), toyText(5000));
  Corpus corpus(listDataFiles({path}), TokenType::Automatic, 256);
  for (Order kind : {Order::Stream, Order::Random}) {
    BatchOrder forward(corpus, kind, 1, 2, 16),
        backward(corpus, kind, 1, 2, 16), other(corpus, kind, 2, 2, 16);
    std::vector<int64_t> begins;
    for (int64_t call = 0; call < 50; ++call)
      begins.push_back(forward.begin(call, call % 2));
    int64_t same = 0;
    for (int64_t call = 49; call >= 0; --call) {
      EXPECT_EQ(begins[call], backward.begin(call, call % 2));
      same += begins[call] == other.begin(call, call % 2);
    }
    EXPECT_LT(same, 5);
  }
  BatchOrder random(corpus, Order::Random, 1, 2, 16);
  EXPECT_TRUE(random.startsFresh(0) && random.startsFresh(17));
}

TEST(Data, RefusesACorpusThatIsTooShort) {
  std::string path = write(temporaryPath("text"), toyText(16));
  Corpus corpus(listDataFiles({path}), TokenType::Automatic, 256);
  EXPECT_ERROR(BatchOrder(corpus, Order::Stream, 1, 2, 16),
               "training data: expected at least 32 tokens for 2 rows of 16, "
               "got 16");
  EXPECT_ERROR(BatchOrder(corpus, Order::Random, 1, 1, 16),
               "expected at least 17 tokens");
}

TEST(BatchOrder, PartsOfACallAreThoseOfTheWhole) {
  const std::string path = temporaryPath("text");
  writeText(path, toyText(301));
  const Corpus corpus(listDataFiles({path}), TokenType::Bytes, 256);
  const int64_t rows = 3, length = 10;
  for (Order kind : {Order::Stream, Order::Random}) {
    const BatchOrder order(corpus, kind, 5, rows, length);
    for (int64_t call : {0, 7, 12}) {
      std::vector<int32_t> tokens(rows * length), targets(rows * length);
      order.read(call, tokens.data(), targets.data());
      // Two by four ranks: neither extent divides evenly.
      for (int64_t row : {0, 2})
        for (int64_t column : {0, 3, 6, 9}) {
          const Box box{{row, column}, {2, 3}};
          std::vector<int32_t> some(6, 7), successors(6, 7);
          order.read(call, box, some.data(), successors.data());
          for (int64_t i = 0; i < 6; ++i) {
            const int64_t r = row + i / 3, c = column + i % 3;
            const bool inside = r < rows && c < length;
            EXPECT_EQ(some[i], inside ? tokens[r * length + c] : 0);
            EXPECT_EQ(successors[i],
                      inside ? targets[r * length + c] : kIgnoredTarget);
          }
        }
    }
  }
}

namespace {

/// A token file of `documents` documents of different lengths, in which
/// document d begins with the token 100 and goes on with d.
std::string documentsFile(int64_t documents, const std::string &name,
                          Sha256::Digest tokenizer = {}) {
  const std::string path = temporaryPath(name);
  TokenFileWriter writer(path, {200, -1, -1, tokenizer});
  for (int64_t d = 0; d < documents; ++d) {
    const std::vector<int32_t> body(size_t(d * 7 % 5), int32_t(d));
    const int32_t first = 100;
    writer.append(&first, 1);
    writer.append(body.data(), body.size());
    writer.endDocument(4);
  }
  writer.commit();
  return path;
}

struct Batch {
  std::vector<int32_t> tokens, targets, resets;
};

Batch readCall(const BatchOrder &order, int64_t call, const Box &box) {
  Batch batch;
  for (auto *list : {&batch.tokens, &batch.targets, &batch.resets})
    list->assign(size_t(box.elements()), -7);
  order.read(call, box, batch.tokens.data(), batch.targets.data(),
             batch.resets.data());
  return batch;
}

} // namespace

TEST(Data, ReadsTokenFilesBesideOthers) {
  const std::string tokens = documentsFile(30, "d.tokens"),
                    text = write(temporaryPath("text"), "ab");
  const Corpus alone(listDataFiles({tokens}), TokenType::Automatic, 200);
  EXPECT_EQ(alone.documents(), 30);
  EXPECT_EQ(alone.textBytes(), 120);
  EXPECT_FALSE(alone.isBytes());
  const Corpus both(listDataFiles({text, tokens}), TokenType::Automatic, 256);
  EXPECT_EQ(both.documents(), 31);
  EXPECT_EQ(both.size(), alone.size() + 2);
  EXPECT_EQ(both.documentBegin(0), 0);
  EXPECT_EQ(both.documentBegin(1), 2);
  EXPECT_EQ(both.documentBegin(31), both.size());
  for (int64_t d = 0; d < 31; ++d) {
    int32_t first = 0;
    both.read(both.documentBegin(d), 1, &first);
    EXPECT_EQ(first, d == 0 ? 'a' : 100);
    EXPECT_EQ(both.documentAt(both.documentBegin(d)), d);
    EXPECT_EQ(both.documentAt(both.documentBegin(d + 1) - 1), d);
  }
  EXPECT_NE(both.fingerprint(), alone.fingerprint());
  const auto bytes = Tokenizer::open("bytes");
  const std::string path = temporaryPath("bytes.tokens");
  TokenFileWriter writer(path, {256, -1, -1, bytes->digest()});
  const int32_t letters[] = {'a', 'b'};
  writer.append(letters, 2);
  writer.endDocument(2);
  writer.commit();
  EXPECT_TRUE(
      Corpus(listDataFiles({path}), TokenType::Automatic, 256, bytes.get())
          .isBytes());
}

TEST(Data, RefusesTokenFilesThatDoNotFit) {
  const std::string tokens = documentsFile(30, "d.tokens");
  auto open = [&](int64_t vocabulary, TokenType type = TokenType::Automatic,
                  const Tokenizer *tokenizer = nullptr) {
    Corpus(listDataFiles({tokens}), type, vocabulary, tokenizer);
  };
  EXPECT_ERROR(open(199), tokens + ": vocabulary: expected at most 199 as the "
                                   "plan has, got 200");
  EXPECT_ERROR(open(200, TokenType::Uint16), tokens + ": --data-type: ");
  EXPECT_ERROR(open(256, TokenType::Automatic, Tokenizer::open("bytes").get()),
               tokens + ": tokenizer: expected ");
  std::string bytes = readText(tokens);
  bytes[70] ^= 1;
  write(tokens, bytes);
  EXPECT_ERROR(open(200), tokens + ": digest: expected ");
  const std::string text = write(temporaryPath("text.tokens"), "text");
  EXPECT_ERROR(Corpus(listDataFiles({text}), TokenType::Automatic, 256),
               text + ": magic: expected a token file");
}

TEST(BatchOrder, AnEpochReadsEveryDocumentOnceInAnOrderOfItsOwn) {
  const Corpus corpus(listDataFiles({documentsFile(60, "d.tokens")}),
                      TokenType::Automatic, 200);
  // One row a token long reads an epoch whole.
  const BatchOrder order(corpus, Order::Documents, 5, 1, 1),
      other(corpus, Order::Documents, 6, 1, 1);
  std::vector<std::vector<int32_t>> epochs;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int32_t> read, otherRead;
    for (int64_t i = 0; i < corpus.size(); ++i) {
      const int64_t call = epoch * corpus.size() + i;
      EXPECT_EQ(order.position(call).epoch, epoch);
      EXPECT_EQ(order.position(call).index, i);
      EXPECT_EQ(order.startsFresh(call), i == 0);
      int32_t token, target;
      order.read(call, &token, &target);
      read.push_back(token);
      other.read(call, &token, &target);
      otherRead.push_back(token);
    }
    EXPECT_NE(read, otherRead);
    std::vector<int32_t> sorted = read, all(size_t(corpus.size()));
    corpus.read(0, corpus.size(), all.data());
    EXPECT_NE(read, all);
    std::sort(sorted.begin(), sorted.end());
    std::sort(all.begin(), all.end());
    EXPECT_EQ(sorted, all);
    // Documents stay whole: each number stands in one run behind its mark.
    std::set<int32_t> seen;
    for (size_t i = 1; i < read.size(); ++i)
      if (read[i] != 100 && read[i] != read[i - 1]) {
        EXPECT_EQ(read[i - 1], 100);
        EXPECT_TRUE(seen.insert(read[i]).second);
      }
    epochs.push_back(read);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST(BatchOrder, MeshAndPastDoNotMatter) {
  const Corpus corpus(listDataFiles({documentsFile(90, "d.tokens")}),
                      TokenType::Automatic, 200);
  const int64_t rows = 4, length = 6;
  for (Order kind : {Order::Stream, Order::Random, Order::Documents}) {
    const BatchOrder whole(corpus, kind, 3, rows, length, true);
    for (int64_t call = 0; call < 40; ++call) {
      const Batch wanted = readCall(whole, call, Box::whole({rows, length}));
      for (int64_t ranks : {1, 2, 4}) {
        // A loader that begins here, as after resuming on another mesh.
        const BatchOrder fresh(corpus, kind, 3, rows, length, true);
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const int64_t share = rows / ranks;
          const Batch part =
              readCall(fresh, call, Box{{rank * share, 0}, {share, length}});
          for (auto list : {&Batch::tokens, &Batch::targets, &Batch::resets})
            EXPECT_TRUE(
                std::equal((part.*list).begin(), (part.*list).end(),
                           (wanted.*list).begin() + rank * share * length));
        }
      }
    }
  }
}

TEST(BatchOrder, PackedRowsMarkWhereDocumentsBegin) {
  const Corpus corpus(listDataFiles({documentsFile(60, "d.tokens")}),
                      TokenType::Automatic, 200);
  const Box box = Box::whole({3, 8});
  for (Order kind : {Order::Stream, Order::Random, Order::Documents}) {
    const BatchOrder packed(corpus, kind, 3, 3, 8, true),
        plain(corpus, kind, 3, 3, 8);
    int64_t marks = 0;
    for (int64_t call = 0; call < 60; ++call) {
      const Batch got = readCall(packed, call, box),
                  off = readCall(plain, call, box);
      EXPECT_EQ(got.tokens, off.tokens);
      for (size_t i = 0; i < got.tokens.size(); ++i) {
        EXPECT_EQ(off.resets[i], 0);
        EXPECT_NE(off.targets[i], kIgnoredTarget);
        // In this corpus the token 100 begins documents and stands nowhere
        // else.
        EXPECT_EQ(got.resets[i], got.tokens[i] == 100);
        EXPECT_EQ(got.targets[i],
                  off.targets[i] == 100 ? kIgnoredTarget : off.targets[i]);
        marks += got.resets[i];
      }
    }
    EXPECT_GT(marks, 100);
  }
}
