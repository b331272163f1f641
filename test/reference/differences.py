"""Fourth-order central differences of the reference's loss: the check of `grad`, independent of any differentiation rule."""
import re
import zlib

import numpy as np

import megalodon as ref

# f'(0) = sum of weight * f(offset * step) / step, error step^4.
OFFSETS = np.array([-2.0, -1.0, 1.0, 2.0])
WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0
# Curvature asks for a small step, rounding for a large one: of successive steps the two that agree best are believed.
STEPS = (2e-3, 5e-4, 1.25e-4)
MAX_VARIANTS = 72
# What gradients must agree to: relative to the tensor's largest magnitude, and where rounding of the differences ends.
TOLERANCE, FLOOR = 1e-6, 1e-11


def sample(tensor, count, seed):
    """Flat indices of the largest entry and of some random ones, without repetition."""
    generator = np.random.default_rng(zlib.crc32(seed.encode()))
    flat = np.abs(np.asarray(tensor)).reshape(-1)
    drawn = generator.choice(flat.size, min(count, flat.size), replace=False)
    return np.unique(np.append(drawn, flat.argmax()))


def one_of_each_kind(names, seed):
    """One name for each kind of tensor: of `layers.<i>.mega.wz.weight` one layer, drawn."""
    kinds = {}
    for name in sorted(names):
        kinds.setdefault(re.sub(r"layers\.\d+", "layers.*", name), []).append(name)
    return [members[zlib.crc32((seed + kind).encode()) % len(members)] for kind, members in kinds.items()]


def along(function, tensor, directions):
    """Derivatives of `function` at `tensor` along each row of directions [K, size].

    function maps variants [V, *tensor.shape] of the tensor to V numbers.
    """
    steps = np.array(STEPS)[:, None] * OFFSETS
    moves = (directions[:, None, :] * steps.reshape(-1, 1)).reshape(-1, *tensor.shape)
    values = [function(tensor + moves[begin:begin + MAX_VARIANTS]) for begin in range(0, len(moves), MAX_VARIANTS)]
    estimates = np.concatenate(values).reshape(-1, len(STEPS), len(OFFSETS)) @ WEIGHTS / np.array(STEPS)
    best = np.abs(np.diff(estimates)).argmin(-1) + 1
    return np.take_along_axis(estimates, best[:, None], 1)[:, 0]


def unit_vectors(size, indices):
    """One direction for each flat index."""
    directions = np.zeros((len(indices), size))
    directions[np.arange(len(indices)), indices] = 1.0
    return directions


def of_model(config, params, tokens, targets, state, name, directions, model=ref):
    """d loss / d(tensor `name`) of a model along directions; `name` is a parameter or `state.<...>`; `model` is the
    reference's module."""
    if name.startswith("state."):
        return along(lambda variants: model.loss(config, params, tokens, targets, {**state, name: variants}), state[name], directions)
    return along(lambda variants: model.loss(config, {**params, name: variants[:, None]}, tokens, targets, state), params[name], directions)
