#!/usr/bin/env python3
"""What packed documents cost: `bench` of train_step with and without --packed in turn, and the ratio of the medians.

    scripts/packed-cost.py [--config models/enwik8-11m.json] [--shape 8x512] [--turns 7] [--threads N]

Packed, `bench` gives rows documents of 1 to 255 tokens. In turn, since a shared machine's speed drifts.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "models/enwik8-11m.json"))
    parser.add_argument("--shape", default="8x512")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: all processors")
    args = parser.parse_args()
    times = {"--packed": [], "": []}
    with tempfile.TemporaryDirectory() as folder:
        def plan(option):
            return f"{folder}/train{option}.plan"

        for option in times:
            subprocess.run([ROOT / "build/bin/megalodon-opt", args.config, f"--entry=train:{args.shape}", *filter(None, [option]), "-o", plan(option)],
                           check=True)
        for turn in range(args.turns):
            for option, seconds in sorted(times.items(), reverse=turn % 2 == 1):
                done = subprocess.run([ROOT / "build/bin/megalodon-run", "bench", plan(option), "--function", "train_step", "--repeat", "1", "--json",
                                       "--threads", str(args.threads)], check=True, stdout=subprocess.PIPE, text=True)
                seconds.append(next(of["seconds"] for of in json.loads(done.stdout)["functions"] if of["function"] == "train_step"))
    packed, rows = (statistics.median(times[option]) for option in ("--packed", ""))
    for option, name in (("--packed", "packed"), ("", "rows as one document")):
        print(f"{name:22} {statistics.median(times[option]):.3f} s  ({min(times[option]):.3f} to {max(times[option]):.3f})")
    print(f"ratio of the medians   {packed / rows:.3f}")


if __name__ == "__main__":
    main()
