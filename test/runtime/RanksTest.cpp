// Plans for several ranks: parts of tensors, messages in all their forms, and
// programs of a pipeline. The plans are built by hand and have no kernels.
#include "runtime/core/File.h"
#include "runtime/io/Safetensors.h"
#include "runtime/io/SpreadTensor.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/plan/Header.h"
#include "runtime/plan/PlanFile.h"
#include "runtime/plan/Trace.h"
#include "runtime/plan/Traffic.h"
#include "test/runtime/TestPlan.h"
#include <atomic>
#include <cstring>

using namespace megalodon;
using namespace megalodon::test;
namespace fb = megalodon::plan::fb;

namespace {

/// Collects the parts of a plan with one function `f`.
class PlanMaker {
public:
  template <typename T> using Offset = flatbuffers::Offset<T>;

  PlanMaker(fb::Mesh mesh, int64_t batch, int64_t length)
      : mesh(mesh), batch(batch), length(length) {}

  using Splits = std::vector<std::pair<uint32_t, std::vector<fb::Axis>>>;

  uint32_t variable(const char *name, fb::Role role, fb::Dynamic dynamic,
                    std::vector<int64_t> shape, const Splits &splits,
                    std::vector<uint32_t> stages = {}) {
    std::vector<Offset<fb::Split>> list;
    for (const auto &[dimension, axes] : splits)
      list.push_back(fb::CreateSplitDirect(builder, dimension, &axes));
    const auto type =
        role == fb::Role::State ? fb::ElementType::I64 : fb::ElementType::F32;
    variables.push_back(fb::CreateVariableDirect(
        builder, name, type, role, &shape, dynamic, 0, -1,
        /*optional=*/role == fb::Role::State, 0, &list,
        stages.empty() ? nullptr : &stages));
    const auto index = uint32_t(variables.size() - 1);
    if (role == fb::Role::Input || role == fb::Role::State)
      inputs.push_back(index);
    if (role == fb::Role::Output)
      outputs.push_back(index);
    return index;
  }
  uint32_t communicator(std::vector<fb::Axis> axes) {
    communicators.push_back(fb::CreateCommunicatorDirect(builder, &axes));
    return uint32_t(communicators.size() - 1);
  }

  // The program under construction.
  uint32_t buffer(int32_t variable, uint64_t bytes, uint64_t offset = 0,
                  uint64_t stride = 0, fb::Indexed index = fb::Indexed::None) {
    buffers.push_back(
        fb::CreateBuffer(builder, variable, offset, bytes, 0, stride, index));
    return uint32_t(buffers.size() - 1);
  }
  void copy(uint32_t from, uint32_t to, uint64_t bytes, fb::Dynamic dynamic) {
    add(fb::Operation::CopyStart,
        fb::CreateCopyStart(builder, from, to, bytes, dynamic, event).Union());
    wait(event++);
  }
  uint32_t collective(fb::CollectiveKind kind, uint32_t communicator,
                      const std::vector<Offset<fb::CollectiveItem>> &items,
                      bool last = false, uint32_t queue = plan::kMessageQueue) {
    add(fb::Operation::CollectiveStart,
        fb::CreateCollectiveStartDirect(builder, kind, communicator,
                                        fb::ElementType::F32, &items, event,
                                        last)
            .Union(),
        queue);
    return event++;
  }
  Offset<fb::CollectiveItem> item(uint32_t from, uint32_t to, int64_t rows,
                                  fb::Dynamic dynamic, uint64_t rowBytes) {
    return fb::CreateCollectiveItem(builder, from, to, rows, dynamic, rowBytes);
  }
  void wait(uint32_t of) {
    add(fb::Operation::Wait, fb::CreateWait(builder, of).Union());
  }
  void endSegment(const char *name) {
    segments.push_back(fb::CreateSegmentDirect(builder, name, &commands));
    commands.clear();
  }
  void act(fb::ActionKind kind, uint32_t segmentOrBuffer, uint32_t peer = 0,
           uint32_t microbatch = 0, fb::Dynamic dynamic = fb::Dynamic::None,
           uint32_t slot = 0) {
    const bool runs = kind == fb::ActionKind::Run;
    actions.push_back(fb::CreateAction(
        builder, kind, runs ? segmentOrBuffer : 0, runs ? 0 : segmentOrBuffer,
        peer, /*channel=*/3, microbatch, slot, dynamic));
  }
  void endProgram(uint64_t arena, uint32_t microbatches = 1,
                  uint32_t slots = 1) {
    const std::vector<Offset<fb::Action>> none;
    programs.push_back(fb::CreateProgramDirect(
        builder, uint32_t(programs.size()), &buffers, arena, microbatches,
        slots, &segments, &actions, &none));
    buffers.clear();
    segments.clear();
    actions.clear();
  }

