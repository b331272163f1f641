#include "runtime/convert/Original.h"
#include "runtime/convert/TorchFile.h"
#include "runtime/core/Error.h"
#include "runtime/io/Json.h"
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace fs = std::filesystem;

namespace megalodon::convert {

using Type = StoredTensor::Type;

static const char *kOutput = "output.output.weight",
                  *kEmbedding = "embed.weight";

static std::string shardName(int64_t rank, int64_t shards) {
  char name[40];
  std::snprintf(name, sizeof(name), "consolidated.%02lld.pth",
                static_cast<long long>(rank));
  return shards == 1 ? "consolidated.pth" : name;
}

static bool endsWith(const std::string &text, const char *end) {
  const size_t bytes = std::strlen(end);
  return text.size() >= bytes &&
         text.compare(text.size() - bytes, bytes, end) == 0;
}

static bool sameBytes(const Tensor &left, const Tensor &right) {
  return left.type == right.type && left.shape == right.shape &&
         (left.data == right.data ||
          std::memcmp(left.data.get(), right.data.get(), left.bytes) == 0);
}

/// Removes the buffers of a state_dict, which follow from the config, and the
/// output's copy of shared embeddings.
static void dropBuffers(TensorSet &set, const ModelConfig &config) {
  for (auto at = set.tensors.begin(); at != set.tensors.end();) {
    const auto &[name, tensor] = *at;
    const bool prior = endsWith(name, ".prior_count") ||
                       endsWith(name, ".prior_mean") ||
                       endsWith(name, ".prior_logv");
    if (prior)
      for (size_t i = 0; i < tensor.bytes; ++i)
        if (tensor.data.get()[i] != std::byte(0))
          throw Error(str(set.path, ": tensor '", name,
                          "': expected zeros, since the model has no prior, "
                          "got another value"));
    at = prior || name == "rope.freqs" ? set.tensors.erase(at) : std::next(at);
  }
  auto output = set.tensors.find(kOutput), embed = set.tensors.find(kEmbedding);
  if (!config.flag("share_emb") || output == set.tensors.end())
    return;
  if (embed == set.tensors.end() || !sameBytes(output->second, embed->second))
    throw Error(str(set.path, ": tensor '", kOutput,
                    "': expected the values "
                    "of '",
                    kEmbedding, "', which the config shares, got others"));
  set.tensors.erase(output);
}

TensorSet mergeShards(const std::vector<TensorSet> &shards,
                      const ModelConfig &config) {
  TensorSet merged{shards.front().path, {}, {}};
  std::map<std::string, std::optional<size_t>> splits;
  for (const Parameter &parameter : parametersOf(config))
    splits[parameter.name] = parameter.split;
  for (const TensorSet &shard : shards)
    for (const auto &item : shard.tensors)
      if (!shards.front().tensors.count(item.first))
        throw Error(str(shard.path, ": tensor '", item.first, "' is not in ",
                        shards.front().path));
  for (const auto &[name, first] : shards.front().tensors) {
    std::vector<const Tensor *> parts;
    bool equal = true;
    for (const TensorSet &shard : shards) {
      auto found = shard.tensors.find(name);
      if (found == shard.tensors.end())
        throw Error(str(shard.path, ": expected tensor '", name, "' as in ",
                        shards.front().path, ", got none"));
      if (found->second.shape != first.shape ||
          found->second.type != first.type)
        throw Error(str(shard.path, ": tensor '", name, "': expected ",
                        typeName(first.type), " ", shapeText(first.shape),
                        " as in ", shards.front().path, ", got ",
                        typeName(found->second.type), " ",
                        shapeText(found->second.shape)));
      equal &= sameBytes(found->second, first);
      parts.push_back(&found->second);
    }
    auto split = splits.find(name);
    if (split == splits.end()) // refused by requireParameters, with its name
      merged.tensors[name] = first;
    else if (split->second && *split->second < first.shape.size())
      merged.tensors[name] = concatenate(parts, *split->second);
    else if (equal)
      merged.tensors[name] = first;
    else
      throw Error(str(merged.path, ": tensor '", name,
                      "': expected the same values in all ", shards.size(),
                      " shards, got others"));
  }
  return merged;
}

TensorSet shardOf(const TensorSet &set, const ModelConfig &config, int64_t rank,
                  int64_t shards) {
  TensorSet result{set.path, {}, {}};
  for (const char *field : {"num_heads", "norm_num_groups"})
    if (config.integer(field) % shards)
      throw Error(str("--shards: expected a divisor of ", field, ", ",
                      config.integer(field), ", got ", shards));
  for (const Parameter &parameter : parametersOf(config)) {
    const Tensor &tensor = set.tensors.at(parameter.name);
    if (!parameter.split || shards == 1) {
      result.tensors[parameter.name] = tensor;
      continue;
    }
    if (tensor.shape[*parameter.split] % shards)
      throw Error(str(set.path, ": tensor '", parameter.name, "': expected ",
                      shards, " equal parts of dimension ", *parameter.split,
                      ", got ", tensor.shape[*parameter.split], " elements"));
    result.tensors[parameter.name] =
        slice(tensor, *parameter.split, rank, shards);
  }
  return result;
}

TensorSet readOriginal(const std::string &path, const ModelConfig &config) {
  std::vector<TensorSet> shards;
  if (!fs::is_directory(path)) {
    shards.push_back(readTorch(path));
  } else {
    const std::string metadata = path + "/consolidate_config.json";
    const nlohmann::json parsed =
        parseJson(metadata, "list of shards", readText(metadata));
    auto size = parsed.find("model_parallel_size");
    if (size == parsed.end() || !size->is_number_integer() || *size < 1 ||
        *size > 99)
      throw Error(str(metadata,
                      ": field 'model_parallel_size': expected a "
                      "number from 1 to 99, got ",
                      size == parsed.end() ? "nothing" : size->dump()));
    const auto count = size->get<int64_t>();
    for (int64_t rank = 0; rank < count; ++rank)
      shards.push_back(readTorch(path + "/" + shardName(rank, count)));
  }
  for (TensorSet &shard : shards)
    dropBuffers(shard, config);
  TensorSet merged =
      shards.size() == 1 ? std::move(shards[0]) : mergeShards(shards, config);
  requireParameters(merged, config);
  return merged;
}

/// The buffers of one rank's state_dict.
static void addBuffers(TensorSet &set, const ModelConfig &config,
                       int64_t shards) {
  const int64_t half = config.headKeyDim() / 2,
                groups = config.integer("norm_num_groups") / shards;
  set.tensors["rope.freqs"] =
      makeFloats("rope.freqs", Type::F32, {half}, [&](int64_t j) {
        return std::pow(config.ropeBase(), -double(j) / double(half));
      });
  std::vector<std::string> norms = {"output.final_norm"};
  for (int64_t i = 0; i < config.integer("num_layers"); ++i)
    norms.push_back(str("layers.", i, ".mega.timenorm"));
  for (const std::string &norm : norms) {
    set.tensors[norm + ".prior_count"] =
        makeTensor(norm + ".prior_count", Type::I64, {},
                   [](std::byte *to) { std::memset(to, 0, 8); });
    for (const char *name : {".prior_mean", ".prior_logv"})
      set.tensors[norm + name] = makeFloats(norm + name, Type::F32, {groups},
                                            [](int64_t) { return 0; });
  }
  if (config.flag("share_emb"))
    set.tensors[kOutput] = set.tensors.at(kEmbedding);
}

void writeOriginal(const std::string &folder, const TensorSet &set,
                   const ModelConfig &config, int64_t shards, Notes &notes) {
  if (shards < 1 || shards > 99)
    throw Error(str("--shards: expected 1 to 99, got ", shards));
  if (shards > 1 && config.flag("rescale_nffn"))
    notes.push_back("the original holds nffn.alpha whole on every rank and "
                    "fails on it with more than one; these shards do the same");
  const Type type = set.tensors.at(kEmbedding).type;
  if (type == Type::F64)
    notes.push_back("the original knows no f64 and rounds to fp32 on loading");
  shardOf(set, config, 0, shards); // refuses before the first file is written
  fs::create_directories(folder);
  for (int64_t rank = 0; rank < shards; ++rank) {
    TensorSet shard = shardOf(set, config, rank, shards);
    addBuffers(shard, config, shards);
    writeTorch(folder + "/" + shardName(rank, shards), shard);
  }
  const nlohmann::ordered_json consolidated = {
      {"model_parallel_size", shards},
      {"dtype", type == Type::BF16  ? "bf16"
                : type == Type::F16 ? "fp16"
                                    : "fp32"}};
  const nlohmann::ordered_json all = {{"model", config.fields},
                                      {"tokenizer", {{"path", nullptr}}},
                                      {"model_parallel_size", shards},
                                      {"chunk_parallel_size", 1}};
  writeText(folder + "/config.json", all.dump(2) + "\n");
  writeText(folder + "/consolidate_config.json", consolidated.dump(2) + "\n");
}

} // namespace megalodon::convert
