// Malformed safetensors files are refused with file and tensor; well-formed
// ones convert to the types variables have.
#include "runtime/io/Safetensors.h"
#include "runtime/core/Error.h"
#include "test/runtime/TestPlan.h"
#include <cmath>
#include <cstring>
#include <filesystem>

using namespace megalodon;
using namespace megalodon::test;

/// A file with this header and `bytes` bytes of data.
static std::string fileOf(const std::string &header, size_t bytes) {
  const std::string path = temporaryPath("safetensors");
  const uint64_t length = header.size();
  std::string text(reinterpret_cast<const char *>(&length), 8);
  writeText(path, text + header + std::string(bytes, '\0'));
  return path;
}

static std::string refusal(const std::string &header, size_t bytes) {
  const std::string path = fileOf(header, bytes),
                    message = messageOf([&] { SafetensorsFile file(path); });
  EXPECT_EQ(message.rfind(path + ": ", 0), 0u) << message;
  return message;
}

TEST(Safetensors, RefusesMalformedFiles) {
  const char *good =
      R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";
  SafetensorsFile file(fileOf(good, 24));
  EXPECT_EQ(file.find("a")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.find("b"), nullptr);
  // Whoever printed that by recursion would run out of stack.
  const std::string deep = R"({"a":{"shape":)" + std::string(1 << 20, '[');
  struct {
    const char *header;
    size_t bytes;
    const char *expected;
  } cases[] = {
      {good, 23,
       "tensor 'a': field 'data_offsets': expected a range inside the file's "
       "23 bytes"},
      {good, 25, "expected 24 bytes of tensor data, got 25"},
      {R"([])", 0, "to be a JSON object, got array"},
      {deep.c_str(), 0, "expected at most 32 levels of nesting"},
      {R"({"a":{"dtype":"F32","shape":[1152921504606846976,0,64],)"
       R"("data_offsets":[0,0]}})",
       0, "tensor 'a': expected fewer bytes"},
      {R"({"a":)", 0, "not valid JSON"},
      {R"({"a":1})", 0, "tensor 'a': expected an object, got number"},
      {R"({"a":{"shape":[],"data_offsets":[0,4]}})", 4,
       "tensor 'a': field 'dtype' is missing"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4,
       "field 'shape' is missing"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4,
       "field 'data_offsets' is missing"},
      {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4,
       "field 'dtype': unknown type 'F33'"},
      {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4,
       "field 'dtype': expected a string, got number"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4,
       "field 'shape': expected an array of sizes, got [-1]"},
      {R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4,
       "field 'shape': expected an array of sizes, got 1"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       "expected 8 bytes for F32 [2], got 4"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}})",
       4, "expected fewer bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4,
       "expected a range"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4,
       "expected two offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e30]}})", 4,
       "expected two offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
       "expected data to begin at 0, got 4 (leaves a hole)"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8,
       "tensor 'b': field 'data_offsets': expected data to begin at 8, got 4 "
       "(overlaps its predecessor)"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "name 'a' stands twice"},
      {R"({"__metadata__":{"x":1}})", 0,
       "field '__metadata__.x': expected a string, got number"},
      {R"({"__metadata__":1})", 0,
       "field '__metadata__': expected an object, got number"},
  };
  for (const auto &malformed : cases) {
    const std::string message = refusal(malformed.header, malformed.bytes);
    EXPECT_NE(message.find(malformed.expected), std::string::npos)
        << "expected '" << malformed.expected << "', got '" << message << "'";
  }
}

TEST(Safetensors, RefusesTruncatedFiles) {
  const std::string path = temporaryPath("short");
  writeText(path, "");
  EXPECT_ERROR(SafetensorsFile file(path), "expected at least 8 bytes, got 0");
  writeText(path, std::string("\x20\0\0\0\0\0\0\0{}", 10));
  EXPECT_ERROR(SafetensorsFile file(path),
               "expected a header of 32 bytes, got 2");
  writeText(path, std::string(16, '\xff'));
  EXPECT_ERROR(SafetensorsFile file(path),
               "expected a header of 18446744073709551615 bytes, got 8");
}

