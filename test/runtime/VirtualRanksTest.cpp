// Virtual ranks: the common suite, and what only ranks that share memory
// promise.
#include "runtime/core/Error.h"
#include "test/runtime/Conformance.h"
#include "test/runtime/Messages.h"
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>

using namespace megalodon;
using namespace megalodon::test;
using namespace std::chrono_literals;

static Backend virtualRanks(int n) {
  return {"Virtual" + std::to_string(n),
          [n](const auto &body) { runVirtualRanks(n, body); }};
}

INSTANTIATE_TEST_SUITE_P(Single, Conformance,
                         ::testing::Values(Backend{
                             "Single",
                             [](const auto &body) { body(*singleWorld()); }}),
                         nameOf);
INSTANTIATE_TEST_SUITE_P(Virtual, Conformance,
                         ::testing::Values(virtualRanks(1), virtualRanks(2),
                                           virtualRanks(3), virtualRanks(4),
                                           virtualRanks(16)),
                         nameOf);

TEST(VirtualRanks, SumInOrderOfRank) {
  constexpr int ranks = 5;
  constexpr size_t count = 3001;
  auto part = [](int rank, size_t i) {
    return 1.0f / float(1 + i * 7 + size_t(rank) * 1000);
  };
  for (int repeat = 0; repeat < 3; ++repeat)
    runVirtualRanks(ranks, [&](World &world) {
      // Ranks come in another order each time.
      std::this_thread::sleep_for((world.rank() * 3 + repeat) % ranks * 2ms);
      std::vector<float> data(count), expected(count), block(count / ranks);
      for (size_t i = 0; i < count; ++i) {
        data[i] = part(world.rank(), i);
        expected[i] = part(0, i);
        for (int rank = 1; rank < ranks; ++rank)
          expected[i] += part(rank, i);
      }
      world.all()
          .reduceScatter(data.data(), block.data(), block.size(),
                         ElementType::F32)
          ->wait({"reduce_scatter"}, 60s);
      world.all()
          .allReduce(data.data(), count, ElementType::F32)
          ->wait({"all_reduce"}, 60s);
      EXPECT_EQ(data, expected);
      EXPECT_TRUE(std::equal(block.begin(), block.end(),
                             expected.begin() +
                                 ptrdiff_t(block.size()) * world.rank()));
    });
}

TEST(VirtualRanks, FirstErrorEndsTheOthers) {
  std::mutex mutex;
  std::vector<std::string> messages;
  const std::string message = messageOf([&] {
    runVirtualRanks(8, [&](World &world) {
      if (world.rank() == 5) {
        std::this_thread::sleep_for(20ms);
        throw Error("the disk is full");
      }
      try {
        int32_t data = 0;
        world.all()
            .allReduce(&data, 1, ElementType::I32)
            ->wait({"sum", 3}, 60s);
      } catch (const Error &error) {
        std::lock_guard lock(mutex);
        messages.push_back(error.what());
        throw;
      }
    });
  });
  EXPECT_EQ(message, "rank 5: the disk is full");
  EXPECT_EQ(messages.size(), 7u);
  for (const std::string &other : messages)
    EXPECT_NE(other.find("ended because rank 5 failed: the disk is full"),
              std::string::npos)
        << other;
}

TEST(VirtualRanks, ForeignExceptionsEndTheOthersToo) {
  EXPECT_ERROR(runVirtualRanks(2,
                               [](World &world) {
                                 if (world.rank() == 0)
                                   throw 7;
                                 world.all().barrier({"barrier"}, 60s);
                               }),
               "rank 0: an error without a message");
}

TEST(VirtualRanks, NamesRanksThatHaveNotCome) {
  std::atomic<bool> timedOut{false};
  EXPECT_ERROR(runVirtualRanks(3,
                               [&](World &world) {
                                 if (world.rank() == 1) {
                                   while (!timedOut)
                                     std::this_thread::sleep_for(1ms);
                                   return;
                                 }
                                 try {
                                   world.all().barrier({"barrier of epoch", 2},
                                                       50ms);
                                 } catch (const Error &) {
                                   timedOut = true;
                                   throw;
                                 }
                               }),
               "not complete after 0.05 s (group of ranks 0, 1, 2; not there: "
               "rank 1)");
}

