#!/usr/bin/env python3
"""Weights go to the original's .pth files and the ports' safetensors and come back: bit-equal where nothing is computed, with the same
logits where it is. The .pth files are read and written here with the standard library's zipfile and a reader of our own.

    convert_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run
"""
import argparse
import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import safetensors_io  # noqa: E402

CONFIG = {"model_type": "megalodon", "num_layers": 2, "model_dim": 48, "num_heads": 2, "z_dim": 32, "value_dim": 64,
          "ffn_hidden_dim": 64, "cema_ndim": 4, "chunk_size": 16, "norm_num_groups": 6, "swiglu": True, "vocab_size": 96}
# Along which dimension a model-parallel rank holds a part of each parameter; the others are whole on every rank.
SPLITS = {"embed.weight": 1, "output.output.weight": 1, "wh2.weight": 1, "fc2.weight": 1, "mega.gamma": 1, "mega.beta": 1,
          **{name: 0 for name in ("timenorm.weight", "timenorm.bias", "final_norm.weight", "final_norm.bias", "prior_mean", "prior_logv",
                                  "cema.alpha", "cema.delta", "cema.theta", "cema.gamma", "cema.omega", "wv.weight", "wv.bias", "wz.weight",
                                  "wz.bias", "wr.weight", "wr.bias", "wh1.weight", "wh1.bias", "fc1.weight", "fc3.weight")}}


def split_of(name):
    return next((dim for end, dim in SPLITS.items() if name.endswith(end)), None)



class Reader(pickle.Unpickler):
    """What torch.load does with a state_dict, for little-endian files."""
    TYPES = {"FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16, "LongStorage": np.int64}

    def __init__(self, archive, prefix):
        super().__init__(io.BytesIO(archive.read(f"{prefix}/data.pkl")))
        self.archive, self.prefix = archive, prefix

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild
        return self.TYPES[name]

    def persistent_load(self, ident):
        kind, dtype, key, device, elements = ident
        assert kind == "storage" and device == "cpu"
        data = np.frombuffer(self.archive.read(f"{self.prefix}/data/{key}"), dtype)
        assert data.size == elements
        return data

    @staticmethod
    def rebuild(storage, offset, shape, strides, _grad, _hooks):
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, [s * storage.itemsize for s in strides])


