#!/usr/bin/env python3
"""Compares Salama with named peers in one run: rounds of A B A B, medians and spread, wall and processor time.

usage: bench.py --bin DIRECTORY --work DIRECTORY [--write docs/PERFORMANCE.md] [ROW...]

Without rows all are run. --write writes the document; rows that were not run stay as they are in it. `make bench` builds, sets up and calls this; `make bench ROW=vad` runs one row.
"""
import argparse
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import rows_daemon
import rows_models
import rows_store
from harness import Bench
from report import Document, document, say

ROWS = {
    "asr-base": rows_models.one_thread,
    "asr-quality": rows_models.quality,
    "call-base": rows_models.call_base,
    "call-tiny": rows_models.call_tiny,
    "vad": rows_models.vad,
    "ner": rows_models.ner,
    "upload": rows_daemon.upload,
    "store": rows_store.store,
    "reopen": rows_store.reopen,
    "epoch": rows_store.epoch,
    "unseal": rows_store.unseal,
    "get": rows_daemon.get,
    "child": rows_daemon.child,
    "start": rows_daemon.start,
    "memory": rows_daemon.memory,
    "profile": rows_models.profile,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bin", type=Path, required=True, help="where cargo put the benchmark programs and daemons")
    arguments.add_argument("--work", type=Path, required=True, help="what setup.sh made")
    arguments.add_argument("--write", type=Path)
    arguments.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    chosen = arguments.parse_args()
    unknown = set(chosen.rows) - set(ROWS)
    if unknown:
        arguments.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")

    began = time.monotonic()
    bench = Bench(chosen.bin.resolve(), chosen.work.resolve())
    results = []
    failed = []
    for name in chosen.rows or ROWS:
        say(f"\n== {name}")
        row_began = time.monotonic()
        try:
            result = ROWS[name](bench)
        except Exception as error:  # one broken peer must not lose the other rows
            if chosen.rows:
                raise
            failed.append(name)
            say(f"FAILED: {type(error).__name__}: {error}")
            continue
        result.name = name
        result.seconds = time.monotonic() - row_began
        results.append(result)
        result.show()
    say(f"\n{'row':12} {'result':>12}  goal")
    for result in results:
        for line in result.lines:
            say(f"{result.name:12} {line.value:>12}  {line.goal or 'reported':14} {line.verdict():8} {line.what}")
    say(f"whole run: {time.monotonic() - began:.0f} s")
    if chosen.write and not failed:
        before = Document(chosen.write.read_text() if chosen.write.exists() else "")
        chosen.write.write_text(document(results, ROWS, bench, before))
        say(f"written: {chosen.write}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
