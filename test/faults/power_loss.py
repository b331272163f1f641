"""What a disk holds after the power failed: replays the file calls of a run, as FaultyFiles.c recorded them.

A file's content is durable once the file was synced after its last write; a name in a folder (created, renamed or removed)
once the folder was synced afterwards. Nothing else is: the model is the weakest that POSIX allows."""
import os


class Disk:
    def __init__(self):
        self.dirty = set()     # files written to and not synced since
        self.pending = {}      # folder: names that changed and are not synced
        self.problems = []

    def changed(self, path):
        self.pending.setdefault(os.path.dirname(path), set()).add(os.path.basename(path))

    def unsafe_below(self, folder):
        """What of a folder would not be there, whole, after a power loss."""
        inside = folder + "/"
        return (sorted(f for f in self.dirty if f.startswith(inside)) +
                sorted(f"{d}/{n}" for d, names in self.pending.items() if (d + "/").startswith(inside) for n in names))

    def unsafe(self, path):
        """The same for a path itself: its content, and every name that leads to it."""
        found = self.unsafe_below(path) + ([path] if path in self.dirty else [])
        while path not in ("/", ""):
            folder, name = os.path.split(path)
            if name in self.pending.get(folder, ()):
                found.append(f"{folder}/{name}")
            path = folder
        return found

    def moved(self, old, new):
        def renamed(path):
            return new + path[len(old):] if path == old or path.startswith(old + "/") else path
        self.dirty = {renamed(path) for path in self.dirty}
        self.pending = {renamed(folder): names for folder, names in self.pending.items()}

    def require(self, unsafe, line, why):
        if unsafe:
            self.problems.append(f"call {line}: {why}, but these are not on disk: {', '.join(unsafe)}")


def check(lines, out):
    """Problems of the order of a run's calls on the training folder `out`; how many saves it reported."""
    disk, saved, newest = Disk(), 0, None
    for number, operation, path, detail in (line.rstrip("\n").split("\t") for line in lines):
        line = f"{number} {operation} {path} {detail}".rstrip()
        if operation in ("mkdir", "create"):
            disk.changed(path)
        elif operation == "write":
            # Lines of the metrics are synced with the next save; the lock's holder never: it means nothing after a restart.
            if not path.endswith("/lock"):
                disk.dirty.add(path)
        elif operation == "fsync":
            disk.dirty.discard(path)
            disk.pending.pop(path, None)
        elif operation == "unlink":
            folder, name = os.path.split(os.path.dirname(path))
            if name.endswith(".removed"):
                disk.require([name] if name in disk.pending.get(folder, ()) else [], line, "a checkpoint is taken apart")
            disk.dirty.discard(path)
            disk.changed(path)
        elif operation == "rename":
            if os.path.basename(detail).startswith(".checkpoint-"):
                disk.require(disk.unsafe(newest) if newest else ["a newer checkpoint"], line, "an old checkpoint goes")
            else:
                disk.require(disk.unsafe_below(path) + ([path] if path in disk.dirty else []), line, "a file gets its name")
            disk.moved(path, detail)
            disk.changed(path)
            disk.changed(detail)
        elif operation == "say" and path.startswith("saved "):
            saved += 1
            newest = path[len("saved "):]
            disk.require(disk.unsafe(newest), line, "a checkpoint was reported saved")
            disk.require([f"{out}/metrics.jsonl"] if f"{out}/metrics.jsonl" in disk.dirty else [], line,
                         "a checkpoint was reported saved")
    return disk.problems, saved
