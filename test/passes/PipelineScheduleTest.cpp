// Every schedule over a sweep of shapes: each step once and in order, no
// deadlock, slots never shared, and the closed formulas against the simulator.
#include "passes/Partition/PipelineSchedule.h"
#include <gtest/gtest.h>
#include <map>
#include <set>
#include <tuple>

using namespace megalodon;
using plan::SendMode;
using Kind = plan::PipelineStep::Kind;

namespace {

struct Case {
  ScheduleKind kind;
  PipelineShape shape;
};

/// Every kind over 1..8 ranks, 1..16 microbatches and, where it has them, 1..4
/// chunks.
std::vector<Case> sweep() {
  std::vector<Case> cases;
  for (unsigned ranks = 1; ranks <= 8; ++ranks)
    for (unsigned microbatches = 1; microbatches <= 16; ++microbatches)
      for (ScheduleKind kind :
           {ScheduleKind::GPipe, ScheduleKind::OneFOneB,
            ScheduleKind::Interleaved, ScheduleKind::ZeroBubble,
            ScheduleKind::Forward}) {
        const bool severalChunks =
            kind == ScheduleKind::Interleaved || kind == ScheduleKind::Forward;
        for (unsigned chunks = 1; chunks <= (severalChunks ? 4u : 1u); ++chunks)
          cases.push_back({kind, {ranks, microbatches, chunks}});
      }
  return cases;
}

std::string describe(const Case &one) {
  return std::string(scheduleName(one.kind)) + " over " +
         std::to_string(one.shape.ranks) + " ranks, " +
         std::to_string(one.shape.microbatches) + " microbatches, " +
         std::to_string(one.shape.chunks) + " chunks";
}

plan::PipelineTimeline simulate(const Case &one, SendMode mode,
                                WorkCosts costs) {
  return plan::simulatePipeline(
      makePrograms(
          expandSchedule(buildSchedule(one.kind, one.shape), one.shape),
          one.shape, costs),
      mode, costs.transfer);
}

TEST(PipelineSchedule, IsCompleteAndDoesNotDeadlock) {
  for (const Case &one : sweep())
    EXPECT_EQ(checkSchedule(buildSchedule(one.kind, one.shape), one.shape), "")
        << describe(one);
}

// The checker's own notion of order is not trusted here: work is replayed from
// the ranks' lists with nothing but the dependencies between stages.
TEST(PipelineSchedule, RespectsDependencies) {
  for (const Case &one : sweep()) {
    const PipelineSchedule schedule = buildSchedule(one.kind, one.shape);
    const unsigned stages = one.shape.stages();
    std::set<std::tuple<Work, unsigned, unsigned>> done; // microbatch, stage
    std::vector<size_t> next(schedule.size());
    size_t left = 0;
    for (const auto &order : schedule)
      left += order.size();
    EXPECT_EQ(left, size_t(stages) * one.shape.microbatches *
                        (one.kind == ScheduleKind::Forward      ? 1
                         : one.kind == ScheduleKind::ZeroBubble ? 3
                                                                : 2));
    for (bool progress = true; progress;) {
      progress = false;
      for (unsigned rank = 0; rank < schedule.size(); ++rank) {
        if (next[rank] == schedule[rank].size())
          continue;
        const PipelineWork work = schedule[rank][next[rank]];
        const unsigned stage = one.shape.stage(rank, work.chunk);
        auto has = [&](Work before, unsigned of) {
          return done.count({before, work.microbatch, of}) != 0;
        };
        const bool ready =
            work.work == Work::Forward
                ? stage == 0 || has(Work::Forward, stage - 1)
            : work.work == Work::Backward
                ? has(Work::Forward, stage) &&
                      (stage + 1 == stages || has(Work::Backward, stage + 1))
                : has(Work::Backward, stage);
        if (!ready)
          continue;
        EXPECT_TRUE(done.insert({work.work, work.microbatch, stage}).second)
            << describe(one);
        ++next[rank];
        --left;
        progress = true;
      }
    }
    EXPECT_EQ(left, 0u) << describe(one);
  }
}

TEST(PipelineSchedule, MessagesMeet) {
  for (const Case &one : sweep()) {
    const auto actions =
        expandSchedule(buildSchedule(one.kind, one.shape), one.shape);
    std::map<std::tuple<unsigned, unsigned, unsigned, unsigned>, int> messages;
    size_t sends = 0;
    for (unsigned rank = 0; rank < actions.size(); ++rank)
      for (const PipelineAction &action : actions[rank]) {
        if (action.kind == Kind::Send)
          ++messages[{rank, action.peer, action.channel, action.microbatch}],
              ++sends;
        if (action.kind == Kind::Receive)
          --messages[{action.peer, rank, action.channel, action.microbatch}];
      }
    for (const auto &[message, balance] : messages)
      EXPECT_EQ(balance, 0) << describe(one);
    const unsigned borders = one.shape.stages() - 1;
    EXPECT_EQ(sends, one.shape.ranks == 1
                         ? 0
                         : size_t(borders) * one.shape.microbatches *
                               (one.kind == ScheduleKind::Forward ? 1 : 2))
        << describe(one);
  }
}

TEST(PipelineSchedule, SlotsAreNotSharedAndNotWasted) {
  for (const Case &one : sweep()) {
    const auto actions =
        expandSchedule(buildSchedule(one.kind, one.shape), one.shape);
    for (const auto &list : actions) {
      std::map<std::pair<unsigned, unsigned>, size_t> last; // chunk, microbatch
      for (size_t i = 0; i < list.size(); ++i)
        last[{list[i].chunk, list[i].microbatch}] = i;
      std::map<std::pair<unsigned, unsigned>, unsigned> holder; // chunk, slot
      std::map<unsigned, size_t> held, most;                    // by chunk
      for (size_t i = 0; i < list.size(); ++i) {
        const PipelineAction &action = list[i];
        const auto [at, fresh] =
            holder.try_emplace({action.chunk, action.slot}, action.microbatch);
        EXPECT_EQ(at->second, action.microbatch) << describe(one);
        if (fresh)
          most[action.chunk] =
              std::max(most[action.chunk], ++held[action.chunk]);
        if (last[{action.chunk, action.microbatch}] == i) {
          holder.erase(at);
          --held[action.chunk];
        }
      }
      for (const auto &[chunk, count] : most)
        EXPECT_EQ(countSlots(list, chunk), count) << describe(one);
    }
  }
}

TEST(PipelineSchedule, BubbleFormulas) {
  const WorkCosts unit{1, 2, 1, 0}, slow{2, 5, 2, 0};
  for (const Case &one : sweep())
    for (const WorkCosts &costs : {unit, slow}) {
      const auto bubble = bubbleOf(one.kind, one.shape, costs);
      if (!bubble)
        continue;
      const auto timeline = simulate(one, SendMode::Buffered, costs);
      double work = costs.forward;
      if (one.kind != ScheduleKind::Forward)
        work += costs.backward;
      work *= one.shape.microbatches * one.shape.chunks;
      EXPECT_DOUBLE_EQ(timeline.makespan, work + *bubble) << describe(one);
      EXPECT_NEAR(timeline.bubbleShare, *bubble / (work + *bubble), 1e-12)
          << describe(one);
    }
}

TEST(PipelineSchedule, InFlightFormulas) {
  for (const Case &one : sweep()) {
    const auto timeline = simulate(one, SendMode::Buffered, {});
    for (unsigned rank = 0; rank < one.shape.ranks; ++rank)
      EXPECT_EQ(timeline.inFlight[rank], inFlightOf(one.kind, one.shape, rank))
          << describe(one) << ", rank " << rank;
  }
}

TEST(PipelineSchedule, ZeroBubbleIsShorterInTheSameMemory) {
  for (unsigned ranks = 2; ranks <= 8; ++ranks)
    for (unsigned microbatches = ranks; microbatches <= 16; ++microbatches) {
      const PipelineShape shape{ranks, microbatches, 1};
      const Case split{ScheduleKind::ZeroBubble, shape},
          whole{ScheduleKind::OneFOneB, shape};
      const auto a = simulate(split, SendMode::Buffered, {}),
                 b = simulate(whole, SendMode::Buffered, {});
      EXPECT_LT(a.makespan, b.makespan);
      EXPECT_LE(*std::max_element(a.inFlight.begin(), a.inFlight.end()),
                *std::max_element(b.inFlight.begin(), b.inFlight.end()));
    }
}

TEST(PipelineSchedule, TheFigureOfFourRanks) {
  const PipelineShape shape{4, 8, 1};
  const auto gpipe =
                 simulate({ScheduleKind::GPipe, shape}, SendMode::Buffered, {}),
             steady = simulate({ScheduleKind::OneFOneB, shape},
                               SendMode::Buffered, {});
  EXPECT_EQ(gpipe.inFlight, (std::vector<unsigned>{8, 8, 8, 8}));
  EXPECT_EQ(steady.inFlight, (std::vector<unsigned>{4, 3, 2, 1}));
  EXPECT_NEAR(gpipe.bubbleShare, 3.0 / 11, 1e-12);
  EXPECT_NEAR(steady.bubbleShare, 3.0 / 11, 1e-12);
}

// Channels deliver in order, so both ends must count microbatches alike.
TEST(PipelineSchedule, ChannelsKeepOrder) {
  for (const Case &one : sweep()) {
    const auto actions =
        expandSchedule(buildSchedule(one.kind, one.shape), one.shape);
    std::map<unsigned, std::vector<unsigned>> sent, received; // by channel
    for (const auto &list : actions)
      for (const PipelineAction &action : list)
        if (action.kind != Kind::Run)
          (action.kind == Kind::Send ? sent : received)[action.channel]
              .push_back(action.microbatch);
    EXPECT_EQ(sent, received) << describe(one);
  }
}

TEST(PipelineSchedule, StagesAreBalanced) {
  const std::vector<double> alike(8, 1.0);
  EXPECT_EQ(balanceStages(alike, 0, 0, 4), (std::vector<unsigned>{2, 2, 2, 2}));
  EXPECT_EQ(balanceStages(alike, 0, 0, 3), (std::vector<unsigned>{2, 3, 3}));
  // The head is worth two layers, the embedding one.
  EXPECT_EQ(balanceStages(alike, 1, 2, 4), (std::vector<unsigned>{1, 3, 3, 1}));
  EXPECT_EQ(balanceStages(alike, 0, 100, 2), (std::vector<unsigned>{7, 1}));
  EXPECT_EQ(balanceStages(alike, 0, 100, 3), (std::vector<unsigned>{3, 4, 1}));
  EXPECT_EQ(balanceStages({5, 1, 1, 1, 1, 1}, 0, 0, 2),
            (std::vector<unsigned>{1, 5}));
  EXPECT_EQ(balanceStages(alike, 3, 3, 1), (std::vector<unsigned>{8}));
}

TEST(PipelineSchedule, TextForm) {
  const PipelineShape one{2, 3, 1}, two{2, 2, 2};
  const auto plain = buildSchedule(ScheduleKind::OneFOneB, one);
  EXPECT_EQ(printWork(plain[0], one), "F0 F1 B0 F2 B1 B2");
  EXPECT_EQ(printWork(plain[1], one), "F0 B0 F1 B1 F2 B2");
  EXPECT_EQ(parseWork("F0 F1 B0 F2 B1 B2"), plain[0]);
  const auto split = buildSchedule(ScheduleKind::ZeroBubble, one);
  EXPECT_EQ(printWork(split[0], one), "F0 F1 B0 W0 F2 B1 W1 B2 W2");
  EXPECT_EQ(printWork(split[1], one), "F0 B0 F1 B1 W0 F2 B2 W1 W2");
  const auto interleaved = buildSchedule(ScheduleKind::Interleaved, two);
  EXPECT_EQ(printWork(interleaved[1], two),
            "F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 B0.0 B1.0");
  EXPECT_EQ(parseWork(printWork(interleaved[1], two)), interleaved[1]);
  for (const char *bad : {"F", "X0", "F0.", "F0  B0", "F0.1.2", "B-1", "F0,B0"})
    EXPECT_EQ(parseWork(bad), std::nullopt) << bad;
}

TEST(PipelineSchedule, WrongSchedulesAreNamed) {
  const PipelineShape shape{2, 2, 1};
  auto check = [&](const char *first, const char *second) {
    return checkSchedule({*parseWork(first), *parseWork(second)}, shape);
  };
  EXPECT_EQ(check("F0 F1 B0 B1", "F0 B0 F1 B1"), "");
  EXPECT_EQ(check("F0 F1 B0", "F0 B0 F1 B1"),
            "rank 0: expected B1 once, got none");
  EXPECT_EQ(check("F0 F1 B0 B1", "F0 B0 F1 B1 B1"),
            "rank 1: expected B1 once, got it twice");
  EXPECT_EQ(check("F0 F1 B0 B1", "B0 F0 F1 B1"),
            "rank 1: expected B0 after F0");
  EXPECT_EQ(check("F0 F2 B0 B2", "F0 B0 F1 B1"),
            "rank 0: expected F2 of 2 microbatches and 1 chunks");
  EXPECT_EQ(checkSchedule({{}}, shape), "expected the work of 2 ranks, got 1");
  EXPECT_EQ(check("F0 B0 F1 B1", "F0 F1 B0 B1"),
            "rank 0 waits to receive microbatch 0 on channel 2 from rank 1; "
            "rank 1 waits to receive microbatch 1 on channel 0 from rank 0");
}

// Blocking sends one by one, as they stand in the lists, would deadlock: groups
// are what makes 1F1B safe.
TEST(PipelineTimeline, NeedsGroups) {
  auto programs = makePrograms(
      expandSchedule(buildSchedule(ScheduleKind::OneFOneB, {4, 8, 1}),
                     {4, 8, 1}),
      {4, 8, 1}, {});
  EXPECT_EQ(plan::simulatePipeline(programs, SendMode::Rendezvous, 0).deadlock,
            "");
  for (plan::PipelineProgram &program : programs) {
    plan::PipelineProgram apart;
    for (const plan::PipelineStep &step : program) {
      apart.push_back(step);
      if (step.kind != Kind::Run)
        apart.push_back({Kind::Run});
    }
    program = apart;
  }
  EXPECT_NE(plan::simulatePipeline(programs, SendMode::Rendezvous, 0).deadlock,
            "");
  EXPECT_EQ(plan::simulatePipeline(programs, SendMode::Buffered, 0).deadlock,
            "");
}

TEST(PipelineTimeline, MessagesTakeTime) {
  const std::vector<plan::PipelineProgram> programs = {
      {{Kind::Run, 0, 0, 2}, {Kind::Send, 0, 0, 0, 0, 1}},
      {{Kind::Receive, 1, 0, 0, 0, 0}, {Kind::Run, 1, 0, 3}}};
  const auto timeline =
      plan::simulatePipeline(programs, SendMode::Buffered, 0.5);
  EXPECT_DOUBLE_EQ(timeline.makespan, 5.5);
  EXPECT_DOUBLE_EQ(timeline.spans[1][0].end, 2.5);
  EXPECT_DOUBLE_EQ(timeline.bubbleShare, 1 - 5 / 11.0);
}

} // namespace
