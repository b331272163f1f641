// Kernels of the toy model (ToyPlan.h) that trains without the compiler:
// logits[j] = table[x][j] + mean * scale[j], where mean is a moving average of
// the token ids. Each kernel is one workgroup; args as in a compiled plan.
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { V = 256 };

static int64_t word(void *const *args, int index) {
  return ((const int64_t *)args[0])[index];
}

static void logitsOf(const float *table, const float *scale, int32_t token,
                     float *mean, float *logits) {
  *mean = 0.9f * *mean + 0.1f * (float)token / V;
  for (int j = 0; j < V; ++j)
    logits[j] = table[token * V + j] + *mean * scale[j];
}

// Turns logits into probabilities and returns the loss of the target.
static float softmax(float *logits, int32_t target) {
  float most = logits[0], sum = 0, chosen = logits[target];
  for (int j = 1; j < V; ++j)
    most = logits[j] > most ? logits[j] : most;
  for (int j = 0; j < V; ++j)
    sum += logits[j] = expf(logits[j] - most);
  for (int j = 0; j < V; ++j)
    logits[j] /= sum;
  return logf(sum) + most - chosen;
}

// table, scale, tokens, targets, loss_scale, loss, grad.table, grad.scale,
// state.mean, state.count
void toy_compute(void *const *args, int64_t workgroup) {
  (void)workgroup;
  int64_t batch = word(args, 0), length = word(args, 1);
  const float *table = args[1], *scale = args[2];
  const int32_t *tokens = args[3], *targets = args[4];
  float *loss = args[6], *gradTable = args[7], *gradScale = args[8],
        *mean = args[9], logits[V];
  float share = *(const float *)args[5] / (float)(batch * length);
  if (!word(args, 3)) {
    memset(gradTable, 0, V * V * sizeof(float));
    memset(gradScale, 0, V * sizeof(float));
  }
  *loss = 0;
  for (int64_t i = 0; i < batch * length; ++i) {
    float *m = mean + i / length;
    logitsOf(table, scale, tokens[i], m, logits);
    *loss += softmax(logits, targets[i]) / (float)(batch * length);
    logits[targets[i]] -= 1;
    for (int j = 0; j < V; ++j) {
      gradTable[tokens[i] * V + j] += logits[j] * share;
      gradScale[j] += logits[j] * share * *m;
    }
  }
  for (int64_t row = 0; row < batch; ++row)
    ((int64_t *)args[10])[row] += length;
}

static void adam(float *p, const float *g, float *m, float *v, int64_t n,
                 int64_t step, float lr) {
  float c1 = 1 - powf(0.9f, (float)step), c2 = 1 - powf(0.98f, (float)step);
  for (int64_t i = 0; i < n; ++i) {
    m[i] = 0.9f * m[i] + 0.1f * g[i];
    v[i] = 0.98f * v[i] + 0.02f * g[i] * g[i];
    p[i] -= lr * (m[i] / c1) / (sqrtf(v[i] / c2) + 1e-8f);
  }
}

// table, scale, grad.table, grad.scale, exp_avg.table, exp_avg.scale,
// exp_avg_sq.table, exp_avg_sq.scale, step, lr, grad_norm
void toy_update(void *const *args, int64_t workgroup) {
  (void)workgroup;
  const float *gradTable = args[3], *gradScale = args[4];
  int64_t step = *(const int64_t *)args[9];
  float lr = *(const float *)args[10], sum = 0;
  for (int i = 0; i < V * V; ++i)
    sum += gradTable[i] * gradTable[i];
  for (int i = 0; i < V; ++i)
    sum += gradScale[i] * gradScale[i];
  *(float *)args[11] = sqrtf(sum);
  adam(args[1], gradTable, args[5], args[7], V * V, step, lr);
  adam(args[2], gradScale, args[6], args[8], V, step, lr);
}

// table, scale, tokens, targets, nll, nll_sum, count, state.mean, state.count
void toy_score(void *const *args, int64_t workgroup) {
  (void)workgroup;
  int64_t batch = word(args, 0), length = word(args, 1);
  const int32_t *tokens = args[3], *targets = args[4];
  float *nll = args[5], *mean = args[8], logits[V];
  *(float *)args[6] = 0;
  *(int64_t *)args[7] = batch * length;
  for (int64_t i = 0; i < batch * length; ++i) {
    logitsOf(args[1], args[2], tokens[i], mean + i / length, logits);
    nll[i] = softmax(logits, targets[i]);
    *(float *)args[6] += nll[i];
  }
  for (int64_t row = 0; row < batch; ++row)
    ((int64_t *)args[9])[row] += length;
}

// table, scale, tokens, logits, state.mean, state.count
void toy_generate(void *const *args, int64_t workgroup) {
  (void)workgroup;
  int64_t batch = word(args, 0), length = word(args, 1);
  const int32_t *tokens = args[3];
  float *logits = args[4], *mean = args[5];
  for (int64_t i = 0; i < batch * length; ++i)
    logitsOf(args[1], args[2], tokens[i], mean + i / length,
             logits + i / length * V);
  for (int64_t row = 0; row < batch; ++row)
    ((int64_t *)args[6])[row] += length;
}
