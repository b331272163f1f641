#include "runtime/c/megalodon.h"
#include "runtime/core/Error.h"
#include "runtime/io/Weights.h"
#include "runtime/plan/LoadedPlan.h"
#include <algorithm>

using namespace megalodon;

struct megalodon_session {
  Session session;
};

static_assert(int(ElementType::I8) == MEGALODON_I8 &&
              int(ElementType::BF16) == MEGALODON_BF16 &&
              int(ElementType::I64) == MEGALODON_I64);

static thread_local std::string lastError;

/// No exception may reach a C caller.
template <typename Body> static int guarded(Body body) {
  try {
    return body();
  } catch (const std::exception &error) {
    lastError = error.what();
  }
  return -1;
}

static size_t checkedFunction(const megalodon_session *session, int function) {
  if (function < 0 ||
      size_t(function) >= session->session.plan().functions.size())
    throw Error(str("function ", function, " is out of range"));
  return size_t(function);
}

const char *megalodon_error(void) { return lastError.c_str(); }

megalodon_session *megalodon_open(const char *plan, int threads) {
  megalodon_session *session = nullptr;
  guarded([&] {
    session =
        new megalodon_session{Session(plan::LoadedPlan::open(plan), {threads})};
    return 0;
  });
  return session;
}

void megalodon_close(megalodon_session *session) { delete session; }

int megalodon_load_weights(megalodon_session *session, const char *path) {
  return guarded([&] {
    readWeights(session->session, SafetensorsFile(path));
    return 0;
  });
}

int megalodon_function(megalodon_session *session, const char *name) {
  return guarded([&] { return int(session->session.function(name)); });
}

int megalodon_variable(megalodon_session *session, int function,
                       const char *name, int64_t batch, int64_t length,
                       megalodon_tensor *tensor) {
  return guarded([&] {
    const TensorView view = session->session.variable(
        checkedFunction(session, function), name, {batch, length});
    if (view.shape.size() > MEGALODON_MAX_RANK)
      throw Error(str("variable '", name, "' has more than ",
                      int(MEGALODON_MAX_RANK), " dimensions"));
    *tensor = {megalodon_element_type(view.type),
               int32_t(view.shape.size()),
               {},
               view.write(),
               view.bytes};
    std::copy(view.shape.begin(), view.shape.end(), tensor->shape);
    return 0;
  });
}

int megalodon_reset_state(megalodon_session *session, int function) {
  return guarded([&] {
    session->session.resetState(checkedFunction(session, function));
    return 0;
  });
}

int megalodon_run(megalodon_session *session, int function, int64_t batch,
                  int64_t length) {
  return guarded([&] {
    session->session.run(checkedFunction(session, function), {batch, length});
    return 0;
  });
}
