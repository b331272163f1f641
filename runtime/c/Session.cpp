// The C interface's sessions: tokens in, logits and losses out, state kept.
#include "runtime/c/Handles.h"
#include "runtime/generate/Generate.h"
#include "runtime/io/StateFile.h"
#include "runtime/io/Weights.h"
#include "runtime/train/Data.h"
#include "runtime/train/Tensors.h"
#include <algorithm>
#include <limits>

using namespace megalodon;
using namespace megalodon::c;

static const plan::Function &functionOf(const megalodon_session &session) {
  return session.model->plan->functions[session.function];
}

static bool changesWeights(const plan::LoadedPlan &plan,
                           const plan::Function &function) {
  return std::any_of(
      function.outputs.begin(), function.outputs.end(), [&](uint32_t index) {
        return plan.variables[index].role == plan::Role::Parameter;
      });
}

/// A session's handle without its memory.
static std::unique_ptr<megalodon_session>
prepare(std::shared_ptr<Model> model, const char *name,
        const megalodon_session_options &options) {
  auto session = std::make_unique<megalodon_session>();
  session->function = model->weights->function(name);
  const plan::Function &function = model->plan->functions[session->function];
  if (changesWeights(*model->plan, function))
    throw Error(str(model->plan->path, ": function '", function.name,
                    "' changes the weights, which sessions share; train with "
                    "megalodon-run train"));
  if (options.threads < 0)
    throw Misuse(
        str("options.threads: expected 0 or more, got ", options.threads));
  session->rows = options.rows ? options.rows : function.batch;
  if (session->rows < (function.exact ? function.batch : 1) ||
      session->rows > function.batch)
    throw Misuse(str("options.rows: expected ",
                     function.exact ? "exactly " : "between 1 and ",
                     function.batch, " for function '", function.name,
                     "', got ", session->rows));
  if (!model->missing.empty())
    throw Error(str(model->plan->path, ": expected all weights to be set, ",
                    "missing ",
                    nameList({model->missing.begin(), model->missing.end()})));
  session->options = model->options;
  if (options.threads)
    session->options.threads = options.threads;
  session->model = std::move(model);
  return session;
}

/// Gives the session memory, at the beginning of fresh sequences.
static void begin(megalodon_session &session) {
  Model &model = *session.model;
  if (!model.plan->isCuda()) {
    session.session =
        std::make_shared<Session>(*model.weights, session.options);
  } else {
    if (model.inUse)
      throw Error(
          str(model.plan->path,
              ": expected one session at a time of a model on a GPU, "
              "got a second; close the first, or open the model again"));
    model.inUse = true;
    session.session = model.weights;
  }
  session.session->resetState(session.function);
  session.session->resetOptionalInputs(session.function);
}

megalodon_status
megalodon_session_open(megalodon_model *model, const char *function,
                       const megalodon_session_options *options,
                       megalodon_session **session) {
  return guarded([&] {
    require(model, "model");
    require(function, "function");
    require(session, "session");
    if (options)
      requireAbi(*options);
    auto result = prepare(
        model->model, function,
        options ? *options
                : megalodon_session_options MEGALODON_SESSION_OPTIONS_INIT);
    begin(*result);
    *session = result.release();
  });
}

void megalodon_session_close(megalodon_session *session) { delete session; }

/// Throws Misuse unless all ids are in [0, size) or `ignored`.
static void requireTokens(const char *name, const int32_t *ids, int64_t count,
                          int64_t size, int32_t ignored) {
  require(ids, name);
  for (int64_t i = 0; i < count; ++i)
    if ((ids[i] < 0 || ids[i] >= size) && ids[i] != ignored)
      throw Misuse(str(name, "[", i, "]: expected an id from 0 to ", size - 1,
                       ", got ", ids[i]));
}

/// Throws unless the function has that output and takes calls of any length.
static void requireOutput(megalodon_session &session, const char *output,
                          const char *functions) {
  const plan::Function &function = functionOf(session);
  const plan::LoadedPlan &plan = *session.model->plan;
  const bool has = std::any_of(
      function.outputs.begin(), function.outputs.end(),
      [&](uint32_t index) { return plan.variables[index].name == output; });
  if (!has || function.exact)
    throw Misuse(str("session: expected one of function ", functions,
                     ", got one of '", function.name, "'"));
}

static int64_t checkedCount(const megalodon_session &session, int64_t length) {
  int64_t count;
  if (length < 1 || __builtin_mul_overflow(session.rows, length, &count))
    throw Misuse(str("length: expected at least 1, got ", length));
  return count;
}

