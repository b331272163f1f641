/* megalodon.h: the C interface of the runtime. Open a compiled plan, bind
 * weights, feed tokens, read logits, keep the state of unlimited context.
 * docs/c-api.md explains it with examples.
 *
 * Handles. A megalodon_model is a plan with its weights; a megalodon_session
 * is one stream of tokens (or several rows of them) through one function of
 * the plan, with all that the model remembers of it. Every session of a model
 * uses the same weights in memory.
 *
 * Results. Functions return a megalodon_status and give results through their
 * last arguments, which they leave alone on failure. megalodon_error() then
 * says what was expected, what was found, and in which file.
 *
 * Ownership. The caller owns handles and closes each once; closing NULL does
 * nothing. A session keeps its model alive, so the two may be closed in any
 * order. Strings and tensors that functions give belong to the handle; how
 * long they last is said with the function. What the caller passes in is
 * copied before the function returns.
 *
 * Threads. There is no global state but each thread's last error. A handle
 * may be used by one thread at a time; different sessions, also of one model,
 * by different threads at the same time. While sessions of a model run, only
 * functions that take a `const megalodon_model *` may be used on the model. */
#ifndef MEGALODON_H
#define MEGALODON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when programs compiled against an older header would no longer work.
 * Options structures carry it, so that a library of another version refuses
 * them instead of misreading them. */
#define MEGALODON_ABI_VERSION 1

/* The library's own MEGALODON_ABI_VERSION, and its version as text ("0.1.0").
 */
int32_t megalodon_abi_version(void);
const char *megalodon_version(void);

typedef enum {
  MEGALODON_OK = 0,
  MEGALODON_FAILED = 1,        /* a file, a tensor or the machine is at fault */
  MEGALODON_MISUSE = 2,        /* NULL, an index or size out of range */
  MEGALODON_OUT_OF_MEMORY = 3, /* of the host */
  MEGALODON_ABI_MISMATCH = 4 /* header and library are of different versions */
} megalodon_status;

/* Why this thread's last failed call failed: lower case, one line, never NULL.
 * Good until this thread's next failure. */
const char *megalodon_error(void);

/* ---- Models ------------------------------------------------------------- */

typedef struct megalodon_model megalodon_model;
typedef struct megalodon_session megalodon_session;

/* Where a model runs. Set it to MEGALODON_OPTIONS_INIT, then change fields. */
typedef struct {
  uint32_t struct_size; /* sizeof(megalodon_options) of the caller's header */
  uint32_t abi_version; /* MEGALODON_ABI_VERSION of the caller's header */
  int32_t threads;      /* of each session; 0: one a processor */
  int32_t gpu;          /* index, for plans compiled for GPUs; -1: the first */
  int32_t trust; /* 1: digests of plan and checkpoints are not computed again */
} megalodon_options;
#define MEGALODON_OPTIONS_INIT                                                 \
  {sizeof(megalodon_options), MEGALODON_ABI_VERSION, 0, -1, 0}

/* Opens a plan file; `options` may be NULL. The plan is checked whole, and
 * must be for one rank. On a GPU a model has one session at a time. */
megalodon_status megalodon_model_open(const char *path,
                                      const megalodon_options *options,
                                      megalodon_model **model);
/* The same for a plan in memory; `name` stands for the path in messages. */
megalodon_status megalodon_model_open_memory(const char *name, const void *data,
                                             size_t bytes,
                                             const megalodon_options *options,
                                             megalodon_model **model);
void megalodon_model_close(megalodon_model *model);

typedef enum {
  MEGALODON_F32,
  MEGALODON_F64,
  MEGALODON_I32,
  MEGALODON_I64,
  MEGALODON_BF16, /* the upper two bytes of an F32 */
  MEGALODON_I8
} megalodon_element_type;

enum { MEGALODON_MAX_RANK = 8 };

/* A tensor in memory: row-major, dense, in the machine's byte order. */
typedef struct {
  megalodon_element_type type;
  int32_t rank;
  int64_t shape[MEGALODON_MAX_RANK];
  void *data;
  size_t bytes;
} megalodon_tensor;

