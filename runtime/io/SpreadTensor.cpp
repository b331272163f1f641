#include "runtime/io/SpreadTensor.h"
#include "runtime/core/Error.h"
#include "runtime/parallel/Communicator.h"

namespace megalodon {

/// The whole tensor's shape in a call.
static std::vector<int64_t> shapeOf(const plan::Variable &variable,
                                    CallShape call) {
  std::vector<int64_t> shape = variable.shape;
  if (variable.dynamic != plan::Dynamic::None && call.batch)
    shape[0] = call.batch;
  if (variable.dynamic == plan::Dynamic::BatchLength && call.length)
    shape[1] = call.length;
  return shape;
}

std::optional<Box> boxOf(const plan::LoadedPlan &plan,
                         const plan::Variable &variable, int rank,
                         CallShape shape) {
  const Coordinates at = plan.mesh.coordinates(rank);
  if (!variable.isHeldBy(uint32_t(at.pipeline)))
    return std::nullopt;
  Box box = Box::whole(shapeOf(variable, shape));
  for (const plan::Split &split : variable.splits) {
    int64_t part = 0;
    for (Axis axis : split.axes)
      part = part * plan.mesh.size(axis) + at.along(axis);
    int64_t &extent = box.extent[split.dimension];
    extent = (extent + split.parts - 1) / split.parts;
    box.offset[split.dimension] = part * extent;
  }
  return box;
}

static SpreadTensor spreadOf(Session &session, const plan::Variable &variable,
                             CallShape shape) {
  SpreadTensor tensor;
  tensor.whole = {variable.name, variable.type, shapeOf(variable, shape)};
  tensor.rank = session.world().rank();
  for (int rank = 0; rank < session.world().size(); ++rank)
    tensor.boxes.push_back(boxOf(session.plan(), variable, rank, shape));
  return tensor;
}

SpreadTensor spreadVariable(Session &session, size_t function,
                            std::string_view name, CallShape shape) {
  const plan::LoadedPlan &plan = session.plan();
  const plan::Function &f = plan.functions[function];
  for (const std::vector<uint32_t> *list : {&f.inputs, &f.outputs})
    for (uint32_t index : *list)
      if (plan.variables[index].name == name) {
        SpreadTensor tensor = spreadOf(session, plan.variables[index], shape);
        if (tensor.box())
          tensor.part = session.variable(function, name, shape);
        return tensor;
      }
  throw Error(
      str(plan.path, ": function '", f.name, "' has no variable '", name, "'"));
}

std::vector<SpreadTensor> spreadVariables(Session &session, plan::Role role) {
  const std::vector<TensorView> held =
      role == plan::Role::Parameter     ? session.parameters()
      : role == plan::Role::FirstMoment ? session.firstMoments()
                                        : session.secondMoments();
  std::vector<SpreadTensor> list;
  size_t next = 0;
  for (const plan::Variable &variable : session.plan().variables)
    if (variable.role == role) {
      list.push_back(spreadOf(session, variable, {}));
      if (list.back().box())
        list.back().part = held.at(next++);
    }
  return list;
}

} // namespace megalodon
