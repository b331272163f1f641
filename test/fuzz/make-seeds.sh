#!/usr/bin/env bash
# Makes the first inputs of the fuzzers with the project's own tools: make-seeds.sh OUT, from the repository's root, after a build in
# build/ and one with -DMEGALODON_FUZZ=ON in build-fuzz/. The corpora are what libFuzzer's -merge=1 keeps of these and of its finds.
set -euo pipefail
out=${1:?expected a folder}
opt=build/bin/megalodon-opt run=build/bin/megalodon-run
for name in checkpoint config data dialect pickle plan safetensors tokenfile tokenizer zip; do mkdir -p "$out/$name"; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/small.json" <<'JSON'
{"model_type": "megalodon", "num_layers": 1, "model_dim": 8, "num_heads": 2, "z_dim": 8, "value_dim": 8, "ffn_hidden_dim": 8,
 "cema_ndim": 2, "chunk_size": 4, "norm_num_groups": 2, "swiglu": true, "rescale_nffn": true, "vocab_size": 256,
 "optimizer": {"name": "adamw", "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}}
JSON
cp models/*.json "$work/small.json" "$out/config/"
plan() { # NAME OPTION...
  "$opt" "$work/small.json" "${@:2}" -o "$work/$1.plan"
  build-fuzz/bin/megalodon-fuzz-seed-plan "$work/$1.plan" "$out/plan/$1"
}
plan score --entry=score:1x8
plan train --entry=train:2x8 --dump-phases="$work/ir"
plan mesh --entry=train:4x8 --mesh=dp=2,pp=1,cp=2,tp=1
plan cuda --entry=score:1x8 --target=cuda --gpu-arch=sm_80
for phase in "$work"/ir/*.mlir; do
  # Whole modules are too long to be mutated well: the first functions and operations will do.
  head -c 6000 "$phase" > "$out/dialect/$(basename "$phase")"
done
cp test/lit/dialect/*.mlir "$out/dialect/"
head -c 3000 README.md > "$work/text"
"$run" train "$work/train.plan" --data "$work/text" --steps 1 --out "$work/out" --peak-flops 1e9 2> /dev/null
cp "$work/out/checkpoint-1/trainer.json" "$out/checkpoint/record"
cp "$work/out/checkpoint-1/state.safetensors" "$out/safetensors/state"
"$run" tokenize "$work/text" --tokenizer bytes --out "$out/tokenfile/bytes" > /dev/null
seed_model() { # NAME OPTION...: a model behind the length of a text and the text
  build-fuzz/bin/megalodon-fuzz-seed-model "$work/text" "$work/$1" "${*:2}"
  { printf '\x40'; head -c 64 "$work/text"; cat "$work/$1.model"; } > "$out/tokenizer/$1"
}
seed_model llama --model_type=bpe --vocab_size=360 --byte_fallback=true --normalization_rule_name=identity \
  --remove_extra_whitespaces=false --split_digits=true --allow_whitespace_only_pieces=true
# Rules of its own, since the library's take 230 KB: each line is what is replaced and by what, in code points.
printf '41\t61\n42 43\t62\nFB01\t66 69\n' > "$work/rules.tsv"
seed_model unigram --model_type=unigram --vocab_size=100 --normalization_rule_tsv="$work/rules.tsv"
seed_model words --model_type=word --vocab_size=60 --normalization_rule_name=identity
seed_model characters --model_type=char --vocab_size=60 --normalization_rule_name=identity
"$run" convert "$work/out/checkpoint-1/model.safetensors" "$work/original" --to original --config "$work/small.json"
cp "$work/original/consolidated.pth" "$out/zip/model"
/usr/bin/python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("archive/data.pkl"))' \
  "$out/zip/model" > "$out/pickle/model"
/usr/bin/python3 - "$out" <<'PYTHON'
import json, struct, sys
out = sys.argv[1]
types = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "U16": 2, "U32": 4, "U8": 1, "I8": 1, "BOOL": 1}
def tensors(names, shape):
    header, at, count = {"__metadata__": {"format": "pt"}}, 0, 1
    for size in shape: count *= size
    for name in names:
        header[name.lower()] = {"dtype": name, "shape": shape, "data_offsets": [at, at + count * types[name]]}
        at += count * types[name]
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(range(at % 251)) * (at // max(at % 251, 1) + 1) if at else struct.pack("<Q", len(text)) + text
def write(path, data):
    with open(f"{out}/{path}", "wb") as file: file.write(data)
def exact(names, shape):
    data = tensors(names, shape); size = 8 + struct.unpack("<Q", data[:8])[0]
    count = 1
    for s in shape: count *= s
    return data[:size] + (bytes(range(256)) * 8)[:sum(types[n] for n in names) * count]
write("safetensors/types", exact(list(types), [2, 3]))
write("safetensors/scalar", exact(["F32"], []))
write("safetensors/empty", exact(["I8"], [0, 4]))
index = {"metadata": {"total_size": 24}, "weight_map": {"f32": "a.safetensors"}}
write("safetensors/index", json.dumps(index).encode() + b"\0" + exact(["F32"], [2, 3]))
files = {n: {"bytes": 7, "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"} for n in
         ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "optimizer.safetensors", "state.safetensors")}
write("checkpoint/parts", json.dumps({"version": 1, "step": 1, "files": files, "digest": ""}).encode())
for i in range(4):
    write(f"data/{i}", struct.pack("<BBBBHHQQ", i, i, 1, 7, [255, 255, 65535, 65535][i], i, 5, 3 << 24) + bytes(range(0, 100)) * 4)
PYTHON
