"""What a row found, for the terminal and for docs/PERFORMANCE.md."""
import datetime
import platform
import re
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


class Document:
    """docs/PERFORMANCE.md as an earlier run left it: what is not measured now stays."""

    def __init__(self, text):
        head, *sections = text.split('\n## <a id="')
        self.sections = {section.split('"', 1)[0]: f'## <a id="{section}'.strip() for section in sections}
        self.lines = {name: [line for line in head.splitlines() if line.startswith(f"| [{name}](#")] for name in self.sections}
        found = re.search(r"^- peers: (.*)$", head, re.MULTILINE)
        self.versions = dict(one.split(" ", 1) for one in found.group(1).split(", ")) if found else {}


def document(results, names, bench, before):
    """The whole text: `results` of now, all other rows of `names` as in the document `before`."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    versions = ", ".join(f"{name} {version}" for name, version in sorted({**before.versions, **bench.versions}.items()))
    run = f"{now}, commit {command('git', 'rev-parse', '--short', 'HEAD')}, {machine()}"
    sections, lines = before.sections, before.lines
    for result in results:
        lines[result.name] = [
            f"| [{result.name}](#{result.name}) | {line.what} | {line.value} | {line.goal or 'reported'} | {line.verdict()} |"
            for line in result.lines
        ]
        sections[result.name] = section(result, run)
    told = [name for name in names if name in sections]
    absent = [name for name in names if name not in sections]
    parts = [
        "# Performance",
        "",
        "Written by `make bench` (`benches/bench.py`); do not edit. Each ratio is peer / ours within one run, the two in turn (A B A B),",
        "so above 1 Salama is faster; each number is a median, its spread in brackets (lowest to highest). Times are wall time unless a",
        "column says processor time. Programs are built as for tests (`opt-level = 3`, none but a crate's own link-time optimisation).",
        "",
        f"- built by: {command('rustc', '--version')}",
        f"- peers: {versions}",
        "- when, of which commit and on which machine: each row says it",
        "",
        "\n".join(["| row | what | measured | goal |  |", "|" + "---|" * 5, *(line for name in told for line in lines[name])]),
    ]
    if absent:
        parts += ["", f"Not in this run: {', '.join(absent)}."]
    parts += [part for name in told for part in ("", sections[name])]
    return "\n".join(parts) + "\n"


def section(result, run):
    parts = [f'## <a id="{result.name}"></a>{result.title}', "", f"`make bench ROW={result.name}`: {result.script}. Against: {result.against}. Run: {run}."]
    if result.table:
        parts += ["", table(result.table)]
    if result.notes:
        parts += [""] + [f"- {note}" for note in result.notes]
    return "\n".join(parts)
