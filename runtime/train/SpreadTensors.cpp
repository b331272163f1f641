#include "runtime/train/SpreadTensors.h"
#include "runtime/core/Error.h"
#include "runtime/train/Agreement.h"
#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

using namespace megalodon;
namespace fs = std::filesystem;

// Messages of one sender to one receiver keep their order: one tag is enough.
static constexpr int kTag = 0;

// The longest message, so that no rank needs a second copy of a large tensor.
static constexpr size_t kMessageBytes = size_t(64) << 20;

std::string megalodon::indexOfSet(const std::string &set) {
  return set.substr(0, set.rfind('.')) + kIndexSuffix;
}

/// Which rank writes each tensor: the largest first, each to the rank that has
/// least so far.
static std::vector<int> assignWriters(const std::vector<SpreadTensor> &tensors,
                                      int ranks) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t left, size_t right) {
    const size_t a = tensors[left].whole.bytes(),
                 b = tensors[right].whole.bytes();
    return a != b ? a > b : left < right;
  });
  std::vector<size_t> load(static_cast<size_t>(ranks), 0);
  std::vector<int> writers(tensors.size());
  for (size_t i : order) {
    auto least = std::min_element(load.begin(), load.end());
    writers[i] = int(least - load.begin());
    *least += std::max<size_t>(tensors[i].whole.bytes(), 1);
  }
  return writers;
}

namespace {

/// The first error of several steps, after which the others are left out: a
/// rank that cannot write still passes on what the others wait for.
class FirstFailure {
public:
  template <typename Body> void attempt(Body body) {
    try {
      if (!error)
        body();
    } catch (const std::exception &) {
      error = std::current_exception();
    }
  }
  void rethrow() const {
    if (error)
      std::rethrow_exception(error);
  }

private:
  std::exception_ptr error;
};

/// Ranks that hold the same box.
struct Holders {
  Box box;
  std::vector<int> ranks;
};

/// Moves parts of one tensor to the rank that writes it.
class Mover {
public:
  Mover(World &world, int64_t step) : world(world), step(step) {}

  /// On `writer` returns the whole tensor, valid until the next call; null
  /// elsewhere.
  const std::byte *assemble(const SpreadTensor &tensor, int writer);

private:
  void send(const SpreadTensor &tensor, const Box &box, int to);
  void receive(const SpreadTensor &tensor, const Box &box, int from);
  void await(std::unique_ptr<Request> request, const SpreadTensor &tensor,
             const char *what) {
    request->wait(
        {str(what, " tensor '", tensor.whole.name, "' to be written"), step},
        world.timeout);
  }

  World &world;
  int64_t step;
  std::vector<std::byte> whole, message;
};

} // namespace

static std::vector<Holders> holdersOf(const SpreadTensor &tensor) {
  std::map<std::vector<int64_t>, Holders> byOffset;
  for (size_t rank = 0; rank < tensor.boxes.size(); ++rank)
    if (const std::optional<Box> &box = tensor.boxes[rank]) {
      Holders &holders = byOffset[box->offset];
      holders.box = *box;
      holders.ranks.push_back(int(rank));
    }
  std::vector<Holders> list;
  int64_t covered = 0;
  for (auto &entry : byOffset) {
    covered += entry.second.box.validElements(tensor.whole.shape);
    list.push_back(std::move(entry.second));
  }
  const int64_t elements = Box::whole(tensor.whole.shape).elements();
  if (covered != elements)
    throw Error(str("tensor '", tensor.whole.name, "': expected parts of ",
                    elements, " elements on all ranks together, got ",
                    covered));
  return list;
}

void Mover::send(const SpreadTensor &tensor, const Box &box, int to) {
  const size_t width = elementBytes(tensor.whole.type);
  message.clear();
  auto flush = [&] {
    if (!message.empty())
      await(world.all().send(message.data(), message.size(), to, kTag), tensor,
            "sending");
    message.clear();
  };
  forEachRun(
      tensor.whole.shape, box, [&](int64_t, int64_t inside, int64_t count) {
        const std::byte *data = tensor.part.read() + size_t(inside) * width;
        for (size_t left = size_t(count) * width; left > 0;) {
          const size_t piece = std::min(left, kMessageBytes - message.size());
          message.insert(message.end(), data, data + piece);
          data += piece;
          left -= piece;
          if (message.size() == kMessageBytes)
            flush();
        }
      });
  flush();
}

