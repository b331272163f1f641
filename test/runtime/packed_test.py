#!/usr/bin/env python3
"""Training and evaluation with packed documents: an epoch in any order of the documents, at a learning rate that changes nothing, has
the loss that `eval` gives, packed or each document by itself; so has the same epoch on ranks that share rows, layers or columns.

    packed_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run
"""
import argparse
import json
import os
import random
import tempfile

from mesh_test import expect_close, fail, losses_of, run

CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 16, "num_heads": 2, "z_dim": 8, "value_dim": 16,
          "ffn_hidden_dim": 16, "cema_ndim": 2, "chunk_size": 8, "norm_num_groups": 4, "swiglu": True, "vocab_size": 256,
          "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}}
LLAMA = {"model_type": "llama", "num_layers": 1, "dim": 16, "n_heads": 2, "n_kv_heads": 1, "ffn_hidden_dim": 16, "max_seq_len": 40,
         "vocab_size": 256, "optimizer": CONFIG["optimizer"]}
LENGTH, DOCUMENTS, LONGEST = 24, 40, 40


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    args = parser.parse_args()
    passed = 0
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)

        def plan(name, config, *options):
            with open(path(name + ".json"), "w", encoding="utf-8") as file:
                json.dump(config, file)
            run([args.opt, path(name + ".json"), "--precision=f64", *options, "-o", path(name + ".plan")])
            return path(name + ".plan")

        # An epoch of a row is a whole number of calls.
        rng = random.Random(5)
        lengths = [LONGEST, *(rng.randint(1, LONGEST) for _ in range(DOCUMENTS - 1))]
        while sum(lengths) % (2 * LENGTH):
            place = rng.randrange(1, DOCUMENTS)
            lengths[place] = lengths[place] % LONGEST + 1
        os.mkdir(path("data"))
        for number, length in enumerate(lengths):
            with open(path(f"data/{number:03}.txt"), "wb") as file:
                file.write(bytes(rng.randrange(97, 123) for _ in range(length)))
        files = [path(f"data/{number:03}.txt") for number, length in enumerate(lengths) if length > 1]
        run([args.run, "tokenize", path("data"), "--tokenizer", "bytes", "--out", path("data.tokens")])
        calls, tokens = sum(lengths) // LENGTH, sum(lengths)

        def evaluate(where, weights, data):
            return json.loads(run([args.run, "eval", where, "--weights", weights, "--data", data, "--json"]))

        def epoch(out, where, steps, *options):
            run([args.run, "train", where, "--data", path("data.tokens"), "--order", "documents", "--steps", str(steps), "--lr", "1e-30",
                 "--out", path(out), *options])
            losses = [loss for (_, key), loss in losses_of(path(out)).items() if key == "loss"]
            return sum(losses) / len(losses)

        def expect(what, got, wanted):
            expect_close(what, {what: got}, {what: wanted}, 1e-10)

        for name, config in (("megalodon", CONFIG), ("llama", LLAMA)):
            packed = plan(name, config, "--packed", f"--entry=train:1x{LENGTH},score:1x{LENGTH}")
            alone = plan(name + "-alone", config, f"--entry=score:1x{LENGTH}")
            first = epoch(name, packed, calls, "--seed", "1")
            weights = path(name)
            each = [evaluate(alone, weights, file) for file in files]
            together = evaluate(packed, weights, path("data.tokens"))
            want = sum(one["nll"] * one["tokens"] for one in each)
            if together["tokens"] != sum(one["tokens"] for one in each):
                fail(["eval"], "expected the tokens of all documents but their last ones", json.dumps(together))
            expect(f"{name}: packed evaluation", together["nll"] * together["tokens"], want)
            expect(f"{name}: an epoch's loss", first * tokens, want)
            other = epoch(name + "-other", packed, calls, "--seed", "2", "--weights", weights)
            expect(f"{name}: in another order", other, first)
            passed += 4

        # Ranks that share the work see the same documents.
        one = plan("rows", CONFIG, "--packed", f"--entry=train:2x{LENGTH}")
        epoch("rows", one, calls // 2, "--weights", path("megalodon"))
        for mesh, zero in (("dp=2", "3"), ("pp=2", "0"), ("tp=2", "0")):
            where = plan(mesh, CONFIG, "--packed", f"--entry=train:2x{LENGTH}", f"--mesh={mesh}", f"--zero={zero}")
            epoch("rows-" + mesh, where, calls // 2, "--weights", path("megalodon"), "--virtual-ranks", "2")
            expect_close(f"{mesh} as one rank", losses_of(path("rows-" + mesh)), losses_of(path("rows")), 1e-10)
            passed += 1

        # What cannot be says so.
        said = run([args.opt, path("megalodon.json"), "--packed", f"--entry=train:2x{2 * LENGTH}", "--mesh=cp=2", "-o", path("no.plan")], code=1)
        if "--packed: expected a mesh with cp=1, got cp=2" not in said:
            fail("along cp", "expected a refusal", said)
        passed += 1
        short = dict(LLAMA, max_seq_len=LONGEST - 1)
        where = plan("short", short, "--packed", f"--entry=train:1x{LENGTH}")
        said = run([args.run, "train", where, "--data", path("data.tokens"), "--order", "documents", "--steps", "1", "--out", path("no")], code=1)
        if f"expected documents of at most {LONGEST - 1} tokens" not in said:
            fail(["train"], "expected a refusal of a document that is too long", said)
        passed += 1
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
