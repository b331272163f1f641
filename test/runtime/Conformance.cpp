#include "test/runtime/Conformance.h"
#include "runtime/core/BFloat16.h"
#include "runtime/core/Error.h"
#include "test/runtime/Messages.h"
#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

using namespace megalodon;
using namespace megalodon::test;

namespace {

using namespace std::chrono_literals;

constexpr size_t kSizes[] = {0, 1, 2, 3, 7, 1023, 1025, 65537};

/// Longer than any test takes: a wait that reaches it has hung.
constexpr std::chrono::milliseconds kPatience = 60s;

void finish(std::unique_ptr<Request> request) {
  request->wait({"test operation"}, kPatience);
}

template <typename T> constexpr ElementType typeOf();
template <> constexpr ElementType typeOf<float>() { return ElementType::F32; }
template <> constexpr ElementType typeOf<double>() { return ElementType::F64; }
template <> constexpr ElementType typeOf<int32_t>() { return ElementType::I32; }
template <> constexpr ElementType typeOf<int64_t>() { return ElementType::I64; }

template <typename Body> void forEachType(Body body) {
  body(float());
  body(double());
  body(int32_t());
  body(int64_t());
}

/// Small integers, exact in every type in any order of summing.
int64_t value(int rank, size_t index) {
  return int64_t(rank * 7 + 1) * int64_t(index % 101) - 50;
}

template <typename T> std::vector<T> values(int rank, size_t count) {
  std::vector<T> data(count);
  for (size_t i = 0; i < count; ++i)
    data[i] = T(value(rank, i));
  return data;
}

template <typename T>
std::vector<T> sumOfValues(const std::vector<int> &ranks, size_t count) {
  std::vector<T> sum(count);
  for (int rank : ranks)
    for (size_t i = 0; i < count; ++i)
      sum[i] += T(value(rank, i));
  return sum;
}

std::vector<uint8_t> bytesOf(int rank, size_t count) {
  std::vector<uint8_t> data(count);
  for (size_t i = 0; i < count; ++i)
    data[i] = uint8_t(31 * rank + int(i) + int(i >> 8));
  return data;
}

std::vector<int> everyRank(World &world) {
  std::vector<int> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

TEST_P(Conformance, KnowsItsPlace) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    EXPECT_EQ(all.ranks(), everyRank(world));
    EXPECT_EQ(all.rank(), world.rank());
    EXPECT_EQ(all.size(), world.size());
  });
}

TEST_P(Conformance, AllReduceSums) {
  onEveryRank([](World &world) {
    forEachType([&](auto zero) {
      using T = decltype(zero);
      for (size_t count : kSizes) {
        auto data = values<T>(world.rank(), count);
        finish(world.all().allReduce(data.data(), count, typeOf<T>()));
        EXPECT_EQ(data, sumOfValues<T>(everyRank(world), count));
      }
    });
  });
}

TEST_P(Conformance, AllReduceTakesTheLargest) {
  onEveryRank([](World &world) {
    forEachType([&](auto zero) {
      using T = decltype(zero);
      std::vector<T> data, largest(9);
      for (int i = 0; i < 9; ++i) {
        data.push_back(T((world.rank() + i) % world.size() - 3));
        largest[size_t(i)] = T(world.size() - 4);
      }
      finish(
          world.all().allReduce(data.data(), 9, typeOf<T>(), Reduction::Max));
      EXPECT_EQ(data, largest);
    });
  });
}