void Mover::receive(const SpreadTensor &tensor, const Box &box, int from) {
  const size_t width = elementBytes(tensor.whole.type);
  size_t expected = size_t(box.validElements(tensor.whole.shape)) * width;
  size_t used = 0;
  message.clear();
  forEachRun(tensor.whole.shape, box,
             [&](int64_t outside, int64_t, int64_t count) {
               std::byte *data = whole.data() + size_t(outside) * width;
               for (size_t left = size_t(count) * width; left > 0;) {
                 if (used == message.size()) {
                   message.resize(std::min(expected, kMessageBytes));
                   await(world.all().receive(message.data(), message.size(),
                                             from, kTag),
                         tensor, "receiving");
                   expected -= message.size();
                   used = 0;
                 }
                 const size_t piece = std::min(left, message.size() - used);
                 std::memcpy(data, message.data() + used, piece);
                 data += piece;
                 left -= piece;
                 used += piece;
               }
             });
}

const std::byte *Mover::assemble(const SpreadTensor &tensor, int writer) {
  const bool own = world.rank() == writer;
  const size_t width = elementBytes(tensor.whole.type);
  if (own)
    whole.resize(tensor.whole.bytes());
  for (const Holders &holders : holdersOf(tensor)) {
    const bool writerHolds =
        std::find(holders.ranks.begin(), holders.ranks.end(), writer) !=
        holders.ranks.end();
    // Replicas take turns, so that no rank sends everything.
    const int source =
        writerHolds ? writer
                    : holders.ranks[size_t(writer) % holders.ranks.size()];
    if (source == writer && own)
      forEachRun(tensor.whole.shape, holders.box,
                 [&](int64_t outside, int64_t inside, int64_t count) {
                   std::memcpy(whole.data() + size_t(outside) * width,
                               tensor.part.read() + size_t(inside) * width,
                               size_t(count) * width);
                 });
    else if (own)
      receive(tensor, holders.box, source);
    else if (source == world.rank())
      send(tensor, holders.box, writer);
  }
  return own ? whole.data() : nullptr;
}

std::vector<std::string>
megalodon::writeSpread(const std::string &folder, const std::string &set,
                       const std::vector<SpreadTensor> &tensors, World &world,
                       int64_t step) {
  const int ranks = world.size();
  auto pathOf = [&](const std::string &name) {
    return (fs::path(folder) / name).string();
  };
  if (ranks == 1) {
    std::vector<TensorView> views;
    for (const SpreadTensor &tensor : tensors)
      views.push_back(tensor.part);
    writeSafetensors(pathOf(set), views);
    return {set};
  }
  const std::vector<int> writers = assignWriters(tensors, ranks);
  // A rank without tensors has no file; the largest tensors went to the first
  // ranks, so these are the last ones.
  const int count = std::min<int>(ranks, int(tensors.size()));
  auto partName = [&](int writer) {
    char numbers[32];
    std::snprintf(numbers, sizeof(numbers), "-%05d-of-%05d", writer + 1, count);
    return set.substr(0, set.rfind('.')) + numbers + ".safetensors";
  };
  std::vector<TensorHead> heads;
  for (size_t i = 0; i < tensors.size(); ++i)
    if (writers[i] == world.rank())
      heads.push_back(tensors[i].whole);
  FirstFailure failure;
  std::vector<std::string> written;
  std::optional<SafetensorsWriter> file;
  const std::string name = partName(world.rank());
  if (!heads.empty())
    failure.attempt([&] { file.emplace(pathOf(name), heads); });
  Mover mover(world, step);
  for (size_t i = 0; i < tensors.size(); ++i)
    if (const std::byte *whole = mover.assemble(tensors[i], writers[i]))
      failure.attempt([&] { file->write(whole, tensors[i].whole.bytes()); });
  if (!heads.empty()) {
    failure.attempt([&] { file->commit(); });
    written.push_back(name);
  }
  if (world.rank() == 0) {
    nlohmann::json index;
    size_t total = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      index["weight_map"][tensors[i].whole.name] = partName(writers[i]);
      total += tensors[i].whole.bytes();
    }
    index["metadata"]["total_size"] = total;
    failure.attempt([&] {
      writeText(pathOf(indexOfSet(set)), index.dump(2) + "\n");
      written.push_back(indexOfSet(set));
    });
  }
  together(world, {str("writing ", set), step}, [&] { failure.rethrow(); });
  return written;
}

void megalodon::writeAssembled(const std::string &path,
                               const std::vector<SpreadTensor> &tensors,
                               World &world) {
  std::vector<TensorHead> heads;
  for (const SpreadTensor &tensor : tensors)
    heads.push_back(tensor.whole);
  FirstFailure failure;
  std::optional<SafetensorsWriter> file;
  if (world.rank() == 0)
    failure.attempt([&] { file.emplace(path, heads); });
  Mover mover(world, -1);
  for (const SpreadTensor &tensor : tensors)
    if (const std::byte *whole = mover.assemble(tensor, 0))
      failure.attempt([&] { file->write(whole, tensor.whole.bytes()); });
  if (file)
    failure.attempt([&] { file->commit(); });
  together(world, {str("writing ", path), -1}, [&] { failure.rethrow(); });
}
