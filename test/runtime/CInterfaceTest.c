/* The C interface compiles as C, runs a plan and refuses mistakes. Returns the
 * line of the first failure, 0 if there is none. */
#include "runtime/c/megalodon.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define REQUIRE(condition)                                                     \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "last error: %s\n", megalodon_error());                  \
      return __LINE__;                                                         \
    }                                                                          \
  } while (0)
#define OK(call) REQUIRE((call) == MEGALODON_OK)
#define REFUSED(status, call, message)                                         \
  REQUIRE((call) == (status) && strstr(megalodon_error(), (message)))

static int opens(const char *plan, megalodon_model **model) {
  megalodon_options options = MEGALODON_OPTIONS_INIT;
  REQUIRE(megalodon_abi_version() == MEGALODON_ABI_VERSION);
  REQUIRE(strchr(megalodon_version(), '.'));
  REFUSED(MEGALODON_FAILED,
          megalodon_model_open("/nonexistent.plan", NULL, model),
          "/nonexistent.plan: cannot open");
  REFUSED(MEGALODON_MISUSE, megalodon_model_open(NULL, NULL, model), "path");
  options.abi_version = MEGALODON_ABI_VERSION + 1;
  REFUSED(MEGALODON_ABI_MISMATCH, megalodon_model_open(plan, &options, model),
          "expected options of ABI version 1 and 20 bytes, got version 2");
  options.abi_version = MEGALODON_ABI_VERSION;
  options.struct_size = 8;
  REFUSED(MEGALODON_ABI_MISMATCH, megalodon_model_open(plan, &options, model),
          "20 bytes, got version 1 and 8 bytes");
  options.struct_size = sizeof(options);
  options.threads = 2;
  OK(megalodon_model_open(plan, &options, model));
  return 0;
}

/* A plan whose digest is damaged: refused, unless it is trusted. */
static int trusts(const char *plan) {
  static unsigned char bytes[1 << 20];
  enum { DIGEST = 32 };
  megalodon_options options = MEGALODON_OPTIONS_INIT;
  megalodon_model *model = NULL;
  FILE *file = fopen(plan, "rb");
  size_t size;
  REQUIRE(file);
  size = fread(bytes, 1, sizeof(bytes), file);
  fclose(file);
  REQUIRE(size > DIGEST && size < sizeof(bytes));
  bytes[DIGEST] ^= 1;
  REFUSED(MEGALODON_FAILED,
          megalodon_model_open_memory("damaged", bytes, size, NULL, &model),
          "damaged: ");
  options.trust = 2;
  REFUSED(MEGALODON_MISUSE,
          megalodon_model_open_memory("damaged", bytes, size, &options, &model),
          "options.trust: expected 0 or 1, got 2");
  options.trust = 1;
  OK(megalodon_model_open_memory("damaged", bytes, size, &options, &model));
  megalodon_model_close(model);
  return 0;
}