// Added in f32; how often the sum is rounded is the transport's.
TEST_P(Conformance, SumsOfBf16) {
  onEveryRank([](World &world) {
    constexpr size_t kCount = 5001;
    const size_t ranks = size_t(world.size());
    auto term = [](int rank, size_t i) {
      return narrow(1.0f / float(3 + rank * 17 + int(i % 301)));
    };
    std::vector<BFloat16> data(kCount), blocks(kCount * ranks), own(kCount);
    for (size_t i = 0; i < kCount; ++i)
      data[i] = term(world.rank(), i);
    for (size_t i = 0; i < blocks.size(); ++i)
      blocks[i] = term(world.rank(), i % kCount);
    finish(world.all().allReduce(data.data(), kCount, ElementType::BF16));
    finish(world.all().reduceScatter(blocks.data(), own.data(), kCount,
                                     ElementType::BF16));
    for (size_t i = 0; i < kCount; ++i) {
      float exact = 0;
      for (int rank = 0; rank < world.size(); ++rank)
        exact += widen(term(rank, i));
      // Half a unit in the last place for each addition.
      const float slack = exact * float(world.size()) / 256;
      EXPECT_NEAR(widen(data[i]), exact, slack) << i;
      EXPECT_NEAR(widen(own[i]), exact, slack) << i;
    }
    std::vector<BFloat16> most = {narrow(float(world.rank())), narrow(-1.5f)};
    finish(world.all().allReduce(most.data(), 2, ElementType::BF16,
                                 Reduction::Max));
    EXPECT_EQ(widen(most[0]), float(world.size() - 1));
    EXPECT_EQ(widen(most[1]), -1.5f);
  });
}

// A replicated value must stay the same to the bit on every rank.
TEST_P(Conformance, RoundedSumsAgree) {
  onEveryRank([](World &world) {
    for (size_t count : {1, 37, 5001}) {
      std::vector<float> data(count);
      for (size_t i = 0; i < count; ++i)
        data[i] = 1.0f / float(3 + world.rank() * 17 + int(i));
      finish(world.all().allReduce(data.data(), count, ElementType::F32));
      std::vector<float> everywhere(count * size_t(world.size()));
      finish(world.all().allGather(data.data(), everywhere.data(), count * 4));
      for (int rank = 0; rank < world.size(); ++rank)
        EXPECT_EQ(std::memcmp(&everywhere[count * size_t(rank)], data.data(),
                              count * 4),
                  0);
    }
  });
}

TEST_P(Conformance, AllGather) {
  onEveryRank([](World &world) {
    for (size_t bytes : kSizes) {
      const auto own = bytesOf(world.rank(), bytes);
      std::vector<uint8_t> gathered(bytes * size_t(world.size())), expected;
      for (int rank = 0; rank < world.size(); ++rank) {
        const auto block = bytesOf(rank, bytes);
        expected.insert(expected.end(), block.begin(), block.end());
      }
      finish(world.all().allGather(own.data(), gathered.data(), bytes));
      EXPECT_EQ(gathered, expected);

      std::vector<uint8_t> inPlace(bytes * size_t(world.size()));
      uint8_t *block = inPlace.data() + bytes * size_t(world.rank());
      std::copy(own.begin(), own.end(), block);
      finish(world.all().allGather(block, inPlace.data(), bytes));
      EXPECT_EQ(inPlace, expected);
    }
  });
}

TEST_P(Conformance, ReduceScatter) {
  onEveryRank([](World &world) {
    forEachType([&](auto zero) {
      using T = decltype(zero);
      for (size_t count : kSizes) {
        const auto data = values<T>(world.rank(), count * size_t(world.size()));
        const auto sum =
            sumOfValues<T>(everyRank(world), count * size_t(world.size()));
        std::vector<T> own(count);
        finish(world.all().reduceScatter(data.data(), own.data(), count,
                                         typeOf<T>()));
        EXPECT_TRUE(std::equal(own.begin(), own.end(),
                               sum.begin() + ptrdiff_t(count) * world.rank()));
        EXPECT_EQ(data, values<T>(world.rank(), count * size_t(world.size())));
      }
    });
  });
}

TEST_P(Conformance, BroadcastFromEveryRoot) {
  onEveryRank([](World &world) {
    for (int root = 0; root < world.size(); ++root)
      for (size_t bytes : kSizes) {
        auto data = bytesOf(world.rank(), bytes);
        finish(world.all().broadcast(data.data(), bytes, root));
        EXPECT_EQ(data, bytesOf(root, bytes));
      }
  });
}