TEST(Safetensors, WritesWhatItReads) {
  const std::string path = temporaryPath("safetensors");
  float weights[6] = {1, 2, 3, 4, 5, 6};
  int64_t step = 7;
  const TensorView w{"w",
                     ElementType::F32,
                     {2, 3},
                     reinterpret_cast<std::byte *>(weights),
                     24};
  const TensorView s{
      "step", ElementType::I64, {}, reinterpret_cast<std::byte *>(&step), 8};
  const TensorView none{"none", ElementType::F64, {0, 4}, nullptr, 0};
  writeSafetensors(path, {w, none, s}, {{"config", "{\"x\": 1}"}});
  EXPECT_EQ((*reinterpret_cast<const uint64_t *>(readText(path).data())) % 8,
            0u)
      << "the header is padded";
  SafetensorsFile file(path);
  EXPECT_EQ(file.metadata().at("config"), "{\"x\": 1}");
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.find("none")->bytes, 0u);
  float back[6];
  file.read(
      *file.find("w"),
      {"w", ElementType::F32, {2, 3}, reinterpret_cast<std::byte *>(back), 24});
  EXPECT_EQ(std::memcmp(weights, back, 24), 0);
  EXPECT_ERROR(writeSafetensors(path, {w, w}),
               "tensor 'w' would be written twice");
}

TEST(Safetensors, ConvertsToTheVariablesType) {
  const std::string path = temporaryPath("safetensors");
  const uint16_t brain[2] = {0x3f80, 0xc040},
                 half[3] = {0x3c00, 0xc200, 0x0001};
  const int64_t wide[2] = {5, int64_t(1) << 40};
  std::string data(reinterpret_cast<const char *>(brain), 4);
  data.append(reinterpret_cast<const char *>(wide), 16)
      .append(reinterpret_cast<const char *>(half), 6);
  const std::string header =
      R"({"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"i":{"dtype":"I64","shape":[2],"data_offsets":[4,20]},)"
      R"("h":{"dtype":"F16","shape":[3],"data_offsets":[20,26]}})";
  const uint64_t length = header.size();
  writeText(path, std::string(reinterpret_cast<const char *>(&length), 8) +
                      header + data);
  SafetensorsFile file(path);
  float single[3];
  double twice[3];
  auto view = [](ElementType type, std::vector<int64_t> shape, void *at) {
    return TensorView{"x", type, std::move(shape), static_cast<std::byte *>(at),
                      0};
  };
  file.read(*file.find("b"), view(ElementType::F32, {2}, single));
  EXPECT_EQ(single[0], 1.0f);
  EXPECT_EQ(single[1], -3.0f);
  file.read(*file.find("h"), view(ElementType::F64, {3}, twice));
  EXPECT_EQ(twice[0], 1.0);
  EXPECT_EQ(twice[1], -3.0);
  EXPECT_EQ(twice[2], std::ldexp(1.0, -24));
  int32_t narrow[2];
  EXPECT_ERROR(
      file.read(*file.find("i"), view(ElementType::I32, {2}, narrow)),
      path +
          ": tensor 'i': value 1099511627776 at position 1 does not fit I32");
  EXPECT_ERROR(file.read(*file.find("i"), view(ElementType::F32, {2}, narrow)),
               "tensor 'i': expected type F32, got I64");
  EXPECT_ERROR(
      file.read(*file.find("b"), view(ElementType::F32, {1, 2}, single)),
      "tensor 'b': expected shape [1, 2], got [2]");
}

TEST(Safetensors, ReadsBoxesWithZeroPadding) {
  const std::string path = temporaryPath("safetensors");
  std::vector<int64_t> numbers(3 * 4 * 5);
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = int64_t(i) + 1;
  writeSafetensors(path, {{"t",
                           ElementType::I64,
                           {3, 4, 5},
                           reinterpret_cast<std::byte *>(numbers.data()),
                           numbers.size() * 8}});
  SafetensorsFile file(path);
  const std::vector<int64_t> shape = {3, 4, 5};
  const Box boxes[] = {Box::whole(shape),
                       {{0, 0, 3}, {3, 4, 3}},  // the last column is padding
                       {{2, 0, 0}, {2, 4, 5}},  // the last two rows are
                       {{1, 2, 0}, {1, 2, 5}},  // one run
                       {{0, 3, 1}, {2, 3, 2}},  // padding in the middle
                       {{0, 0, 5}, {3, 4, 5}},  // nothing but padding
                       {{4, 0, 0}, {2, 4, 5}}}; // likewise
  for (const Box &box : boxes) {
    // Same type, and converted.
    std::vector<int64_t> wide(size_t(box.elements()), -1);
    std::vector<int32_t> narrow(size_t(box.elements()), -1);
    file.read(*file.find("t"),
              {"t", ElementType::I64, box.extent,
               reinterpret_cast<std::byte *>(wide.data()), wide.size() * 8},
              shape, box);
    file.read(*file.find("t"),
              {"t", ElementType::I32, box.extent,
               reinterpret_cast<std::byte *>(narrow.data()), narrow.size() * 4},
              shape, box);
    size_t element = 0;
    for (int64_t i = 0; i < box.extent[0]; ++i)
      for (int64_t j = 0; j < box.extent[1]; ++j)
        for (int64_t k = 0; k < box.extent[2]; ++k, ++element) {
          const int64_t at[] = {box.offset[0] + i, box.offset[1] + j,
                                box.offset[2] + k};
          const bool inside = at[0] < 3 && at[1] < 4 && at[2] < 5;
          const int64_t wanted =
              inside ? (at[0] * 4 + at[1]) * 5 + at[2] + 1 : 0;
          EXPECT_EQ(wide[element], wanted);
          EXPECT_EQ(narrow[element], wanted);
        }
  }
  double scalar = 0;
  const TensorView one{
      "s", ElementType::F64, {}, reinterpret_cast<std::byte *>(&scalar), 8};
  double stored = 0.5;
  writeSafetensors(
      path,
      {{"s", ElementType::F64, {}, reinterpret_cast<std::byte *>(&stored), 8}});
  SafetensorsFile other(path);
  other.read(*other.find("s"), one, {}, Box::whole({}));
  EXPECT_EQ(scalar, 0.5);
  EXPECT_ERROR(other.read(*other.find("s"), one, {2}, Box{{0}, {1}}),
               path + ": tensor 's': expected shape [2], got []");
}

