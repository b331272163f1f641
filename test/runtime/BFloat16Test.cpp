// Conversions of bf16, and products of it.
#include "runtime/core/BFloat16.h"
#include "runtime/cpu/OneDnn.h"
#include "runtime/train/Tensors.h"
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <vector>

using namespace megalodon;

TEST(BFloat16, WidensExactly) {
  EXPECT_EQ(widen(BFloat16{0x3f80}), 1.0f);
  EXPECT_EQ(widen(BFloat16{0xc049}), -3.140625f);
  EXPECT_EQ(widen(BFloat16{0x0001}), std::ldexp(1.0f, -133));
}

TEST(BFloat16, RoundsToNearestTiesToEven) {
  EXPECT_EQ(narrow(1 + std::ldexp(1.0f, -8)).bits, 0x3f80);     // a tie, down
  EXPECT_EQ(narrow(1 + 3 * std::ldexp(1.0f, -8)).bits, 0x3f82); // a tie, up
  EXPECT_EQ(narrow(1 + std::ldexp(1.01f, -8)).bits, 0x3f81);
  EXPECT_EQ(narrow(std::ldexp(1.0f, -133)).bits, 1); // below the normal ones
  EXPECT_EQ(narrow(-0.0f).bits, 0x8000);
  EXPECT_EQ(narrow(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_EQ(narrow(-std::numeric_limits<float>::infinity()).bits, 0xff80);
  EXPECT_TRUE(std::isnan(widen(narrow(std::nanf("")))));
}

TEST(BFloat16, EveryNumberSurvives) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = widen(BFloat16{uint16_t(bits)});
    if (!std::isnan(value))
      ASSERT_EQ(narrow(value).bits, bits);
  }
}

TEST(OneDnn, ProductsOfBf16MatchTheNaiveProduct) {
  // Rows that lie apart, as those of a tile do.
  const int64_t m = 130, n = 37, k = 67, apart = 5;
  const cpu::OneDnn &library = cpu::OneDnn::get();
  for (bool transA : {false, true})
    for (bool transB : {false, true})
      for (float beta : {0.0f, 1.0f}) {
        const int64_t lda = (transA ? m : k) + apart,
                      ldb = (transB ? k : n) + apart, ldc = n + apart;
        auto numbers = [](int64_t rows, int64_t stride, float phase) {
          std::vector<BFloat16> list(size_t(rows * stride));
          for (size_t i = 0; i < list.size(); ++i)
            list[i] = narrow(std::sin(phase + float(i)));
          return list;
        };
        const std::vector<BFloat16> a = numbers(transA ? k : m, lda, 0),
                                    b = numbers(transB ? n : k, ldb, 1);
        std::vector<float> wide(size_t(m * ldc), 2), copies = wide;
        std::vector<BFloat16> rounded(size_t(m * ldc), narrow(2));
        library.product(transA, transB, m, n, k, a.data(), lda, b.data(), ldb,
                        beta, wide.data(), ldc);
        library.productOfCopies(transA, transB, m, n, k, a.data(), lda,
                                b.data(), ldb, beta, copies.data(), ldc);
        library.product(transA, transB, m, n, k, a.data(), lda, b.data(), ldb,
                        beta, rounded.data(), ldc);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < ldc; ++j) {
            double want = 2.0 * beta;
            for (int64_t x = 0; x < k; ++x)
              want +=
                  double(widen(a[size_t(transA ? x * lda + i : i * lda + x)])) *
                  widen(b[size_t(transB ? j % n * ldb + x : x * ldb + j % n)]);
            if (j >= n)
              want = 2; // what lies between the rows stays
            const size_t at = size_t(i * ldc + j);
            EXPECT_NEAR(wide[at], want, 1e-4);
            EXPECT_NEAR(copies[at], want, 1e-4);
            EXPECT_NEAR(widen(rounded[at]), want, 1e-4 + std::fabs(want) / 256);
          }
      }
}

TEST(Tensors, NumbersOfBf16) {
  std::vector<BFloat16> data(2);
  const TensorView view{"x",
                        ElementType::BF16,
                        {2},
                        reinterpret_cast<std::byte *>(data.data()),
                        4};
  storeNumber(view, 1, 1.0 / 3);
  EXPECT_EQ(data[1].bits, 0x3eab);
  EXPECT_EQ(loadNumber(view, 1), widen(BFloat16{0x3eab}));
}
