// A tensor that the ranks of a world hold in parts.
#pragma once
#include "runtime/io/Box.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/session.h"
#include <optional>

namespace megalodon {

/// Name, type and shape of a whole tensor.
struct TensorHead {
  std::string name;
  ElementType type;
  std::vector<int64_t> shape;

  size_t bytes() const {
    return size_t(Box::whole(shape).elements()) * elementBytes(type);
  }
};

struct SpreadTensor {
  TensorHead whole;
  /// What each rank holds; nothing where it holds no part. Boxes are equal or
  /// do not overlap, and together they cover the tensor.
  std::vector<std::optional<Box>> boxes;
  int rank = 0;    ///< the one that looks
  TensorView part; ///< its box; without meaning when it holds none

  const std::optional<Box> &box() const { return boxes[size_t(rank)]; }
};

/// A tensor that one rank holds whole.
inline SpreadTensor wholeTensor(const TensorView &view) {
  return {
      {view.name, view.type, view.shape}, {Box::whole(view.shape)}, 0, view};
}

/// What a rank holds of a variable in a call of that shape; nothing where
/// another stage of the pipeline holds it.
std::optional<Box> boxOf(const plan::LoadedPlan &plan,
                         const plan::Variable &variable, int rank,
                         CallShape shape);

/// A variable of a function. Throws Error when it has no such input or output.
SpreadTensor spreadVariable(Session &session, size_t function,
                            std::string_view name, CallShape shape = {});

/// All parameters, or first or second moments, of the plan.
std::vector<SpreadTensor> spreadVariables(Session &session, plan::Role role);

} // namespace megalodon
