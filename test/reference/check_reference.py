#!/usr/bin/env python3
"""Checks the reference against the golden vectors of $MEGALODON_GOLDEN: every output to 1e-10 of its largest magnitude, and the
gradients that the numerics tests take from it by central differences. Without the variable it does nothing and passes.
"""
import argparse
import glob
import json
import os
import sys

import numpy as np

import differences
import llama
import megalodon as ref
from report import Report
from megalodon import below
from safetensors_io import load

TOLERANCE = 1e-10


def padded(cache, chunk):
    """The golden caches hold only the rows of the open chunk."""
    return ref.open_chunk(cache, 0, chunk)


def check_outputs(report, case, got, want):
    for name, expected in want.items():
        report.compare(case, name, got[name], expected, TOLERANCE)


def open_rows(state, chunk):
    """A state without the unspecified rows of its caches (all rows must be at one position of the chunk)."""
    return {name: value[:, :int(state[name[:-1] + "count"][0]) % chunk] if name.endswith((".k", ".v")) else value
            for name, value in state.items()}


def check_op(report, case, v, meta):
    inputs, want = below("in.", v), below("out.", v)
    op, eps = meta["op"], meta.get("eps")
    if op == "cema":
        h0 = inputs.get("h0", np.zeros((meta["B"], meta["D"], meta["N"], 2)))
        p, q, g = ref.cema_coefficients(*(inputs[name] for name in ("alpha", "delta", "theta", "gamma")))
        y, h = ref.cema(inputs["x"], p, q, g, inputs["omega"], h0)
        pair = lambda z: np.stack([z.real, z.imag], -1)
        got = {"y": y, "hT": h, "p": p, "q": pair(q), "gamma_scaled": pair(g)}
        del want["kernel"]
    elif op == "timestep_norm":
        if "pad" in inputs:
            return  # the model never passes a mask
        y, count, mean, var = ref.timestep_norm(inputs["x"], inputs["weight"], inputs["bias"], inputs["count0"], inputs["mean0"],
                                                inputs["var0"], meta["groups"], eps)
        got = {"y": y, "count": count, "mean": mean, "var": var}
    elif op == "rms_norm":
        got = {"y": ref.rms_norm(inputs["x"], inputs.get("weight"), eps)}
    elif op == "layer_norm":
        got = {"y": ref.layer_norm(inputs["x"], inputs.get("weight"), inputs.get("bias"), eps)}
    elif op == "rope":
        got = {"y": ref.rotary(inputs["x"], meta["pos0"] + np.arange(meta["T"]), meta["base"])}
    elif op == "normalized_qk":
        q, k = ref.normalized_qk(inputs["z"], inputs["gamma"], inputs["beta"], meta["heads"], eps)
        got = {"q": q, "k": k}
    elif op == "chunk_attention":
        chunk, B, H, count = meta["chunk"], meta["B"], meta["H"], np.full(meta["B"], meta["pos0"])
        caches = [padded(inputs.get(name, np.zeros((B, 0, H, meta[d]))), chunk) for name, d in (("k_cache", "dz"), ("v_cache", "dv"))]
        positions = ref.chunk_positions(count, meta["S"], chunk)
        q, k, value = ref.rotary(inputs["q"], positions, meta["base"]), ref.rotary(inputs["k"], positions, meta["base"]), inputs["v"]
        rows = (meta["pos0"] + meta["S"]) % chunk
        got = {"y": ref.chunk_attention(q, k, value, *caches, count, chunk), "k_cache": ref.cache_append(caches[0], k, count, chunk)[:, :rows],
               "v_cache": ref.cache_append(caches[1], value, count, chunk)[:, :rows]}
    elif op == "cross_entropy":
        nll = ref.cross_entropy(inputs["logits"], inputs["targets"])
        kept = (inputs["targets"] != meta["ignore_index"]).sum()
        got = {"token_loss": nll, "sum": nll.sum(), "mean_all": nll.mean(), "mean_valid": nll.sum() / kept}
    else:
        config = ref.Config.of(meta["config"])
        params = below("param.", inputs)
        if op == "ffn":
            got = {"out": ref.feed_forward(config, params, inputs["y"], inputs["x"])}
        else:
            state = below("state.", inputs)
            state.update({name: padded(state[name], config.chunk_size) for name in ("k", "v")})
            y, after = ref.gated_attention(config, below("mega.", params), inputs["x"], state, {})
            if op == "block":
                y = ref.feed_forward(config, below("nffn.", params), y, inputs["x"])
            got = {"y": y, **open_rows({"state." + name: value for name, value in after.items()}, config.chunk_size)}
    check_outputs(report, case, got, want)


