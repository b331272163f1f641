// inspect --html: a plan as one page that needs nothing else: layer graph,
// memory plan over time, schedule, parameters, kernels.
#pragma once
#include "runtime/plan/LoadedPlan.h"
#include <nlohmann/json.hpp>
#include <string>

namespace megalodon {

/// `facts` is what inspect --json prints.
std::string inspectPage(const plan::LoadedPlan &plan,
                        nlohmann::ordered_json facts);

} // namespace megalodon
