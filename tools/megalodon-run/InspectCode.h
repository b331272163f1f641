// What megalodon-run inspect says about a plan's code: kernels, and for GPUs
// the images that hold them.
#pragma once
#include "runtime/plan/LoadedPlan.h"
#include <nlohmann/json.hpp>

namespace megalodon {

/// Adds `object_bytes`, `images` and `kernels`.
void addCodeJson(const plan::LoadedPlan &plan, nlohmann::ordered_json &out);

/// `dispatches`: how often each kernel stands in the plan's programs.
void printCode(const plan::LoadedPlan &plan,
               const std::vector<size_t> &dispatches);

/// Writes FOLDER/kernels.sm_90a.cubin, FOLDER/kernels.sm_80.ptx, ...
void saveImages(const plan::LoadedPlan &plan, const std::string &folder);

} // namespace megalodon
