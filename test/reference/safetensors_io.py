"""Read and write safetensors files: little-endian header length, JSON header, raw row-major tensors without holes."""
import json
import struct

import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32, "I8": np.int8, "BOOL": np.bool_}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def load(path):
    """The tensors of a file, by name; bf16 as f32."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        blob = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "BF16":
            flat = (np.frombuffer(blob[begin:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            flat = np.frombuffer(blob[begin:end], DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def save(path, tensors):
    """Writes tensors in the order given; the header is padded so that the data begins at a multiple of 8 bytes."""
    header, parts, offset = {}, [], 0
    for name, tensor in tensors.items():
        tensor = np.asarray(tensor, order="C")
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
        parts.append(tensor.tobytes())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