TEST(VirtualRanks, RankThatEndedIsNotWaitedFor) {
  EXPECT_ERROR(runVirtualRanks(2,
                               [](World &world) {
                                 if (world.rank() == 1)
                                   world.all().barrier({"barrier", 4}, 60s);
                               }),
               "rank 1: barrier, step 4, on rank 1: rank 0 has ended without "
               "taking part");
}

TEST(VirtualRanks, NoticesDifferentOperations) {
  EXPECT_ERROR(runVirtualRanks(2,
                               [](World &world) {
                                 int64_t a = 0, b[2];
                                 if (world.rank() == 0)
                                   world.all().allGather(&a, b, 8)->wait(
                                       {"gather"}, 60s);
                                 else
                                   world.all()
                                       .allReduce(&a, 1, ElementType::I64)
                                       ->wait({"reduce"}, 60s);
                               }),
               "expected the operation the others of the group call");
  EXPECT_ERROR(
      runVirtualRanks(
          2,
          [](World &world) {
            int64_t data[2];
            if (world.rank() == 0)
              world.all().send(data, 8, 1, 3)->wait({"send"}, 60s);
            else
              world.all().receive(data, 16, 0, 3)->wait({"receive"}, 60s);
          }),
      "expected the message from rank 0 to rank 1 with tag 3 to have 16 bytes, "
      "got 8");
}

// A rank that fails takes its memory with it; the others must not touch it.
TEST(VirtualRanks, DroppedRequestsLetGoOfTheirMemory) {
  std::atomic<bool> dropped{false};
  std::vector<int64_t> received(4, 7);
  EXPECT_ERROR(runVirtualRanks(2,
                               [&](World &world) {
                                 if (world.rank() == 0) {
                                   std::vector<int64_t> gone(4, 1);
                                   world.all().send(gone.data(), 32, 1, 0);
                                   dropped = true;
                                   while (true)
                                     world.all().barrier({"barrier"}, 60s);
                                 }
                                 while (!dropped)
                                   std::this_thread::sleep_for(1ms);
                                 world.all()
                                     .receive(received.data(), 32, 0, 0)
                                     ->wait({"receive"}, 50ms);
                               }),
               "rank 1: receive, on rank 1: not complete after 0.05 s");
  EXPECT_EQ(received, std::vector<int64_t>(4, 7));
}

TEST(VirtualRanks, RefusesWrongNumbers) {
  EXPECT_ERROR(runVirtualRanks(0, [](World &) {}),
               "expected between 1 and 1024 ranks, got 0");
}

TEST(World, TimeoutComesFromTheEnvironment) {
  ::unsetenv("MEGALODON_TIMEOUT");
  EXPECT_EQ(singleWorld()->timeout, 300s);
  ::setenv("MEGALODON_TIMEOUT", "2.5", 1);
  EXPECT_EQ(singleWorld()->timeout, 2500ms);
  ::setenv("MEGALODON_TIMEOUT", "soon", 1);
  EXPECT_ERROR(singleWorld(),
               "MEGALODON_TIMEOUT: expected a number of seconds, got 'soon'");
  ::unsetenv("MEGALODON_TIMEOUT");
}

// A rank that was asked to stop gives the others some seconds, then says where
// it stands.
TEST(World, WaitsEndAfterAStop) {
  int32_t word = 0;
  auto world = singleWorld();
  auto request = world->all().receive(&word, 4, 0, 0);
  const auto start = std::chrono::steady_clock::now();
  requestStop();
  const std::string message =
      messageOf([&] { request->wait({"receive of activations", 8}, 60s); });
  clearStop();
  const auto waited = std::chrono::steady_clock::now() - start;
  EXPECT_GE(waited, kStopGrace);
  EXPECT_LT(waited, kStopGrace + 5s);
  EXPECT_EQ(message.find("receive of activations, step 8, on rank 0: not "
                         "complete 5"),
            0u)
      << message;
  EXPECT_NE(message.find("s after the process was asked to stop"),
            std::string::npos);
}