def read_pth(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return dict(Reader(archive, archive.namelist()[0].split("/")[0]).load())


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def pickled(tensors):
    """`tensors`: name -> (storage class, key, elements, offset, shape, strides)."""
    out = b"\x80\x02}q\x00("
    for name, (kind, key, elements, offset, shape, strides) in tensors.items():
        out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\nq\x01((" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key)
        out += text("cpu") + number(elements) + b"tQ" + number(offset) + numbers(shape) + numbers(strides)
        out += b"\x89ccollections\nOrderedDict\n)Rtq\x02R"
    return out + b"u."


def write_pth(path, pickle_bytes, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", pickle_bytes)
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)
        archive.writestr("model/version", "3\n")


def write_state_dict(path, tensors, kind, encode):
    """Every second matrix is stored transposed, as a view of `.t()` is."""
    entries, storages = {}, {}
    for i, (name, tensor) in enumerate(tensors.items()):
        transposed = tensor.ndim == 2 and i % 2 == 1
        data = np.concatenate([np.zeros(3, tensor.dtype), (tensor.T if transposed else tensor).ravel()])
        strides = [1, tensor.shape[0]] if transposed else [int(np.prod(tensor.shape[d + 1:])) for d in range(tensor.ndim)]
        entries[name] = (kind, str(i), data.size, 3, tensor.shape, strides)
        storages[str(i)] = encode(data)
    write_pth(path, pickled(entries), storages)


class Checks:
    def __init__(self, args, folder):
        self.args, self.folder, self.passed, self.failures = args, folder, 0, 0

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def expect(self, what, holds):
        print(f"{'OK' if holds else 'NOT OK'} {what}")
        self.passed += bool(holds)
        self.failures += not holds

    def tool(self, *command, fails=False):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if (done.returncode == 1) != fails or done.returncode not in (0, 1):
            sys.exit(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def convert(self, source, target, *options, fails=False):
        return self.tool(self.args.run, "convert", self.path(source), self.path(target), *options, fails=fails)

    def refused(self, what, message, source, *options):
        output = self.convert(source, "refused", *options, fails=True)
        self.expect(f"{what} is refused", message in output)
        if message not in output:
            print(f"  expected '{message}' in: {output}")

    def equal(self, what, path, expected):
        got = safetensors_io.load(self.path(path))
        same = got.keys() == expected.keys() and all(
            got[name].dtype == value.dtype and got[name].shape == value.shape and got[name].tobytes() == value.tobytes()
            for name, value in expected.items())
        self.expect(what, same)

    def logits(self, plan, weights):
        tokens = np.arange(40, dtype=np.int32).reshape(1, 40) * 7 % CONFIG["vocab_size"]
        safetensors_io.save(self.path("in.safetensors"), {**weights, "tokens": tokens})
        self.tool(self.args.run, "invoke", plan, "--function", "forward", "--inputs", self.path("in.safetensors"),
                  "--outputs", self.path("out.safetensors"))
        return safetensors_io.load(self.path("out.safetensors"))["logits"]

    def model(self, name, config):
        """A folder with random weights and a config, and a plan."""
        os.makedirs(self.path(name))
        with open(self.path(name, "config.json"), "w") as file:
            json.dump(config, file)
        plan = self.path(f"{name}.plan")
        self.tool(self.args.opt, self.path(name, "config.json"), "--entry=forward:1x40", "-o", plan)
        described = json.loads(self.tool(self.args.run, "inspect", plan, "--json"))
        draw = np.random.default_rng(5)
        weights = {parameter["name"]: draw.normal(0, 0.3, parameter["shape"]).astype(np.float32)
                   for parameter in described["parameter_table"]}
        safetensors_io.save(self.path(name, "model.safetensors"), weights)
        return plan, weights

    def run(self):
        plan, weights = self.model("ours", CONFIG)
        self.original(plan, weights)
        self.pth_files(weights)
        self.refusals(weights)
        self.shared()
        self.jax(weights)
        self.hf(plan, weights)
        print(f"{self.passed} passed, {self.failures} failed")
        if self.failures:
            sys.exit(1)

    def original(self, plan, weights):
        self.convert("ours", "original", "--to", "original")
        state = read_pth(self.path("original", "consolidated.pth"))
        self.expect("consolidated.pth holds every parameter to the bit",
                    all(np.array_equal(state[name], value) for name, value in weights.items()))
        buffers = {"rope.freqs"} | {f"{norm}.prior_{end}" for end in ("count", "mean", "logv")
                                    for norm in ("output.final_norm", "layers.0.mega.timenorm", "layers.1.mega.timenorm")}
        self.expect("and the buffers of the original", state.keys() - weights.keys() == buffers and state["output.final_norm.prior_count"].shape == ())
        frequencies = 10000.0 ** (-np.arange(8) / 8)
        self.expect("rope.freqs are the original's", np.allclose(state["rope.freqs"], frequencies, rtol=1e-6))
        with open(self.path("original", "consolidate_config.json")) as file:
            self.expect("consolidate_config.json", json.load(file) == {"model_parallel_size": 1, "dtype": "fp32"})
        self.convert("original", "back")
        self.equal("the way back gives the same bits", "back/model.safetensors", weights)
        self.tool(self.args.opt, self.path("back", "config.json"), "--entry=forward:1x40", "-o", self.path("back.plan"))
        self.expect("the config that comes back compiles to the same model",
                    np.array_equal(self.logits(self.path("back.plan"), weights), self.logits(plan, weights)))

        self.convert("ours", "sharded", "--to", "original", "--shards", "2")
        shards = [read_pth(self.path("sharded", f"consolidated.{rank:02d}.pth")) for rank in range(2)]
        whole = all(np.array_equal(shards[0][name], value) and np.array_equal(shards[1][name], value) if split_of(name) is None
                    else np.array_equal(np.concatenate([shard[name] for shard in shards], split_of(name)), value)
                    and shards[0][name].shape[split_of(name)] * 2 == value.shape[split_of(name)] for name, value in weights.items())
        self.expect("two shards hold the parts that the original's ranks hold", whole)
        self.expect("statistics of a shard are of its groups", shards[0]["output.final_norm.prior_mean"].shape == (3,))
        self.convert("sharded", "merged.safetensors")
        self.equal("shards merge to the same bits", "merged.safetensors", weights)
        self.refused("an uneven number of shards", "--shards: expected a divisor of num_heads, 2, got 3", "ours", "--to", "original", "--shards", "3")

    def pth_files(self, weights):
        config = ("--config", self.path("ours", "config.json"))
        write_state_dict(self.path("f32.pth"), weights, "FloatStorage", lambda data: data.tobytes())
        self.convert("f32.pth", "f32.safetensors", *config)
        self.equal("views with offsets and strides are read", "f32.safetensors", weights)
        doubles = {name: value.astype(np.float64) / 3 for name, value in weights.items()}
        write_state_dict(self.path("f64.pth"), doubles, "DoubleStorage", lambda data: data.tobytes())
        self.convert("f64.pth", "f64.safetensors", *config)
        self.equal("f64 is kept", "f64.safetensors", doubles)
        halves = {name: value.astype(np.float16) for name, value in weights.items()}
        write_state_dict(self.path("f16.pth"), halves, "HalfStorage", lambda data: data.tobytes())
        self.convert("f16.pth", "f16.safetensors", *config)
        self.equal("f16 becomes f32", "f16.safetensors", {name: value.astype(np.float32) for name, value in halves.items()})
        cut = {name: (value.view(np.uint32) & 0xffff0000).view(np.float32) for name, value in weights.items()}
        write_state_dict(self.path("bf16.pth"), cut, "BFloat16Storage", lambda data: (data.view(np.uint32) >> 16).astype(np.uint16).tobytes())
        self.convert("bf16.pth", "bf16.safetensors", *config)
        self.equal("bf16 is read", "bf16.safetensors", cut)
        self.convert("bf16.safetensors", "bf16", "--to", "original", *config)
        with open(self.path("bf16", "consolidate_config.json")) as file:
            self.expect("bf16 is written as bf16", json.load(file)["dtype"] == "bf16")
        self.convert("bf16", "bf16-back.safetensors")
        self.equal("and comes back", "bf16-back.safetensors", cut)

    def refusals(self, weights):
        config = ("--config", self.path("ours", "config.json"))
        whole = self.path("f32.pth")
        with open(whole, "rb") as file:
            data = file.read()

        def broken(name, content):
            with open(self.path(name), "wb") as file:
                file.write(content)
            return name

        marker = self.path("executed")
        evil = b"\x80\x02cos\nsystem\n(" + text(f"touch {marker}") + b"tR."
        write_pth(self.path("evil.pth"), evil, {})
        self.refused("a pickle that calls os.system", "evil.pth: the pickle: refused the global 'os.system'", "evil.pth", *config)
        self.expect("and not executed", not os.path.exists(marker))
        write_pth(self.path("evil2.pth"), b"\x80\x04\x95" + bytes(8) + b"\x8c\x08builtins\x8c\x04eval\x93.", {})
        self.refused("a global from the stack", "refused the global 'builtins.eval'", "evil2.pth", *config)
        write_pth(self.path("inst.pth"), b"\x80\x02(ios\nsystem\n.", {})
        self.refused("an opcode that makes objects", "refused opcode 105", "inst.pth", *config)
        write_pth(self.path("long.pth"), pickled({"embed.weight": ("FloatStorage", "0", 4, 0, [96, 48], [48, 1])}), {"0": bytes(16)})
        self.refused("a tensor beyond its storage", "reaches outside its storage of 4 elements", "long.pth", *config)
        write_pth(self.path("huge.pth"), pickled({"embed.weight": ("FloatStorage", "0", 2**30, 0, [2**30], [1])}), {"0": bytes(16)})
        self.refused("a storage that the archive lacks", "huge.pth: tensor 'embed.weight': expected 1073741824 elements", "huge.pth", *config)
        names = {f"{i}": ("FloatStorage", "0", 64, 0, [8, 8], [1, 8]) for i in range(30)}
        write_pth(self.path("overlapping.pth"), pickled(names), {"0": bytes(256)})
        self.refused("copies of more than the file", "expected views of at most", "overlapping.pth", *config)
        write_pth(self.path("packed.pth"), pickled({}), {}, zipfile.ZIP_DEFLATED)
        self.refused("a compressed archive", "entry 'model/data.pkl' is compressed", "packed.pth", *config)
        broken("cut.pth", data[:-30])
        self.refused("a truncated archive", "cut.pth: truncated", "cut.pth", *config)
        place = data.index(weights["embed.weight"].tobytes()[:64])
        broken("flipped.pth", data[:place] + b"\xff" + data[place + 1:])
        self.refused("a damaged tensor", "the file is damaged", "flipped.pth", *config)
        broken("other.pth", b"\x80\x02}." * 20)
        self.refused("another file", "other.pth: expected a zip archive", "other.pth", *config)
        with open(self.path("llama.json"), "w", encoding="utf-8") as file:
            json.dump({**CONFIG, "model_type": "llama"}, file)
        self.refused("another model", "llama.json: field 'model_type': convert knows the weights of megalodon, got \"llama\"", "f32.pth",
                     "--config", self.path("llama.json"))
        few = {name: value for name, value in weights.items() if name != "layers.1.nffn.fc2.weight"}
        write_state_dict(self.path("few.pth"), few, "FloatStorage", lambda d: d.tobytes())
        self.refused("a missing tensor", "missing 'layers.1.nffn.fc2.weight'", "few.pth", *config)
        write_state_dict(self.path("misshapen.pth"), {**weights, "embed.weight": weights["embed.weight"][:5]}, "FloatStorage", lambda d: d.tobytes())
        self.refused("a wrong shape", "misshapen.pth: tensor 'embed.weight': expected shape [96, 48] as the config says, got [5, 48]", "misshapen.pth", *config)

    def shared(self):
        _, weights = self.model("tied", {**CONFIG, "share_emb": True, "rescale_nffn": True})
        self.convert("tied", "tied-original", "--to", "original")
        state = read_pth(self.path("tied-original", "consolidated.pth"))
        self.expect("shared embeddings stand in the state_dict twice", np.array_equal(state["output.output.weight"], weights["embed.weight"]))
        self.convert("tied-original", "tied-back.safetensors")
        self.equal("and once in our file", "tied-back.safetensors", weights)
        self.refused("a learned nffn.alpha for HF", "tensor 'layers.0.nffn.alpha': expected 0.1, a constant of megalodon-hf", "tied", "--to", "hf")

    def jax(self, weights):
        self.convert("ours", "jax", "--to", "jax")
        there = safetensors_io.load(self.path("jax", "model.safetensors"))
        gamma = weights["layers.1.mega.cema.gamma"]
        self.expect("jax has gamma in two tensors", np.array_equal(there["model.layers.1.attn.cema.gamma_imag"], gamma[..., 1]))
        self.expect("and its own names", np.array_equal(there["lm_head.weight"], weights["output.output.weight"])
                    and there["model.layers.0.attn.cema.omega"].shape == (48,) and "model.layers.0.ffn.fc3.weight" in there)
        os.remove(self.path("jax", "config.json"))  # the file itself says what it is
        self.convert("jax/model.safetensors", "jax-back.safetensors")
        self.equal("and comes back to the bit", "jax-back.safetensors", weights)

    def hf(self, plan, weights):
        """HF's model by its rules: halves instead of pairs, gains as they are, more biases, tied head."""
        heads, dim = CONFIG["num_heads"], CONFIG["z_dim"] // CONFIG["num_heads"]
        order = np.concatenate([h * dim + np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2)]) for h in range(heads)])
        tied = {**weights, "output.output.weight": weights["embed.weight"]}
        hf = {"model.embed.weight": weights["embed.weight"]}
        for i in range(CONFIG["num_layers"]):
            of = {name.split(".", 3)[-1] if ".mega." not in name else name.split(".mega.")[1]: value
                  for name, value in weights.items() if name.startswith(f"layers.{i}.mega.")}
            for name, value in of.items():
                target = f"model.layers.{i}.attn.{name}"
                if name in ("wz.weight", "wz.bias"):
                    hf[target] = value[order]
                elif name in ("gamma", "beta"):
                    hf[target] = value[:, order]
                elif name == "cema.gamma":
                    hf[target + "_real"], hf[target + "_imag"] = value[..., 0].copy(), value[..., 1].copy()
                elif name == "cema.omega":
                    hf[target] = value[:, 0].copy()
                elif name == "rmsnorm.weight":
                    hf[f"model.layers.{i}.attn.rmsnorm.gamma"] = value
                else:
                    hf[target] = value
            hf[f"model.layers.{i}.attn.wh2.bias"] = np.zeros(48, np.float32)
            hf[f"model.layers.{i}.ffn.norm.weight"] = weights[f"layers.{i}.nffn.norm.weight"] + np.float32(1)
            hf[f"model.layers.{i}.ffn.norm.bias"] = weights[f"layers.{i}.nffn.norm.bias"]
            for name in ("fc1", "fc2", "fc3"):
                value = weights[f"layers.{i}.nffn.{name}.weight"]
                hf[f"model.layers.{i}.ffn.{name}.weight"], hf[f"model.layers.{i}.ffn.{name}.bias"] = value, np.zeros(len(value), np.float32)
        for end in ("weight", "bias"):
            hf[f"model.norm.{end}"] = weights[f"output.final_norm.{end}"]
        os.makedirs(self.path("hf"))
        safetensors_io.save(self.path("hf", "model.safetensors"), hf)
        with open(self.path("hf", "config.json"), "w") as file:
            json.dump({**CONFIG, "pad_token_id": 0}, file)
        output = self.convert("hf", "from-hf")
        self.expect("HF's timestep norm is announced", "logits will differ from its own" in output)
        converted = safetensors_io.load(self.path("from-hf", "model.safetensors"))
        expected, got = self.logits(plan, tied), self.logits(plan, converted)
        worst = np.abs(expected - got).max() / np.abs(expected).max()
        self.expect(f"a model in HF's layout has the same logits: {worst:.1e}", worst < 1e-5)
        swapped = {**converted, "layers.0.mega.wz.weight": hf["model.layers.0.attn.wz.weight"]}
        apart = np.abs(expected - self.logits(plan, swapped)).max() / np.abs(expected).max()
        self.expect(f"which it has not without the permutation: {apart:.1e}", apart > 1e-3)

        safetensors_io.save(self.path("tied-head.safetensors"), tied)
        self.convert("tied-head.safetensors", "to-hf", "--to", "hf", "--config", self.path("ours", "config.json"))
        there = safetensors_io.load(self.path("to-hf", "model.safetensors"))
        there.pop("lm_head.weight")
        self.expect("the way to HF gives the same tensors", there.keys() == hf.keys() and all(np.array_equal(there[n], hf[n]) for n in hf))
        self.refused("an output matrix of its own for HF", "tensor 'output.output.weight': expected the values of 'embed.weight'", "ours", "--to", "hf")
        biased = {**hf, "model.layers.1.ffn.fc2.bias": np.full(48, 0.5, np.float32)}
        safetensors_io.save(self.path("hf", "model.safetensors"), biased)
        self.refused("a bias that the original lacks", "tensor 'model.layers.1.ffn.fc2.bias': expected zeros", "hf")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="megalodon-convert.") as folder:
        Checks(args, folder).run()


if __name__ == "__main__":
    main()