static int queries(const megalodon_model *model) {
  megalodon_model_info info;
  megalodon_function_info function;
  megalodon_variable_info variable;
  int32_t index = -1;
  info.struct_size = 4;
  REFUSED(MEGALODON_ABI_MISMATCH, megalodon_model_query(model, &info),
          "info.struct_size: expected");
  info.struct_size = sizeof(info);
  OK(megalodon_model_query(model, &info));
  REQUIRE(info.functions == 2 && info.weights == 2 &&
          info.missing_weights == 2 && info.parameters == 72);
  REQUIRE(info.config[0] == '{' && strlen(info.digest) == 64);
  REFUSED(MEGALODON_FAILED,
          megalodon_model_find_function(model, "none", &index),
          "the plan has no function 'none', only 'forward'");
  OK(megalodon_model_find_function(model, "forward", &index));
  REQUIRE(index == 0);
  function.struct_size = sizeof(function);
  REFUSED(MEGALODON_MISUSE, megalodon_model_function(model, 2, &function),
          "function: expected 0 to 1, got 2");
  OK(megalodon_model_function(model, 0, &function));
  REQUIRE(!strcmp(function.name, "forward") && function.max_batch == 2 &&
          function.max_length == 16 && !function.exact);
  variable.struct_size = sizeof(variable);
  REFUSED(MEGALODON_MISUSE,
          megalodon_model_variable(model, 0, function.variables, &variable),
          "variable: expected 0 to");
  for (index = 0; index < function.variables; ++index) {
    OK(megalodon_model_variable(model, 0, index, &variable));
    if (!strcmp(variable.name, "in"))
      REQUIRE(variable.role == MEGALODON_INPUT && variable.dynamic == 2 &&
              variable.rank == 3 && variable.shape[2] == 8 &&
              variable.is_input && !variable.is_output);
    if (!strcmp(variable.name, "state.count"))
      REQUIRE(variable.role == MEGALODON_STATE && variable.dynamic == 1 &&
              variable.type == MEGALODON_I64);
  }
  return 0;
}

static int binds(megalodon_model *model) {
  megalodon_session *session = NULL;
  double w[64] = {0}, bias[8] = {0};
  megalodon_tensor tensor = {MEGALODON_F64, 2, {8, 8}, NULL, sizeof(w)};
  int i;
  REFUSED(MEGALODON_FAILED,
          megalodon_session_open(model, "forward", NULL, &session),
          "expected all weights to be set, missing 'bias', 'w'");
  REFUSED(MEGALODON_FAILED, megalodon_model_load_weights(model, "/nonexistent"),
          "/nonexistent");
  REFUSED(MEGALODON_MISUSE, megalodon_model_set_weight(model, "w", &tensor),
          "value.data");
  for (i = 0; i < 8; ++i)
    w[i * 8 + i] = 2;
  tensor.data = w;
  REFUSED(MEGALODON_FAILED, megalodon_model_set_weight(model, "v", &tensor),
          "the model has no weight 'v'");
  tensor.shape[1] = 4;
  REFUSED(MEGALODON_FAILED, megalodon_model_set_weight(model, "w", &tensor),
          "weight 'w': expected shape [8, 8], got [8, 4]");
  tensor.shape[1] = 8;
  tensor.bytes = 8;
  REFUSED(MEGALODON_FAILED, megalodon_model_set_weight(model, "w", &tensor),
          "expected 512 bytes, got 8");
  tensor.bytes = sizeof(w);
  w[9] = NAN;
  REFUSED(MEGALODON_FAILED, megalodon_model_set_weight(model, "w", &tensor),
          "tensor 'w': value at [1, 1] is not finite");
  w[9] = 2;
  OK(megalodon_model_set_weight(model, "w", &tensor));
  tensor.rank = 1;
  tensor.data = bias;
  tensor.bytes = sizeof(bias);
  OK(megalodon_model_set_weight(model, "bias", &tensor));
  return 0;
}

/* out = (3 in + 1) w */
static int runs(megalodon_session *session, float input) {
  megalodon_tensor in, out;
  OK(megalodon_session_tensor(session, "in", 4, &in));
  REQUIRE(in.type == MEGALODON_F32 && in.rank == 3 && in.shape[0] == 1 &&
          in.shape[1] == 4 && in.bytes == 128);
  memset(in.data, 0, in.bytes);
  ((float *)in.data)[5] = input;
  OK(megalodon_session_run(session, 4));
  OK(megalodon_session_tensor(session, "out", 4, &out));
  REQUIRE(((float *)out.data)[5] == 2 * (3 * input + 1));
  REQUIRE(((float *)out.data)[4] == 2);
  return 0;
}

