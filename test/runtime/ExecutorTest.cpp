// Runs the hand-built plan: kernels, products, copies, state, halves of a step;
// the same bits for any number of threads.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/cpu/OneDnn.h"
#include "test/runtime/TestPlan.h"
#include <cmath>
#include <cstring>

using namespace megalodon;
using namespace megalodon::test;

static float *floats(const TensorView &view) {
  return reinterpret_cast<float *>(view.write());
}

static float number(const TensorView &view, size_t element) {
  return reinterpret_cast<const float *>(view.read())[element];
}

static void fill(const TensorView &view, float phase) {
  for (size_t i = 0; i < view.bytes / 4; ++i)
    floats(view)[i] = std::sin(phase + 0.37f * float(i));
}

/// out of `forward` for a call of this shape, the same for every call.
static std::vector<float> forward(int threads, CallShape shape) {
  Session session(loadPlan(), {threads, /*poison=*/true});
  const size_t function = session.function("forward");
  fill(session.parameters()[0], 0.1f);
  fill(session.variable(function, "in", shape), 0.7f);
  const TensorView out = session.variable(function, "out", shape);
  std::vector<float> result;
  for (int call = 0; call < 3; ++call) {
    session.run(function, shape);
    const auto *data = reinterpret_cast<const float *>(out.read());
    const std::vector<float> got(data, data + out.bytes / 4);
    if (call > 0)
      EXPECT_EQ(std::memcmp(got.data(), result.data(), out.bytes), 0);
    result = got;
  }
  return result;
}

TEST(Executor, MatchesTheNaiveResult) {
  for (CallShape shape :
       {CallShape{2, 16}, CallShape{1, 16}, CallShape{2, 5}, CallShape{1, 1}}) {
    const std::vector<float> got = forward(2, shape);
    ASSERT_EQ(got.size(), size_t(shape.batch * shape.length * 8));
    for (int64_t token = 0; token < shape.batch * shape.length; ++token)
      for (int64_t n = 0; n < 8; ++n) {
        double want = 0;
        for (int64_t k = 0; k < 8; ++k)
          want += (3.0 * std::sin(0.7f + 0.37f * float(token * 8 + k)) + 1.0) *
                  std::sin(0.1f + 0.37f * float(n * 8 + k));
        EXPECT_NEAR(got[size_t(token * 8 + n)], want, 1e-5);
      }
  }
}

TEST(Executor, ThreadsChangeNothing) {
  const std::vector<float> one = forward(1, {2, 16});
  for (int threads : {2, 3, 4})
    EXPECT_EQ(std::memcmp(one.data(), forward(threads, {2, 16}).data(),
                          one.size() * 4),
              0)
        << threads;
}

TEST(Executor, StateIsCarriedPerRow) {
  Session session(loadPlan(), {2});
  const size_t function = session.function("forward");
  session.run(function, {2, 16});
  session.run(function, {1, 3});
  auto count = [&](int row) {
    return reinterpret_cast<const int64_t *>(
        session.variable(function, "state.count").read())[row];
  };
  EXPECT_EQ(count(0), 19);
  EXPECT_EQ(count(1), 16);
  session.resetState(function);
  EXPECT_EQ(count(0), 0);
  EXPECT_EQ(session.variable(function, "state.count", {1, 3}).shape,
            std::vector<int64_t>{1});
}

TEST(Executor, HalvesAndAccumulation) {
  Session session(loadPlan(), {2});
  const size_t function = session.function("step");
  const TensorView in = session.variable(function, "in"),
                   gradient = session.variable(function, "grad.bias"),
                   bias = session.variable(function, "bias");
  for (size_t i = 0; i < in.bytes / 4; ++i)
    floats(in)[i] = 1.0f;
  // Often enough that what a device keeps of a call is used again.
  for (int round = 0; round < 4; ++round) {
    session.run(function, {}, Half::Compute, false);
    session.run(function, {}, Half::Compute, true);
    EXPECT_EQ(number(gradient, 3), 64.0f);
    EXPECT_EQ(number(bias, 3), -96.0f * float(round));
    session.run(function, {}, Half::Update);
    EXPECT_EQ(number(bias, 3), -96.0f * float(round) - 64.0f);
    session.run(function);
    EXPECT_EQ(number(gradient, 7), 32.0f);
    EXPECT_EQ(number(bias, 7), -96.0f * float(round + 1));
  }
  EXPECT_EQ(bias.read(), session.parameters()[1].read())
      << "parameters are one memory for all functions";
}