/* Reads all weights: `path` is a safetensors file or index, a checkpoint, or a
 * training folder, which means its newest checkpoint. Names, shapes and values
 * are checked; after a failure some weights may have been replaced. Not while
 * a session of the model runs. */
megalodon_status megalodon_model_load_weights(megalodon_model *model,
                                              const char *path);
/* Sets one weight from the caller's memory, which is copied. The shape must be
 * the parameter's; F32, F64 and BF16 are converted to its type, rounding to
 * nearest. Not while a session of the model runs. */
megalodon_status megalodon_model_set_weight(megalodon_model *model,
                                            const char *name,
                                            const megalodon_tensor *value);

/* What a plan says of its model. Strings live as long as the model. */
typedef struct {
  uint32_t struct_size; /* the caller sets it: sizeof(megalodon_model_info) */
  int32_t functions;    /* how many the plan has */
  int32_t weights;      /* how many parameters it has */
  int32_t missing_weights; /* of these, how many have no value yet */
  int64_t parameters;      /* elements of all parameters */
  int64_t vocab_size;      /* token ids are 0 to vocab_size - 1 */
  int64_t output_size;     /* logits of a token */
  int64_t chunk_size;      /* tokens that attention sees at once */
  int64_t layers;
  const char *config;    /* the model's config, JSON */
  const char *precision; /* "f32", "bf16" or "f64" */
  const char *target;    /* "cpu" or "cuda" */
  const char *digest;    /* SHA-256 of the plan, hexadecimal */
} megalodon_model_info;
megalodon_status megalodon_model_query(const megalodon_model *model,
                                       megalodon_model_info *info);

/* An entry of the plan. Strings live as long as the model. */
typedef struct {
  uint32_t struct_size; /* the caller sets it */
  int32_t variables;    /* inputs and outputs, each counted once */
  const char *name;
  int64_t max_batch;  /* rows a call has at most */
  int64_t max_length; /* tokens of a row a call has at most */
  int32_t exact;      /* not 0: a call must have exactly that shape */
} megalodon_function_info;
megalodon_status megalodon_model_function(const megalodon_model *model,
                                          int32_t function,
                                          megalodon_function_info *info);
/* The index of a function by name. */
megalodon_status megalodon_model_find_function(const megalodon_model *model,
                                               const char *name,
                                               int32_t *function);

typedef enum {
  MEGALODON_PARAMETER,
  MEGALODON_FIRST_MOMENT,
  MEGALODON_SECOND_MOMENT,
  MEGALODON_GRADIENT,
  MEGALODON_INPUT,
  MEGALODON_OUTPUT,
  MEGALODON_STATE
} megalodon_role;

/* What a function takes or gives. Strings live as long as the model. */
typedef struct {
  uint32_t struct_size; /* the caller sets it */
  megalodon_role role;
  const char *name; /* parameters: the original model's names */
  megalodon_element_type type;
  int32_t rank;
  int64_t shape[MEGALODON_MAX_RANK]; /* largest */
  /* How many leading dimensions follow the call: 0, 1 (rows), 2 (rows and
   * tokens of a row). */
  int32_t dynamic;
  int32_t is_input, is_output;
  int32_t optional; /* an input with a default */
} megalodon_variable_info;
megalodon_status megalodon_model_variable(const megalodon_model *model,
                                          int32_t function, int32_t variable,
                                          megalodon_variable_info *info);

/* ---- Sessions ----------------------------------------------------------- */

typedef struct {
  uint32_t struct_size; /* sizeof(megalodon_session_options) */
  uint32_t abi_version; /* MEGALODON_ABI_VERSION */
  int32_t threads;      /* 0: what the model's options say */
  int32_t reserved;     /* 0 */
  int64_t rows; /* sequences side by side; 0: the function's max_batch */
} megalodon_session_options;
#define MEGALODON_SESSION_OPTIONS_INIT                                         \
  {sizeof(megalodon_session_options), MEGALODON_ABI_VERSION, 0, 0, 0}

/* Opens a session of one function ("generate", "score", "forward", "grad") at
 * the beginning of fresh sequences. All weights must have been set. Costs the
 * function's state and its working memory; weights are the model's. `options`
 * may be NULL. */
