// What a plan says its ranks send and allocate, on a plan put together by hand:
// two pipeline ranks, two microbatches, collectives of every kind.
#include "runtime/plan/Traffic.h"
#include "test/runtime/TestPlan.h"

using namespace megalodon;
using namespace megalodon::plan;

namespace {

constexpr uint64_t kRow = 24; ///< bytes of a row of a rank's share

CollectiveStart collective(CollectiveKind kind, uint32_t communicator,
                           std::vector<CollectiveItem> items, uint32_t event,
                           bool last = false) {
  return {kind, communicator, ElementType::F32, std::move(items), event, last};
}

/// 8 rows of 6 tokens on dp=2, pp=2, cp=3: 2 rows a microbatch, 2 tokens.
LoadedPlan makePlan() {
  LoadedPlan plan;
  plan.mesh = {2, 2, 3, 1};
  plan.communicators = {{{Axis::Chunk}, {}, 3}, {{Axis::Data}, {}, 2}};
  auto variable = [&](Role role, std::vector<int64_t> shape,
                      std::vector<uint32_t> stages = {}) {
    Variable v;
    v.name = "v";
    v.type = ElementType::F32;
    v.role = role;
    v.shape = v.localShape = std::move(shape);
    v.stages = std::move(stages);
    plan.variables.push_back(std::move(v));
  };
  variable(Role::Parameter, {16});        // 64 bytes
  variable(Role::FirstMoment, {17}, {0}); // 68, 128 with its gap
  variable(Role::Gradient, {16});
  variable(Role::Residual, {64}, {1});
  Function function;
  function.name = "f";
  function.batch = 8;
  function.length = 6;
  function.dataParts = 2;
  function.chunkParts = 3;
  for (uint32_t stage : {0u, 1u}) {
    Program program{};
    program.stage = stage;
    program.buffers = {{2, 0, 64, "grad"},
                       {-1, 0, 4 * kRow * 4, "stream"},
                       {3, 0, 256, "kept"}};
    if (stage == 0)
      program.buffers.pop_back();
    program.arenaBytes = 640;
    program.microbatches = 2;
    program.slots = 1;
    const CollectiveItem rows{1, 1, 1, Dynamic::Batch, kRow};
    const CollectiveItem tokens{1, 1, 1, Dynamic::BatchLength, kRow};
    const CollectiveItem whole{0, 0, 1, Dynamic::None, 64};
    program.segments = {
        {"forward",
         {{collective(CollectiveKind::AllGather, 0, {rows}, 1), "summary"},
          {collective(CollectiveKind::ReduceScatter, 0, {rows, tokens}, 2),
           "scatter"},
          {Wait{1}, ""},
          {Wait{2}, ""},
          {collective(CollectiveKind::AllReduce, 1, {whole}, 3, true), "grad"},
          {Wait{3}, ""}}},
        {"update",
         {{collective(CollectiveKind::AllReduce, 1, {whole, whole}, 4), "norm"},
          {Wait{4}, ""}}}};
    for (uint32_t microbatch : {0u, 1u}) {
      Action message{};
      message.kind = stage == 0 ? ActionKind::Send : ActionKind::Receive;
      message.buffer = 1;
      message.peer = 1 - stage;
      message.microbatch = microbatch;
      message.dynamic = Dynamic::BatchLength;
      Action run{};
      run.kind = ActionKind::Run;
      run.microbatch = microbatch;
      if (stage == 0)
        program.actions.insert(program.actions.end(), {run, message});
      else
        program.actions.insert(program.actions.end(), {message, run});
    }
    Action update{};
    update.kind = ActionKind::Run;
    update.segment = 1;
    program.updateActions = {update};
    function.programs.push_back(std::move(program));
  }
  plan.functions.push_back(std::move(function));
  return plan;
}

} // namespace

