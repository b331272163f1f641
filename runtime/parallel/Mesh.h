// The grid of ranks: four axes, the tensor axis fastest.
#pragma once
#include "runtime/core/Error.h"
#include <algorithm>
#include <cstdint>
#include <vector>

namespace megalodon {

/// The axes, slowest first.
enum class Axis : uint8_t { Data, Pipeline, Chunk, Tensor };
inline constexpr Axis kAxes[] = {Axis::Data, Axis::Pipeline, Axis::Chunk,
                                 Axis::Tensor};

constexpr const char *axisName(Axis axis) {
  switch (axis) {
  case Axis::Data:
    return "data";
  case Axis::Pipeline:
    return "pipeline";
  case Axis::Chunk:
    return "chunk";
  case Axis::Tensor:
    return "tensor";
  }
  return "?";
}

/// Where a rank stands on each axis.
struct Coordinates {
  int data = 0, pipeline = 0, chunk = 0, tensor = 0;

  int &along(Axis axis) {
    return axis == Axis::Data       ? data
           : axis == Axis::Pipeline ? pipeline
           : axis == Axis::Chunk    ? chunk
                                    : tensor;
  }
  int along(Axis axis) const {
    return const_cast<Coordinates &>(*this).along(axis);
  }
};

/// Ranks along each axis.
struct Mesh {
  int dp = 1, pp = 1, cp = 1, tp = 1;

  int ranks() const { return dp * pp * cp * tp; }
  int size(Axis axis) const { return Coordinates{dp, pp, cp, tp}.along(axis); }

  Coordinates coordinates(int rank) const {
    if (rank < 0 || rank >= ranks())
      throw Error(str("expected a rank below ", ranks(), ", got ", rank));
    return {rank / (tp * cp * pp), rank / (tp * cp) % pp, rank / tp % cp,
            rank % tp};
  }

  int rank(Coordinates at) const {
    for (Axis axis : kAxes)
      if (at.along(axis) < 0 || at.along(axis) >= size(axis))
        throw Error(str("expected a place below ", size(axis), " on the ",
                        axisName(axis), " axis, got ", at.along(axis)));
    return ((at.data * pp + at.pipeline) * cp + at.chunk) * tp + at.tensor;
  }

  /// The ranks that differ from `rank` only along `axes`, in order of rank;
  /// with `stages` only those at these pipeline places. `rank` itself is among
  /// them unless its own stage is left out.
  std::vector<int> group(int rank, const std::vector<Axis> &axes,
                         const std::vector<int> &stages = {}) const {
    auto has = [](const auto &list, const auto &value) {
      return std::find(list.begin(), list.end(), value) != list.end();
    };
    const Coordinates own = coordinates(rank);
    std::vector<int> members;
    for (int other = 0; other < ranks(); ++other) {
      const Coordinates at = coordinates(other);
      bool member = stages.empty() || has(stages, at.pipeline);
      for (Axis axis : kAxes)
        member &= at.along(axis) == own.along(axis) || has(axes, axis);
      if (member)
        members.push_back(other);
    }
    return members;
  }
};

inline bool operator==(const Mesh &left, const Mesh &right) {
  return left.dp == right.dp && left.pp == right.pp && left.cp == right.cp &&
         left.tp == right.tp;
}
inline bool operator!=(const Mesh &left, const Mesh &right) {
  return !(left == right);
}

} // namespace megalodon
