// Checkpoints of a training run: OUT/checkpoint-<step>/ with weights, moments,
// carried state and a record of where the run stood. A checkpoint appears whole
// or not at all.
#pragma once
#include "runtime/core/Trust.h"
#include "runtime/io/SpreadTensor.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/session.h"
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace megalodon {

// The three sets of tensors. One rank writes each into one file; several ranks
// write files of their own and an index.
inline constexpr const char *kModelFile = "model.safetensors";
inline constexpr const char *kOptimizerFile = "optimizer.safetensors";
inline constexpr const char *kStateFile = "state.safetensors";
inline constexpr const char *kRecordFile = "trainer.json";

struct Checkpoint {
  int64_t step;
  std::string folder;
};

/// The complete checkpoints of a training folder, oldest first.
std::vector<Checkpoint> listCheckpoints(const std::string &out);
std::optional<Checkpoint> newestCheckpoint(const std::string &out);

/// Removes what a killed run left half-written or half-removed. The caller
/// holds the folder's lock.
void removePartialFiles(const std::string &out);

/// What a checkpoint holds besides its record; `state` may be empty.
struct CheckpointTensors {
  std::vector<SpreadTensor> model, optimizer, state;
};

/// Writes a checkpoint: all files into a hidden folder, each synced, then one
/// rename by rank 0. `record`, of rank 0, gains the files' digests and its own.
/// Called by all ranks. Throws Error on all of them, leaving the earlier
/// checkpoints alone.
Checkpoint saveCheckpoint(const std::string &out, int64_t step,
                          const CheckpointTensors &tensors, World &world,
                          nlohmann::json record);

/// Deletes all but the `keep` newest (0: none).
void removeOldCheckpoints(const std::string &out, int64_t keep);

/// Reads trainer.json and checks its version and digest. Throws Error naming
/// file and field.
nlohmann::json readRecord(const std::string &folder);

/// A field of a record. Throws Error when it is missing.
const nlohmann::json &recordField(const std::string &folder,
                                  const nlohmann::json &record,
                                  const std::string &name);

/// Checks size and, unless it is trusted, digest of one of the files a record
/// lists.
void verifyCheckpointFile(const std::string &folder,
                          const nlohmann::json &record, const std::string &name,
                          Trust trust = Trust::Verify);

/// Which files of a record hold one of the three sets, with the index first if
/// there is one: for "model.safetensors" that file, or
/// "model.safetensors.index.json" and "model-00001-of-00002.safetensors", ...
/// Throws Error when there are none.
std::vector<std::string> checkpointFiles(const std::string &folder,
                                         const nlohmann::json &record,
                                         const std::string &set);

/// The safetensors file or index that `path` means: the file itself, a
/// checkpoint's model, or that of the newest checkpoint of a training folder
/// (also as FOLDER/latest).
std::string findWeights(const std::string &path);

/// Fills all parameters from what `path` means. Throws Error naming file and
/// tensor. Called by all ranks.
void loadWeights(const std::string &path, Session &session,
                 Trust trust = Trust::Verify);

/// Fills parameters, moments and state, wherever they were saved. Everything is
/// verified; an error names file and tensor. Called by all ranks; each reads
/// its parts and verifies some files.
void loadCheckpoint(const std::string &folder, const nlohmann::json &record,
                    const plan::LoadedPlan &plan,
                    const CheckpointTensors &tensors, World &world,
                    Trust trust = Trust::Verify);

} // namespace megalodon
