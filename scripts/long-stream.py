#!/usr/bin/python3
"""Streams a million tokens through `eval` in f32 and in f64 and compares the loss of every token; then compares the speed of
the first and the last 65,536 tokens of the f32 stream in each of five runs, and memory.

    scripts/long-stream.py --config models/megalodon-tiny.json --weights quickstart-out/run --data DIR... [--tokens 1000000]

Prints a table for docs/benchmarks.md. Takes about a quarter of an hour on two cores, so it is not part of scripts/test.sh.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
OPT, RUN = REPOSITORY / "build/bin/megalodon-opt", REPOSITORY / "build/bin/megalodon-run"
PIECE = 65536


def gather(paths, count):
    """The first `count` bytes of the files, folders walked in sorted order."""
    text = bytearray()
    for path in map(pathlib.Path, paths):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and len(text) < count:
                text += file.read_bytes()
    if len(text) < count:
        raise SystemExit(f"long-stream: expected {count} bytes of data, got {len(text)}")
    return bytes(text[:count])


def evaluate(plan, weights, data, *options):
    done = subprocess.run([RUN, "eval", plan, "--weights", weights, "--data", data, "--json", *options], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=REPOSITORY / "models/megalodon-tiny.json")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="megalodon-stream.") as name:
        folder = pathlib.Path(name)
        text = gather(args.data, args.tokens)
        (folder / "all").write_bytes(text)
        losses = {}
        for precision in ("f32", "f64"):
            plan = folder / f"{precision}.plan"
            subprocess.run([OPT, args.config, "--entry=score:1x1024", f"--precision={precision}", "-o", plan], check=True)
            evaluate(plan, args.weights, folder / "all", "--losses", folder / precision)
            losses[precision] = np.fromfile(folder / precision, np.float64)
        difference = np.abs(losses["f32"] - losses["f64"])
        print(f"{len(difference)} losses, f32 against f64: largest difference {difference.max():.2e} (position {difference.argmax()}), "
              f"in the last {PIECE} tokens {difference[-PIECE:].max():.2e}")

        runs = [evaluate(folder / "f32.plan", args.weights, folder / "all") for _ in range(5)]
        first, last = (statistics.median(run[f"{end}_tokens_per_second"] for run in runs) for end in ("first", "last"))
        print(f"tokens/s, medians of 5 runs: {first:.0f} over the first {PIECE} tokens, {last:.0f} over the last: {last / first - 1:+.1%}")
        print(f"resident memory: {runs[0]['first_resident_bytes'] / 2**20:.1f} MiB after the first call, {runs[0]['last_resident_bytes'] / 2**20:.1f} MiB at the end")


if __name__ == "__main__":
    main()
