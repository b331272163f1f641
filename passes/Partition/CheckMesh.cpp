#include "passes/Partition/CheckMesh.h"
#include "llvm/ADT/STLFunctionalExtras.h"

using namespace mlir;
using namespace mlir::megalodon;
using ::megalodon::Config;
using ::megalodon::EntryKind;
using ::megalodon::EntrySpec;

namespace {

struct Constraint {
  Axis axis;
  std::string what;
  int64_t extent; ///< must be a multiple of `unit` x ranks; 0: at least ranks
  int64_t unit = 1;

  bool holds(int64_t ranks) const {
    return unit == 0 ? extent >= ranks : extent % (unit * ranks) == 0;
  }
};

} // namespace

llvm::Error mlir::megalodon::checkMesh(const Config &config,
                                       ArrayRef<EntrySpec> entries,
                                       const MeshShape &mesh) {
  if (mesh.ranks() == 1)
    return llvm::Error::success();
  SmallVector<Constraint> constraints;
  std::string text;
  if (config.isLlama()) {
    constraints = {{Axis::Tensor, "n_kv_heads", config.keyHeads},
                   {Axis::Tensor, "dim", config.modelDim}};
    if (mesh[Axis::Chunk] > 1)
      text += "--mesh: cp: full attention reads the keys of all earlier "
              "tokens: expected 1 rank, got " +
              std::to_string(mesh[Axis::Chunk]) + "; use dp, pp or tp\n";
  } else if (config.isMega()) {
    // Its one head would have to be split by columns of values.
    for (auto [axis, why] :
         {std::make_pair(Axis::Chunk, "the moving average and the positions "
                                      "are not exchanged"),
          std::make_pair(Axis::Tensor, "attention has one head")})
      if (mesh[axis] > 1)
        text +=
            ("--mesh: " + stringifyAxis(axis) + ": mega: " + why +
             ": expected 1 rank, got " + Twine(mesh[axis]) + "; use dp or pp\n")
                .str();
  } else {
    constraints = {{Axis::Tensor, "num_heads", config.numHeads},
                   {Axis::Tensor, "norm_num_groups", config.normNumGroups},
                   {Axis::Tensor, "model_dim", config.modelDim}};
  }
  constraints.push_back({Axis::Tensor, "ffn_hidden_dim", config.ffnHiddenDim});
  constraints.push_back({Axis::Pipeline, "num_layers", config.numLayers, 0});
  for (const EntrySpec &entry : entries) {
    std::string name = ::megalodon::entryName(entry.kind).str();
    if (entry.kind == EntryKind::Generate) {
      text += "--mesh: entry generate: expected one rank, got " +
              std::to_string(mesh.ranks()) +
              "; compile it into a plan of its own\n";
      continue;
    }
    constraints.push_back({Axis::Data, "rows of entry " + name, entry.batch});
    if (mesh[Axis::Chunk] > 1 && !config.isLlama() && !config.isMega())
      constraints.push_back({Axis::Chunk, "length of entry " + name,
                             entry.length, config.chunkSize});
  }
  MeshShape nearest = mesh;
  if (config.isLlama() || config.isMega())
    nearest[Axis::Chunk] = 1;
  if (config.isMega())
    nearest[Axis::Tensor] = 1;
  for (const Constraint &constraint : constraints) {
    int64_t ranks = mesh[constraint.axis];
    if (!constraint.holds(ranks)) {
      int64_t unit = constraint.unit * ranks;
      text +=
          ("--mesh: " + stringifyAxis(constraint.axis) + ": " +
           constraint.what + ": expected " +
           (constraint.unit == 0 ? "at least " + Twine(ranks)
                                 : "a multiple of " + Twine(unit)) +
           (constraint.unit > 1 ? " (chunk size " + Twine(constraint.unit) + ")"
                                : Twine("")) +
           ", got " + Twine(constraint.extent) + "\n")
              .str();
    }
  }
  if (text.empty())
    return llvm::Error::success();
  for (size_t axis = 0; axis < nearest.sizes.size(); ++axis)
    while (nearest.sizes[axis] > 1 &&
           llvm::any_of(constraints, [&](const Constraint &constraint) {
             return static_cast<size_t>(constraint.axis) == axis &&
                    !constraint.holds(nearest.sizes[axis]);
           }))
      --nearest.sizes[axis];
  if (nearest.sizes != mesh.sizes)
    text += "--mesh: the nearest mesh that works: " + nearest.text() + "\n";
  text.pop_back();
  return llvm::createStringError(text);
}