TEST_P(Conformance, SendsRoundTheRingInBothDirections) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    const int next = (all.rank() + 1) % all.size();
    const int last = (all.rank() + all.size() - 1) % all.size();
    for (size_t bytes : kSizes) {
      const auto own = bytesOf(all.rank(), bytes);
      std::vector<uint8_t> fromNext(bytes), fromLast(bytes);
      // The tag tells the directions apart where next is last.
      auto a = all.send(own.data(), bytes, next, 1);
      auto b = all.receive(fromNext.data(), bytes, next, 2);
      auto c = all.send(own.data(), bytes, last, 2);
      auto d = all.receive(fromLast.data(), bytes, last, 1);
      finish(std::move(d));
      finish(std::move(c));
      finish(std::move(b));
      finish(std::move(a));
      EXPECT_EQ(fromNext, bytesOf(next, bytes));
      EXPECT_EQ(fromLast, bytesOf(last, bytes));
    }
  });
}

TEST_P(Conformance, MessagesMatchByTagInOrder) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    if (all.size() < 2 || all.rank() > 1)
      return;
    const int peer = 1 - all.rank();
    std::vector<std::unique_ptr<Request>> requests;
    int64_t sent[6], received[6] = {};
    for (int i = 0; i < 6; ++i) {
      sent[i] = 100 * all.rank() + i;
      requests.push_back(all.send(&sent[i], 8, peer, i % 3));
    }
    // The tags in another order than they were sent in.
    for (int tag : {2, 0, 1})
      for (int i : {tag, tag + 3})
        requests.push_back(all.receive(&received[i], 8, peer, tag));
    for (auto &request : requests)
      finish(std::move(request));
    for (int i = 0; i < 6; ++i)
      EXPECT_EQ(received[i], 100 * peer + i);
  });
}

TEST_P(Conformance, SendsToItself) {
  onEveryRank([](World &world) {
    int64_t sent = 11 + world.rank(), received = 0;
    auto send = world.all().send(&sent, 8, world.rank(), 5);
    finish(world.all().receive(&received, 8, world.rank(), 5));
    finish(std::move(send));
    EXPECT_EQ(received, sent);
  });
}

TEST_P(Conformance, GroupsWorkAtTheSameTime) {
  onEveryRank([](World &world) {
    // Neighbours in pairs, those of the same parity, everybody backwards.
    std::vector<std::vector<int>> lists(3);
    for (int rank = 0; rank < world.size(); ++rank) {
      if (rank / 2 == world.rank() / 2)
        lists[0].push_back(rank);
      if (rank % 2 == world.rank() % 2)
        lists[1].push_back(rank);
      lists[2].insert(lists[2].begin(), rank);
    }
    lists.push_back({world.rank()});
    std::vector<std::unique_ptr<Communicator>> groups;
    for (const auto &list : lists) {
      groups.push_back(world.group(list));
      EXPECT_EQ(groups.back()->ranks(), list);
      EXPECT_EQ(list[size_t(groups.back()->rank())], world.rank());
    }
    std::vector<std::vector<double>> sums, blocks;
    std::vector<std::unique_ptr<Request>> requests;
    constexpr size_t count = 513;
    for (size_t g = 0; g < groups.size(); ++g) {
      sums.push_back(values<double>(world.rank(), count));
      blocks.emplace_back(lists[g].size());
    }
    const double own = world.rank();
    for (size_t g = 0; g < groups.size(); ++g) {
      requests.push_back(
          groups[g]->allReduce(sums[g].data(), count, ElementType::F64));
      requests.push_back(groups[g]->allGather(&own, blocks[g].data(), 8));
    }
    for (auto &request : requests)
      finish(std::move(request));
    for (size_t g = 0; g < groups.size(); ++g) {
      EXPECT_EQ(sums[g], sumOfValues<double>(lists[g], count));
      EXPECT_TRUE(
          std::equal(blocks[g].begin(), blocks[g].end(), lists[g].begin()));
    }
  });
}

