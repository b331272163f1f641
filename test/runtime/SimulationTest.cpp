// Plays small programs through by hand: overlap of messages and work, rings,
// messages between stages.
#include "runtime/plan/Simulation.h"
#include "test/runtime/Messages.h"

using namespace megalodon;
using namespace megalodon::plan;

namespace {

/// Work in microseconds.
Command work(double microseconds) {
  Dispatch dispatch{};
  dispatch.flops = microseconds; // at a megaflop a second
  return {dispatch, "work"};
}

Command start(CollectiveKind kind, uint32_t communicator, uint64_t bytes,
              uint32_t event, bool last = false) {
  return {CollectiveStart{kind,
                          communicator,
                          ElementType::F32,
                          {{0, 0, 1, Dynamic::None, bytes}},
                          event,
                          last},
          "message"};
}

Command wait(uint32_t event) { return {Wait{event}, ""}; }

Action act(ActionKind kind, uint32_t peer = 0, uint32_t microbatch = 0) {
  Action action{};
  action.kind = kind;
  action.peer = peer;
  action.microbatch = microbatch;
  return action;
}

/// A link takes a microsecond a step and a microsecond for 100 bytes.
const Machine kMachine = {
    1e6, 1e15, {{1e-6, 1e8}, {1e-6, 1e8}, {1e-6, 1e8}, {1e-6, 1e8}}};

struct Plan {
  LoadedPlan plan;

  explicit Plan(Mesh mesh) {
    plan.path = "hand.plan";
    plan.mesh = mesh;
    plan.kernels = {{"kernel", 0, ""}};
    plan.functions.resize(1);
    plan.functions[0].name = "f";
    plan.functions[0].batch = plan.functions[0].length = 1;
  }
  /// A stage whose segment runs in `actions`.
  void stage(std::vector<Command> commands, std::vector<Action> actions) {
    Program program{};
    program.stage = uint32_t(plan.functions[0].programs.size());
    program.buffers = {{-1, 0, 400, "x"}};
    program.microbatches = program.slots = 1;
    program.segments = {{"s", std::move(commands)}};
    program.actions = std::move(actions);
    // Runs touch the message.
    Dispatch touch{};
    touch.args = {0};
    program.segments[0].commands.push_back({touch, ""});
    plan.functions[0].programs.push_back(std::move(program));
  }
  Estimate run() { return simulate(plan, plan.functions[0], kMachine); }
};

constexpr double kMicro = 1e-6;

} // namespace

TEST(Simulation, WorkBehindAMessageHidesIt) {
  // all_reduce over 4: 6 steps of a quarter of 400 bytes = 6 (1 + 1).
  for (double hidden : {0.0, 5.0, 20.0}) {
    Plan p({4, 1, 1, 1});
    p.plan.communicators = {{{Axis::Data}, {}, 4}};
    p.stage({work(3), start(CollectiveKind::AllReduce, 0, 400, 1), work(hidden),
             wait(1)},
            {act(ActionKind::Run)});
    const Estimate estimate = p.run();
    EXPECT_NEAR(estimate.seconds, (3 + std::max(hidden, 12.0)) * kMicro, 1e-12);
    EXPECT_NEAR(estimate.stages[0].exposedSeconds(),
                std::max(0.0, 12 - hidden) * kMicro, 1e-12);
    EXPECT_NEAR(estimate.stages[0].wireBytes, 600, 1e-9);
    EXPECT_NEAR(estimate.bubbleShare(), 0, 1e-9);
  }
}

TEST(Simulation, MessagesOfOneAxisFollowEachOther) {
  // Two all_gathers over 2 ranks, each 1 + 2 microseconds.
  for (bool same : {true, false}) {
    Plan p({1, 1, 2, 2});
    p.plan.communicators = {{{Axis::Chunk}, {}, 2}, {{Axis::Tensor}, {}, 2}};
    p.stage({start(CollectiveKind::AllGather, 0, 200, 1),
             start(CollectiveKind::AllGather, same ? 0 : 1, 200, 2), wait(1),
             wait(2)},
            {act(ActionKind::Run)});
    EXPECT_NEAR(p.run().seconds, (same ? 6 : 3) * kMicro, 1e-12);
  }
}

TEST(Simulation, StagesWaitForEachOther) {
  Plan p({1, 2, 1, 1});
  // 10 of work, then 400 bytes in 1 + 4, then 20 of work.
  p.stage({work(10)}, {act(ActionKind::Run), act(ActionKind::Send, 1)});
  p.stage({work(20)}, {act(ActionKind::Receive, 0), act(ActionKind::Run)});
  const Estimate estimate = p.run();
  EXPECT_NEAR(estimate.seconds, 35 * kMicro, 1e-12);
  EXPECT_NEAR(estimate.stages[1].pipelineWait, 15 * kMicro, 1e-12);
  EXPECT_NEAR(estimate.bubbleShare(), 1 - 30.0 / 70, 1e-9);
  ASSERT_EQ(estimate.stages[1].trace.size(), 4u);
  EXPECT_EQ(estimate.stages[1].trace[0].name, "receive pp");
  EXPECT_EQ(estimate.stages[1].trace[1].name, "wait receive pp");
  EXPECT_EQ(estimate.stages[0].trace[2].bytes, 400u);
}

TEST(Simulation, StagesMeetInACollective) {
  Plan p({1, 2, 1, 1});
  p.plan.communicators = {{{Axis::Pipeline}, {}, 2}};
  for (double before : {4.0, 9.0})
    p.stage(
        {work(before), start(CollectiveKind::AllReduce, 0, 200, 1), wait(1)},
        {act(ActionKind::Run)});
  // 2 steps of half of 200 bytes.
  EXPECT_NEAR(p.run().seconds, (9 + 2 * 2) * kMicro, 1e-12);
}

TEST(Simulation, NamesADeadlock) {
  Plan p({1, 2, 1, 1});
  p.stage({}, {act(ActionKind::Receive, 1), act(ActionKind::Run)});
  p.stage({}, {act(ActionKind::Receive, 0), act(ActionKind::Run)});
  EXPECT_ERROR(p.run(),
               "hand.plan: function 'f': pipeline rank 0 waits forever "
               "at action 1 of 2");
}