  size_t programCount() const { return programs.size(); }

  std::vector<uint8_t> finish() {
    const std::vector<Offset<fb::Function>> functions = {
        fb::CreateFunctionDirect(builder, "f", &inputs, &outputs, batch, length,
                                 false, &programs)};
    const std::vector<Offset<flatbuffers::String>> features;
    const std::vector<Offset<fb::Kernel>> kernels;
    fb::FinishPlanBuffer(
        builder,
        fb::CreatePlanDirect(builder, "test", "{}", "megalodon", "f32",
                             onCuda() ? "cuda" : "cpu", "", &features, 8, 8, 2,
                             1, &variables, &kernels, &functions, nullptr,
                             &mesh, &communicators));
    return plan::sealPlan(builder.GetBufferPointer(), builder.GetSize(),
                          onCuda() ? plan::kFeatureCuda : 0);
  }
  std::shared_ptr<const plan::LoadedPlan> load() {
    const std::vector<uint8_t> bytes = finish();
    return plan::LoadedPlan::parse("ranks.plan", bytes.data(), bytes.size());
  }

  flatbuffers::FlatBufferBuilder builder;

private:
  void add(fb::Operation type, Offset<void> operation, uint32_t queue = 0) {
    commands.push_back(
        fb::CreateCommandDirect(builder, type, operation, queue));
  }

