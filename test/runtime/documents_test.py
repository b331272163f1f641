#!/usr/bin/env python3
"""Documents from text to training and back to text, with a SentencePiece model: `tokenize` writes a token file, `train` reads it in an
order of documents, a run continued on another mesh reads on where it stopped, `generate` writes text.

    documents_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run

The model is the one that stands among the first inputs of its fuzzer, behind a text.
"""
import argparse
import json
import os
import tempfile

from mesh_test import expect_close, fail, losses_of, run

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = os.path.join(HERE, "..", "fuzz", "corpus", "tokenizer", "llama")
CONFIG = {"model_type": "megalodon", "num_layers": 1, "model_dim": 16, "num_heads": 1, "z_dim": 8, "value_dim": 16,
          "ffn_hidden_dim": 16, "cema_ndim": 2, "chunk_size": 8, "norm_num_groups": 4, "swiglu": False, "vocab_size": 400,
          "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}}
DOCUMENTS = ["megalodon is a compiler", "a runtime, one small binary", "", "caf\u00e9 na\u00efve \U0001F988 outside the vocabulary",
             "two lines\nof one document\n"] * 12
STEPS, STOP = 8, 3


def write(path, data):
    with open(path, "wb" if isinstance(data, bytes) else "w") as file:
        file.write(data)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    args = parser.parse_args()
    passed = 0
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)

        with open(SEED, "rb") as file:
            seed = file.read()
        tokenizer = write(path("toy.model"), seed[1 + seed[0]:])
        lines = write(path("documents.jsonl"), "".join(json.dumps({"body": text}) + "\n" for text in DOCUMENTS))
        tokens = path("documents.tokens")
        said = run([args.run, "tokenize", lines, "--field", "body", "--tokenizer", tokenizer, "--append-eos", "--out", tokens])
        if ["documents", "48"] not in [line.split() for line in said.splitlines()]:
            fail(["tokenize"], "expected 48 documents that are not empty", said)
        passed += 1

        config = write(path("config.json"), json.dumps(CONFIG))
        plans = {}
        for mesh in ("", "dp=2"):
            plans[mesh] = path(f"train{mesh}.plan")
            run([args.opt, config, "--precision=f64", "--entry=train:2x8" + ("" if mesh else ",generate:1x8"),
                 *([f"--mesh={mesh}"] if mesh else []), "-o", plans[mesh]])

        def train(out, mesh, steps, *options):
            run([args.run, "train", plans[mesh], "--data", tokens, "--order", "documents", "--steps", str(steps), "--seed", "5",
                 "--total-steps", str(STEPS),
                 "--lr", "0.01", "--out", path(out), *(["--virtual-ranks", "2"] if mesh else []), *options])
        train("whole", "", STEPS)
        train("parts", "dp=2", STOP)
        train("parts", "", STEPS, "--resume")
        expect_close("stopped on dp=2, continued on one rank", losses_of(path("parts")), losses_of(path("whole")), 1e-10)
        passed += 1

        generate = [args.run, "generate", plans[""], "--weights", path("whole"), "--prompt", "caf\u00e9", "--max-tokens", "12", "--seed", "1"]
        texts = [run([*generate, "--tokenizer", tokenizer]).split("prompt: ")[0] for _ in range(2)]
        if not texts[0].startswith("caf\u00e9") or texts[0] != texts[1]:
            fail(generate, "expected the prompt and the same text twice", "\n".join(texts))
        said = run([*generate, "--tokenizer", "bytes"], code=1)
        if "expected a vocabulary of 256 for bytes, got 400" not in said:
            fail(generate, "expected a refusal of bytes", said)
        passed += 2
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
