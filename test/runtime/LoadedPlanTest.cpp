// Damaged and inconsistent plans are refused with a message that names the file
// and the field.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "test/runtime/TestPlan.h"
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

using namespace megalodon;
using namespace megalodon::test;

static void parse(const std::vector<uint8_t> &bytes) {
  plan::LoadedPlan::parse("test.plan", bytes.data(), bytes.size());
}

/// Rewrites the header's fields by edit(header) and seals the file again.
template <typename Edit>
static std::vector<uint8_t> withHeader(Edit edit, bool reseal) {
  std::vector<uint8_t> bytes = buildPlan();
  plan::Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  edit(header);
  if (reseal)
    std::memcpy(header.digest,
                plan::planDigest(header, bytes.data() + sizeof(header)).data(),
                sizeof(header.digest));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

TEST(LoadedPlan, AcceptsAWholePlan) {
  auto plan = loadPlan();
  EXPECT_EQ(plan->functions.size(), 2u);
  EXPECT_EQ(plan->parameterCount(), 72);
  EXPECT_EQ(plan->findFunction("step"), 1);
  EXPECT_EQ(plan->findFunction("none"), -1);
  EXPECT_EQ(plan->functions[0].programs[0].commandCount(), 5u);
  EXPECT_EQ(plan->digest.size(), 64u);
}

TEST(LoadedPlan, RefusesEveryTruncation) {
  const std::vector<uint8_t> bytes = buildPlan();
  for (size_t size = 0; size < bytes.size(); size += size < 256 ? 1 : 997)
    EXPECT_ERROR(parse({bytes.begin(), bytes.begin() + size}), "test.plan: ");
  std::vector<uint8_t> longer = bytes;
  longer.push_back(0);
  EXPECT_ERROR(parse(longer), "payload: expected");
}

TEST(LoadedPlan, RefusesEveryFlippedByte) {
  const std::vector<uint8_t> bytes = buildPlan();
  for (size_t position = 0; position < bytes.size();
       position += position < 256 ? 1 : 499) {
    std::vector<uint8_t> flipped = bytes;
    flipped[position] ^= 0x10;
    EXPECT_ERROR(parse(flipped), "test.plan: ");
  }
}

TEST(LoadedPlan, SurvivesDamageUnderAValidDigest) {
  // The verifier and the checks, not only the digest, must keep a bad plan from
  // crashing the loader.
  const std::vector<uint8_t> bytes = buildPlan();
  const size_t header = sizeof(plan::Header),
               tables = std::min<size_t>(bytes.size() - header, 4096);
  for (size_t position = 0; position < tables; ++position) {
    std::vector<uint8_t> payload(bytes.begin() + header, bytes.end());
    payload[payload.size() - tables + position] ^= 0xff;
    messageOf(
        [&] { parse(plan::sealPlan(payload.data(), payload.size(), 1)); });
    payload.assign(bytes.begin() + header, bytes.end());
    payload[position] ^= 0x80;
    messageOf(
        [&] { parse(plan::sealPlan(payload.data(), payload.size(), 1)); });
  }
}

TEST(LoadedPlan, ChecksTheHeader) {
  EXPECT_ERROR(parse(withHeader(
                   [](plan::Header &header) { header.magic[0] = 'X'; }, true)),
               "not a plan");
  EXPECT_ERROR(
      parse(withHeader([](plan::Header &header) { header.version = 9; }, true)),
      "plan version: expected 3, got 9");
  EXPECT_ERROR(
      parse(withHeader([](plan::Header &header) { header.headerBytes = 32; },
                       true)),
      "header size: expected 64, got 32");
  EXPECT_ERROR(parse(withHeader(
                   [](plan::Header &header) { header.features = 17; }, true)),
               "feature bits 16");
  EXPECT_ERROR(parse(withHeader(
                   [](plan::Header &header) { header.features = 0; }, false)),
               "digest");
  EXPECT_ERROR(plan::LoadedPlan::open("/nonexistent/x.plan"),
               "/nonexistent/x.plan: cannot open: No such file");
}

TEST(LoadedPlan, DoesNotLoadCodeThatWasAltered) {
  if (onCuda())
    GTEST_SKIP() << "of code for the cpu";
  auto isCodeLoaded = [] {
    std::ifstream maps("/proc/self/maps");
    const std::string text{std::istreambuf_iterator<char>(maps), {}};
    return text.find("memfd:megalodon-kernels") != text.npos;
  };
  const std::string path = temporaryPath("plan");
  std::vector<uint8_t> bytes = buildPlan();
  auto write = [&] {
    writeText(path,
              {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  };
  write();
  {
    const Session session(plan::LoadedPlan::open(path), {1});
    EXPECT_TRUE(isCodeLoaded());
  }
  // A letter of the name of a section, say: the code would still run.
  const std::string code = readText(TEST_KERNELS);
  auto at = std::search(bytes.begin(), bytes.end(), code.begin(), code.end(),
                        [](uint8_t a, char b) { return a == uint8_t(b); });
  ASSERT_NE(at, bytes.end());
  at[int64_t(code.size()) - 1] ^= 1;
  write();
  EXPECT_ERROR(Session(plan::LoadedPlan::open(path), {1}),
               "corrupt plan: digest: expected ");
  EXPECT_FALSE(isCodeLoaded());
  // Who trusts it gets it.
  const auto trusted = plan::LoadedPlan::open(path, Trust::Assume);
  EXPECT_EQ(trusted->object.size(), code.size());
}

TEST(LoadedPlan, RefusesASmallFileThatWouldFillTheMemory) {
  flatbuffers::FlatBufferBuilder builder;
  const std::string source(1 << 20, 'x');
  const auto kernel =
      plan::fb::CreateKernelDirect(builder, "k", 0, source.c_str());
  const std::vector<flatbuffers::Offset<plan::fb::Kernel>> kernels(100'000,
                                                                   kernel);
  const std::vector<flatbuffers::Offset<plan::fb::Variable>> variables;
  const std::vector<flatbuffers::Offset<plan::fb::Function>> functions;
  plan::fb::FinishPlanBuffer(
      builder, plan::fb::CreatePlanDirect(builder, "test", "{}", "toy", "f32",
                                          "cpu", nullptr, nullptr, 1, 1, 1, 1,
                                          &variables, &kernels, &functions));
  EXPECT_ERROR(
      parse(plan::sealPlan(builder.GetBufferPointer(), builder.GetSize(), 0)),
      "corrupt plan: payload: the same parts of it are used over and over");
}

TEST(LoadedPlan, RefusesNumbersThatAreNotAligned) {
  const std::vector<uint8_t> bytes = buildPlan();
  plan::Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::vector<uint8_t> payload(bytes.begin() + sizeof(header), bytes.end());
  const auto *variables = plan::fb::GetPlan(payload.data())->variables();
  const plan::fb::Variable *last = variables->Get(variables->size() - 1);
  const uint8_t *offset =
      reinterpret_cast<const flatbuffers::Table *>(last)->GetAddressOf(
          plan::fb::Variable::VT_SHAPE);
  // The shape begins four bytes later: its first extent is now its length.
  flatbuffers::WriteScalar(
      &payload[size_t(offset - payload.data())],
      flatbuffers::ReadScalar<flatbuffers::uoffset_t>(offset) + 4);
  EXPECT_ERROR(
      parse(plan::sealPlan(payload.data(), payload.size(), header.features)),
      "a list of 8-byte numbers is not aligned to them");
}

template <typename Edit> static std::string refusal(Edit edit) {
  Damage damage;
  edit(damage);
  return messageOf([&] { loadPlan(damage); });
}

TEST(LoadedPlan, ChecksIndicesRangesAndExtents) {
  if (onCuda())
    GTEST_SKIP() << "of plans for the cpu";
  struct {
    std::string message;
    const char *expected;
  } cases[] = {
      {refusal([](Damage &d) { d.kernel = 4; }),
       "kernel 4 is out of range (4 kernels)"},
      {refusal([](Damage &d) { d.argument = 6; }),
       "args: buffer 6 is out of range (6 buffers)"},
      {refusal([](Damage &d) { d.outputVariable = 70; }),
       "outputs: variable 70 is out of range"},
      {refusal([](Damage &d) { d.outputVariable = 3; }),
       "name 'state.count' stands twice"},
      {refusal([](Damage &d) { d.productA = 9; }),
       "product.a: buffer 9 is out of range"},
      {refusal([](Damage &d) { d.productA = 2; }),
       "product.a: expected a buffer for 32 x 8 F32, got 256 bytes"},
      {refusal([](Damage &d) { d.productA = 3; }),
       "product.c: overlaps an operand"},
      {refusal([](Damage &d) { d.productN = 0; }),
       "product.n: expected -1 or a positive size, got 0"},
      {refusal([](Damage &d) { d.productN = INT64_MAX; }),
       "product.n: expected -1 or a positive size"},
      {refusal([](Damage &d) { d.productN = 9; }),
       "product.b: expected a buffer for 8 x 9 F32"},
      {refusal([](Damage &d) { d.tileM = 0; }),
       "expected positive tiles, got 0 x 5"},
      {refusal([](Damage &d) { d.divisor = 0; }),
       "grid: expected a positive factor and divisor"},
      {refusal([](Damage &d) { d.grid = false; }), "grid: is missing"},
      {refusal([](Damage &d) { d.arenaOffset = 1088; }),
       "expected a range inside 2048 bytes, got 1024 bytes at 1088"},
      {refusal([](Damage &d) { d.arenaOffset = UINT64_MAX - 63; }),
       "expected a range inside 2048 bytes"},
      {refusal([](Damage &d) { d.arenaOffset = 1025; }),
       "expected a multiple of 64, got 1025"},
      {refusal([](Damage &d) { d.copyBytes = 33; }),
       "copy_start.bytes: expected at most 1024 bytes, got 33 x 32"},
      {refusal([](Damage &d) { d.copyBytes = UINT64_MAX; }),
       "copy_start.bytes"},
      {refusal([](Damage &d) { d.waitEvent = 8; }), "event 8 was not started"},
      {refusal([](Damage &d) { d.copyQueue = 8; }),
       "queue: expected one below 8, got 8"},
      {refusal([](Damage &d) { d.waitQueue = 1; }),
       "queue: expected 0 for what nobody waits for, got 1"},
      {refusal([](Damage &d) { d.updateSegment = 3; }),
       "update_actions[0].segment: segment 3 is out of range (2 segments)"},
      {refusal([](Damage &d) { d.outShape0 = 3; }),
       "'out': expected 2 rows, got 3"},
      {refusal([](Damage &d) { d.outShape0 = 0; }),
       "'out'.shape: expected positive sizes"},
      {refusal([](Damage &d) { d.outShape0 = INT64_MAX; }),
       "'out'.shape: expected positive sizes"},
      {refusal([](Damage &d) { d.role = 42; }), "'out'.role: unknown value 42"},
      {refusal([](Damage &d) { d.role = int8_t(plan::fb::Role::FirstMoment); }),
       "variable 'out'.dynamic"},
      {refusal([](Damage &d) { d.library = "other"; }),
       "library: expected 'onednn', got 'other'"},
      {refusal([](Damage &d) { d.features = 0; }),
       "lacks the feature bit of onednn"},
      {refusal([](Damage &d) { d.target = "cuda"; }),
       "target: 'cuda' is not what the header's feature bits say"},
      {refusal([](Damage &d) { d.target = "tpu"; }),
       "target: expected 'cpu' or 'cuda', got 'tpu'"},
      {refusal([](Damage &d) { d.object = false; }),
       "object: expected the code of 4 kernels"},
      {refusal([](Damage &d) { d.scratchBytes = UINT64_MAX; }),
       "scratch_bytes"},
  };
  for (const auto &refused : cases)
    EXPECT_NE(refused.message.find(refused.expected), std::string::npos)
        << "expected '" << refused.expected << "', got '" << refused.message
        << "'";
}