  fb::Mesh mesh;
  int64_t batch, length;
  uint32_t event = 0;
  std::vector<Offset<fb::Variable>> variables;
  std::vector<Offset<fb::Communicator>> communicators;
  std::vector<uint32_t> inputs, outputs;
  std::vector<Offset<fb::Buffer>> buffers;
  std::vector<Offset<fb::Command>> commands;
  std::vector<Offset<fb::Segment>> segments;
  std::vector<Offset<fb::Action>> actions;
  std::vector<Offset<fb::Program>> programs;
};

constexpr fb::Dynamic kTokens = fb::Dynamic::BatchLength;

float *floats(const TensorView &view) {
  return reinterpret_cast<float *>(view.write());
}

/// Gives each element of the whole tensor its number, in this rank's part.
void number(const SpreadTensor &tensor, float scale = 1) {
  forEachRun(tensor.whole.shape, *tensor.box(),
             [&](int64_t outside, int64_t inside, int64_t count) {
               for (int64_t i = 0; i < count; ++i)
                 floats(tensor.part)[inside + i] = scale * float(outside + i);
             });
}

/// Compares this rank's part with the numbers of the whole's elements.
void expectNumbers(const SpreadTensor &tensor, float scale = 1) {
  int64_t seen = 0;
  forEachRun(
      tensor.whole.shape, *tensor.box(),
      [&](int64_t outside, int64_t inside, int64_t count) {
        for (int64_t i = 0; i < count; ++i, ++seen)
          ASSERT_EQ(floats(tensor.part)[inside + i], scale * float(outside + i))
              << tensor.whole.name << ", element " << outside + i;
      });
  EXPECT_GT(seen, 0);
}

/// x [4, 4, 6] and y [4, 4, 2], rows over data, channels over tensor.
/// gathered_x and gathered_y have all channels, both in one message; summed_x
/// is gathered_x summed over the tensor ranks, of which each has its channels
/// again.
std::vector<uint8_t> gatherFile() {
  PlanMaker plan({2, 1, 1, 2}, 4, 4);
  const PlanMaker::Splits rows = {{0, {fb::Axis::Data}}},
                          both = {{0, {fb::Axis::Data}},
                                  {2, {fb::Axis::Tensor}}};
  const uint32_t x =
      plan.variable("x", fb::Role::Input, kTokens, {4, 4, 6}, both);
  const uint32_t y =
      plan.variable("y", fb::Role::Input, kTokens, {4, 4, 2}, both);
  const uint32_t gx =
      plan.variable("gathered_x", fb::Role::Output, kTokens, {4, 4, 6}, rows);
  const uint32_t gy =
      plan.variable("gathered_y", fb::Role::Output, kTokens, {4, 4, 2}, rows);
  const uint32_t sum =
      plan.variable("summed_x", fb::Role::Output, kTokens, {4, 4, 6}, both);
  const uint32_t tensor = plan.communicator({fb::Axis::Tensor});
  const uint32_t bx = plan.buffer(int(x), 96), by = plan.buffer(int(y), 32),
                 bgx = plan.buffer(int(gx), 192),
                 bgy = plan.buffer(int(gy), 64),
                 bsum = plan.buffer(int(sum), 96);
  plan.wait(plan.collective(
      fb::CollectiveKind::AllGather, tensor,
      {plan.item(bx, bgx, 1, kTokens, 12), plan.item(by, bgy, 1, kTokens, 4)}));
  plan.wait(plan.collective(fb::CollectiveKind::ReduceScatter, tensor,
                            {plan.item(bgx, bsum, 1, kTokens, 12)}));
  plan.endSegment("compute");
  plan.act(fb::ActionKind::Run, 0);
  plan.endProgram(0);
  return plan.finish();
}

std::shared_ptr<const plan::LoadedPlan> gatherPlan() {
  const std::vector<uint8_t> bytes = gatherFile();
  return plan::LoadedPlan::parse("ranks.plan", bytes.data(), bytes.size());
}

/// in and out [4, 4]: two pipeline ranks, two microbatches, two slots. Stage 0
/// copies its input into the arena and sends it; stage 1 copies what it
/// receives into the output.
std::shared_ptr<const plan::LoadedPlan> pipelinePlan(uint32_t sentBytes = 32) {
  PlanMaker plan({1, 2, 1, 1}, 4, 4);
  const uint32_t in = plan.variable("in", fb::Role::Input, kTokens, {4, 4}, {},
                                    {0}),
                 out = plan.variable("out", fb::Role::Output, kTokens, {4, 4},
                                     {}, {1});
  const uint32_t from =
                     plan.buffer(int(in), 32, 0, 32, fb::Indexed::Microbatch),
                 cut = plan.buffer(-1, 32, 64, 64, fb::Indexed::Slot);
  plan.copy(from, cut, 4, kTokens);
  plan.endSegment("stage 0");
  for (uint32_t m : {0, 1}) {
    plan.act(fb::ActionKind::Run, 0, 0, m, fb::Dynamic::None, m);
    plan.act(fb::ActionKind::Send, cut, 1, m, kTokens, m);
  }
  plan.endProgram(192, 2, 2);
  // One slot, so that the second receive waits for the first copy.
  const uint32_t to = plan.buffer(int(out), 32, 0, 32, fb::Indexed::Microbatch),
                 arrived = plan.buffer(-1, sentBytes, 0, 64, fb::Indexed::Slot);
  plan.copy(arrived, to, 4, kTokens);
  plan.endSegment("stage 1");
  for (uint32_t m : {0, 1}) {
    plan.act(fb::ActionKind::Receive, arrived, 0, m, kTokens);
    plan.act(fb::ActionKind::Run, 0, 0, m);
  }
  plan.endProgram(64, 2, 1);
  return plan.load();
}

} // namespace

