"""The communicators over MPI, under its launcher: the common suite, and jobs that lose a rank."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77


def launch(ranks, *command, timeout="60"):
    """Exit code and text of an MPI job."""
    mpirun = shutil.which("mpirun")
    if not mpirun:
        print("skipped: mpirun is not installed (Debian's package openmpi-bin)")
        sys.exit(SKIPPED)
    line = [mpirun, "--oversubscribe", "-n", str(ranks)]
    if os.geteuid() == 0:
        line.append("--allow-run-as-root")
    job = subprocess.run(line + list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env={**os.environ, "MEGALODON_TIMEOUT": timeout})
    print(job.stdout)
    return job.returncode, job.stdout


def expect(condition, message):
    if not condition:
        sys.exit(f"failed: {message}")


def conformance(tests, ranks, *options):
    code, text = launch(ranks, tests, *options)
    expect(code == 0 and "[  PASSED  ]" in text and "Conformance" in text, f"exit code {code}")


def lost_rank(tests):
    """The job ends, with an error, and the rank that is left tells where it was."""
    place = "all_reduce of gradients, step 5, on rank 0: "
    for how, text in (("error", "rank 1: the disk is full"), ("error", place + "asked to stop, still waiting"),
                      ("killed", place + "asked to stop, still waiting")):
        code, output = launch(2, tests, "--go-wrong=" + how)
        expect(code != 0, "the job succeeded")
        expect(text in output, f"expected '{text}'")
    for how, ranks, text in (
            ("asleep", 2, place + "not complete after 0.3 s (group of ranks 0, 1)"),
            ("no-group", 2, "start of a group, on rank 0: not complete after 0.3 s (group of ranks 0, 1)"),
            ("other-group", 3, "expected rank 1 to make the same group as rank 0")):
        code, output = launch(ranks, tests, "--go-wrong=" + how, timeout="0.3")
        expect(code == 3, f"expected exit code 3, got {code}")
        expect(text in output, f"expected '{text}'")


def library(tests):
    """Without Open MPI, or without its header at build time, the message says what to install."""
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "libmpi.so.40"), "w").close()
        job = subprocess.run([tests], stderr=subprocess.PIPE, text=True, env={**os.environ, "LD_LIBRARY_PATH": folder})
    expect(job.returncode == 1 and "install Debian's packages" in job.stderr, f"got '{job.stderr}'")


parser = argparse.ArgumentParser()
parser.add_argument("--tests", required=True)
parser.add_argument("case")
arguments = parser.parse_args()
{
    "conformance-2": lambda tests: conformance(tests, 2),
    "conformance-4": lambda tests: conformance(tests, 4),
    "pieces": lambda tests: conformance(tests, 3, "--piece=50001"),
    "lost-rank": lost_rank,
    "library": library,
}[arguments.case](arguments.tests)
