"""Create a virtual environment, fill it from lock files, and say meanwhile how far that is.

Run by `make`; needs nothing but the standard library. A failure ends in one sentence that says what
to do. An environment that this run created is removed then: none is left half-made.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TextIO, cast

LOG = Path("build", "set-up.log")
PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
NEW_ENOUGH = "import sys; sys.exit(sys.version_info < (3, 11))"
REDRAW = 0.2
"""Seconds between two drawings of the line of the step in work."""

LOCKED = re.compile(r"^[\w.\[\],-]+==", re.MULTILINE)
CONSIDERED = re.compile(r"^(?:Collecting|Processing|Requirement already|Ignoring) ", re.MULTILINE)

CURES = (
    (
        r"No space left on device",
        "The disk is full. Free some space (about 300 MB are needed), then try again.",
    ),
    (
        r"(?:NewConnection|NameResolution|ConnectTimeout|ReadTimeout|ConnectionReset|Proxy|SSL)Error"
        r"|Connection refused|Name or service not known|timed out",
        "The package index cannot be reached. Check the network (a proxy goes into HTTPS_PROXY, an"
        " index of your own into PIP_INDEX_URL), then try again.",
    ),
    (
        r"DO NOT MATCH THE HASHES[\s\S]*?^ +(\S+)",
        "The index served another {0} than the lock file names. Nothing of it was installed. Empty"
        " pip's cache (pip cache purge) or use another index (PIP_INDEX_URL), then try again.",
    ),
    (
        r"No matching distribution found for (\S+)",
        f"The package index has no {{0}} for {PYTHON} on this machine. Use another index"
        " (PIP_INDEX_URL) or another Python (make PYTHON=/path/to/python3.12 ...).",
    ),
    (
        r"(?:Failed building wheel for|Failed to build|Could not build wheels for) (\S+)",
        f"{{0}} is not built for {PYTHON} on this machine, and building it failed. Use another"
        " Python (make PYTHON=/path/to/python3.12 ...).",
    ),
    (
        r"Permission denied: '([^']+)'",
        "{0} cannot be written. Make the folder yours, or work in a clone of your own.",
    ),
)


class CannotSetUp(Exception):
    """The environment could not be made; the message says why and what to do."""


class Step:
    """One numbered line: redrawn with the seconds so far on a terminal, else written once."""

    def __init__(self, place: str, name: str) -> None:
        self._head = f"  [{place}] {name}"
        self._begun = time.monotonic()
        self._live = sys.stdout.isatty() and "CI" not in os.environ
        if not self._live:
            print(self._head, end="", flush=True)

    def show(self, note: str = "") -> None:
        """Draw the line anew, with a note of how far the step is."""
        if self._live:
            print(f"\r\x1b[K{self._head}{note}{self._time()}", end="", flush=True)

    def end(self) -> None:
        """Leave the line as it shall stay, with the time that the step took."""
        self.show()
        print("" if self._live else self._time(), flush=True)

    def _time(self) -> str:
        return f"  {time.monotonic() - self._begun:.0f} s"


def run(
    command: Sequence[str | Path],
    step: Step,
    environment: Mapping[str, str] | None = None,
    count_of: int | None = None,
) -> None:
    """Run a command and show its step meanwhile; raises `CannotSetUp` if it fails."""
    written = b""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process, LOG.open("ab") as log:
        for chunk in chunks(process):
            log.write(chunk)
            written += chunk
            step.show(how_far(written.decode(errors="replace"), count_of) if count_of else "")
    if process.returncode:
        raise CannotSetUp(cure(written.decode(errors="replace")))


def chunks(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What the process writes, and b"" whenever it wrote nothing for a moment."""
    pipe = cast(IO[bytes], process.stdout)
    try:
        while True:
            if not select.select([pipe], [], [], REDRAW)[0]:
                yield b""
            elif chunk := os.read(pipe.fileno(), 65536):
                yield chunk
            else:
                return
    except BaseException:
        process.terminate()
        raise


