// Plan files: refused with an Error, or a plan whose tables the tools can walk.
// PlanMutator.cpp gets past the digest.
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include "test/fuzz/Fuzz.h"

using namespace megalodon;

/// What every user of a plan computes from it.
static void walk(const plan::LoadedPlan &plan) {
  plan.parameterCount();
  plan::meshText(plan.mesh);
  size_t bytes = 0;
  for (const plan::Variable &variable : plan.variables)
    bytes += variable.localBytes();
  for (const plan::Function &function : plan.functions) {
    fuzz::require(plan.findFunction(function.name) >= 0,
                  "a listed function is not found");
    const int64_t batch = function.localBatch(),
                  length = function.localLength();
    for (const plan::Program &program : function.programs)
      for (const plan::Segment &segment : program.segments)
        for (const plan::Command &command : segment.commands) {
          if (const auto *dispatch =
                  std::get_if<plan::Dispatch>(&command.operation))
            fuzz::require(dispatch->grid.workgroups(batch, length) > 0,
                          "a dispatch without workgroups");
          if (const auto *collective =
                  std::get_if<plan::CollectiveStart>(&command.operation)) {
            plan::collectiveName(plan, *collective);
            bytes += collective->shareBytes(batch, length);
          }
        }
  }
  fuzz::require(bytes < uint64_t(1) << 62, "sizes that cannot be added up");
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try {
    walk(*plan::LoadedPlan::parse("fuzz.plan", data, size));
  } catch (const Error &) {
    return 0;
  }
  return 0;
}
