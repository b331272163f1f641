// Zip archives: refused with an Error, or entries whose bytes lie inside.
#include "runtime/convert/ZipArchive.h"
#include "runtime/core/Error.h"
#include "test/fuzz/Fuzz.h"

using namespace megalodon;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const auto *bytes = reinterpret_cast<const std::byte *>(data);
  try {
    for (const convert::ZipEntry &entry :
         convert::readZip("fuzz.zip", bytes, size)) {
      fuzz::require(entry.data >= bytes && entry.bytes <= size &&
                        size_t(entry.data - bytes) <= size - entry.bytes,
                    "an entry outside the archive");
      convert::verifyEntry("fuzz.zip", entry);
    }
  } catch (const Error &) {
    return 0;
  }
  return 0;
}