def how_far(output: str, total: int) -> str:
    """What pip is at, by what it wrote."""
    if "\nInstalling collected packages" in output:
        return ": installing"
    if "\nWARNING: Retrying" in output.rpartition("\nCollecting")[2]:
        return ": no answer from the package index, trying again"
    return f": {min(len(CONSIDERED.findall(output)), total)} fetched"


def cure(output: str) -> str:
    """The sentence for what a failed command wrote."""
    for pattern, sentence in CURES:
        if found := re.search(pattern, output, re.MULTILINE):
            return sentence.format(*found.groups())
    told = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in told if "error" in line.lower()] or told or ["no output"]
    return f"{errors[-1].strip()} (everything that was written: {LOG}). Mend that, then try again."


def works(python: str | Path, program: str) -> bool:
    """Whether this Python runs this program to its end."""
    return not subprocess.run((python, "-c", program), capture_output=True).returncode


def fetch_venv(step: Step) -> None:
    """Debian ships Python without what makes environments: fetch it where we may."""
    cannot = f"{sys.executable} cannot create virtual environments"
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if not shutil.which("apt-get"):
        raise CannotSetUp(f"{cannot}. Use one that can: make PYTHON=/path/to/python3.12 ...")
    if os.getuid() != 0:
        raise CannotSetUp(f"{cannot}. Run: sudo apt-get install {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(("apt-get", "update", "-qq"), step, environment)
    run(("apt-get", "install", "-y", "-qq", package), step, environment)


class SetUp:
    """Makes one environment what its lock files say."""

    def __init__(self, folder: Path, locks: Sequence[Path], editable: bool) -> None:
        self._folder = folder
        self._python = folder / "bin" / "python"
        self._locks = locks
        self._editable = editable
        self._usable = self._python.exists() and works(self._python, "import pip")
        self._total = (not self._usable) + 1 + editable
        self._begun = 0

    def run(self) -> None:
        """Do what is missing; raises `CannotSetUp` if it fails."""
        created = not self._folder.exists()
        print(f"{'Setting up' if created else 'Updating'} {self._folder}:", flush=True)
        try:
            if self._python.exists() and not works(self._python, NEW_ENOUGH):
                raise CannotSetUp(
                    f"{self._folder} is of a Python older than 3.11. Delete it, then try again."
                )
            if not self._usable:
                self._create()
            self._install()
        except BaseException:
            print(flush=True)
            if created:
                shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _create(self) -> None:
        step = self._next_step(f"a virtual environment of {PYTHON}")
        if not works(sys.executable, "import ensurepip, venv"):
            fetch_venv(step)
        # Without a Python that starts, nothing of what is there can be kept.
        options = () if self._python.exists() else ("--clear",)
        run((sys.executable, "-m", "venv", *options, self._folder), step)
        step.end()

    def _install(self) -> None:
        total = sum(len(LOCKED.findall(lock.read_text())) for lock in self._locks)
        options = [option for lock in self._locks for option in ("-r", lock)]
        step = self._next_step(f"{total} packages")
        run((self._python, *PIP, "--require-hashes", *options), step, count_of=total)
        step.end()
        if self._editable:
            step = self._next_step("Flybridge itself, from this folder")
            run((self._python, *PIP, "--no-deps", "--no-build-isolation", "--editable", "."), step)
            step.end()

    def _next_step(self, name: str) -> Step:
        self._begun += 1
        return Step(f"{self._begun}/{self._total}", name)


def wait_for(lock: TextIO) -> None:
    """Let one `make` after the other set up: two at once would spoil each other's environment."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another make is setting up; waiting for it.", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def main() -> None:
    """Parse the command line and set up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("locks", type=Path, nargs="+", help="lock files with hashes")
    parser.add_argument("--editable", action="store_true", help="install the project itself, too")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        LOG.parent.mkdir(exist_ok=True)
        with LOG.with_suffix(".lock").open("w") as lock:
            wait_for(lock)
            LOG.write_bytes(b"")
            SetUp(given.folder, given.locks, given.editable).run()
    except CannotSetUp as problem:
        sys.exit(str(problem))
    except OSError as problem:
        sys.exit(cure(str(problem)))
    except KeyboardInterrupt:
        sys.exit("Interrupted.")


if __name__ == "__main__":
    main()