namespace {
/// Two files with tensors a, b and c, and an index of them.
struct IndexTest : testing::Test {
  std::string folder = temporaryPath("folder"),
              index = folder + "/model.safetensors.index.json",
              first = folder + "/model-00001-of-00002.safetensors",
              second = folder + "/model-00002-of-00002.safetensors";
  float numbers[3] = {1, 2, 3};

  void SetUp() override {
    std::filesystem::create_directories(folder);
    writeSafetensors(first, {view("a", 0), view("c", 2)});
    writeSafetensors(second, {view("b", 1)});
    list({{"a", 1}, {"b", 2}, {"c", 1}});
  }
  TensorView view(const char *name, int at) {
    return {name,
            ElementType::F32,
            {1},
            reinterpret_cast<std::byte *>(numbers + at),
            4};
  }
  void list(const std::vector<std::pair<const char *, int>> &map) {
    std::string text;
    for (auto &[name, part] : map)
      text += str(text.empty() ? "" : ",", '"', name, "\":\"model-0000", part,
                  "-of-00002.safetensors\"");
    writeText(index, "{\"metadata\":{\"total_size\":12},\"weight_map\":{" +
                         text + "}}");
  }
};
} // namespace

TEST_F(IndexTest, ReadsAllFilesAsOne) {
  SafetensorsFile file(index);
  EXPECT_EQ(file.path(), index);
  EXPECT_EQ(file.tensors().size(), 3u);
  int i = 0;
  for (const char *name : {"a", "b", "c"}) {
    float number = 0;
    ASSERT_NE(file.find(name), nullptr);
    file.read(*file.find(name), {name,
                                 ElementType::F32,
                                 {1},
                                 reinterpret_cast<std::byte *>(&number),
                                 4});
    EXPECT_EQ(number, numbers[i++]);
  }
  EXPECT_EQ(file.pathOf(*file.find("b")), second);
}

TEST_F(IndexTest, RefusesWhatDoesNotFit) {
  auto refusal = [&] {
    return messageOf([&] { SafetensorsFile file(index); });
  };
  list({{"a", 1}, {"b", 2}});
  EXPECT_EQ(refusal(), first + ": tensor 'c' is not listed in " + index);
  list({{"a", 1}, {"b", 2}, {"c", 2}});
  EXPECT_EQ(refusal(), index + ": tensor 'c': expected in " + second +
                           ", got in " + first);
  list({{"a", 1}, {"b", 2}, {"c", 1}, {"d", 2}});
  EXPECT_EQ(refusal(),
            second + ": expected tensor 'd' as " + index + " says, got none");
  list({{"a", 1}, {"b", 2}, {"c", 1}, {"c", 1}});
  EXPECT_EQ(refusal(), index + ": name 'c' stands twice in the index");
  list({{"a", 1}, {"b", 3}, {"c", 1}});
  EXPECT_NE(refusal().find("model-00003-of-00002.safetensors: cannot open"),
            std::string::npos);
  writeText(index, R"({"weight_map":{"a":"../a.safetensors"}})");
  EXPECT_EQ(refusal(),
            index + ": field 'weight_map.a': expected the name of a file "
                    "beside this one, got \"../a.safetensors\"");
  writeText(index, "{}");
  EXPECT_EQ(refusal(),
            index + ": field 'weight_map': expected an object, got nothing");
  writeText(index, "{");
  EXPECT_NE(refusal().find(index + ": the index is not valid JSON"),
            std::string::npos);
}
