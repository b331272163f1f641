#include "runtime/parallel/Communicator.h"
#include "runtime/core/Error.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <set>

namespace megalodon {

/// How often a sleeping wait looks whether the process was asked to stop.
static constexpr std::chrono::milliseconds kSlice{100};

/// When requestStop() was called, in ticks of the steady clock; 0: never.
static std::atomic<int64_t> stopTime{0};
static_assert(std::atomic<int64_t>::is_always_lock_free);

void requestStop() noexcept {
  int64_t never = 0;
  stopTime.compare_exchange_strong(
      never, std::chrono::steady_clock::now().time_since_epoch().count());
}

void clearStop() noexcept { stopTime = 0; }

Request::~Request() = default;
Communicator::~Communicator() = default;
World::~World() = default;

static double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

void Request::wait(const WaitContext &context,
                   std::chrono::milliseconds timeout) {
  auto fail = [&](const std::string &reason) {
    std::string step = context.step >= 0 ? str(", step ", context.step) : "";
    return Error(str(context.operation, step, ", on rank ",
                     membership->worldRank(), ": ", reason));
  };
  auto failLate = [&](const std::string &reason) {
    std::string text = reason + " (group of ranks";
    for (size_t i = 0; i < membership->ranks.size(); ++i)
      text += str(i ? ", " : " ", membership->ranks[i]);
    const std::string known = missing();
    return fail(text + (known.empty() ? ")" : "; " + known + ")"));
  };
  const Clock::time_point start = Clock::now(), deadline = start + timeout;
  for (Clock::time_point now = start;; now = Clock::now()) {
    try {
      if (testUntil(std::min(deadline, now + kSlice)))
        return;
    } catch (const Error &error) {
      throw fail(error.what());
    }
    now = Clock::now();
    const Clock::time_point stop{Clock::duration(stopTime.load())};
    if (stop != Clock::time_point{} && now >= stop + kStopGrace)
      throw failLate(str("not complete ", seconds(now - stop),
                         " s after the process was asked to stop"));
    if (now >= deadline)
      throw failLate(str("not complete after ", seconds(timeout), " s"));
  }
}

void Communicator::barrier(const WaitContext &context,
                           std::chrono::milliseconds timeout) {
  allReduce(&barrierWord, 1, ElementType::I32)->wait(context, timeout);
}

void Communicator::checkReducible(ElementType type) {
  if (type != ElementType::F32 && type != ElementType::F64 &&
      type != ElementType::I32 && type != ElementType::I64)
    throw Error(str("expected F32, F64, I32 or I64 to reduce, got ",
                    elementName(type)));
}

void Communicator::checkMember(int peer) const {
  if (peer < 0 || peer >= size())
    throw Error(
        str("expected a member of the group below ", size(), ", got ", peer));
}

void Communicator::checkTag(int tag) {
  if (tag < 0)
    throw Error(str("expected a tag of at least 0, got ", tag));
}

World::World() : timeout(std::chrono::seconds(300)) {
  const char *text = std::getenv("MEGALODON_TIMEOUT");
  if (!text)
    return;
  char *end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end || !(value > 0) || value > 1e9)
    throw Error(str("MEGALODON_TIMEOUT: expected a number of seconds, got '",
                    text, "'"));
  timeout = std::chrono::milliseconds(int64_t(value * 1000));
}

Membership World::memberOf(const std::vector<int> &ranks) {
  Membership members{ranks, -1};
  std::set<int> seen;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] < 0 || ranks[i] >= size())
      throw Error(str("expected a rank below ", size(), ", got ", ranks[i]));
    if (!seen.insert(ranks[i]).second)
      throw Error(str("expected distinct ranks in a group, got rank ", ranks[i],
                      " twice"));
    if (ranks[i] == rank())
      members.place = int(i);
  }
  if (members.place < 0)
    throw Error(str("expected rank ", rank(), " in the group it makes"));
  return members;
}

void World::abort(int code) {
  std::fflush(nullptr);
  std::_Exit(code);
}

} // namespace megalodon
