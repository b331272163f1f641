// What a loaded plan answers about itself.
#include "runtime/plan/LoadedPlan.h"
#include "runtime/core/Error.h"
#include <algorithm>

namespace megalodon::plan {

static int64_t product(const std::vector<int64_t> &sizes) {
  int64_t result = 1;
  for (int64_t size : sizes)
    result *= size;
  return result;
}

int64_t Variable::elements() const { return product(shape); }

size_t Variable::localBytes() const {
  return size_t(product(localShape)) * elementBytes(type);
}

int64_t Variable::parts(uint32_t dimension) const {
  for (const Split &split : splits)
    if (split.dimension == dimension)
      return split.parts;
  return 1;
}

static bool isAmong(const std::vector<uint32_t> &stages, uint32_t stage) {
  return stages.empty() ||
         std::binary_search(stages.begin(), stages.end(), stage);
}

bool Variable::isHeldBy(uint32_t stage) const { return isAmong(stages, stage); }
bool Communicator::isMember(uint32_t stage) const {
  return isAmong(stages, stage);
}

size_t Program::commandCount() const {
  size_t count = 0;
  for (const Segment &segment : segments)
    count += segment.commands.size();
  return count;
}

bool Function::hasUpdate() const {
  return std::any_of(
      programs.begin(), programs.end(),
      [](const Program &program) { return !program.updateActions.empty(); });
}

bool LoadedPlan::isPacked(const Function &function) const {
  return std::any_of(
      function.inputs.begin(), function.inputs.end(),
      [&](uint32_t input) { return variables[input].name == kResets; });
}

int64_t timesOf(Dynamic dynamic, int64_t batch, int64_t length) {
  return dynamic == Dynamic::None    ? 1
         : dynamic == Dynamic::Batch ? batch
                                     : batch * length;
}

uint64_t CollectiveItem::rowsOf(int64_t batch, int64_t length) const {
  return uint64_t(rows) * uint64_t(timesOf(dynamic, batch, length));
}

uint64_t CollectiveStart::shareBytes(int64_t batch, int64_t length) const {
  uint64_t bytes = 0;
  for (const CollectiveItem &item : items)
    bytes += item.rowsOf(batch, length) * item.rowBytes;
  return bytes;
}

std::string collectiveName(const LoadedPlan &plan,
                           const CollectiveStart &collective) {
  constexpr const char *kinds[] = {"all_reduce", "all_gather",
                                   "reduce_scatter"};
  constexpr const char *axes[] = {"dp", "pp", "cp", "tp"};
  std::string name = kinds[size_t(collective.kind)];
  const char *separator = " ";
  for (Axis axis : plan.communicators[collective.communicator].axes) {
    name += str(separator, axes[size_t(axis)]);
    separator = "+";
  }
  return name;
}

std::string meshText(const Mesh &mesh) {
  return str("dp=", mesh.dp, ",pp=", mesh.pp, ",cp=", mesh.cp, ",tp=", mesh.tp);
}

int64_t Grid::workgroups(int64_t batch, int64_t length) const {
  const int64_t rows = outer == Outer::Batch ? batch : 1;
  const int64_t extent = inner == Inner::Tokens   ? batch * length
                         : inner == Inner::Length ? length
                                                  : 1;
  return factor * rows * ((extent + divisor - 1) / divisor);
}

int LoadedPlan::findFunction(std::string_view name) const {
  for (size_t i = 0; i < functions.size(); ++i)
    if (functions[i].name == name)
      return int(i);
  return -1;
}

int64_t LoadedPlan::parameterCount() const {
  int64_t count = 0;
  for (const Variable &variable : variables)
    if (variable.role == Role::Parameter)
      count += variable.elements();
  return count;
}

} // namespace megalodon::plan