/// Puts tokens [first, first + shape.length) of each row into a variable.
static void fill(megalodon_session &session, const char *name, CallShape shape,
                 const int32_t *ids, int64_t first, int64_t length) {
  const TensorView tensor =
      session.session->variable(session.function, name, shape);
  if (tensor.type != ElementType::I32)
    throw Error(str("variable '", name, "': expected type I32, got ",
                    elementName(tensor.type)));
  std::byte *memory = tensor.overwrite();
  const size_t bytes = size_t(shape.length) * sizeof(int32_t);
  for (int64_t row = 0; row < shape.batch; ++row)
    std::memcpy(memory + size_t(row) * bytes, ids + row * length + first,
                bytes);
}

/// The tokens that a caller hands over in a call go on with one document a row.
static void clearResets(megalodon_session &session, CallShape shape) {
  if (session.model->plan->isPacked(functionOf(session)))
    session.session->variable(session.function, plan::kResets, shape).zero();
}

megalodon_status megalodon_session_feed(megalodon_session *session,
                                        const int32_t *tokens, int64_t length) {
  return guarded([&] {
    require(session, "session");
    requireOutput(*session, "logits", "'generate' or 'forward'");
    const plan::LoadedPlan &plan = *session->model->plan;
    const plan::Function &function = functionOf(*session);
    requireTokens("tokens", tokens, checkedCount(*session, length),
                  plan.vocabSize, 0);
    const int64_t position =
        statePositions(*session->session, session->function, session->rows)[0];
    const int64_t chunk = plan.chunkSize > 0
                              ? plan.chunkSize
                              : std::numeric_limits<int64_t>::max();
    for (int64_t at = 0; at < length;) {
      const CallShape shape{
          session->rows,
          promptPiece(position + at, length - at, function.length, chunk)};
      fill(*session, "tokens", shape, tokens, at, length);
      clearResets(*session, shape);
      session->session->run(session->function, shape);
      session->lastLength = shape.length;
      at += shape.length;
    }
  });
}

megalodon_status megalodon_session_logits(megalodon_session *session,
                                          float *logits, size_t count) {
  return guarded([&] {
    require(session, "session");
    require(logits, "logits");
    requireOutput(*session, "logits", "'generate' or 'forward'");
    if (session->lastLength == 0)
      throw Misuse("session: expected one that was fed a token, got one at the "
                   "beginning or of restored state");
    const int64_t size = session->model->plan->outputSize;
    if (count != size_t(session->rows * size))
      throw Misuse(
          str("count: expected ", session->rows * size, ", got ", count));
    TensorView tensor = session->session->variable(
        session->function, "logits", {session->rows, session->lastLength});
    const int64_t perRow = elementCount(tensor) / session->rows;
    tensor.memory = const_cast<std::byte *>(tensor.read());
    tensor.copy = nullptr;
    for (int64_t row = 0; row < session->rows; ++row)
      for (int64_t i = 0; i < size; ++i)
        logits[row * size + i] =
            float(loadNumber(tensor, (row + 1) * perRow - size + i));
  });
}

megalodon_status megalodon_session_score(megalodon_session *session,
                                         const int32_t *tokens,
                                         const int32_t *targets, int64_t length,
                                         double *nll) {
  return guarded([&] {
    require(session, "session");
    require(nll, "nll");
    requireOutput(*session, "nll", "'score'");
    const plan::LoadedPlan &plan = *session->model->plan;
    const int64_t count = checkedCount(*session, length);
    requireTokens("tokens", tokens, count, plan.vocabSize, 0);
    requireTokens("targets", targets, count, plan.outputSize, kIgnoredTarget);
    for (int64_t at = 0; at < length;) {
      const CallShape shape{session->rows,
                            std::min(length - at, functionOf(*session).length)};
      fill(*session, "tokens", shape, tokens, at, length);
      fill(*session, "targets", shape, targets, at, length);
      clearResets(*session, shape);
      session->session->run(session->function, shape);
      TensorView losses =
          session->session->variable(session->function, "nll", shape);
      losses.memory = const_cast<std::byte *>(losses.read());
      losses.copy = nullptr;
      for (int64_t row = 0; row < session->rows; ++row)
        for (int64_t i = 0; i < shape.length; ++i)
          nll[row * length + at + i] =
              loadNumber(losses, row * shape.length + i);
      at += shape.length;
    }
  });
}

