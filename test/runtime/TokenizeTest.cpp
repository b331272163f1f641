// megalodon-run tokenize: documents from text, JSON lines and folders, in order
// and whatever the number of threads.
#include "runtime/io/TokenFile.h"
#include "runtime/text/TokenizeFiles.h"
#include "test/runtime/ToyPlan.h"
#include <cstdlib>
#include <filesystem>
#include <sys/wait.h>

using namespace megalodon;
using namespace megalodon::test;
namespace fs = std::filesystem;

namespace {

/// Files of all kinds, a large one among them.
struct Tokenize : testing::Test {
  std::string folder = temporaryFolder("documents"),
              out = temporaryPath("out.tokens");
  TokenizeOptions options;

  Tokenize() {
    fs::create_directories(folder + "/b");
    writeText(folder + "/a.txt", "first");
    writeText(folder + "/b/1.jsonl",
              "{\"text\": \"second\", \"other\": 1}\n\n{\"text\": \"\"}\n"
              "{\"body\": \"b\", \"text\": \"third \\u00e9\"}");
    writeText(folder + "/b/2.txt", toyText(3 << 20));
    writeText(folder + "/empty.txt", "");
    options.inputs = {folder};
    options.threads = 1;
  }
  TokenizeCounts run() {
    return tokenizeFiles(*Tokenizer::open("bytes"), options, out);
  }
  /// The documents of `out`.
  std::vector<std::string> documents() const {
    const std::string bytes = readText(out);
    const TokenFileView file(bytes.data(), bytes.size(), out);
    file.verify();
    std::vector<std::string> list;
    for (int64_t i = 0; i < file.documents(); ++i) {
      list.emplace_back();
      for (int64_t at = file.begin(i); at < file.begin(i + 1); ++at)
        list.back() += char(file.token(at));
    }
    return list;
  }
};

} // namespace

TEST_F(Tokenize, KeepsDocumentsInOrder) {
  const TokenizeCounts counts = run();
  EXPECT_EQ(documents(),
            (std::vector<std::string>{"first", "second", "third \xC3\xA9",
                                      toyText(3 << 20)}));
  EXPECT_EQ(counts.files, 3);
  EXPECT_EQ(counts.documents, 4);
  EXPECT_EQ(counts.empty, 1);
  EXPECT_EQ(counts.bad, 0);
  EXPECT_EQ(counts.tokens, 5 + 6 + 8 + (3 << 20));
  EXPECT_EQ(counts.textBytes, counts.tokens);
  const std::string first = readText(out);
  for (int threads : {2, 5}) {
    options.threads = threads;
    run();
    EXPECT_EQ(readText(out), first);
  }
  options.inputs = {folder + "/b/1.jsonl", folder + "/a.txt"};
  options.field = "body";
  options.skipBad = true;
  EXPECT_EQ(run().bad, 2);
  EXPECT_EQ(documents(), (std::vector<std::string>{"b", "first"}));
}

TEST_F(Tokenize, NamesFileAndLineOfWhatIsNoDocument) {
  const std::string lines = folder + "/b/1.jsonl";
  auto refused = [&](const std::string &line, const std::string &reason) {
    writeText(lines, "{\"text\": \"good\"}\n" + line + "\n");
    fs::remove(out);
    EXPECT_ERROR(run(), lines + ": line 2: " + reason);
    EXPECT_FALSE(fs::exists(out));
  };
  refused("{\"text\": ", "not valid JSON at byte 10");
  refused("{\"text\": \"\xFF\"}", "not valid JSON at byte 11");
  refused("[1]", "expected a JSON object, got array");
  refused(std::string(1000000, '['),
          "expected at most 32 levels of nesting, got more");
  refused("{\"body\": \"x\"}", "field 'text' is missing: repair it or give "
                               "--skip-bad");
  refused("{\"text\": 5}", "field 'text': expected a string, got number");
  options.skipBad = true;
  EXPECT_EQ(run().bad, 1);
  EXPECT_EQ(documents()[1], "good");
}

TEST_F(Tokenize, RefusesWhatMakesNoTokenFile) {
  options.eos = true;
  EXPECT_ERROR(run(), "--append-eos: expected a tokenizer with a mark");
  options.eos = false;
  options.bos = true;
  EXPECT_ERROR(run(), "--bos: expected a tokenizer with a mark");
  options.bos = false;
  run();
  options.inputs = {out};
  EXPECT_ERROR(run(), out + ": expected text, got a token file");
  writeText(folder + "/none.jsonl", "{\"text\": \"\"}\n");
  options.inputs = {folder + "/none.jsonl"};
  EXPECT_ERROR(run(), "expected at least one document with text, got none");
  EXPECT_ERROR(parseDocumentFormat("csv"),
               "--format: expected auto, text or jsonl, got 'csv'");
}

TEST_F(Tokenize, IsACommand) {
  auto command = [&](const std::string &arguments) {
    const std::string text = temporaryPath("output");
    const int status = std::system(
        str(MEGALODON_RUN, " tokenize ", arguments, " >", text, " 2>&1")
            .c_str());
    return std::pair(WEXITSTATUS(status), readText(text));
  };
  const auto [code, report] = command(
      str("--tokenizer bytes --out ", out, " ", folder, " --threads 2"));
  EXPECT_EQ(code, 0) << report;
  EXPECT_NE(report.find("documents        4\ntokens           3,145,747\n"),
            std::string::npos)
      << report;
  EXPECT_NE(report.find("tokens/s"), std::string::npos);
  EXPECT_EQ(documents().size(), 4u);

  writeText(folder + "/b/1.jsonl", "{\"text\": 5}");
  const auto [refused, why] =
      command(str("--tokenizer bytes --out ", out, " ", folder));
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(why, str("megalodon-run: error: ", folder,
                     "/b/1.jsonl: line 1: field 'text': expected a string, "
                     "got number: repair it or give --skip-bad\n"));
}

#ifdef MEGALODON_TEST_SENTENCEPIECE
// A machine without the library: one that cannot be loaded stands in its way.
TEST_F(Tokenize, SaysThatTheLibraryIsMissing) {
  const std::string broken = temporaryFolder("broken");
  writeText(broken + "/libsentencepiece.so.0", "no library");
  auto command = [&](const std::string &tokenizer) {
    const std::string text = temporaryPath("output");
    const int status =
        std::system(str("LD_LIBRARY_PATH=", broken, " ", MEGALODON_RUN,
                        " tokenize --tokenizer ", tokenizer, " --out ", out,
                        " ", folder, " >", text, " 2>&1")
                        .c_str());
    return std::pair(WEXITSTATUS(status), readText(text));
  };
  EXPECT_EQ(command("bytes").first, 0);
  writeText(folder + "/x.model", "a model");
  const auto [code, why] = command(folder + "/x.model");
  EXPECT_EQ(code, 1);
  EXPECT_NE(why.find("needs the library libsentencepiece.so.0"),
            std::string::npos)
      << why;
  EXPECT_NE(why.find("install libsentencepiece0"), std::string::npos) << why;
}
#endif