TEST(Ranks, GatherAndScatterChannelsOfEveryCall) {
  const auto plan = gatherPlan();
  for (CallShape call : {CallShape{4, 4}, CallShape{2, 3}, CallShape{2, 1}})
    runVirtualRanks(4, [&](World &world) {
      Session session(plan, {1}, world);
      number(spreadVariable(session, 0, "x", call));
      number(spreadVariable(session, 0, "y", call), 0.5f);
      session.run(0, call);
      expectNumbers(spreadVariable(session, 0, "gathered_x", call));
      expectNumbers(spreadVariable(session, 0, "gathered_y", call), 0.5f);
      expectNumbers(spreadVariable(session, 0, "summed_x", call), 2);
      EXPECT_EQ(session.variable(0, "x", call).shape,
                (std::vector<int64_t>{call.batch / 2, call.length, 3}));
    });
}

TEST(Ranks, ProfilingKeepsAllMessages) {
  const auto plan = gatherPlan();
  runVirtualRanks(4, [&](World &world) {
    Session session(plan, {1}, world);
    session.setProfiling(true);
    session.run(0);
    ASSERT_EQ(session.commandSeconds().size(), 1u);
    EXPECT_EQ(session.commandSeconds()[0].size(), 4u);
  });
}

TEST(Ranks, APipelineMovesEveryMicrobatch) {
  const auto plan = pipelinePlan();
  for (CallShape call : {CallShape{4, 4}, CallShape{2, 4}, CallShape{4, 1}})
    runVirtualRanks(2, [&](World &world) {
      Session session(plan, {1}, world);
      for (int repeat = 1; repeat <= 3; ++repeat) {
        if (world.rank() == 0)
          number(spreadVariable(session, 0, "in", call), float(repeat));
        session.run(0, call);
        if (world.rank() == 1)
          expectNumbers(spreadVariable(session, 0, "out", call), float(repeat));
      }
      EXPECT_EQ(session.inputs(0).size(), world.rank() == 0 ? 1u : 0u);
    });
}

TEST(Ranks, OnlyTheLastCallSendsWhatWaitsForIt) {
  PlanMaker maker({2, 1, 1, 1}, 2, 2);
  const uint32_t gradient =
      maker.variable("grad.w", fb::Role::Output, fb::Dynamic::None, {6}, {});
  const uint32_t data = maker.communicator({fb::Axis::Data});
  const uint32_t first = maker.buffer(int(gradient), 8),
                 second = maker.buffer(int(gradient), 16, 8);
  maker.wait(
      maker.collective(fb::CollectiveKind::AllReduce, data,
                       {maker.item(first, first, 1, fb::Dynamic::None, 8),
                        maker.item(second, second, 1, fb::Dynamic::None, 16)},
                       /*last=*/true));
  maker.endSegment("compute");
  maker.act(fb::ActionKind::Run, 0);
  maker.endProgram(0);
  const auto plan = maker.load();
  runVirtualRanks(2, [&](World &world) {
    Session session(plan, {1}, world);
    const float own = world.rank() == 0 ? 1.0f : 10.0f;
    const TensorView view = session.variable(0, "grad.w");
    for (int i = 0; i < 6; ++i)
      floats(view)[i] = own * float(i);
    session.run(0, {}, Half::Compute, false, /*last=*/false);
    EXPECT_EQ(floats(view)[5], own * 5);
    session.run(0, {}, Half::Compute, true, /*last=*/true);
    for (int i = 0; i < 6; ++i)
      EXPECT_EQ(floats(view)[i], 11.0f * float(i));
  });
}

