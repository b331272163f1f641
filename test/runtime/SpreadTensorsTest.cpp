// Tensors in parts on several ranks: what one set of ranks writes, any other
// reads, and a failure of one rank is a failure of all.
#include "runtime/train/SpreadTensors.h"
#include "runtime/core/Error.h"
#include "runtime/io/Weights.h"
#include "runtime/train/Agreement.h"
#include "runtime/train/Checkpoint.h"
#include "test/runtime/ToyPlan.h"
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

using namespace megalodon;
using namespace megalodon::test;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {
/// How a tensor is cut: a dimension into so many parts, the others whole.
struct Cut {
  size_t dimension = 0;
  int parts = 1;
  std::vector<int> absent; ///< ranks that hold nothing
};

/// A tensor whose elements are 1, 2, 3, ...
struct Example {
  TensorHead head;
  Cut cut[5]; ///< indexed by the number of ranks
};

struct SpreadTensorsTest : testing::Test {
  std::string folder = temporaryFolder("spread");
  const std::vector<Example> examples = {
      // Replicated.
      {{"bias", ElementType::F32, {7}}, {}},
      // Uneven over the ranks: padding at the end.
      {{"rows", ElementType::F64, {7, 3}},
       {{}, {}, {0, 2, {}}, {0, 3, {}}, {0, 4, {}}}},
      // Inside; with four ranks in two replicas.
      {{"columns", ElementType::F32, {3, 5, 2}},
       {{}, {}, {1, 2, {}}, {1, 3, {}}, {1, 2, {}}}},
      // So short that the last ranks hold padding only.
      {{"short", ElementType::I64, {2, 4}},
       {{}, {}, {0, 2, {}}, {0, 3, {}}, {0, 4, {}}}},
      // On some ranks only.
      {{"stage", ElementType::F64, {5}},
       {{}, {}, {0, 1, {0}}, {0, 1, {0, 2}}, {0, 2, {0, 1}}}},
      {{"scalar", ElementType::F64, {}}, {}},
      {{"empty", ElementType::F32, {0, 4}}, {}}};

  /// One rank's view of all examples. `storage` gets its parts' bytes.
  std::vector<SpreadTensor> spread(int ranks, int rank,
                                   std::vector<std::vector<double>> &storage) {
    storage.clear();
    storage.resize(examples.size());
    std::vector<SpreadTensor> list;
    for (size_t i = 0; i < examples.size(); ++i) {
      const Example &example = examples[i];
      const Cut &cut = example.cut[ranks];
      SpreadTensor tensor;
      tensor.whole = example.head;
      tensor.rank = rank;
      for (int r = 0; r < ranks; ++r) {
        Box box = Box::whole(example.head.shape);
        if (!box.extent.empty()) {
          int64_t &extent = box.extent[cut.dimension];
          extent = (extent + cut.parts - 1) / cut.parts;
          box.offset[cut.dimension] = extent * (r % cut.parts);
        }
        const bool absent = std::count(cut.absent.begin(), cut.absent.end(), r);
        tensor.boxes.push_back(absent ? std::nullopt : std::optional(box));
      }
      if (const std::optional<Box> &box = tensor.box()) {
        storage[i].assign(size_t(box->elements()) + 1, -1);
        tensor.part = {example.head.name, example.head.type, box->extent,
                       reinterpret_cast<std::byte *>(storage[i].data()),
                       size_t(box->elements()) *
                           elementBytes(example.head.type)};
      }
      list.push_back(tensor);
    }
    return list;
  }

  static void store(const TensorView &part, int64_t element, double number) {
    std::byte *at = part.write() + size_t(element) * elementBytes(part.type);
    if (part.type == ElementType::F32) {
      const auto single = float(number);
      std::memcpy(at, &single, 4);
    } else if (part.type == ElementType::F64) {
      std::memcpy(at, &number, 8);
    } else {
      const auto integer = int64_t(number);
      std::memcpy(at, &integer, 8);
    }
  }

  static void fill(const std::vector<SpreadTensor> &tensors) {
    for (const SpreadTensor &tensor : tensors)
      if (tensor.box()) {
        // Padding is not written: it may hold anything.
        forEachRun(tensor.whole.shape, *tensor.box(),
                   [&](int64_t from, int64_t to, int64_t count) {
                     for (int64_t i = 0; i < count; ++i)
                       store(tensor.part, to + i, double(from + i + 1));
                   });
      }
  }

  static void expectFilled(const std::vector<SpreadTensor> &tensors) {
    for (const SpreadTensor &tensor : tensors)
      if (tensor.box()) {
        std::vector<double> wanted(size_t(tensor.box()->elements()) + 1, 0);
        TensorView view = tensor.part;
        view.memory = reinterpret_cast<std::byte *>(wanted.data());
        view.copy = nullptr;
        SpreadTensor expected = tensor;
        expected.part = view;
        fill({expected});
        EXPECT_EQ(std::memcmp(view.write(), tensor.part.write(), view.bytes), 0)
            << tensor.whole.name << " on rank " << tensor.rank;
      }
  }

  std::vector<std::string> write(int ranks, const std::string &into) {
    std::vector<std::string> files;
    std::mutex mutex;
    runVirtualRanks(ranks, [&](World &world) {
      std::vector<std::vector<double>> storage;
      const auto tensors = spread(ranks, world.rank(), storage);
      fill(tensors);
      for (const std::string &file :
           writeSpread(into, "model.safetensors", tensors, world, 3)) {
        std::lock_guard lock(mutex);
        files.push_back(file);
      }
    });
    std::sort(files.begin(), files.end());
    return files;
  }
};
} // namespace

