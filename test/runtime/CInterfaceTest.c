// The C interface compiles as C and runs a plan. Returns the line of the first
// failure, 0 if there is none.
#include "runtime/c/megalodon.h"
#include <string.h>

#define REQUIRE(condition)                                                     \
  if (!(condition))                                                            \
  return __LINE__

int useCInterface(const char *plan) {
  REQUIRE(!megalodon_open("/nonexistent.plan", 1));
  REQUIRE(strstr(megalodon_error(), "/nonexistent.plan: cannot open"));
  megalodon_session *session = megalodon_open(plan, 2);
  REQUIRE(session);
  REQUIRE(megalodon_function(session, "none") == -1);
  int forward = megalodon_function(session, "forward");
  REQUIRE(forward == 0);
  megalodon_tensor in, out;
  REQUIRE(megalodon_variable(session, forward, "in", 1, 4, &in) == 0);
  REQUIRE(in.type == MEGALODON_F32 && in.rank == 3 && in.shape[1] == 4 &&
          in.bytes == 128);
  REQUIRE(megalodon_variable(session, forward, "count", 1, 4, &in) == -1);
  REQUIRE(megalodon_variable(session, 5, "in", 1, 4, &in) == -1);
  REQUIRE(megalodon_reset_state(session, forward) == 0);
  REQUIRE(megalodon_run(session, forward, 1, 4) == 0);
  REQUIRE(megalodon_run(session, forward, 3, 4) == -1);
  REQUIRE(strstr(megalodon_error(), "batch: expected between 1 and 2, got 3"));
  REQUIRE(megalodon_variable(session, forward, "out", 1, 4, &out) == 0);
  REQUIRE(((float *)out.data)[0] == 0.0f); // the parameter is zero
  REQUIRE(megalodon_load_weights(session, "/nonexistent") == -1);
  megalodon_close(session);
  return 0;
}
