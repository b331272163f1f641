// Weights are complete, of the right shape, finite, and nothing else; ids are
// inside the vocabulary.
#include "runtime/io/Weights.h"
#include "runtime/core/Error.h"
#include "test/runtime/TestPlan.h"
#include <cmath>

using namespace megalodon;
using namespace megalodon::test;

namespace {

struct WeightsTest : testing::Test {
  std::string path = temporaryPath("safetensors");
  std::vector<float> w = std::vector<float>(64, 1.0f),
                     bias = std::vector<float>(8, 2.0f);
  Session session{loadPlan(), {1}};

  static TensorView view(const char *name, std::vector<int64_t> shape,
                         std::vector<float> &data) {
    return {name, ElementType::F32, std::move(shape),
            reinterpret_cast<std::byte *>(data.data()), data.size() * 4};
  }
  void read(const std::vector<TensorView> &tensors) {
    writeSafetensors(path, tensors);
    readWeights(session, SafetensorsFile(path));
  }
};

} // namespace

TEST_F(WeightsTest, ReadsAllParameters) {
  std::vector<float> buffer(4);
  read({view("w", {8, 8}, w), view("bias", {8}, bias),
        view("rope.freqs", {4}, buffer),
        view("layers.0.prior_mean", {4}, buffer)});
  EXPECT_EQ(reinterpret_cast<const float *>(session.parameters()[1].read())[7],
            2.0f);
}

TEST_F(WeightsTest, NamesWhatIsWrong) {
  EXPECT_ERROR(read({view("w", {8, 8}, w)}),
               path + ": expected all 2 tensors of test.plan, missing 'bias'");
  EXPECT_ERROR(read({view("w", {8, 8}, w), view("bias", {8}, bias),
                     view("extra", {8}, bias)}),
               "got 'extra'");
  EXPECT_ERROR(read({view("w", {64}, w), view("bias", {8}, bias)}),
               "tensor 'w': expected shape [8, 8], got [64]");
  w[10] = NAN;
  EXPECT_ERROR(read({view("w", {8, 8}, w), view("bias", {8}, bias)}),
               path + ": tensor 'w': value at [1, 2] is not finite");
}

TEST_F(WeightsTest, ChecksIds) {
  int32_t ids[4] = {0, 7, -100, 8};
  TensorView tensor{"targets",
                    ElementType::I32,
                    {2, 2},
                    reinterpret_cast<std::byte *>(ids),
                    16};
  EXPECT_ERROR(
      requireIds("in", tensor, 8, -100),
      "in: tensor 'targets': expected ids from 0 to 7, got 8 at [1, 1]");
  ids[3] = 1;
  requireIds("in", tensor, 8, -100);
  EXPECT_ERROR(requireIds("in", tensor, 8, 0), "got -100 at [1, 0]");
}
