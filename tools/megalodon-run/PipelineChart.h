// The schedules of a plan's pipelines as people see them: a line a rank, time
// to the right.
#pragma once
#include "runtime/plan/LoadedPlan.h"
#include <string>

namespace megalodon {

/// Both play the plan's own actions through and throw where its ranks would
/// wait for each other, or where no function is a pipeline.
std::string drawSchedulesAsText(const plan::LoadedPlan &plan);
std::string drawSchedulesAsSvg(const plan::LoadedPlan &plan);

} // namespace megalodon