megalodon_status
megalodon_session_open(megalodon_model *model, const char *function,
                       const megalodon_session_options *options,
                       megalodon_session **session);
void megalodon_session_close(megalodon_session *session);

/* Feeds `length` tokens to each row: tokens[row * length + i]. Any length: it
 * is cut into calls, which does not change the result beyond rounding. For
 * functions that give logits (`generate`, `forward`). After a failure in the
 * middle the session stands where the last successful call ended; ids are
 * checked before anything runs. */
megalodon_status megalodon_session_feed(megalodon_session *session,
                                        const int32_t *tokens, int64_t length);
/* The logits of each row's last token, as f32: logits[row * output_size + i].
 * `count` must be rows * output_size. An error before the first token. */
megalodon_status megalodon_session_logits(megalodon_session *session,
                                          float *logits, size_t count);
/* Feeds tokens to the function `score` and gives the loss of each: the
 * negative natural logarithm of the probability of targets[i] after tokens[0]
 * to tokens[i] and everything before. A target of -100 counts nothing and
 * gives 0. `nll` has rows * length elements. */
megalodon_status megalodon_session_score(megalodon_session *session,
                                         const int32_t *tokens,
                                         const int32_t *targets, int64_t length,
                                         double *nll);

/* How a token is chosen. Set it to MEGALODON_SAMPLING_INIT. */
typedef struct {
  uint32_t struct_size; /* sizeof(megalodon_sampling) */
  uint32_t abi_version; /* MEGALODON_ABI_VERSION */
  double temperature;   /* 0: always the most likely token */
  int64_t top_k;        /* 0: all */
  double top_p;         /* 1: all */
  double min_p;         /* 0: all */
  uint64_t seed;
} megalodon_sampling;
#define MEGALODON_SAMPLING_INIT                                                \
  {sizeof(megalodon_sampling), MEGALODON_ABI_VERSION, 1.0, 0, 1.0, 0.0, 1}
/* Chooses a token: a pure function of its arguments. `position` is the index
 * the token will have in its sequence. */
megalodon_status megalodon_sample(const float *logits, size_t count,
                                  const megalodon_sampling *sampling,
                                  int64_t position, int32_t *token);

/* ---- State -------------------------------------------------------------- */

/* Begins fresh sequences. */
megalodon_status megalodon_session_reset(megalodon_session *session);
/* How many tokens each row has consumed. */
megalodon_status megalodon_session_position(megalodon_session *session,
                                            int64_t *tokens);
/* Writes the state to a safetensors file, which is replaced only when all of
 * it is on disk. Its size does not depend on how much was read. */
megalodon_status megalodon_session_save(megalodon_session *session,
                                        const char *path);
/* Continues where a saved session stood; with the same plan and weights to the
 * bit. The file must come from a plan of the same config and precision and
 * have as many rows; the weights are the caller's business. When the file is
 * refused, the state is unchanged. */
megalodon_status megalodon_session_restore(megalodon_session *session,
                                           const char *path);
/* Makes a session stand where another of the same model and rows stands. The
 * two may be of different functions. Logits are not copied: feed a token. */
megalodon_status megalodon_session_copy_state(megalodon_session *session,
                                              megalodon_session *from);
/* Opens a session like `session` that stands where it stands. */
megalodon_status megalodon_session_fork(megalodon_session *session,
                                        megalodon_session **fork);

/* ---- Raw tensors -------------------------------------------------------- */

/* A tensor of the session's function, for a call of `length` tokens a row. The
 * memory belongs to the session and may be written until the session's next
 * call, which sees it, and read until then. Weights are shared: writing them
 * through this is not allowed. */
megalodon_status megalodon_session_tensor(megalodon_session *session,
                                          const char *name, int64_t length,
                                          megalodon_tensor *tensor);
/* Runs the function once on what its tensors hold. Token ids and targets are
 * checked; what else they hold is the caller's business. Functions that change
 * weights (`train_step`) are refused. */
megalodon_status megalodon_session_run(megalodon_session *session,
                                       int64_t length);

#ifdef __cplusplus
}
#endif

#endif
