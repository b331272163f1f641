"""Looks at the page of `inspect --html` in a browser: its script ends, and every picture has something in it.

    test/runtime/page_test.py --opt build/bin/megalodon-opt --run build/bin/megalodon-run
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

MODELS = os.path.join(os.path.dirname(__file__), "..", "..", "models")
PLANS = {
    "training": ["--entry=train:2x32,score:1x32"],
    "pipeline": ["--entry=grad:4x32", "--mesh=dp=2,pp=2"],
    "gpu": ["--entry=generate:1x16", "--target=cuda", "--gpu-arch=sm_90a", "--cuda-path=none"],
}
# Of the page's style: tints of kernels and products, the blocks of the schedule.
COLOURS = {"kernels": (215, 224, 237), "products": (243, 224, 212), "schedule": (72, 120, 176)}


def browser(*arguments):
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1", "--virtual-time-budget=10000"]
    result = subprocess.run(command + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def check(name, page, folder):
    """Yields (what, whether it holds, what was seen)."""
    dom = browser("--dump-dom", "file://" + page)
    functions = len(re.findall(r"<button", dom))
    drawn = re.search(r'data-drawn="(\d+)"', dom)
    yield "script ends", drawn is not None and int(drawn[1]) == functions > 0, drawn and drawn[0]
    for part in ("layer", "memory", "schedule"):
        pictures = re.findall(rf'<div class="picture {part}">(.*?)</svg>', dom, re.S)
        blocks = [len(re.findall(r'class="block"', picture)) for picture in pictures]
        yield f"{part} pictures", bool(blocks) and min(blocks) >= 4, f"{blocks} blocks"
    yield "no number is missing", "NaN" not in dom.split("<script")[0] and "undefined" not in dom.split("<script")[0], "NaN or undefined"
    picture = os.path.join(folder, name + ".png")
    browser("--window-size=1280,3600", "--screenshot=" + picture, "file://" + page)
    image = np.asarray(Image.open(picture).convert("RGB"), np.int32)
    for what, colour in COLOURS.items():
        seen = int((np.abs(image - colour).max(axis=2) <= 4).sum())
        yield f"the colour of {what}", seen >= 200, f"{seen} pixels"
    # Blocks of the memory plan have any hue, of one chroma and lightness.
    high, low = image.max(axis=2), image.min(axis=2)
    seen = int(((np.abs(high - low - 87) <= 3) & (np.abs(high + low - 316) <= 6)).sum())
    yield "the colours of memory", seen >= 2000, f"{seen} pixels"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--opt", required=True)
    parser.add_argument("--run", required=True)
    arguments = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, options in PLANS.items():
            plan, page = os.path.join(folder, name + ".plan"), os.path.join(folder, name + ".html")
            subprocess.run([arguments.opt, os.path.join(MODELS, "megalodon-tiny.json"), *options, "-o", plan], check=True)
            subprocess.run([arguments.run, "inspect", plan, "--html", page], check=True)
            for what, holds, seen in check(name, page, folder):
                print(f"{'OK    ' if holds else 'NOT OK'} {name}: {what}: {seen}")
                passed, failed = passed + bool(holds), failed + (not holds)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
