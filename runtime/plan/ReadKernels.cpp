// Kernels and the images of their code.
#include "runtime/plan/PlanReader.h"
#include <cctype>

namespace megalodon::plan {

void PlanReader::readKernel(const fb::Kernel &from) {
  Kernel kernel{nameIn(from.symbol(), "kernels"), from.scratch_bytes(),
                text(from.source()), from.threads(), from.words()};
  check(!kernel.symbol.empty() && kernel.symbol.find('\0') == std::string::npos,
        "kernels", "a symbol is not a name");
  check(kernel.scratchBytes <= kMaxBytes,
        str("kernel '", kernel.symbol, "'.scratch_bytes"), "expected at most ",
        kMaxBytes, ", got ", kernel.scratchBytes);
  if (plan.isCuda()) {
    check(kernel.threads > 0 && kernel.threads <= kMaxThreads,
          str("kernel '", kernel.symbol, "'.threads"), "expected from 1 to ",
          kMaxThreads, ", got ", kernel.threads);
    check(kernel.scratchBytes <= kMaxSharedBytes,
          str("kernel '", kernel.symbol, "'.scratch_bytes"),
          "expected at most ", kMaxSharedBytes, " of shared memory, got ",
          kernel.scratchBytes);
  }
  plan.kernels.push_back(std::move(kernel));
}

void PlanReader::readImage(const fb::GpuImage &from) {
  take(from.data()->size());
  GpuImage image{nameIn(from.arch(), "images"),
                 from.ptx(),
                 {from.data()->begin(), from.data()->end()}};
  const std::string field = str("image '", image.arch, "'");
  size_t digits = 0;
  if (image.arch.rfind("sm_", 0) == 0)
    while (3 + digits < image.arch.size() &&
           std::isdigit(static_cast<unsigned char>(image.arch[3 + digits])))
      ++digits;
  check((digits == 2 || digits == 3) && image.arch.size() <= 4 + digits,
        "images", "expected an architecture such as sm_90a, got '", image.arch,
        "'");
  check(!image.data.empty(), field, "is empty");
  check(!image.ptx || image.data.back() == 0, field,
        "expected text that ends with a zero");
  for (const GpuImage &other : plan.images)
    check(other.arch != image.arch || other.ptx != image.ptx, field,
          "stands twice");
  plan.images.push_back(std::move(image));
}

} // namespace megalodon::plan
