#!/usr/bin/env python3
"""Perplexity by length of context on one long real text, from 4,096 to 1,048,576 tokens: docs/comparison.md.

    scripts/context-length.py [--steps 3200] [--config models/megalodon-tiny.json] [--weights RUN] [--out context-out]

Trains a small model on the front of the text, in stream order with carried state, and scores the held-out end of it once for each length n,
with the state forgotten after every n tokens: all lengths score the same tokens, each with at most n tokens before it. Writes perplexity.svg,
lengths.tsv and table.md into --out, and fails where a length has a perplexity more than 1 % above the length before it. Training that was
interrupted continues, and lengths that are done are not scored again. Needs a build and the Python standard library.
"""
import argparse
import array
import concurrent.futures
import json
import math
import pathlib

import chart
import realtext
from realtext import REPOSITORY, tool

# Small, so that training and nine passes over a million tokens take minutes on two cores.
CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 128, "num_heads": 2, "z_dim": 64, "value_dim": 128, "ffn_hidden_dim": 256,
          "cema_ndim": 8, "chunk_size": 128, "norm_num_groups": 8, "swiglu": True, "vocab_size": 256,
          "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}}


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, help="model config instead of the small one of this script")
    parser.add_argument("--weights", type=pathlib.Path, help="weights for --config, trained before; nothing is trained then")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row in a training step")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shortest", type=int, default=4096)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--opt-arg", action="append", default=[], help="further option of megalodon-opt, as --opt-arg=--precision=bf16")
    parser.add_argument("--jobs", type=int, default=1, help="lengths to score at once")
    parser.add_argument("--out", type=pathlib.Path, default=REPOSITORY / "context-out")
    realtext.add_options(parser)
    return parser.parse_args()


def prepare(args, train):
    """Plan and weights, trained where none are given."""
    config, plan = args.config, args.out / "model.plan"
    if not config:
        config = args.out / "config.json"
        config.write_text(json.dumps(CONFIG), encoding="utf-8")
    tool("opt", config, f"--entry=train:{args.rows}x{args.length},score:1x{min(args.shortest, 4096)}", f"--target={args.device}", *args.opt_arg, "-o", plan)
    if args.weights:
        return plan, args.weights
    run = args.out / "run"
    tool("run", "train", plan, "--data", train, "--order", "stream", "--seed", args.seed, "--steps", args.steps, "--schedule", "cosine", "--lr", args.lr,
         "--out", run, "--resume", "--save-every", max(1, args.steps // 8), "--keep", 1, "--log-every", 50, "--threads", args.threads)
    return plan, run


def score(args, plan, weights, held_out, context):
    """What eval says of one length; the losses of all tokens lie beside it."""
    result, losses = args.out / f"{context}.json", args.out / f"{context}.losses"
    if not result.exists():
        done = tool("run", "eval", plan, "--weights", weights, "--data", held_out, "--max-tokens", args.held_out, "--reset-every", context, "--losses", losses,
                    "--json", "--threads", args.threads, capture_output=True)
        result.write_bytes(done.stdout)
    return {"context": context, **json.loads(result.read_text(encoding="utf-8"))}


def cost_of_a_start(args, shortest, longest):
    """By position behind a fresh start: how much more a token costs, in bits, than with the longest context. The same tokens are compared, of
    all stretches but the first, which has nothing before it."""
    fresh, carried = (array.array("d", (args.out / f"{context}.losses").read_bytes()) for context in (shortest, longest))
    rows, first = [], 0
    while first < shortest:
        last = max(16, 2 * first) if first else 16
        last = min(last, shortest)
        at = [begin + i for begin in range(shortest, len(fresh), shortest) for i in range(first, min(last, len(fresh) - begin))]
        rows.append((first + 1, last, sum(fresh[i] - carried[i] for i in at) / len(at) / math.log(2)))
        first = last
    return rows


def write(args, results, costs, state_bytes):
    """Files and table; whether the perplexity never rises by more than 1 %."""
    lines = ["| tokens of context | perplexity of a byte | bits per byte | to the length before | state, bytes | memory after the first call | at the end |",
             "|---|---|---|---|---|---|---|"]
    good, before = True, None
    for r in results:
        change = r["perplexity"] / before - 1 if before else 0.0
        good, before = good and change <= 0.01, r["perplexity"]
        lines.append(f"| {r['context']:,} | {r['perplexity']:.4f} | {r['bits_per_byte']:.4f} | {f'{change:+.3%}' if r is not results[0] else ''} | {state_bytes:,} | "
                     f"{r['first_resident_bytes'] / 2**20:.1f} MiB | {r['last_resident_bytes'] / 2**20:.1f} MiB |")
    lines += ["", f"| tokens since a fresh start (every {args.shortest:,}) | bits per byte above the whole text's |", "|---|---|"]
    lines += [f"| {first:,} to {last:,} | {cost:+.4f} |" for first, last, cost in costs]
    (args.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = "\n".join(f"{r['context']}\t{r['tokens']}\t{r['nll']:.6f}\t{r['perplexity']:.6f}" for r in results)
    (args.out / "lengths.tsv").write_text(f"context\ttokens\tnll\tperplexity\n{rows}\n", encoding="utf-8")
    chart.write(args.out / "perplexity.svg", chart.Chart(
        f"Perplexity on the same {args.held_out:,} bytes", chart.Axis("tokens of context (the state is fresh after so many)", powers_of_two=True),
        chart.Axis("perplexity of a byte"), [chart.Series(args.config.stem if args.config else "megalodon", [(r["context"], r["perplexity"]) for r in results])]))
    print("\n".join(["", *lines, "", f"chart: {args.out}/perplexity.svg, raw figures: {args.out}/lengths.tsv"]))
    return good


def main():
    args = options()
    if args.weights and not args.config:
        raise SystemExit("--weights: expected --config, the model that they are for")
    if args.held_out < args.shortest or args.shortest < 1:
        raise SystemExit(f"--shortest: expected 1 to --held-out {args.held_out}, got {args.shortest}")
    train, held_out = realtext.split(args)
    realtext.same_settings(args, "steps", "rows", "length", "lr", "seed", "device", "opt_arg", "config", "weights", "held_out")
    plan, weights = prepare(args, train)
    lengths = [args.shortest << i for i in range((args.held_out // args.shortest).bit_length())]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda context: score(args, plan, weights, held_out, context), lengths))
    functions = json.loads(tool("run", "inspect", plan, "--json", capture_output=True).stdout)["functions"]
    state_bytes = next(function["state_bytes"] for function in functions if function["name"] == "score")
    if not write(args, results, cost_of_a_start(args, lengths[0], lengths[-1]), state_bytes):
        raise SystemExit("expected no length more than 1 % above the one before it")


if __name__ == "__main__":
    main()
