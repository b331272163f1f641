#!/usr/bin/env python3
"""Error of CEMA's forms for memories of 10 to 100000 tokens, against float64.

    test/numerics/cema_accuracy.py --opt build/bin/megalodon-opt-emulated --opt-arg=--target=cuda --form sequential --form matrix

Prints the largest error of y, of the state after 4096 tokens and of every gradient, relative to the largest magnitude, and fails where it
passes 16 float32 roundings times the square root of the memory (in tokens, at most 4096).
"""
import argparse
import sys

import numpy as np

import tools  # sets the path of the reference  # isort: skip
import megalodon as ref
import op_cases
from ops import Case, write_module
from report import Report

LENGTH, CHANNELS, STATES = 4096, 8, 16
ROUNDING = 2.0 ** -24


def case(exponent):
    """1 - |q| = 10^-exponent, any phase; x of mean 0."""
    rng = np.random.default_rng(exponent)
    radius, phase = 1 - 10.0 ** -exponent, rng.uniform(0, 2 * np.pi, (CHANNELS, STATES))
    inputs = {"x": rng.normal(size=(1, LENGTH, CHANNELS)), "p": rng.uniform(0.1, 0.9, (CHANNELS, STATES)),
              "q": radius * np.stack([np.cos(phase), np.sin(phase)], -1), "g": rng.normal(size=(CHANNELS, STATES, 2)),
              "omega": rng.normal(size=(CHANNELS, 1)), "h": rng.normal(size=(1, CHANNELS, STATES, 2))}
    op = op_cases.OPS["cema"]()
    inputs = {name: value if name in op.double else value.astype(np.float32).astype(np.float64) for name, value in inputs.items()}
    q, g = (inputs[name][..., 0] + 1j * inputs[name][..., 1] for name in ("q", "g"))
    y, h = ref.cema(inputs["x"], inputs["p"], q, g, inputs["omega"], inputs["h"])
    cotangents = {"y": rng.normal(size=y.shape), "new_h": rng.normal(size=h.shape)}
    cotangents = {name: value.astype(np.float32).astype(np.float64) for name, value in cotangents.items()}
    wanted = gradients(inputs, q, g, cotangents["y"], cotangents["new_h"])
    outputs = {"y": y, "new_h": h, **{"grad." + name: value for name, value in wanted.items()}}
    return Case(f"1-|q| = 1e-{exponent}", op, {"block": 64}, inputs, outputs, cotangents, dict.fromkeys(wanted))


def gradients(inputs, q, g, dy, dnew):
    """cema_grad as its description says it, token by token in float64."""
    x, p, h = inputs["x"][0], inputs["p"], inputs["h"][0, ..., 0] + 1j * inputs["h"][0, ..., 1]
    states = [h]
    for u in x:
        states.append(q * states[-1] + p * u[:, None])
    m = dnew[0, ..., 0] + 1j * dnew[0, ..., 1]
    dx, dp, dq, dg = np.empty_like(x), np.zeros_like(p), np.zeros_like(q), np.zeros_like(q)
    for t in reversed(range(LENGTH)):
        cotangent, u = dy[0, t][:, None], x[t][:, None]
        m = g.conj() * cotangent + m
        dx[t] = (p * m.real).sum(1) + inputs["omega"][:, 0] * dy[0, t]
        dp += u * m.real
        dq += m * states[t].conj()
        dg += cotangent * states[t + 1].conj()
        m = q.conj() * m
    pairs = {name: np.stack([value.real, value.imag], -1) for name, value in (("q", dq), ("g", dg), ("h", m[None]))}
    return {"x": dx[None], "p": dp, "omega": (dy[0] * x).sum(0)[:, None], **pairs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools.add_arguments(parser)
    parser.add_argument("--form", action="append", help="value of --cema; default: auto")
    args = parser.parse_args()
    report = Report(args.verbose)
    for form in args.form or ["auto"]:
        args.opt_arg.append(f"--cema={form}")
        runner = tools.Tools(args, "f32")
        for exponent in range(1, 6):
            one = case(exponent)
            text, tensors, _ = write_module(one, "f32")
            out = runner.invoke(runner.compile_module(f"{form}-{exponent}", text), "test", tensors)
            bound = 16 * ROUNDING * np.sqrt(min(10.0 ** exponent, LENGTH))
            errors = {}
            for name, want in one.outputs.items():
                report.compare(f"{form}, {one.name}", name, out[name], want, bound)
                errors[name] = np.abs(np.asarray(out[name], np.float64) - want).max() / np.abs(want).max()
            print(f"{form:10} 1-|q| = 1e-{exponent}   " + "   ".join(f"{name} {error:.1e}" for name, error in errors.items()), flush=True)
        args.opt_arg.pop()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