TEST_P(Conformance, TheSameGroupTwice) {
  onEveryRank([](World &world) {
    auto first = world.group(everyRank(world));
    auto second = world.group(everyRank(world));
    int32_t a = 1, b = 10;
    auto one = first->allReduce(&a, 1, ElementType::I32);
    auto other = second->allReduce(&b, 1, ElementType::I32);
    finish(std::move(other));
    finish(std::move(one));
    EXPECT_EQ(a, world.size());
    EXPECT_EQ(b, 10 * world.size());
  });
}

TEST_P(Conformance, RequestsOverlap) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    const size_t n = size_t(all.size());
    std::vector<std::unique_ptr<Request>> requests;
    constexpr size_t rounds = 5, count = 1001;
    std::vector<std::vector<int64_t>> sums(rounds), gathered(rounds),
        blocks(rounds), shared(rounds);
    const auto own = values<int64_t>(all.rank(), count * n);
    for (size_t i = 0; i < rounds; ++i) {
      sums[i] = values<int64_t>(all.rank() + int(i), count);
      gathered[i].resize(count * n);
      blocks[i].resize(count);
      shared[i] = values<int64_t>(all.rank(), count);
    }
    for (size_t i = 0; i < rounds; ++i) {
      requests.push_back(
          all.allReduce(sums[i].data(), count, ElementType::I64));
      requests.push_back(
          all.allGather(own.data(), gathered[i].data(), count * 8));
      requests.push_back(all.reduceScatter(own.data(), blocks[i].data(), count,
                                           ElementType::I64));
      requests.push_back(
          all.broadcast(shared[i].data(), count * 8, int(i) % all.size()));
    }
    // The last first, partly by polling.
    while (!requests.empty()) {
      if (requests.size() % 3 == 0)
        while (!requests.back()->test())
          std::this_thread::sleep_for(100us);
      finish(std::move(requests.back()));
      requests.pop_back();
    }
    for (size_t i = 0; i < rounds; ++i) {
      std::vector<int> shifted = everyRank(world);
      for (int &rank : shifted)
        rank += int(i);
      EXPECT_EQ(sums[i], sumOfValues<int64_t>(shifted, count));
      for (size_t rank = 0; rank < n; ++rank)
        EXPECT_TRUE(
            std::equal(gathered[i].begin() + ptrdiff_t(rank * count),
                       gathered[i].begin() + ptrdiff_t((rank + 1) * count),
                       values<int64_t>(int(rank), count).begin()));
      const auto sum = sumOfValues<int64_t>(everyRank(world), count * n);
      EXPECT_TRUE(std::equal(blocks[i].begin(), blocks[i].end(),
                             sum.begin() + ptrdiff_t(count) * all.rank()));
      EXPECT_EQ(shared[i], values<int64_t>(int(i) % all.size(), count));
    }
  });
}

