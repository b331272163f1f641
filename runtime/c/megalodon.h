/* The runtime's C interface: open a compiled plan, fill its tensors, run its
 * functions. Functions return 0 (or a non-negative index) on success and -1 on
 * failure, with the reason in megalodon_error(). */
#ifndef MEGALODON_H
#define MEGALODON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct megalodon_session megalodon_session;

typedef enum {
  MEGALODON_F32,
  MEGALODON_F64,
  MEGALODON_I32,
  MEGALODON_I64,
  MEGALODON_BF16,
  MEGALODON_I8
} megalodon_element_type;

enum { MEGALODON_MAX_RANK = 8 };

/* A tensor in the session's memory, row-major and dense. */
typedef struct {
  megalodon_element_type type;
  int32_t rank;
  int64_t shape[MEGALODON_MAX_RANK];
  void *data;
  size_t bytes;
} megalodon_tensor;

/* Opens a plan with a number of threads (0: all processors). NULL on failure.
 */
megalodon_session *megalodon_open(const char *plan, int threads);
void megalodon_close(megalodon_session *session);

/* Why the last call of this thread failed; valid until its next call. */
const char *megalodon_error(void);

/* Reads all parameters from a safetensors file. */
int megalodon_load_weights(megalodon_session *session, const char *path);

/* Index of a function by name. */
int megalodon_function(megalodon_session *session, const char *name);

/* A variable of a function (parameter, input, output or state), shaped for a
 * call of this batch and length; 0 stands for the compiled maximum. The memory
 * is good until the next run; without a GPU it stays where it is as long as the
 * session lives. */
int megalodon_variable(megalodon_session *session, int function,
                       const char *name, int64_t batch, int64_t length,
                       megalodon_tensor *tensor);

/* Makes the function's state.* tensors those of a fresh sequence. */
int megalodon_reset_state(megalodon_session *session, int function);

/* Runs a function. Inputs are the caller's business; token ids must be inside
 * the vocabulary. */
int megalodon_run(megalodon_session *session, int function, int64_t batch,
                  int64_t length);

#ifdef __cplusplus
}
#endif

#endif
