#include "runtime/convert/TorchFile.h"
#include "runtime/convert/Pickle.h"
#include "runtime/convert/ZipArchive.h"
#include "runtime/core/Error.h"
#include <cstring>
#include <set>
#include <unordered_map>

namespace megalodon::convert {

static constexpr const char *kPickle = "/data.pkl";

static bool endsWith(const std::string &text, const std::string &end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Strides of a dense tensor.
static std::vector<int64_t> denseStrides(const std::vector<int64_t> &shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= shape[i])
    strides[i] = stride;
  return strides;
}

/// The same but for dimensions of one element or none, whose stride is never
/// used.
static bool isDense(const PickledTensor &tensor) {
  const std::vector<int64_t> dense = denseStrides(tensor.shape);
  for (size_t i = 0; i < dense.size(); ++i)
    if (tensor.shape[i] > 1 && tensor.strides[i] != dense[i])
      return false;
  return true;
}

/// Copies a view element by element, in the order of a dense tensor.
static void gather(const PickledTensor &view, const std::byte *storage,
                   size_t width, std::byte *to) {
  const int64_t count = Box::whole(view.shape).elements();
  std::vector<int64_t> at(view.shape.size(), 0);
  int64_t from = view.offset;
  for (int64_t i = 0; i < count; ++i, to += width) {
    std::memcpy(to, storage + size_t(from) * width, width);
    for (size_t d = view.shape.size(); d-- > 0;) {
      from += view.strides[d];
      if (++at[d] < view.shape[d])
        break;
      from -= view.strides[d] * view.shape[d];
      at[d] = 0;
    }
  }
}

TensorSet readTorch(const std::string &path, const std::byte *data,
                    size_t bytes, const std::shared_ptr<const void> &owner) {
  std::unordered_map<std::string, ZipEntry> entries;
  std::string prefix;
  for (ZipEntry &entry : readZip(path, data, bytes)) {
    if (endsWith(entry.name, kPickle)) {
      if (!prefix.empty())
        throw Error(str(path, ": expected one data.pkl, got '", prefix, kPickle,
                        "' and '", entry.name, "'"));
      prefix = entry.name.substr(0, entry.name.size() - std::strlen(kPickle));
    }
    entries.emplace(entry.name, entry);
  }
  if (prefix.empty())
    throw Error(str(path,
                    ": expected an entry data.pkl as torch.save writes, "
                    "got none among ",
                    entries.size(), " entries"));
  auto order = entries.find(prefix + "/byteorder");
  if (order != entries.end() &&
      std::string(reinterpret_cast<const char *>(order->second.data),
                  std::min<size_t>(order->second.bytes, 16)) != "little")
    throw Error(str(path, ": expected little-endian tensors, got others"));
  const ZipEntry &pickle = entries.at(prefix + kPickle);
  verifyEntry(path, pickle);

  TensorSet set{path, {}, {}};
  std::set<std::string> verified;
  uint64_t gathered = 0; // bytes that were copied out of views
  for (const PickledTensor &view :
       readPickle(path, pickle.data, pickle.bytes)) {
    auto wrong = [&](const auto &...pieces) {
      return Error(str(path, ": tensor '", view.name, "': ", pieces...));
    };
    const std::string name = prefix + "/data/" + view.storage;
    auto found = entries.find(name);
    if (found == entries.end())
      throw wrong("expected its storage in entry '", name, "', got none");
    const ZipEntry &storage = found->second;
    const size_t width = typeBytes(view.type);
    if (storage.bytes % width ||
        storage.bytes / width != uint64_t(view.storageElements))
      throw wrong("expected ", view.storageElements, " elements of ", width,
                  " bytes in entry '", name, "', got ", storage.bytes,
                  " bytes");
    if (verified.insert(name).second)
      verifyEntry(path, storage);
    if (isDense(view)) {
      Tensor tensor{view.name, view.type, view.shape, nullptr, 0};
      tensor.bytes = size_t(tensor.elements()) * width;
      // An empty tensor may begin anywhere.
      tensor.data = {owner, tensor.bytes
                                ? storage.data + size_t(view.offset) * width
                                : storage.data};
      set.tensors[view.name] = std::move(tensor);
    } else {
      // Views may overlap, so that they could ask for more than the file holds.
      gathered += uint64_t(Box::whole(view.shape).elements()) * width;
      if (gathered > bytes)
        throw wrong("expected views of at most ", bytes,
                    " bytes, as many as the file has, got ", gathered);
      set.tensors[view.name] =
          makeTensor(view.name, view.type, view.shape, [&](std::byte *to) {
            gather(view, storage.data, width, to);
          });
    }
  }
  return set;
}

TensorSet readTorch(const std::string &path) {
  auto file = std::make_shared<const MappedFile>(path);
  return readTorch(path, file->data(), file->size(), file);
}

void writeTorch(const std::string &path, const TensorSet &set) {
  std::vector<PickledTensor> views;
  std::vector<const Tensor *> storages;
  for (const auto &[name, tensor] : set.tensors) {
    size_t key = 0;
    while (key < storages.size() && (storages[key]->data != tensor.data ||
                                     storages[key]->bytes != tensor.bytes))
      ++key;
    if (key == storages.size())
      storages.push_back(&tensor);
    views.push_back({name, tensor.type, std::to_string(key), tensor.elements(),
                     0, tensor.shape, denseStrides(tensor.shape)});
  }
  ZipWriter out(path);
  const std::string pickle = writePickle(views);
  out.add("archive/data.pkl", pickle.data(), pickle.size());
  out.add("archive/byteorder", "little", 6);
  for (size_t key = 0; key < storages.size(); ++key)
    out.add("archive/data/" + std::to_string(key), storages[key]->data.get(),
            storages[key]->bytes);
  out.add("archive/version", "3\n", 2);
  out.commit();
}

} // namespace megalodon::convert
