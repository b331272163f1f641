"""One long real text for the scripts that measure models: the King James Bible as Debian's bible-kjv prints it (one verse a line behind its
reference, 4.4 MB), or any file; cut into a part to train on and the part behind it, held out. Never part of the repository.
"""
import json
import pathlib
import shutil
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
BIN = REPOSITORY / "build/bin"


def add_options(parser):
    parser.add_argument("--text", type=pathlib.Path, help="file to read instead of the King James Bible (Debian: bible-kjv; scripts/setup.sh --text)")
    parser.add_argument("--held-out", type=int, default=1 << 20, help="predicted bytes at the end of the text that training does not see")
    parser.add_argument("--threads", type=int, default=0, help="worker threads; 0: one a processor")


def read(path):
    if path:
        return path.read_bytes()
    if not shutil.which("bible"):
        raise SystemExit("expected the command `bible` of Debian's package bible-kjv, found none: run scripts/setup.sh --text, or name a file with --text")
    return subprocess.run(["bible", "-f", "Ge1:1-Rev22:21"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout


def split(args):
    """Writes OUT/text/train and OUT/text/held-out. The first byte of the latter is context only, so that --held-out bytes are predicted."""
    text, folder = read(args.text), args.out / "text"
    if len(text) < 2 * args.held_out + 2:
        raise SystemExit(f"expected a text of at least {2 * args.held_out + 2} bytes to hold out {args.held_out}, got {len(text)}")
    folder.mkdir(parents=True, exist_ok=True)
    cut = len(text) - args.held_out - 1
    train, held_out = folder / "train", folder / "held-out"
    for path, part in ((train, text[:cut]), (held_out, text[cut:])):
        if not path.exists() or path.read_bytes() != part:  # a run at work may have it mapped
            path.write_bytes(part)
    return train, held_out


def same_settings(args, *names):
    """Runs in --out are continued, so they must have been begun with the same options."""
    plain = lambda value: str(value) if isinstance(value, pathlib.Path) else value
    path, settings = args.out / "settings.json", {name: plain(getattr(args, name)) for name in names}
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    for name in names:
        if begun.get(name) != settings[name]:
            raise SystemExit(f"{args.out} holds runs with --{name.replace('_', '-')} {begun.get(name)}, got {settings[name]}: remove it or name another --out")
    path.write_text(json.dumps(settings), encoding="utf-8")


def tool(name, *arguments, **options):
    """Runs megalodon-NAME; what it says goes to our stderr, and its failure ends the script."""
    done = subprocess.run([BIN / f"megalodon-{name}", *map(str, arguments)], check=False, **options)
    if done.returncode:
        raise SystemExit(f"megalodon-{name} ended with exit code {done.returncode}: {' '.join(map(str, arguments))}")
    return done
