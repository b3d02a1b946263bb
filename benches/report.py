"""What a row found, for the terminal and for docs/PERFORMANCE.md."""
import datetime
import platform
import subprocess
from pathlib import Path


def say(text):
    print(text, flush=True)


class Line:
    """One number with its goal. `reach` is the least (or, with `below`, the most) that it must be."""

    def __init__(self, what, value, number, reach=None, below=False, goal=None):
        self.what, self.value, self.number, self.reach, self.below, self.goal = what, value, number, reach, below, goal

    def reached(self):
        if self.reach is None:
            return None
        return self.number <= self.reach if self.below else self.number >= self.reach

    def verdict(self):
        return {None: "", True: "reached", False: "MISSED"}[self.reached()]


class Result:
    """A row: its lines, a table, and what one has to know to read them."""

    def __init__(self, title, against, lines, table=(), notes=(), script=""):
        self.title, self.against, self.lines, self.table, self.notes, self.script = title, against, lines, table, notes, script
        self.name, self.seconds = "", 0

    def show(self):
        for line in self.table:
            say("  " + " | ".join(str(cell) for cell in line))
        for line in self.lines:
            say(f"  {line.what}: {line.value}  {line.goal or ''} {line.verdict()}")


def command(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def machine():
    cpu = memory = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
        if line.startswith("flags"):
            flags = set(line.split(":", 1)[1].split())
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = f"{int(line.split()[1]) / 2**20:.0f} GiB"
    has = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if name in flags]
    cpus = command("nproc")
    return f"{cpus} x {cpu} ({', '.join(has)}), {memory}, Linux {platform.release()}"


def table(rows):
    head, *body = rows
    lines = ["| " + " | ".join(str(cell) for cell in head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in body]
    return "\n".join(lines)


def document(results, absent, bench):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(bench.versions.items()))
    summary = [("row", "what", "measured", "goal", "")]
    for result in results:
        for line in result.lines:
            summary.append((f"[{result.name}](#{result.name})", line.what, line.value, line.goal or "reported", line.verdict()))
    parts = [
        "# Performance",
        "",
        "Written by `make bench` (`benches/bench.py`); do not edit. Each ratio is peer / ours within one run, the two in turn (A B A B),",
        "so above 1 Salama is faster; each number is a median, its spread in brackets (lowest to highest). Times are wall time unless a",
        "column says processor time. Programs are built as for tests (`opt-level = 3`, none but a crate's own link-time optimisation).",
        "",
        f"- machine: {machine()}",
        f"- date: {now}",
        f"- built by: {command('rustc', '--version')}, commit {command('git', 'rev-parse', '--short', 'HEAD')}",
        f"- peers: {versions}",
        "",
        table(summary),
    ]
    if absent:
        parts += ["", f"Not in this run: {', '.join(absent)}."]
    for result in results:
        parts += ["", f'## <a id="{result.name}"></a>{result.title}', "", f"`make bench ROW={result.name}`: {result.script}. Against: {result.against}."]
        if result.table:
            parts += ["", table(result.table)]
        if result.notes:
            parts += [""] + [f"- {note}" for note in result.notes]
    return "\n".join(parts) + "\n"