TEST_F(SpreadTensorsTest, AnyNumberOfRanksReadsWhatAnotherWrote) {
  const auto plan = loadPlan(); // only named in messages
  for (int writers = 1; writers <= 4; ++writers) {
    const std::string into = str(folder, "/", writers);
    fs::create_directory(into);
    const std::vector<std::string> files = write(writers, into);
    // One file, or one a rank and the index.
    EXPECT_EQ(files.size(), writers == 1 ? 1u : size_t(writers) + 1);
    for (int readers = 1; readers <= 4; ++readers)
      runVirtualRanks(readers, [&](World &world) {
        std::vector<std::vector<double>> storage;
        const auto tensors = spread(readers, world.rank(), storage);
        readVariables(*plan, tensors, SafetensorsFile(findWeights(into)));
        expectFilled(tensors);
      });
  }
}

TEST_F(SpreadTensorsTest, TheIndexHasTheCommonForm) {
  EXPECT_EQ(write(3, folder),
            (std::vector<std::string>{"model-00001-of-00003.safetensors",
                                      "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors",
                                      "model.safetensors.index.json"}));
  const json index =
      json::parse(readText(folder + "/model.safetensors.index.json"));
  size_t total = 0;
  EXPECT_EQ(index["weight_map"].size(), examples.size());
  for (const Example &example : examples) {
    total += example.head.bytes();
    const SafetensorsFile file(
        folder + "/" +
        index["weight_map"][example.head.name].get<std::string>());
    EXPECT_NE(file.find(example.head.name), nullptr);
  }
  EXPECT_EQ(index["metadata"]["total_size"], total);
  // 168, 120, 64, 40, 28, 8 and 0 bytes: none can be spread more evenly.
  std::vector<size_t> sizes;
  for (int part = 1; part <= 3; ++part) {
    size_t bytes = 0;
    const SafetensorsFile file(
        str(folder, "/model-0000", part, "-of-00003.safetensors"));
    for (const StoredTensor &tensor : file.tensors())
      bytes += tensor.bytes;
    sizes.push_back(bytes);
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{168, 128, 132}));
}

TEST_F(SpreadTensorsTest, AFailureOfOneIsAFailureOfAll) {
  // Rank 1 cannot write: a folder stands where its file should be.
  fs::create_directory(folder + "/model-00002-of-00003.safetensors");
  std::vector<std::string> messages(3);
  runVirtualRanks(3, [&](World &world) {
    std::vector<std::vector<double>> storage;
    const auto tensors = spread(3, world.rank(), storage);
    fill(tensors);
    messages[size_t(world.rank())] = messageOf(
        [&] { writeSpread(folder, "model.safetensors", tensors, world, 3); });
  });
  EXPECT_EQ(messages[1].rfind(folder + "/model-00002-of-00003.safetensors: "
                                       "cannot replace: ",
                              0),
            0u)
      << messages[1];
  EXPECT_EQ(messages[0], "rank 1: " + messages[1]);
  EXPECT_EQ(messages[2], messages[0]);
}

