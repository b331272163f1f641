"""A table of tensors, "OK / NOT OK, max diff", and the last line `N passed, N failed` that scripts/test.sh adds up."""
import numpy as np


class Report:
    """Collects comparisons. A case whose tensors all agree is one line; verbose prints every tensor."""

    def __init__(self, verbose=False):
        self.verbose, self.rows, self.printed = verbose, [], 0

    def compare(self, case, what, got, want, tolerance, scale=None, floor=1e-30):
        """Passes when max |got - want| <= max(tolerance * scale, floor); the scale is the largest magnitude expected."""
        if got is None:
            return self.add(case, what, None, False)
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        if got.shape != want.shape:
            return self.add(case, f"{what}: expected shape {list(want.shape)}, got {list(got.shape)}", None, False)
        scale = max(np.abs(want).max(initial=0.0) if scale is None else scale, floor / tolerance)
        difference = float(np.abs(got - want).max(initial=0.0) / scale)
        return self.add(case, what, difference, bool(np.isfinite(got).all()) and difference <= tolerance)

    def add(self, case, what, difference, passed):
        self.rows.append((case, what, difference, passed))
        return passed

    def flush(self):
        """Prints what was added since the last call: cases one by one, tensors where they fail or are asked for."""
        fresh, self.printed = self.rows[self.printed:], len(self.rows)
        for case in dict.fromkeys(row[0] for row in fresh):
            rows = [row for row in fresh if row[0] == case]
            if self.verbose or not all(row[3] for row in rows):
                for _, what, difference, passed in rows:
                    if self.verbose or not passed:
                        print(line(passed, case, what, difference))
            else:
                worst = max(rows, key=lambda row: row[2] or 0.0)
                print(line(True, case, f"{len(rows)} comparisons, worst {worst[1]}", worst[2]), flush=True)

    def finish(self):
        """Prints the rest and the summary; the exit status of a test program."""
        self.flush()
        failed = sum(not row[3] for row in self.rows)
        print(f"{len(self.rows) - failed} passed, {failed} failed")
        return 1 if failed else 0


def line(passed, case, what, difference):
    return f"{'OK    ' if passed else 'NOT OK'} {case:28} {what:64} {'' if difference is None else f'max diff {difference:.1e}'}"
