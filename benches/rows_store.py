"""The rows of the store: sealed durable inserts and random sealed reads against SQLCipher; opening a large one after a kill; a move of the erasure epoch."""
import tempfile
from pathlib import Path

from harness import Spread, once, ratio
from report import Line, Result

FILLED, RECORDS, WRITERS, READS, READERS, BYTES = 20_000, 3000, 16, 40_000, 2, 1024


def store(bench, rounds=5):
    found = {"Salama": [], "SQLCipher, pages of 1024": [], "SQLCipher, pages of 4096": []}
    for _ in range(rounds):
        for name, told in found.items():
            with tempfile.TemporaryDirectory(dir=bench.work) as folder:
                if name == "Salama":
                    sizes = ["--filled", FILLED, "--records", RECORDS, "--writers", WRITERS, "--reads", READS, "--readers", READERS]
                    told.append(once([bench.program("core"), "store", folder, *sizes, "--bytes", BYTES]))
                else:
                    sizes = [FILLED, RECORDS, WRITERS, READS, READERS, BYTES, name.split()[-1]]
                    told.append(once([bench.work / "sqlcipher", folder, *sizes]))
    bench.versions["SQLCipher"] = found["SQLCipher, pages of 4096"][0]["version"]

    def rates(name, kind):
        return [told[kind] for told in found[name]]

    lines = []
    for kind, what, reach in (
        ("inserts_per_s", f"sealed durable inserts, {WRITERS} writers", 3.0),
        ("reads_per_s", f"random sealed reads, {READERS} readers", 2.0),
    ):
        peers = [name for name in found if name != "Salama"]
        best = max(peers, key=lambda name: Spread(rates(name, kind)).median)
        faster = ratio(rates("Salama", kind), rates(best, kind))
        lines.append(Line(f"{what} (against {best})", faster.text(unit="x"), faster.median, reach, goal=f">= {reach:.0f}x"))
    table = [("", "durable inserts a second", "random reads a second")]
    for name in found:
        table.append((name, Spread(rates(name, "inserts_per_s")).text(0), Spread(rates(name, "reads_per_s")).text(0)))
    commits = Spread(told["commits"] for told in found["Salama"])
    return Result(
        "Store: sealed inserts and reads",
        "SQLCipher (WAL, synchronous=FULL, raw key, a connection a thread), the better of two page sizes",
        lines,
        table,
        [
            f"{RECORDS} inserts of {BYTES} bytes, each waiting until it is durable, into {FILLED} records; then {READS} reads of random "
            f"records. {rounds} rounds, both on the same file system, a cache of 32 MiB each.",
            f"Group commit: ours needs {commits.median:.0f} durable commits for all of them. Each of our records has a key of its own call.",
        ],
        "`benches/rows_store.py`, `benches/core`, `benches/peers/sqlcipher.c`",
    )


LARGE = 2_000_000_000


def reopen(bench):
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        told = once([bench.program("core"), "reopen", folder, "--bytes", LARGE])
    opened = Spread(told["open_ms"])
    return Result(
        "Opening a large store whose writer was killed",
        "the clock",
        [Line("opening a 2 GB store after kill -9", opened.text(1, " ms"), opened.median, 50, below=True, goal="< 50 ms")],
        [("records", "file, MB"), (str(told["records"]), f"{told['file_bytes'] / 1e6:.0f}")],
        [
            f"{len(told['open_ms'])} kills in the middle of commits; the time is that of the daemon's own opening, schema and ballast included, with "
            "the file in the page cache. Without quick repair the database reads itself whole first: seconds."
        ],
        "`benches/rows_store.py`, `benches/core`",
    )


CALLS = 100_000


def epoch(bench):
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        told = once([bench.program("core"), "epoch", folder, "--calls", CALLS])
    seconds = Spread([milliseconds / 1000 for milliseconds in told["ms"]])
    line = Line(f"erasure epoch moved over {CALLS} calls, s", seconds.text(), seconds.median, 2.0, below=True, goal="< 2 s")
    return Result(
        "Erasure epoch",
        "nobody: no peer has one",
        [line],
        [("", "seconds"), ("request to certificate", seconds.text())],
        [
            f"{len(told['ms'])} moves: one call of {CALLS} others is erased, and the erasure made final at once: the real keeper on a software TPM, every other key "
            "wrapped anew in one durable commit, the old epoch destroyed, the certificate signed.",
        ],
        "`benches/rows_store.py`, `benches/core`",
    )


def unseal(bench):
    told = once([bench.program("core"), "unseal"])
    whole, own = Spread(told["ms"]), Spread(told["own_ms"])
    line = Line("keeper's start until it answers, without the TPM's own time", own.text(1, " ms"), own.median, 300, below=True, goal="< 300 ms")
    return Result(
        "Unsealing at the start",
        "nobody: the rest is the TPM's",
        [line],
        [("", "ms"), ("from starting the keeper to its first word", whole.text(1)), ("of it not waiting for the TPM", own.text(1))],
        [
            f"{len(told['ms'])} starts of the daemon's keeper on a software TPM: program, locked memory, keyslots, root key, epoch, counter, keyring, "
            "confinement. Waiting for the TPM is measured by a proxy between the two, whose own time counts as ours.",
        ],
        "`benches/rows_store.py`, `benches/core`",
    )
