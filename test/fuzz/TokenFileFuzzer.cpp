// Token files: refused with an Error, or a view whose documents and tokens can
// all be read.
#include "runtime/core/Error.h"
#include "runtime/io/TokenFile.h"
#include "test/fuzz/Fuzz.h"
#include <algorithm>

using namespace megalodon;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try {
    const TokenFileView view(data, size, "fuzz.tokens");
    int64_t last = 0;
    for (int64_t i = 0; i <= std::min<int64_t>(view.documents(), 4096); ++i) {
      fuzz::require(view.begin(i) >= last && view.begin(i) <= view.tokens(),
                    "documents out of order");
      last = view.begin(i);
    }
    for (int64_t i = 0; i < std::min<int64_t>(view.tokens(), 4096); ++i)
      (void)view.token(i);
    view.verify();
  } catch (const Error &) {
    return 0;
  }
  return 0;
}