static int keepsState(megalodon_session *session, const char *path) {
  megalodon_tensor count;
  int64_t position = -1, start;
  FILE *file;
  OK(megalodon_session_tensor(session, "state.count", 1, &count));
  *(int64_t *)count.data = 41;
  OK(megalodon_session_position(session, &start));
  REQUIRE(start == 41);
  OK(megalodon_session_save(session, path));
  OK(megalodon_session_reset(session));
  OK(megalodon_session_position(session, &position));
  REQUIRE(position == 0);
  OK(megalodon_session_restore(session, path));
  OK(megalodon_session_position(session, &position));
  REQUIRE(position == 41);
  file = fopen(path, "r+b");
  REQUIRE(file && !fseek(file, -1, SEEK_END) && fputc(0x80, file) == 0x80 &&
          !fclose(file));
  OK(megalodon_session_reset(session));
  REFUSED(MEGALODON_FAILED, megalodon_session_restore(session, path),
          "tensor 'state.count': expected counts from 0 on, got -");
  OK(megalodon_session_position(session, &position));
  REQUIRE(position == 0);
  return 0;
}

int useCInterface(const char *plan, const char *state, int oneSession) {
  megalodon_model *model = NULL;
  megalodon_session *session = NULL, *other = NULL;
  megalodon_session_options options = MEGALODON_SESSION_OPTIONS_INIT;
  megalodon_tensor tensor;
  int32_t token = 0;
  int64_t position;
  float logit[3] = {0, 5, 1};
  megalodon_sampling sampling = MEGALODON_SAMPLING_INIT;
  int line;
  if ((line = trusts(plan)) || (line = opens(plan, &model)) ||
      (line = queries(model)) || (line = binds(model)))
    return line;
  options.rows = 3;
  REFUSED(MEGALODON_MISUSE,
          megalodon_session_open(model, "forward", &options, &session),
          "options.rows: expected between 1 and 2");
  options.rows = 1;
  REFUSED(MEGALODON_FAILED,
          megalodon_session_open(model, "step", NULL, &session),
          "function 'step' changes the weights");
  OK(megalodon_session_open(model, "forward", &options, &session));
  if (oneSession) {
    REFUSED(MEGALODON_FAILED, megalodon_session_fork(session, &other),
            "expected one session at a time of a model on a GPU");
  } else {
    /* Two sessions at once, which share the weights but not the tensors. */
    OK(megalodon_session_fork(session, &other));
    if ((line = runs(other, 7)))
      return line;
  }
  REFUSED(MEGALODON_FAILED, megalodon_session_tensor(session, "no", 4, &tensor),
          "has no variable 'no'");
  REFUSED(MEGALODON_FAILED, megalodon_session_run(session, 17),
          "length: expected between 1 and 16, got 17");
  REFUSED(MEGALODON_MISUSE, megalodon_session_run(session, 0), "length");
  REFUSED(MEGALODON_MISUSE, megalodon_session_feed(session, &token, 1),
          "expected one of function 'generate' or 'forward'");
  if ((line = runs(session, 3)) || (line = keepsState(session, state)))
    return line;
  if (other) {
    OK(megalodon_session_tensor(session, "state.count", 1, &tensor));
    *(int64_t *)tensor.data = 9;
    OK(megalodon_session_copy_state(other, session));
    OK(megalodon_session_position(other, &position));
    REQUIRE(position == 9);
  }
  REFUSED(MEGALODON_FAILED, megalodon_session_restore(session, plan), plan);
  sampling.temperature = 0;
  OK(megalodon_sample(logit, 3, &sampling, 0, &token));
  REQUIRE(token == 1);
  sampling.top_p = -1;
  REFUSED(MEGALODON_FAILED, megalodon_sample(logit, 3, &sampling, 0, &token),
          "top-p");
  /* A session outlives the handle of its model. */
  megalodon_model_close(model);
  if ((line = runs(session, 2)))
    return line;
  megalodon_session_close(session);
  megalodon_session_close(other);
  megalodon_session_close(NULL);
  megalodon_model_close(NULL);
  return 0;
}
