#!/usr/bin/env python3
"""Trains models of equal size on the same batches of one real text, and puts their loss curves side by side: docs/comparison.md.

    scripts/compare-models.py [--steps 150] [--models models/enwik8-11m.json ...] [--device cuda] [--out compare-out]

Every model sees the same windows of the text in the same order with fresh state, the same optimizer, schedule and seed; afterwards each is
scored on the same held-out windows of the same length. Writes curves.svg, losses.tsv and table.md into --out. A run that was interrupted
continues, and models that are done are not trained again, so --models may grow. Needs a build and the Python standard library.
"""
import argparse
import json
import math
import pathlib

import chart
import realtext
from realtext import REPOSITORY, tool

MODELS = ["enwik8-11m", "llama-enwik8", "mega-enwik8"]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=pathlib.Path, default=[REPOSITORY / f"models/{name}.json" for name in MODELS])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--opt-arg", action="append", default=[], help="further option of megalodon-opt, as --opt-arg=--precision=bf16")
    parser.add_argument("--eval-tokens", type=int, default=1 << 18, help="held-out tokens to score")
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "compare-out")
    realtext.add_options(parser)
    return parser.parse_args()


def measure(args, config, train, held_out):
    """Trains and scores one model: its size, the losses of all steps and the held-out loss, in bits per byte."""
    folder, threads = args.out / config.stem, ("--threads", args.threads)
    folder.mkdir(parents=True, exist_ok=True)
    plan, run = folder / "model.plan", folder / "run"
    tool("opt", config, f"--entry=train:{args.rows}x{args.length},score:1x{args.length}", f"--target={args.device}", *args.opt_arg, "-o", plan)
    tool("run", "train", plan, "--data", train, "--order", "random", "--seed", args.seed, "--steps", args.steps, "--schedule", "cosine",
         "--lr", args.lr, "--out", run, "--resume", "--save-every", max(1, min(50, args.steps // 3)), "--keep", 1, *threads)
    losses = [json.loads(line)["loss"] / math.log(2) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    if len(losses) != args.steps:
        raise SystemExit(f"{run}: expected the losses of {args.steps} steps, got {len(losses)}")
    scored = folder / "eval.json"
    if not scored.exists():
        scored.write_bytes(tool("run", "eval", plan, "--weights", run, "--data", held_out, "--reset-every", args.length, "--max-tokens", args.eval_tokens,
                                "--json", *threads, capture_output=True).stdout)
    inspected = json.loads(tool("run", "inspect", plan, "--json", capture_output=True).stdout)
    return {"name": config.stem, "parameters": inspected["parameters"], "losses": losses, "held_out": json.loads(scored.read_text(encoding="utf-8"))["bits_per_byte"]}


def write(args, models):
    last = max(1, min(10, args.steps // 5))
    rows = "\n".join(f"{step}\t" + "\t".join(f"{model['losses'][step - 1]:.5f}" for model in models) for step in range(1, args.steps + 1))
    names = "\t".join(model["name"] for model in models)
    (args.out / "losses.tsv").write_text(f"step\t{names}\n{rows}\n", encoding="utf-8")
    lines = [f"| model | parameters | training loss, mean of the last {last} steps | held out |", "|---|---|---|---|"]
    lines += [f"| {m['name']} | {m['parameters']:,} | {sum(m['losses'][-last:]) / last:.4f} | {m['held_out']:.4f} |" for m in models]
    (args.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    series = [chart.Series(f"{m['name']}: {m['held_out']:.3f} held out", list(enumerate(m["losses"], 1))) for m in models]
    chart.write(args.out / "curves.svg", chart.Chart(
        f"Training loss, {args.rows} × {args.length} bytes a step", chart.Axis("step"), chart.Axis("bits per byte"), series))
    print("\n".join(["", f"{args.steps} steps of {args.rows} x {args.length} bytes, lr {args.lr:g}, {args.device}; bits per byte", "", *lines, "",
                     f"curves: {args.out}/curves.svg, raw losses: {args.out}/losses.tsv"]))


def main():
    args = options()
    train, held_out = realtext.split(args)
    realtext.same_settings(args, "steps", "rows", "length", "lr", "seed", "device", "opt_arg", "held_out", "eval_tokens")
    write(args, [measure(args, config, train, held_out) for config in args.models])


if __name__ == "__main__":
    main()
