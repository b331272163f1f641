// Trains a small SentencePiece model, for the first inputs of its fuzzer.
//
//   megalodon-fuzz-seed-model TEXT OUT OPTIONS
//
// OPTIONS are the trainer's, as "--model_type=bpe --vocab_size=300".
#include <cstdio>
#include <sentencepiece_trainer.h>
#include <string>

int main(int argc, char **argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s TEXT OUT OPTIONS\n", argv[0]);
    return 1;
  }
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      std::string("--input=") + argv[1] + " --model_prefix=" + argv[2] +
      " --minloglevel=2 --num_threads=1 --hard_vocab_limit=false " + argv[3]);
  if (!status.ok())
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return !status.ok();
}
