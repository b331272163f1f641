"""Runs the commands of README and the pages, as a reader would, in a folder with a bit of text: only numbers that make them long are smaller.

    test/docs/pages.py --build build [--only REGEX] [-v]
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Numbers that only make a run long.
SMALLER = [
    (r"--total-steps \d+", "--total-steps 4"),
    (r"--steps (100|900) ", "--steps 2 "),
    (r"--steps \d{3,}", "--steps 4"),
    (r"--warmup \d+", "--warmup 1"),
    (r"--max-tokens \d+", "--max-tokens 8"),
    (r"--eval-every \d+", "--eval-every 2"),
]
# Which blocks of a page are commands for anyone, and lines that need what is not there: a tokenizer's model, a GPU.
PAGES = {
    "README.md": r"^scripts/|doctor gpu",
    "docs/baselines.md": None,
    "docs/compiler-tools.md": None,
    "docs/config.md": None,
    "docs/data.md": r"llama\.model|held\.tokens",
    "docs/parallelism.md": None,
    "docs/pipeline.md": None,
    "docs/verification.md": r"FILE\.mlir",
}


def blocks(page):
    """The sh blocks of a page, each a list of commands; a here-document stays with its command."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M):
        commands, end = [], None
        for line in block.splitlines():
            if end or (commands and commands[-1].endswith("\\")):
                commands[-1] += "\n" + line
                end = None if line == end else end
            elif line.strip():
                commands.append(line)
                here = re.search(r"<<'?(\w+)'?", line)
                end = here and here[1]
        yield commands


def prepare(folder, build):
    """A folder where the pages' commands find what they name."""
    for name in ("models", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "build").symlink_to(build)
    texts = sorted((ROOT / "docs").glob("*.md"))
    for name in ("src", "books"):
        (folder / name).mkdir()
        for source in texts[:8]:
            (folder / name / (source.stem + ".txt")).write_bytes(source.read_bytes()[:3000])
    (folder / "book.txt").write_bytes(texts[0].read_bytes()[:2500])
    (folder / "text").write_bytes(b"".join(text.read_bytes()[:4000] for text in texts))
    config = json.loads((ROOT / "models/megalodon-tiny.json").read_text(encoding="utf-8"))
    # A mesh of all four axes wants two chunks a row.
    (folder / "CONFIG.json").write_text(json.dumps({**config, "num_layers": 2, "chunk_size": 32}), encoding="utf-8")


def run(command, folder, build):
    for pattern, smaller in SMALLER:
        command = re.sub(pattern, smaller, command)
    command = command.replace("8x4096", "8x64").replace("8x512,score:1x512", "1x64,score:1x64")
    environment = dict(os.environ, PATH=f"{build / 'bin'}:{os.environ['PATH']}", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_rmaps_base_oversubscribe="1")
    return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300, check=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="regular expression of pages")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    passed = failed = 0
    for page, missing in PAGES.items():
        if not re.search(arguments.only, page):
            continue
        folder = pathlib.Path(tempfile.mkdtemp(prefix="megalodon-pages."))
        prepare(folder, build)
        ran = 0
        for command in (command for block in blocks(page) for command in block):
            if missing and re.search(missing, command):
                print(f"left out {page}: {command}")
                continue
            done = run(command, folder, build)
            ran += 1
            passed, failed = passed + (done.returncode == 0), failed + (done.returncode != 0)
            print(f"{'OK    ' if done.returncode == 0 else 'NOT OK'} {page}: {command.splitlines()[0]}")
            if done.returncode or arguments.verbose:
                print(done.stdout[-1500:])
        if not ran:
            print(f"NOT OK {page}: expected commands, found none")
            failed += 1
        shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