TEST(Ranks, UnevenPartsArePadded) {
  PlanMaker maker({1, 1, 1, 4}, 1, 1);
  maker.variable("v", fb::Role::Input, fb::Dynamic::None, {5, 3},
                 {{0, {fb::Axis::Tensor}}});
  maker.endSegment("compute");
  maker.act(fb::ActionKind::Run, 0);
  maker.endProgram(0);
  const auto plan = maker.load();
  const int64_t valid[] = {2, 2, 1, 0};
  std::atomic<int> elements{0};
  runVirtualRanks(4, [&](World &world) {
    Session session(plan, {1}, world);
    const SpreadTensor tensor = spreadVariable(session, 0, "v");
    EXPECT_EQ(tensor.part.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(tensor.box()->valid(tensor.whole.shape, 0), valid[world.rank()]);
    elements += int(tensor.box()->validElements(tensor.whole.shape));
  });
  EXPECT_EQ(elements, 15);
}

TEST(Ranks, SessionsRefuseWhatDoesNotFit) {
  const auto plan = gatherPlan();
  EXPECT_ERROR(Session(plan, {1}),
               "ranks.plan: expected 4 ranks as mesh dp=2,pp=1,cp=1,tp=2 says, "
               "got 1; start it with mpirun -n 4 megalodon-run ... or with "
               "--virtual-ranks");
  EXPECT_ERROR(runVirtualRanks(2,
                               [&](World &world) {
                                 Session session(world.rank() ? plan
                                                              : pipelinePlan(),
                                                 {1}, world);
                               }),
               "ranks.plan: rank 1 holds another plan than rank 0: digest " +
                   plan->digest);
  runVirtualRanks(4, [&](World &world) {
    Session session(plan, {1}, world);
    EXPECT_ERROR(session.run(0, {3, 4}),
                 "function 'f': batch: expected a multiple of 2 on mesh "
                 "dp=2,pp=1,cp=1,tp=2, got 3");
  });
}

TEST(Ranks, TheChunkAxisTakesWholeChunks) {
  PlanMaker maker({1, 1, 2, 1}, 1, 8);
  maker.variable("t", fb::Role::Input, kTokens, {1, 8},
                 {{1, {fb::Axis::Chunk}}});
  maker.endSegment("compute");
  maker.act(fb::ActionKind::Run, 0);
  maker.endProgram(0);
  const auto plan = maker.load(); // of chunk 2
  runVirtualRanks(2, [&](World &world) {
    Session session(plan, {1}, world);
    session.run(0, {1, 4});
    EXPECT_EQ(session.variable(0, "t", {1, 4}).shape,
              (std::vector<int64_t>{1, 2}));
    EXPECT_ERROR(session.run(0, {1, 6}),
                 "length: expected a multiple of 4 on mesh dp=1,pp=1,cp=2,tp=1,"
                 " got 6");
  });
}

TEST(Ranks, InvokeReadsAndWritesWholeTensors) {
  const std::string plan = temporaryPath("plan"), in = temporaryPath("in"),
                    out = temporaryPath("out");
  const std::vector<uint8_t> bytes = gatherFile();
  writeText(plan, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  std::vector<float> x(96), y(32);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = float(i);
  for (size_t i = 0; i < y.size(); ++i)
    y[i] = -float(i);
  auto view = [](const char *name, int64_t width, std::vector<float> &data) {
    return TensorView{name,
                      ElementType::F32,
                      {4, 4, width},
                      reinterpret_cast<std::byte *>(data.data()),
                      data.size() * 4};
  };
  writeSafetensors(in, {view("x", 6, x), view("y", 2, y)});
  const std::string call = "invoke " + plan + " --function f --inputs " + in +
                           " --outputs " + out + " --virtual-ranks";
  auto [code, text] = runTool(call);
  ASSERT_EQ(code, 0) << text;
  const SafetensorsFile file(out);
  auto expect = [&](const char *name, const std::vector<float> &values,
                    float scale) {
    const StoredTensor *tensor = file.find(name);
    ASSERT_TRUE(tensor);
    ASSERT_EQ(tensor->bytes, values.size() * 4);
    for (size_t i = 0; i < values.size(); ++i) {
      float got;
      std::memcpy(&got, tensor->data + i * 4, 4);
      ASSERT_EQ(got, scale * values[i]) << name << " " << i;
    }
  };
  expect("gathered_x", x, 1);
  expect("gathered_y", y, 1);
  expect("summed_x", x, 2);
  EXPECT_EQ(file.find("gathered_x")->shape, (std::vector<int64_t>{4, 4, 6}));

  EXPECT_EQ(runTool(call + " 3").second,
            "megalodon-run: error: " + plan +
                ": --virtual-ranks: expected 4 as mesh dp=2,pp=1,cp=1,tp=2 "
                "says, got 3\n");
}

TEST(Ranks, CarriedStateOfAChunkAxisStandsAtAChunkBorder) {
  PlanMaker maker({1, 1, 2, 1}, 2, 8);
  maker.variable("t", fb::Role::Input, kTokens, {2, 8},
                 {{1, {fb::Axis::Chunk}}});
  maker.variable("state.count", fb::Role::State, fb::Dynamic::Batch, {2}, {});
  maker.endSegment("compute");
  maker.act(fb::ActionKind::Run, 0);
  maker.endProgram(0);
  const std::string plan = temporaryPath("plan"), in = temporaryPath("in");
  const std::vector<uint8_t> bytes = maker.finish(); // of chunk 2
  writeText(plan, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  std::vector<float> t(16);
  for (int64_t count : {4, 3}) {
    int64_t counts[] = {2, count};
    writeSafetensors(in, {{"t",
                           ElementType::F32,
                           {2, 8},
                           reinterpret_cast<std::byte *>(t.data()),
                           64},
                          {"state.count",
                           ElementType::I64,
                           {2},
                           reinterpret_cast<std::byte *>(counts),
                           16}});
    auto [code, text] =
        runTool("invoke " + plan + " --function f --inputs " + in +
                " --outputs " + temporaryPath("out") + " --virtual-ranks");
    EXPECT_EQ(code, count % 2) << text;
    if (code)
      EXPECT_NE(text.find(": tensor 'state.count': expected counts that are "
                          "multiples of the chunk, 2, on a mesh with a chunk "
                          "axis, got 3 at [1]"),
                std::string::npos)
          << text;
  }
}

TEST(Ranks, InspectPrintsTheMeshAndItsMessages) {
  const std::string plan = temporaryPath("plan");
  const std::vector<uint8_t> bytes = gatherFile();
  writeText(plan, {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  auto [code, text] = runTool("inspect " + plan + " --commands");
  ASSERT_EQ(code, 0) << text;
  for (const char *line : {"mesh        dp=2,pp=1,cp=1,tp=2: 4 ranks",
                           "memory, a rank of 1 x 2 rows, 4 tokens",
                           "all_gather tp        1 message  128 bytes",
                           "reduce_scatter tp    1 message  192 bytes",
                           "2  reduce_scatter tp  192 bytes, event 1"})
    EXPECT_NE(text.find(line), std::string::npos)
        << "expected '" << line << "' in\n"
        << text;
}

//===-- The loader
//----------------------------------------------------------------===//

namespace {

/// What the loader says about a plan of one collective over two tensor ranks
/// and an arena of 256 bytes.
struct Message {
  fb::CollectiveKind kind = fb::CollectiveKind::AllGather;
  uint32_t communicator = 0, from = 0, to = 1;
  int64_t rows = 4;
  uint64_t rowBytes = 8;
  bool waits = true;
  fb::Axis axis = fb::Axis::Tensor;
  uint32_t dimension = 0, stage = 0, secondQueue = plan::kMessageQueue;
};

std::string refusalOf(const Message &message) {
  return messageOf([&] {
    PlanMaker maker({1, 1, 1, 2}, 1, 1);
    maker.variable("v", fb::Role::Input, fb::Dynamic::None, {4},
                   {{message.dimension, {message.axis}}}, {message.stage});
    maker.communicator({message.axis});
    maker.buffer(-1, 32);
    maker.buffer(-1, 64, 64);
    const uint32_t event =
        maker.collective(message.kind, message.communicator,
                         {maker.item(message.from, message.to, message.rows,
                                     fb::Dynamic::None, message.rowBytes)});
    if (message.waits)
      maker.wait(event);
    maker.wait(maker.collective(fb::CollectiveKind::AllReduce, 0,
                                {maker.item(0, 0, 4, fb::Dynamic::None, 8)},
                                false, message.secondQueue));
    maker.endSegment("compute");
    maker.act(fb::ActionKind::Run, 0);
    maker.endProgram(256);
    maker.load();
  });
}

template <typename Edit> std::string refusal(Edit edit) {
  Message message;
  edit(message);
  return refusalOf(message);
}

} // namespace

TEST(Ranks, LoaderChecksMessages) {
  EXPECT_EQ(refusalOf({}), "");
  struct {
    std::string message;
    const char *expected;
  } cases[] = {
      {refusal([](Message &m) { m.communicator = 1; }),
       "communicator 1 is out of range (1 communicators)"},
      {refusal([](Message &m) { m.secondQueue = 2; }),
       "queue: expected 1 as for the other messages of communicator 0, got 2"},
      {refusal([](Message &m) { m.from = 2; }), "from: buffer 2 is out of"},
      {refusal([](Message &m) { m.to = 2; }), "to: buffer 2 is out of range"},
      {refusal([](Message &m) { m.to = 0; }), "row_bytes: expected 4 x 1 rows"},
      {refusal([](Message &m) { m.rows = 5; }),
       "expected 5 x 1 rows inside 32 and 64 bytes, got rows of 8 bytes of 2 "
       "ranks"},
      {refusal([](Message &m) { m.rows = 0; }), "expected rows of whole"},
      {refusal([](Message &m) { m.rows = INT64_MAX; }),
       "expected rows of whole elements"},
      {refusal([](Message &m) { m.rowBytes = 6; }),
       "expected rows of whole elements, got 4 rows of 6 bytes"},
      {refusal([](Message &m) { m.rowBytes = UINT64_MAX - 3; }),
       "row_bytes: expected 4 x 1 rows inside"},
      {refusal([](Message &m) { m.kind = fb::CollectiveKind::ReduceScatter; }),
       "row_bytes: expected 4 x 1 rows inside 32 and 64"},
      {refusal([](Message &m) { m.kind = fb::CollectiveKind::AllReduce; }),
       "to: expected buffer 0, got 1"},
      {refusal([](Message &m) { m.kind = fb::CollectiveKind(9); }),
       "kind: unknown value 9"},
      {refusal([](Message &m) { m.waits = false; }),
       "event 0 is started and never waited for"},
      {refusal([](Message &m) { m.axis = fb::Axis(4); }),
       "axes: unknown value 4"},
      {refusal([](Message &m) { m.dimension = 1; }),
       "splits: dimension 1 is out of range (1 dimensions)"},
      {refusal([](Message &m) { m.stage = 1; }),
       "stages: pipeline rank 1 is out of range (1)"},
  };
  for (const auto &refused : cases)
    EXPECT_NE(refused.message.find(refused.expected), std::string::npos)
        << "expected '" << refused.expected << "', got '" << refused.message
        << "'";
}

TEST(Ranks, LoaderChecksPrograms) {
  EXPECT_ERROR(pipelinePlan(64),
               "what is sent between pipeline ranks is not what is received");
  auto program = [](auto edit, size_t programs = 2) {
    return messageOf([&] {
      PlanMaker maker({1, 2, 1, 1}, 4, 4);
      maker.variable("in", fb::Role::Input, kTokens, {4, 4}, {}, {0});
      edit(maker);
      while (maker.programCount() < programs)
        maker.endProgram(128, 2, 2);
      maker.load();
    });
  };
  auto nothing = [](PlanMaker &) {};
  EXPECT_EQ(program(nothing), "");
  EXPECT_NE(program(nothing, 1).find("programs: expected 2, got 1"),
            std::string::npos);
  struct {
    std::string message;
    const char *expected;
  } cases[] = {
      {program([](PlanMaker &m) { m.buffer(-1, 64, 64, 64); }),
       "stride: expected 0 without an index, got 64"},
      {program(
           [](PlanMaker &m) { m.buffer(-1, 64, 64, 64, fb::Indexed::Slot); }),
       "expected a range inside 128 bytes, got 64 bytes at 64 and stride 64"},
      {program([](PlanMaker &m) {
         m.buffer(0, 16, 0, 16, fb::Indexed::Microbatch);
       }),
       "expected one of 2 equal parts of 'in'"},
      {program([](PlanMaker &m) {
         m.endSegment("s");
         m.act(fb::ActionKind::Run, 1);
       }),
       "actions[0].segment: segment 1 is out of range (1 segments)"},
      {program([](PlanMaker &m) {
         m.endSegment("s");
         m.act(fb::ActionKind::Run, 0, 0, 2);
       }),
       "microbatch 2 is out of range (2)"},
      {program([](PlanMaker &m) {
         m.endSegment("s");
         m.act(fb::ActionKind::Run, 0, 0, 0, fb::Dynamic::None, 2);
       }),
       "slot 2 is out of range (2)"},
      {program([](PlanMaker &m) {
         m.act(fb::ActionKind::Send, m.buffer(-1, 64), 0);
       }),
       "peer: expected another of 2 pipeline ranks, got 0"},
      {program([](PlanMaker &m) {
         m.act(fb::ActionKind::Send, m.buffer(-1, 60), 1, 0, kTokens);
       }),
       "buffer: expected a multiple of 8 bytes, got 60"},
      {program([](PlanMaker &m) {
         m.endProgram(0, 2, 1);
         m.buffer(0, 32);
       }),
       "'in' is not held by pipeline rank 1"},
      {program([](PlanMaker &m) { m.endProgram(0, 4, 1); }),
       "microbatches: expected as many as in the first program"},
  };
  for (const auto &refused : cases)
    EXPECT_NE(refused.message.find(refused.expected), std::string::npos)
        << "expected '" << refused.expected << "', got '" << refused.message
        << "'";
}

TEST(Ranks, SessionsAllocateAndSendWhatThePlanSays) {
  for (const auto &plan : {gatherPlan(), pipelinePlan()})
    runVirtualRanks(plan->mesh.ranks(), [&](World &world) {
      Session session(plan, {1}, world);
      const plan::Function &function = plan->functions[0];
      const plan::Program &program =
          function.programs[size_t(session.place().pipeline)];
      plan::Trace trace;
      session.setTrace(&trace);
      session.run(0);
      session.setTrace(nullptr);
      session.run(0); // adds nothing
      const plan::RankMemory want = plan::memoryOf(*plan, function, program),
                             got = session.memory();
      EXPECT_EQ(got.arena, want.arena);
      EXPECT_EQ(got.staging, want.staging);
      EXPECT_EQ(got.inputsOutputs, want.inputsOutputs);
      EXPECT_EQ(got.total(), want.total());
      using Begun = std::vector<std::pair<std::string, uint64_t>>;
      Begun wanted, begun;
      for (const plan::Message &message :
           plan::messagesOf(*plan, function, program))
        wanted.push_back({message.name, message.bytes});
      size_t waits = 0;
      for (const plan::TraceEvent &event : trace) {
        EXPECT_LE(event.begin, event.end);
        waits += event.kind == plan::TraceEvent::Kind::Wait;
        if (event.kind == plan::TraceEvent::Kind::Collective ||
            event.kind == plan::TraceEvent::Kind::Send ||
            event.kind == plan::TraceEvent::Kind::Receive)
          begun.push_back({event.name, event.bytes});
      }
      EXPECT_EQ(begun, wanted);
      EXPECT_EQ(waits, begun.size());
      EXPECT_FALSE(begun.empty());
    });
}
