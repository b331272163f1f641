/* Streams text through a model with the C interface: scores a text of any
 * length, or continues one, and keeps its state in a file in between.
 *
 *   stream score PLAN WEIGHTS TEXT [STATE]
 *   stream generate PLAN WEIGHTS TEXT TOKENS [STATE]
 *
 * `score` prints the loss of every byte given all before it, one a line.
 * `generate` prints TOKENS bytes that continue TEXT, always the most likely
 * one. With STATE both begin where that file stands, if it exists, and leave it
 * where they end. A later run goes on with text that begins with the last byte
 * this one read or wrote, since a model has not seen that one yet. The model's
 * vocabulary is bytes. */
#include <megalodon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4096 }; /* tokens in memory at once; any number will do */

static int check(megalodon_status status) {
  if (status != MEGALODON_OK)
    fprintf(stderr, "stream: error: %s\n", megalodon_error());
  return status == MEGALODON_OK;
}

static int score(megalodon_session *session, FILE *text) {
  int32_t tokens[PIECE + 1];
  double losses[PIECE];
  int64_t count = 0;
  int byte = getc(text);
  while (byte != EOF) {
    tokens[count++] = byte;
    byte = getc(text);
    if (count == PIECE + 1 || (byte == EOF && count > 1)) {
      /* Each byte is the target of the one before. */
      int64_t i;
      if (!check(megalodon_session_score(session, tokens, tokens + 1, count - 1,
                                         losses)))
        return 0;
      for (i = 0; i < count - 1; ++i)
        printf("%.17g\n", losses[i]);
      tokens[0] = tokens[count - 1];
      count = 1;
    }
  }
  return 1;
}

static int generate(megalodon_session *session, FILE *text, long length,
                    float *logits, size_t outputs) {
  megalodon_sampling sampling = MEGALODON_SAMPLING_INIT;
  int32_t tokens[PIECE], token;
  int64_t count = 0, position;
  int byte = getc(text);
  sampling.temperature = 0;
  while (byte != EOF) {
    tokens[count++] = byte;
    byte = getc(text);
    if (count == PIECE || byte == EOF) {
      if (!check(megalodon_session_feed(session, tokens, count)))
        return 0;
      count = 0;
    }
  }
  while (length-- > 0) {
    if (!check(megalodon_session_position(session, &position)) ||
        !check(megalodon_session_logits(session, logits, outputs)) ||
        !check(megalodon_sample(logits, outputs, &sampling, position, &token)))
      return 0;
    putchar((int)token);
    fflush(stdout);
    if (length > 0 && !check(megalodon_session_feed(session, &token, 1)))
      return 0;
  }
  return 1;
}

static int run(megalodon_model *model, const char *function, FILE *text,
               long length, const char *state) {
  megalodon_session_options options = MEGALODON_SESSION_OPTIONS_INIT;
  megalodon_session *session = NULL;
  megalodon_model_info info;
  FILE *saved;
  float *logits = NULL;
  int done;
  info.struct_size = sizeof(info);
  options.rows = 1;
  if (!check(megalodon_model_query(model, &info)))
    return 0;
  if (info.vocab_size != 256 || info.output_size != 256) {
    fprintf(stderr, "stream: error: expected a vocabulary of 256 bytes\n");
    return 0;
  }
  if (!check(megalodon_session_open(model, function, &options, &session)))
    return 0;
  done = 1;
  if (state && (saved = fopen(state, "rb")) != NULL) {
    fclose(saved);
    done = check(megalodon_session_restore(session, state));
  }
  if (done && strcmp(function, "score") == 0) {
    done = score(session, text);
  } else if (done) {
    logits = malloc((size_t)info.output_size * sizeof(*logits));
    done = logits &&
           generate(session, text, length, logits, (size_t)info.output_size);
  }
  if (done && state)
    done = check(megalodon_session_save(session, state));
  free(logits);
  megalodon_session_close(session);
  return done;
}

int main(int argc, char **argv) {
  megalodon_options options = MEGALODON_OPTIONS_INIT;
  megalodon_model *model = NULL;
  const int generates = argc > 1 && strcmp(argv[1], "generate") == 0;
  const int fixed = generates ? 6 : 5;
  FILE *text;
  int done = 0;
  if (argc < fixed || argc > fixed + 1 ||
      (!generates && strcmp(argv[1], "score") != 0)) {
    fprintf(stderr,
            "usage: stream score PLAN WEIGHTS TEXT [STATE]\n"
            "       stream generate PLAN WEIGHTS TEXT TOKENS [STATE]\n");
    return 2;
  }
  text = fopen(argv[4], "rb");
  if (!text) {
    perror(argv[4]);
    return 1;
  }
  if (check(megalodon_model_open(argv[2], &options, &model)) &&
      check(megalodon_model_load_weights(model, argv[3])))
    done = run(model, argv[1], text, generates ? atol(argv[5]) : 0,
               argc > fixed ? argv[fixed] : NULL);
  megalodon_model_close(model);
  fclose(text);
  return done ? 0 : 1;
}