TEST_F(SpreadTensorsTest, RefusesPartsThatDoNotCover) {
  runVirtualRanks(2, [&](World &world) {
    std::vector<std::vector<double>> storage;
    auto tensors = spread(2, world.rank(), storage);
    fill(tensors);
    tensors[1].boxes[1].reset();
    EXPECT_ERROR(writeSpread(folder, "model.safetensors", tensors, world, 3),
                 "tensor 'rows': expected parts of 21 elements on all ranks "
                 "together, got 12");
  });
}

TEST_F(SpreadTensorsTest, NamesPositionsOfTheWhole) {
  std::vector<std::vector<double>> storage;
  auto tensors = spread(2, 1, storage);
  fill(tensors);
  storage[1][4] = NAN;
  EXPECT_ERROR(requireFinite("file", tensors[1]),
               "file: tensor 'rows': value at [5, 1] is not finite");
}

TEST_F(SpreadTensorsTest, CheckpointsAppearWholeOrNotAtAll) {
  const auto plan = loadPlan();
  auto save = [&](int ranks, int64_t step, int broken) {
    std::vector<std::string> messages(static_cast<size_t>(ranks));
    runVirtualRanks(ranks, [&](World &world) {
      std::vector<std::vector<double>> storage, more, none;
      CheckpointTensors tensors{spread(ranks, world.rank(), storage),
                                spread(ranks, world.rank(), more),
                                {}};
      fill(tensors.model);
      fill(tensors.optimizer);
      if (world.rank() == broken)
        store(tensors.optimizer[0].part, 2, INFINITY);
      messages[size_t(world.rank())] = messageOf(
          [&] { saveCheckpoint(folder, step, tensors, world, {{"seed", 7}}); });
    });
    return messages;
  };
  EXPECT_EQ(save(3, 5, -1), std::vector<std::string>(3));
  EXPECT_EQ(newestCheckpoint(folder)->step, 5);
  const std::string first = folder + "/checkpoint-5";
  const json record = readRecord(first);
  EXPECT_EQ(record["files"].size(), 8u); // two indices, six files
  EXPECT_EQ(findWeights(folder), first + "/model.safetensors.index.json");

  const std::string why = folder + "/checkpoint-6: cannot save: ",
                    what = "optimizer.safetensors: tensor 'bias': value at "
                           "[2] is not finite";
  EXPECT_EQ(save(3, 6, 2),
            (std::vector<std::string>{why + "rank 2: " + what,
                                      why + "rank 2: " + what, why + what}));
  EXPECT_EQ(newestCheckpoint(folder)->step, 5);
  EXPECT_FALSE(fs::exists(folder + "/.checkpoint-6.partial"));

  // Another number of ranks reads it, and finds damage wherever it is.
  auto load = [&](int ranks) {
    std::vector<std::string> messages(static_cast<size_t>(ranks));
    runVirtualRanks(ranks, [&](World &world) {
      std::vector<std::vector<double>> storage, more;
      CheckpointTensors tensors{spread(ranks, world.rank(), storage),
                                spread(ranks, world.rank(), more),
                                {}};
      messages[size_t(world.rank())] = messageOf([&] {
        loadCheckpoint(first, readRecord(first), *plan, tensors, world);
        expectFilled(tensors.model);
        expectFilled(tensors.optimizer);
      });
    });
    return messages;
  };
  for (int ranks : {1, 2, 4})
    EXPECT_EQ(load(ranks), std::vector<std::string>(size_t(ranks)));
  for (const char *name :
       {"model-00002-of-00003.safetensors", "optimizer.safetensors.index.json",
        "optimizer-00003-of-00003.safetensors"}) {
    const std::string path = first + "/" + name, text = readText(path);
    std::string damaged = text;
    damaged.back() = char(damaged.back() ^ 1);
    writeText(path, damaged);
    for (int ranks : {1, 2, 4})
      for (const std::string &message : load(ranks))
        EXPECT_NE(message.find(path + ": sha256: expected"), message.npos)
            << message;
    writeText(path, text);
  }
}

TEST(Agreement, TextsOfAllRanks) {
  runVirtualRanks(3, [&](World &world) {
    const std::string own(size_t(world.rank()) * 3, 'x');
    EXPECT_EQ(gatherTexts(world, {"test", -1}, own),
              (std::vector<std::string>{"", "xxx", "xxxxxx"}));
    EXPECT_EQ(shareText(world, {"test", -1}, own, 1), "xxx");
    EXPECT_EQ(shareText(world, {"test", -1}, own, 0), "");
    together(world, {"test", -1}, [] {});
  });
}
