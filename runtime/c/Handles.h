// What stands behind the C interface's handles, and how C++ errors become its
// status codes.
#pragma once
#include "runtime/c/megalodon.h"
#include "runtime/core/Error.h"
#include "runtime/core/Trust.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/session.h"
#include <new>
#include <set>

namespace megalodon::c {

/// A mistake in the call rather than in what it works on.
class Misuse : public Error {
public:
  using Error::Error;
};
class AbiMismatch : public Error {
public:
  using Error::Error;
};

/// A plan with its weights. Sessions on the cpu share those of `weights`; on a
/// GPU there is one session, and it is `weights` itself.
struct Model {
  std::shared_ptr<const plan::LoadedPlan> plan;
  SessionOptions options;
  Trust trust;
  std::shared_ptr<Session> weights;
  std::set<std::string> missing; ///< weights without a value
  bool inUse = false;            ///< on a GPU, by its one session
};

/// Remembers a failure of this thread.
megalodon_status fail(megalodon_status status, const char *message);

/// Runs `body`, whose exceptions no C caller may see.
template <typename Body> megalodon_status guarded(Body body) {
  try {
    body();
    return MEGALODON_OK;
  } catch (const Misuse &error) {
    return fail(MEGALODON_MISUSE, error.what());
  } catch (const AbiMismatch &error) {
    return fail(MEGALODON_ABI_MISMATCH, error.what());
  } catch (const std::bad_alloc &) {
    return fail(MEGALODON_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception &error) {
    return fail(MEGALODON_FAILED, error.what());
  } catch (...) {
    return fail(MEGALODON_FAILED, "an unknown failure");
  }
}

/// Throws Misuse when an argument is NULL.
inline void require(const void *argument, const char *name) {
  if (!argument)
    throw Misuse(str(name, ": expected a pointer, got NULL"));
}

/// Throws AbiMismatch unless the caller's header made the same structure.
template <typename Options> void requireAbi(const Options &options) {
  if (options.abi_version != MEGALODON_ABI_VERSION ||
      options.struct_size != sizeof(Options))
    throw AbiMismatch(
        str("expected options of ABI version ", MEGALODON_ABI_VERSION, " and ",
            sizeof(Options), " bytes, got version ", options.abi_version,
            " and ", options.struct_size,
            " bytes; compile the program with the header of this library, and "
            "begin with the structure's _INIT"));
}

/// The same for a structure that only carries its size.
template <typename Info> void requireSize(const Info *info, const char *name) {
  require(info, name);
  if (info->struct_size != sizeof(Info))
    throw AbiMismatch(str(name, ".struct_size: expected ", sizeof(Info),
                          ", got ", info->struct_size,
                          "; set it to sizeof, with the header of this "
                          "library"));
}

/// Copies a shape of at most MEGALODON_MAX_RANK dimensions.
void copyShape(const std::string &name, const std::vector<int64_t> &from,
               int32_t &rank, int64_t *shape);

} // namespace megalodon::c

struct megalodon_model {
  std::shared_ptr<megalodon::c::Model> model;
};

struct megalodon_session {
  std::shared_ptr<megalodon::c::Model> model;
  std::shared_ptr<megalodon::Session> session;
  megalodon::SessionOptions options;
  size_t function;
  int64_t rows;
  int64_t lastLength = 0; ///< of the call that left the logits; 0: none

  ~megalodon_session() {
    if (session && session == model->weights)
      model->inUse = false;
  }
};
