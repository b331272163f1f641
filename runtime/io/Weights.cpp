#include "runtime/io/Weights.h"
#include "runtime/core/Error.h"
#include "runtime/plan/LoadedPlan.h"
#include <cmath>
#include <cstring>
#include <set>

namespace megalodon {

std::string nameList(const std::vector<std::string> &names) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < names.size() && i < kShown; ++i)
    text += str(i ? ", '" : "'", names[i], "'");
  if (names.size() > kShown)
    text += str(" and ", names.size() - kShown, " more");
  return text;
}

std::string positionText(const Box &box, int64_t element) {
  std::vector<int64_t> position(box.extent.size());
  for (size_t i = box.extent.size(); i-- > 0; element /= box.extent[i])
    position[i] = box.offset[i] + element % box.extent[i];
  return shapeText(position);
}

int64_t firstNonFinite(const TensorView &tensor) {
  const std::byte *const data = tensor.read();
  auto search = [&](auto zero, auto isFinite) -> int64_t {
    const size_t count = tensor.bytes / sizeof(zero);
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(&zero, data + i * sizeof(zero), sizeof(zero));
      if (!isFinite(zero))
        return int64_t(i);
    }
    return -1;
  };
  switch (tensor.type) {
  case ElementType::F32:
    return search(float(0), [](float value) { return std::isfinite(value); });
  case ElementType::F64:
    return search(double(0), [](double value) { return std::isfinite(value); });
  case ElementType::BF16: // an exponent of all ones
    return search(uint16_t(0),
                  [](uint16_t bits) { return (bits & 0x7f80) != 0x7f80; });
  default:
    return -1;
  }
}

void requireFinite(const std::string &path, const SpreadTensor &tensor) {
  if (!tensor.box())
    return;
  const int64_t element = firstNonFinite(tensor.part);
  if (element >= 0)
    throw Error(str(path, ": tensor '", tensor.whole.name, "': value at ",
                    positionText(*tensor.box(), element), " is not finite"));
}

void requireFinite(const std::string &path, const TensorView &tensor) {
  requireFinite(path, wholeTensor(tensor));
}

void requireIds(const std::string &path, const TensorView &tensor, int64_t size,
                int64_t ignored) {
  const size_t width = elementBytes(tensor.type);
  const std::byte *const data = tensor.read();
  for (size_t i = 0; i < tensor.bytes / width; ++i) {
    int32_t narrow;
    int64_t id;
    if (tensor.type == ElementType::I32) {
      std::memcpy(&narrow, data + i * width, width);
      id = narrow;
    } else {
      std::memcpy(&id, data + i * width, width);
    }
    if ((id < 0 || id >= size) && id != ignored)
      throw Error(str(path, ": tensor '", tensor.name,
                      "': expected ids from 0 to ", size - 1, ", got ", id,
                      " at ",
                      positionText(Box::whole(tensor.shape), int64_t(i))));
  }
}

static bool endsWith(const std::string &text, const std::string &end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), end.size(), end) == 0;
}

void refuseSurplus(const plan::LoadedPlan &plan, const SafetensorsFile &file,
                   const std::function<bool(const std::string &)> &accepted) {
  std::vector<std::string> surplus;
  for (const StoredTensor &tensor : file.tensors()) {
    const std::string &name = tensor.name;
    if (accepted(name) || name == "rope.freqs" ||
        endsWith(name, ".prior_count") || endsWith(name, ".prior_mean") ||
        endsWith(name, ".prior_logv"))
      continue;
    // The head of a model that shares it with the embedding.
    const std::string table = name == "output.output.weight" ? "embed.weight"
                              : name == "output.weight"
                                  ? "tok_embeddings.weight"
                                  : "";
    if (!table.empty() && accepted(table)) {
      const StoredTensor *embedding = file.find(table);
      if (embedding && embedding->type == tensor.type &&
          embedding->shape == tensor.shape &&
          std::memcmp(embedding->data, tensor.data, tensor.bytes) == 0)
        continue;
      throw Error(str(file.path(), ": tensor '", name, "' differs from '",
                      table, "', but ", plan.path, " shares them"));
    }
    surplus.push_back(name);
  }
  if (!surplus.empty())
    throw Error(str(file.path(), ": expected only tensors that ", plan.path,
                    " takes, got ", nameList(surplus)));
}

void readVariables(const plan::LoadedPlan &plan,
                   const std::vector<SpreadTensor> &variables,
                   const SafetensorsFile &file) {
  std::vector<std::string> missing;
  std::set<std::string> known;
  for (const SpreadTensor &variable : variables) {
    known.insert(variable.whole.name);
    if (!file.find(variable.whole.name))
      missing.push_back(variable.whole.name);
  }
  if (!missing.empty())
    throw Error(str(file.path(), ": expected all ", variables.size(),
                    " tensors of ", plan.path, ", missing ",
                    nameList(missing)));
  refuseSurplus(plan, file, [&](const std::string &name) {
    return known.count(name) != 0;
  });
  for (const SpreadTensor &variable : variables)
    if (const std::optional<Box> &box = variable.box()) {
      const StoredTensor &stored = *file.find(variable.whole.name);
      file.read(stored, variable.part, variable.whole.shape, *box);
      requireFinite(file.pathOf(stored), variable);
      variable.part.flush();
    }
}

void readWeights(Session &session, const SafetensorsFile &file) {
  readVariables(session.plan(), spreadVariables(session, plan::Role::Parameter),
                file);
}

} // namespace megalodon
