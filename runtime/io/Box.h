// The part of a tensor that one rank holds. Boxes are dense in memory; splits
// that do not divide evenly make the last boxes reach beyond the tensor, and
// what lies there is padding, always zero.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace megalodon {

struct Box {
  std::vector<int64_t> offset, extent; ///< one number a dimension

  /// All of a tensor.
  static Box whole(const std::vector<int64_t> &shape) {
    return {std::vector<int64_t>(shape.size(), 0), shape};
  }

  /// How much of dimension `i` lies inside a tensor of `shape`.
  int64_t valid(const std::vector<int64_t> &shape, size_t i) const {
    return std::clamp<int64_t>(shape[i] - offset[i], 0, extent[i]);
  }

  /// Elements inside a tensor of `shape`.
  int64_t validElements(const std::vector<int64_t> &shape) const {
    int64_t count = 1;
    for (size_t i = 0; i < shape.size(); ++i)
      count *= valid(shape, i);
    return count;
  }

  int64_t elements() const {
    int64_t count = 1;
    for (int64_t size : extent)
      count *= size;
    return count;
  }

  bool operator==(const Box &other) const {
    return offset == other.offset && extent == other.extent;
  }
};

/// Calls body(element of the tensor, element of the box, count) for each run of
/// elements that lie side by side in both, in rising order. Padding is in no
/// run.
template <typename Body>
void forEachRun(const std::vector<int64_t> &shape, const Box &box, Body body) {
  if (box.validElements(shape) == 0)
    return;
  // Dimensions that are whole join the one in front of them.
  size_t inner = shape.empty() ? 0 : shape.size() - 1;
  while (inner > 0 && box.offset[inner] == 0 &&
         box.extent[inner] == shape[inner])
    --inner;
  std::vector<int64_t> at(inner, 0);
  int64_t run = 1;
  for (size_t i = inner; i < shape.size(); ++i)
    run *= box.valid(shape, i);
  while (true) {
    int64_t outside = 0, inside = 0;
    for (size_t i = 0; i < shape.size(); ++i) {
      const int64_t position = i < inner ? at[i] : 0;
      outside = outside * shape[i] + box.offset[i] + position;
      inside = inside * box.extent[i] + position;
    }
    body(outside, inside, run);
    size_t next = inner;
    while (next > 0 && ++at[next - 1] == box.valid(shape, next - 1))
      at[--next] = 0;
    if (next == 0)
      return;
  }
}

} // namespace megalodon