TEST(Traffic, FollowsTheActions) {
  const LoadedPlan plan = makePlan();
  const Function &function = plan.functions[0];
  std::vector<std::string> names;
  std::vector<uint64_t> bytes;
  for (const Message &message :
       messagesOf(plan, function, function.programs[0])) {
    names.push_back(message.name + " " + std::to_string(message.microbatch));
    bytes.push_back(message.bytes);
  }
  // The gradients go once, with the last microbatch.
  EXPECT_EQ(names, (std::vector<std::string>{
                       "all_gather cp 0", "reduce_scatter cp 0", "send pp 0",
                       "all_gather cp 1", "reduce_scatter cp 1",
                       "all_reduce dp 1", "send pp 1", "all_reduce dp 0"}));
  // 2 rows; reduce_scatter puts in the shares of 3 ranks of 2 rows and 4
  // tokens; the stream has 4 tokens of 4 kRow.
  EXPECT_EQ(bytes, (std::vector<uint64_t>{48, 3 * 144, 384, 48, 3 * 144, 64,
                                          384, 128}));
}

TEST(Traffic, TableSumsByNameAndLeavesReceivesToTheSender) {
  const LoadedPlan plan = makePlan();
  const Function &function = plan.functions[0];
  const std::vector<plan::Traffic> first =
      trafficOf(messagesOf(plan, function, function.programs[0]));
  ASSERT_EQ(first.size(), 5u);
  EXPECT_EQ(first[0].name, "all_gather cp");
  EXPECT_EQ(first[0].messages, 2);
  EXPECT_EQ(first[0].bytes, 96u);
  EXPECT_EQ(first[2].name, "send pp");
  EXPECT_EQ(first[2].bytes, 768u);
  EXPECT_EQ(first[3].bytes, 64u);
  EXPECT_FALSE(first[3].update);
  EXPECT_TRUE(first[4].update);
  EXPECT_EQ(first[4].bytes, 128u);
  const std::vector<Message> second =
      messagesOf(plan, function, function.programs[1]);
  EXPECT_EQ(second[0].name, "receive pp");
  EXPECT_EQ(trafficOf(second).size(), 4u);
}

TEST(Traffic, MemoryOfEachStage) {
  const LoadedPlan plan = makePlan();
  const Function &function = plan.functions[0];
  const RankMemory first = memoryOf(plan, function, function.programs[0]),
                   second = memoryOf(plan, function, function.programs[1]);
  EXPECT_EQ(first.parameters, 64u);
  EXPECT_EQ(first.moments, 128u);
  EXPECT_EQ(second.moments, 0u);
  EXPECT_EQ(first.gradients, 64u);
  EXPECT_EQ(first.residuals, 0u);
  EXPECT_EQ(second.residuals, 256u);
  EXPECT_EQ(second.activations(), 640u + 256u);
  // Gather and scatter are under way together: 4 shares of 48 and of 144 bytes.
  // The message of the update fits into the larger.
  EXPECT_EQ(first.staging, 4u * 48 + 4u * 144);
  EXPECT_EQ(first.total(), 64u + 128 + 64 + 640 + first.staging);
}

TEST(Traffic, ASessionAllocatesWhatThePlanSays) {
  const auto loaded = test::loadPlan();
  for (size_t index = 0; index < loaded->functions.size(); ++index) {
    const Function &function = loaded->functions[index];
    Session session(loaded, {1});
    session.run(index);
    const RankMemory want = memoryOf(*loaded, function, function.programs[0]),
                     got = session.memory();
    EXPECT_EQ(got.parameters, want.parameters);
    EXPECT_EQ(got.moments, want.moments);
    EXPECT_EQ(got.gradients, want.gradients);
    EXPECT_EQ(got.state, want.state);
    EXPECT_EQ(got.inputsOutputs, want.inputsOutputs);
    EXPECT_GE(got.arena, want.arena); // that of the largest function
    EXPECT_GT(want.total(), 0u);
  }
}