megalodon_status megalodon_sample(const float *logits, size_t count,
                                  const megalodon_sampling *sampling,
                                  int64_t position, int32_t *token) {
  return guarded([&] {
    require(logits, "logits");
    require(sampling, "sampling");
    require(token, "token");
    requireAbi(*sampling);
    if (count == 0)
      throw Misuse("count: expected at least 1, got 0");
    const Sampling options{sampling->temperature, sampling->top_k,
                           sampling->top_p, sampling->min_p, sampling->seed};
    options.verify();
    *token = options.choose({logits, logits + count}, position);
  });
}

megalodon_status megalodon_session_reset(megalodon_session *session) {
  return guarded([&] {
    require(session, "session");
    session->session->resetState(session->function);
    session->lastLength = 0;
  });
}

megalodon_status megalodon_session_position(megalodon_session *session,
                                            int64_t *tokens) {
  return guarded([&] {
    require(session, "session");
    require(tokens, "tokens");
    const std::vector<int64_t> positions =
        statePositions(*session->session, session->function, session->rows);
    std::copy(positions.begin(), positions.end(), tokens);
  });
}

megalodon_status megalodon_session_save(megalodon_session *session,
                                        const char *path) {
  return guarded([&] {
    require(session, "session");
    require(path, "path");
    saveState(*session->session, session->function, session->rows, path);
  });
}

megalodon_status megalodon_session_restore(megalodon_session *session,
                                           const char *path) {
  return guarded([&] {
    require(session, "session");
    require(path, "path");
    restoreState(*session->session, session->function, session->rows, path);
    session->lastLength = 0;
  });
}

megalodon_status megalodon_session_copy_state(megalodon_session *session,
                                              megalodon_session *from) {
  return guarded([&] {
    require(session, "session");
    require(from, "from");
    if (session->model != from->model)
      throw Misuse("from: expected a session of the same model, got another's");
    if (session->rows != from->rows)
      throw Misuse(str("from: expected a session of ", session->rows,
                       " rows, got one of ", from->rows));
    copyState(*from->session, from->function, *session->session,
              session->function, session->rows);
    session->lastLength = 0;
  });
}

megalodon_status megalodon_session_fork(megalodon_session *session,
                                        megalodon_session **fork) {
  return guarded([&] {
    require(session, "session");
    require(fork, "fork");
    megalodon_session_options options = MEGALODON_SESSION_OPTIONS_INIT;
    options.threads = session->options.threads;
    options.rows = session->rows;
    auto result =
        prepare(session->model, functionOf(*session).name.c_str(), options);
    begin(*result);
    copyState(*session->session, session->function, *result->session,
              result->function, session->rows);
    *fork = result.release();
  });
}

megalodon_status megalodon_session_tensor(megalodon_session *session,
                                          const char *name, int64_t length,
                                          megalodon_tensor *tensor) {
  return guarded([&] {
    require(session, "session");
    require(name, "name");
    require(tensor, "tensor");
    checkedCount(*session, length);
    const TensorView view = session->session->variable(session->function, name,
                                                       {session->rows, length});
    const plan::LoadedPlan &plan = *session->model->plan;
    const bool writable =
        std::any_of(functionOf(*session).inputs.begin(),
                    functionOf(*session).inputs.end(), [&](uint32_t index) {
                      const plan::Variable &variable = plan.variables[index];
                      return variable.name == view.name &&
                             variable.role != plan::Role::Parameter;
                    });
    megalodon_tensor result{};
    result.type = megalodon_element_type(view.type);
    copyShape(view.name, view.shape, result.rank, result.shape);
    result.data =
        writable ? view.write() : const_cast<std::byte *>(view.read());
    result.bytes = view.bytes;
    *tensor = result;
  });
}

megalodon_status megalodon_session_run(megalodon_session *session,
                                       int64_t length) {
  return guarded([&] {
    require(session, "session");
    checkedCount(*session, length);
    const CallShape shape{session->rows, length};
    const plan::LoadedPlan &plan = *session->model->plan;
    for (const TensorView &input :
         session->session->inputs(session->function, shape)) {
      if (input.name == "tokens")
        requireIds("session", input, plan.vocabSize, 0);
      else if (input.name == "targets")
        requireIds("session", input, plan.outputSize, kIgnoredTarget);
      else if (input.name == plan::kResets)
        requireIds("session", input, 2, 0);
    }
    session->session->run(session->function, shape);
    session->lastLength = length;
  });
}
