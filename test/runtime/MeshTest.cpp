// The grid of ranks: numbering, its inverse, and the groups along axes.
#include "runtime/parallel/Mesh.h"
#include "test/runtime/Messages.h"

using namespace megalodon;

TEST(Mesh, TensorAxisIsFastest) {
  const Mesh mesh{2, 3, 2, 4};
  EXPECT_EQ(mesh.ranks(), 48);
  EXPECT_EQ(mesh.rank({0, 0, 0, 1}), 1);
  EXPECT_EQ(mesh.rank({0, 0, 1, 0}), 4);
  EXPECT_EQ(mesh.rank({0, 1, 0, 0}), 8);
  EXPECT_EQ(mesh.rank({1, 0, 0, 0}), 24);
  for (int rank = 0; rank < mesh.ranks(); ++rank)
    EXPECT_EQ(mesh.rank(mesh.coordinates(rank)), rank);
}

TEST(Mesh, GroupsAlongAxes) {
  const Mesh mesh{2, 2, 1, 2};
  using List = std::vector<int>;
  EXPECT_EQ(mesh.group(3, {Axis::Tensor}), (List{2, 3}));
  EXPECT_EQ(mesh.group(3, {Axis::Pipeline}), (List{1, 3}));
  EXPECT_EQ(mesh.group(3, {Axis::Data}), (List{3, 7}));
  EXPECT_EQ(mesh.group(3, {Axis::Chunk}), (List{3}));
  EXPECT_EQ(mesh.group(3, {Axis::Tensor, Axis::Data}), (List{2, 3, 6, 7}));
  EXPECT_EQ(mesh.group(5, {Axis::Data, Axis::Pipeline}, {0}), (List{1, 5}));
  EXPECT_EQ(mesh.group(5, {}), (List{5}));
  EXPECT_EQ(mesh.group(5, {Axis::Data, Axis::Pipeline, Axis::Tensor}),
            (List{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Mesh, RefusesPlacesOutside) {
  const Mesh mesh{1, 2, 1, 1};
  EXPECT_ERROR(mesh.coordinates(2), "expected a rank below 2, got 2");
  EXPECT_ERROR(mesh.coordinates(-1), "expected a rank below 2, got -1");
  EXPECT_ERROR(mesh.rank({0, 2, 0, 0}),
               "expected a place below 2 on the pipeline axis, got 2");
}
