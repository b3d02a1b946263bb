"""What every row uses: programs that answer line by line, rounds in turn, medians and spread."""
import json
import os
import statistics
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Bench:
    """Where things are, and what the peers say of themselves."""

    def __init__(self, bins, work):
        self.bins, self.work = bins, work
        self.versions = {}
        self.python = work / "venv/bin/python"
        self.models = ROOT / "firmware-models"
        self.sounds = work / "sounds"

    def program(self, name):
        """The newest benchmark program of this name: cargo adds a hash to it."""
        found = [path for path in (self.bins / "deps").glob(f"{name}-*") if path.suffix == "" and os.access(path, os.X_OK)]
        if not found:
            raise FileNotFoundError(f"the benchmark program {name} is not built: make bench")
        return max(found, key=lambda path: path.stat().st_mtime)

    def peer(self, script):
        return [str(self.python), str(ROOT / "benches/peers" / script)]

    def cpus(self):
        return sorted(os.sched_getaffinity(0))


class Talker:
    """A program that answers each line with a line of JSON; `cpu` pins it, so that one thread is one thread."""

    def __init__(self, command, cpu=None, quiet=True):
        command = [str(word) for word in command]
        if cpu is not None:
            command = ["taskset", "--cpu-list", str(cpu), *command]
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.told = []
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        for line in self.process.stderr:
            self.told.append(line.rstrip())

    def ask(self, line="go"):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(f"{' '.join(self.command[:3])}… ended: " + "\n".join(self.told[-20:]))
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def once(command, **options):
    """The JSON that a program prints last."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(str(word) for word in command[:3])}… failed: {ran.stderr[:1000]}")
    return json.loads(ran.stdout.strip().splitlines()[-1])


class Spread:
    """Numbers of several rounds."""

    def __init__(self, values):
        self.values = list(values)
        self.median = statistics.median(self.values)
        self.low, self.high = min(self.values), max(self.values)

    def text(self, digits=2, unit=""):
        def one(value):
            return f"{value:,.{digits}f}".replace(",", " ")

        return f"{one(self.median)}{unit} ({one(self.low)} to {one(self.high)})"


def ratio(peer, ours):
    """Peer divided by ours, round by round: above 1 ours is faster."""
    return Spread(theirs / mine for theirs, mine in zip(peer, ours))