TEST(Executor, InputsOfTheNextCallCanBeWrittenEarly) {
  Session session(loadPlan(), {2});
  const size_t function = session.function("step");
  const TensorView in = session.variable(function, "in"),
                   gradient = session.variable(function, "grad.bias");
  auto write = [&](int call) {
    auto *data = reinterpret_cast<float *>(in.overwrite());
    for (size_t i = 0; i < in.bytes / 4; ++i)
      data[i] = float(call);
    if (call % 3)
      in.flush();
  };
  write(0);
  for (int call = 0; call < 12; ++call) {
    session.run(function, {}, Half::Compute);
    if (call % 5 == 4) { // changes its mind
      write(100);
      write(call + 1);
    }
    write(call + 1);
    EXPECT_EQ(number(gradient, 2), 32.0f * float(call));
  }
}

TEST(Executor, PartsOfTensorsAreReadAndWritten) {
  Session session(loadPlan(), {2});
  const size_t function = session.function("forward");
  fill(session.parameters()[0], 0.1f);
  session.run(function, {2, 16});
  // A smaller call's tensor is the front of the larger one's memory.
  const TensorView small = session.variable(function, "in", {1, 3}),
                   large = session.variable(function, "in", {2, 16});
  for (size_t i = 0; i < large.bytes / 4; ++i)
    floats(large)[i] = float(i);
  session.run(function, {2, 16});
  for (size_t i = 0; i < small.bytes / 4; ++i)
    floats(small)[i] = -1.0f;
  session.run(function, {1, 3});
  for (size_t i = 0; i < large.bytes / 4; ++i)
    EXPECT_EQ(number(large, i), i < small.bytes / 4 ? -1.0f : float(i));
  small.zero();
  EXPECT_EQ(number(small, 0), 0.0f);
  large.write()[0] = std::byte{1};
  EXPECT_NE(number(small, 0), 0.0f);
}

TEST(Executor, OptionalInputsHaveDefaults) {
  Session session(loadPlan(), {1});
  const size_t function = session.function("step");
  const TensorView scale = session.variable(function, "loss_scale");
  EXPECT_EQ(number(scale, 0), 0.25f);
  *floats(scale) = 1;
  session.resetOptionalInputs(function);
  EXPECT_EQ(number(scale, 0), 0.25f);
}

TEST(Executor, RefusesWrongCalls) {
  Session session(loadPlan(), {1});
  EXPECT_ERROR(
      session.function("none"),
      "test.plan: the plan has no function 'none', only 'forward', 'step'");
  EXPECT_ERROR(session.run(0, {3, 16}),
               "function 'forward': batch: expected between 1 and 2, got 3");
  EXPECT_ERROR(session.run(0, {2, 17}),
               "length: expected between 1 and 16, got 17");
  EXPECT_ERROR(session.run(1, {2, 8}),
               "function 'step': length: expected exactly 16, got 8");
  EXPECT_ERROR(session.variable(0, "bias"),
               "function 'forward' has no variable 'bias'");
  if (!onCuda())
    EXPECT_ERROR(Session(loadPlan(), {-1}),
                 "expected between 0 and 1024 threads, got -1");
}

TEST(Executor, RefusesAnObjectWithoutTheKernel) {
  Damage damage;
  damage.symbol = "absent";
  EXPECT_ERROR(Session(loadPlan(damage), {1}),
               onCuda() ? "kernel 'absent' is not in the plan's code for sm_80"
                        : "kernel 'absent' is not in the plan's object");
}

TEST(Executor, ProfilesEachCommand) {
  Session session(loadPlan(), {1});
  session.setProfiling(true);
  session.run(0);
  ASSERT_EQ(session.commandSeconds().size(), 1u);
  EXPECT_EQ(session.commandSeconds()[0].size(), 5u);
}

extern "C" int useCInterface(const char *plan, const char *state,
                             int oneSession);

TEST(CInterface, RunsAPlan) {
  const std::string path = temporaryPath("plan");
  const std::vector<uint8_t> bytes = buildPlan();
  writeText(path, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  EXPECT_EQ(
      useCInterface(path.c_str(), temporaryPath("state").c_str(), onCuda()), 0)
      << "line of CInterfaceTest.c";
}

TEST(OneDnn, AllTranspositionsMatchTheNaiveProduct) {
  const int64_t m = 7, n = 9, k = 5;
  std::vector<float> a(size_t(m * k)), b(size_t(k * n));
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = std::sin(float(i));
  for (size_t i = 0; i < b.size(); ++i)
    b[i] = std::cos(float(i));
  for (bool transA : {false, true})
    for (bool transB : {false, true})
      for (float beta : {0.0f, 1.0f}) {
        std::vector<float> c(size_t(m * n), 2.0f);
        cpu::OneDnn::get().product(transA, transB, m, n, k, a.data(),
                                   transA ? m : k, b.data(), transB ? k : n,
                                   beta, c.data(), n);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n; ++j) {
            double want = 2.0 * beta;
            for (int64_t x = 0; x < k; ++x)
              want += double(a[size_t(transA ? x * m + i : i * k + x)]) *
                      b[size_t(transB ? j * k + x : x * n + j)];
            EXPECT_NEAR(c[size_t(i * n + j)], want, 1e-5);
          }
      }
}
