// Weights from a safetensors file into a session, with the checks every command
// makes on them.
#pragma once
#include "runtime/io/Safetensors.h"
#include <functional>

namespace megalodon {

/// Reads all parameters of the plan. Throws Error when one is missing, has
/// another shape or type, or is not finite, or when the file holds anything
/// that is neither a parameter nor a buffer of the original model's state_dict.
void readWeights(Session &session, const SafetensorsFile &file);

/// The same for any set of a plan's variables: this rank's parts of them.
void readVariables(const plan::LoadedPlan &plan,
                   const std::vector<SpreadTensor> &variables,
                   const SafetensorsFile &file);

/// Throws Error naming the first surplus tensor. Buffers of the original
/// model's state_dict (`rope.freqs`, `prior_*`) and, where the plan shares
/// embeddings, a head (`output.output.weight`, LLaMA's `output.weight`) equal
/// to the embedding are not surplus.
void refuseSurplus(const plan::LoadedPlan &plan, const SafetensorsFile &file,
                   const std::function<bool(const std::string &)> &accepted);

/// Throws Error naming file, tensor and position of the first element that is
/// not finite.
void requireFinite(const std::string &path, const TensorView &tensor);
void requireFinite(const std::string &path, const SpreadTensor &tensor);

/// Position of the first element that is not finite, or -1. Integers always
/// are.
int64_t firstNonFinite(const TensorView &tensor);

/// "[2, 3]": where an element of a box of a larger tensor stands in it.
std::string positionText(const Box &box, int64_t element);

/// Throws Error naming file, tensor and position of the first id outside [0,
/// size); `ignored` is allowed too.
void requireIds(const std::string &path, const TensorView &tensor, int64_t size,
                int64_t ignored);

/// A list of names for a message: "'a', 'b' and 3 more".
std::string nameList(const std::vector<std::string> &names);

} // namespace megalodon
