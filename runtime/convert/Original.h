// The original implementation's checkpoints: consolidated.pth, or one
// consolidated.NN.pth a model-parallel rank, with their JSON files.
#pragma once
#include "runtime/convert/ModelConfig.h"

namespace megalodon::convert {

/// What the caller should know of a conversion, one line each.
using Notes = std::vector<std::string>;

/// The parameters of a consolidated checkpoint: a folder, whose shards are
/// merged, or one .pth file of world size one. Buffers are checked and left
/// out. Throws Error naming file and tensor.
TensorSet readOriginal(const std::string &path, const ModelConfig &config);

/// Writes a folder with `shards` consolidated files, consolidate_config.json
/// and config.json.
void writeOriginal(const std::string &folder, const TensorSet &set,
                   const ModelConfig &config, int64_t shards, Notes &notes);

/// Merges the parameters of model-parallel ranks, in order of rank.
TensorSet mergeShards(const std::vector<TensorSet> &shards,
                      const ModelConfig &config);
/// What one of `shards` ranks holds. Throws Error when a split is not even.
TensorSet shardOf(const TensorSet &set, const ModelConfig &config, int64_t rank,
                  int64_t shards);

} // namespace megalodon::convert
