#include "tools/megalodon-run/InspectCode.h"
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "tools/megalodon-run/Text.h"
#include <filesystem>

namespace megalodon {

namespace {

const char *imageKind(const plan::GpuImage &image) {
  return image.ptx ? "ptx" : "cubin";
}

/// Bytes of code; of text without the zero that ends it.
size_t codeBytes(const plan::GpuImage &image) {
  return image.data.size() - image.ptx;
}

} // namespace

void addCodeJson(const plan::LoadedPlan &plan, nlohmann::ordered_json &out) {
  using Json = nlohmann::ordered_json;
  out["object_bytes"] = plan.object.size();
  if (plan.isCuda()) {
    Json &images = out["images"] = Json::array();
    for (const plan::GpuImage &image : plan.images)
      images.push_back({{"arch", image.arch},
                        {"kind", imageKind(image)},
                        {"bytes", codeBytes(image)}});
  }
  Json &kernels = out["kernels"] = Json::array();
  for (const plan::Kernel &kernel : plan.kernels) {
    Json entry = {{"symbol", kernel.symbol},
                  {"scratch_bytes", kernel.scratchBytes}};
    if (plan.isCuda()) {
      entry["threads"] = kernel.threads;
      entry["words"] = kernel.words;
    }
    entry["source"] = kernel.source;
    kernels.push_back(std::move(entry));
  }
}

void printCode(const plan::LoadedPlan &plan,
               const std::vector<size_t> &dispatches) {
  std::printf("\nkernels     %s, ",
              grouped(int64_t(plan.kernels.size())).c_str());
  std::vector<std::vector<std::string>> rows;
  if (plan.isCuda()) {
    std::printf("in %s images\n", grouped(int64_t(plan.images.size())).c_str());
    for (const plan::GpuImage &image : plan.images)
      rows.push_back({image.arch, imageKind(image),
                      grouped(int64_t(codeBytes(image))) + " bytes"});
    printTable(rows, {0, 1});
    rows = {{"symbol", "threads", "shared", "dispatches", "source"}};
  } else {
    std::printf("object of %s bytes\n",
                grouped(int64_t(plan.object.size())).c_str());
    rows = {{"symbol", "scratch", "dispatches", "source"}};
  }
  for (size_t i = 0; i < plan.kernels.size(); ++i) {
    const plan::Kernel &kernel = plan.kernels[i];
    std::vector<std::string> row = {kernel.symbol};
    if (plan.isCuda())
      row.push_back(grouped(kernel.threads));
    row.push_back(grouped(int64_t(kernel.scratchBytes)));
    row.push_back(grouped(int64_t(dispatches[i])));
    row.push_back(kernel.source);
    rows.push_back(std::move(row));
  }
  printTable(rows, {0, rows[0].size() - 1});
}

void saveImages(const plan::LoadedPlan &plan, const std::string &folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    throw Error(str(folder, ": cannot create: ", error.message()));
  for (const plan::GpuImage &image : plan.images)
    writeText(
        str(folder, "/kernels.", image.arch, ".", imageKind(image)),
        {reinterpret_cast<const char *>(image.data.data()), codeBytes(image)});
}

} // namespace megalodon