def check_model(report, case, v, meta):
    config, params = ref.Config.of(meta["config"]), below("param.", v)
    tokens, trace = v["input_ids"], {}
    logits, after = ref.forward(config, params, tokens, trace=trace)
    got = {"logits": logits, "token_loss": ref.cross_entropy(logits, v["targets"]),
           "loss": ref.loss(config, params, tokens, v["targets"])}
    check_outputs(report, case, got, {name: v[name] for name in got})
    check_outputs(report, case, trace, below("act.", v))
    check_outputs(report, case, open_rows(below("state.", after), config.chunk_size), below("state_end.", v))
    first, middle = ref.forward(config, params, tokens[:, :meta["mid"]])
    second, after = ref.forward(config, params, tokens[:, meta["mid"]:], middle)
    report.compare(case, "logits in two segments", np.concatenate([first, second], 1), logits, TOLERANCE)
    check_outputs(report, case, open_rows(below("state.", middle), config.chunk_size), below("state_mid.", v))
    check_outputs(report, case, open_rows(below("state.", after), config.chunk_size), below("state_end.", v))
    check_gradients(report, case, config, params, tokens, v["targets"], None, below("grad.", v))


def check_carry(report, case, v, meta):
    config, params = ref.Config.of(meta["config"]), below("param.", v)
    state = {"state." + name: value for name, value in below("state_in.", v).items()}
    logits, after = ref.forward(config, params, v["tokens"], state)
    nll = ref.cross_entropy(logits, v["targets"])
    check_outputs(report, case, {"logits": logits, "nll": nll, "loss": nll.mean()}, {name: v[name] for name in ("logits", "nll", "loss")})
    check_outputs(report, case, below("state.", after), below("state_out.", v))
    check_gradients(report, case, config, params, v["tokens"], v["targets"], state, below("grad.", v))


def check_llama(report, case, v, meta):
    config, params = llama.Config.of(meta["config"]), below("param.", v)
    tokens, targets = v["input_ids"], v["targets"]
    logits, _ = llama.forward(config, params, tokens)
    check_outputs(report, case, {"logits": logits, "loss": llama.loss(config, params, tokens, targets)},
                  {name: v[name] for name in ("logits", "loss")})
    first, middle = llama.forward(config, params, tokens[:, :7])
    second, _ = llama.forward(config, params, tokens[:, 7:], middle)
    report.compare(case, "logits in two segments", np.concatenate([first, second], 1), logits, TOLERANCE)
    check_gradients(report, case, config, params, tokens, targets, None, below("grad.", v), llama)


def check_gradients(report, case, config, params, tokens, targets, state, want, model=ref):
    for name in differences.one_of_each_kind(want, seed=case):
        sample = differences.sample(want[name], 1, seed=case + name)
        directions = differences.unit_vectors(want[name].size, sample)
        got = differences.of_model(config, params, tokens, targets, state, name, directions, model)
        report.compare(case, f"difference of {name}", got, want[name].reshape(-1)[sample],
                       differences.TOLERANCE, np.abs(want[name]).max(), differences.FLOOR)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="substring of the case")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every tensor")
    args = parser.parse_args()
    report = Report(args.verbose)
    folder = os.environ.get("MEGALODON_GOLDEN")
    if not folder:
        print("MEGALODON_GOLDEN is not set: nothing to check")
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))) if folder else []:
        case = os.path.basename(path)[:-len(".safetensors")]
        check = {"op": check_op, "model": check_model, "carry": check_carry, "llama": check_llama}.get(case.split("_")[0])
        if check and "train" not in case and args.only in case:
            with open(path[:-len("safetensors")] + "json", encoding="utf-8") as file:
                check(report, case, load(path), json.load(file))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