TEST_P(Conformance, LargeMessages) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    const size_t n = size_t(all.size()), count = (size_t(1) << 20) / n + 7;
    auto data = values<float>(all.rank(), count);
    finish(all.allReduce(data.data(), count, ElementType::F32));
    EXPECT_EQ(data, sumOfValues<float>(everyRank(world), count));

    const auto own = bytesOf(all.rank(), 4 * count + 1);
    std::vector<uint8_t> other(own.size()), gathered(own.size() * n);
    const int next = (all.rank() + 1) % all.size();
    const int last = (all.rank() + all.size() - 1) % all.size();
    auto send = all.send(own.data(), own.size(), next, 0);
    finish(all.receive(other.data(), other.size(), last, 0));
    finish(std::move(send));
    EXPECT_EQ(other, bytesOf(last, own.size()));
    finish(all.allGather(own.data(), gathered.data(), own.size()));
    for (size_t rank = 0; rank < n; ++rank)
      EXPECT_TRUE(std::equal(own.begin(), own.end(),
                             gathered.begin() + ptrdiff_t(rank * own.size()),
                             [&](uint8_t mine, uint8_t theirs) {
                               return uint8_t(31 * (int(rank) - all.rank()) +
                                              mine) == theirs;
                             }));

    const auto blocks = values<double>(all.rank(), count * n);
    std::vector<double> block(count);
    finish(all.reduceScatter(blocks.data(), block.data(), count,
                             ElementType::F64));
    const auto sum = sumOfValues<double>(everyRank(world), count * n);
    EXPECT_TRUE(std::equal(block.begin(), block.end(),
                           sum.begin() + ptrdiff_t(count) * all.rank()));
    auto shared = bytesOf(all.rank(), own.size());
    finish(all.broadcast(shared.data(), shared.size(), all.size() - 1));
    EXPECT_EQ(shared, bytesOf(all.size() - 1, own.size()));
  });
}

TEST_P(Conformance, BarrierHoldsBackTheFirst) {
  onEveryRank([](World &world) {
    auto now = [] {
      return std::chrono::steady_clock::now().time_since_epoch().count();
    };
    for (int late = 0; late < std::min(world.size(), 3); ++late) {
      if (world.rank() == late)
        std::this_thread::sleep_for(20ms);
      int64_t came = now();
      world.all().barrier({"test barrier"}, kPatience);
      int64_t left = -now();
      finish(world.all().allReduce(&came, 1, ElementType::I64, Reduction::Max));
      finish(world.all().allReduce(&left, 1, ElementType::I64, Reduction::Max));
      EXPECT_LE(came, -left);
    }
  });
}

TEST_P(Conformance, WaitsTimeOutAndMayGoOn) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    if (all.size() < 2)
      return;
    int32_t sum = 1, go = 0;
    if (all.rank() != 0) {
      finish(all.receive(&go, 4, 0, 9));
      finish(all.allReduce(&sum, 1, ElementType::I32));
      EXPECT_EQ(sum, all.size());
      return;
    }
    auto request = all.allReduce(&sum, 1, ElementType::I32);
    const std::string message = messageOf(
        [&] { request->wait({"all_reduce of gradients", 17}, 50ms); });
    EXPECT_NE(message.find("all_reduce of gradients, step 17, on rank 0: not "
                           "complete after 0.05 s (group of ranks 0, 1"),
              std::string::npos)
        << message;
    EXPECT_FALSE(request->test());
    for (int peer = 1; peer < all.size(); ++peer)
      finish(all.send(&go, 4, peer, 9));
    finish(std::move(request));
    EXPECT_EQ(sum, all.size());
  });
}

TEST_P(Conformance, RefusesWrongArguments) {
  onEveryRank([](World &world) {
    Communicator &all = world.all();
    const int size = all.size();
    int64_t data = 0;
    EXPECT_ERROR(all.reduceScatter(&data, &data, 1, ElementType::I8),
                 "expected F32, F64, BF16, I32 or I64 to reduce, got I8");
    EXPECT_ERROR(all.broadcast(&data, 8, size),
                 str("expected a member of the group below ", size));
    EXPECT_ERROR(all.send(&data, 8, -1, 0), "got -1");
    EXPECT_ERROR(all.receive(&data, 8, size, 0),
                 str("expected a member of the group below ", size));
    EXPECT_ERROR(all.send(&data, 8, 0, -2),
                 "expected a tag of at least 0, got -2");
    EXPECT_ERROR(world.group({size}),
                 str("expected a rank below ", size, ", got ", size));
    EXPECT_ERROR(world.group({world.rank(), world.rank()}), "twice");
    EXPECT_ERROR(world.group({}),
                 str("expected rank ", world.rank(), " in the group it makes"));
  });
}

} // namespace
