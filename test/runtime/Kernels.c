// Kernels of the test plans: args[0] = {batch, length, tokens, accumulate, four
// ranks, immediates...}, then buffers, last the scratch.
#include <stdint.h>
#include <string.h>

static const int64_t *parameters(void *const *args) {
  return (const int64_t *)args[0];
}

// out[token, j] = in[token, j] * immediate + 1, a workgroup per 4 tokens; rows
// of 8 floats, staged in the scratch.
void scale(void *const *args, int64_t workgroup) {
  const int64_t tokens = parameters(args)[2], factor = parameters(args)[8];
  const float *in = (const float *)args[1];
  float *out = (float *)args[2], *scratch = (float *)args[3];
  for (int64_t token = workgroup * 4;
       token < workgroup * 4 + 4 && token < tokens; ++token) {
    memcpy(scratch, in + token * 8, 8 * sizeof(float));
    for (int j = 0; j < 8; ++j)
      out[token * 8 + j] = scratch[j] * (float)factor + 1.0f;
  }
}

// gradient[j] (+)= sum over the call's tokens of in[token, j]; accumulate
// decides between = and +=.
void gather(void *const *args, int64_t workgroup) {
  const int64_t tokens = parameters(args)[2], accumulate = parameters(args)[3];
  const float *in = (const float *)args[1];
  float *gradient = (float *)args[2];
  float sum = accumulate ? gradient[workgroup] : 0.0f;
  for (int64_t token = 0; token < tokens; ++token)
    sum += in[token * 8 + workgroup];
  gradient[workgroup] = sum;
}

// count[row] += length, a workgroup a row.
void advance(void *const *args, int64_t workgroup) {
  ((int64_t *)args[1])[workgroup] += parameters(args)[1];
}

// parameter[j] -= gradient[j]
void update(void *const *args, int64_t workgroup) {
  ((float *)args[1])[workgroup] -= ((const float *)args[2])[workgroup];
}
