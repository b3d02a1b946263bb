"""Rows of a child's work: transcription, voice activity, names, and where the time of a call goes."""
import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import Spread, Talker, once, ratio
from report import Line, Result

FAST = "beam_size=1, temperature 0 without fallback, without_timestamps, no conditioning on earlier text, language given"
NORMAL = "WER: one normaliser for both (lower case, no punctuation, figures for number words up to twenty, `#` is pound, `*` is star)"


def score(bench, pairs):
    """Word errors and words over pairs of (said, heard)."""
    text = "".join(f"{' '.join(said.split())}\t{' '.join(heard.split())}\n" for said, heard in pairs)
    ran = subprocess.run([bench.program("speech"), "score"], input=text, capture_output=True, text=True, check=True)
    counts = [tuple(map(int, line.split())) for line in ran.stdout.splitlines()]
    return sum(errors for errors, _ in counts), sum(words for _, words in counts)


def said(recording):
    return recording.with_suffix(".txt").read_text()


def ours(bench, asr, threads, cpu=None):
    return Talker([bench.program("speech"), "calls", "--asr", asr, "--threads", threads, "--serve"], cpu)


def peer(bench, asr, threads, how, cpu=None):
    talker = Talker(bench.peer("whisper.py") + [bench.work / "ct2" / asr, threads, how], cpu)
    return talker


def note_version(bench, name, talker):
    for line in talker.told:
        if line.startswith("{"):
            bench.versions[name] = json.loads(line)["version"]


def wer(errors, words):
    return f"{100 * errors / words:.1f} % ({errors} of {words})"


def one_thread(bench, rounds=5):
    """Eight clips, each process pinned to the same one processor, in turn clip by clip."""
    clips = sorted((bench.sounds / "clips").glob("*.wav"))
    cpu = bench.cpus()[-1]
    walls, cpus, texts = ([], []), ([], []), ({}, {})
    with ours(bench, "whisper-base", 1, cpu) as mine, peer(bench, "whisper-base", 1, "single", cpu) as theirs:
        for talker in (mine, theirs):
            talker.ask(clips[0])
        seconds = 0
        for _ in range(rounds):
            wall, used, seconds = [0, 0], [0, 0], 0
            for clip in clips:
                for side, talker in enumerate((mine, theirs)):
                    told = talker.ask(clip)
                    redact = told.get("redact_ms", 0)
                    wall[side] += told["wall_ms"] - redact
                    used[side] += told["cpu_ms"] - redact
                    texts[side][clip] = told["text"]
                    seconds += told["audio_ms"] / 2000
            for side in (0, 1):
                walls[side].append(wall[side])
                cpus[side].append(used[side])
        note_version(bench, "faster-whisper", theirs)
    errors = [score(bench, [(said(clip), texts[side][clip]) for clip in clips]) for side in (0, 1)]
    by_wall, by_cpu = ratio(walls[1], walls[0]), ratio(cpus[1], cpus[0])
    rtf = [Spread(value / 1000 / seconds for value in walls[side]) for side in (0, 1)]
    rtf_cpu = [Spread(value / 1000 / seconds for value in cpus[side]) for side in (0, 1)]
    table = [("", "time per second of audio", "processor time per second of audio", "WER")]
    for side, name in enumerate(("Salama", "faster-whisper int8")):
        table.append((name, rtf[side].text(3), rtf_cpu[side].text(3), wer(*errors[side])))
    return Result(
        "Transcription, Whisper base, one thread",
        "faster-whisper int8, `cpu_threads=1`, both pinned to one processor",
        [
            Line("eight telephone clips, one thread", by_wall.text(unit="x"), by_wall.median, 2.0, goal=">= 2x"),
            Line("the same by processor time", by_cpu.text(unit="x"), by_cpu.median),
            Line(
                "WER on the eight clips (theirs: " + wer(*errors[1]) + ")",
                wer(*errors[0]),
                errors[0][0],
                errors[1][0],
                below=True,
                goal="no worse",
            ),
        ],
        table,
        [
            f"{len(clips)} clips of `benches/clips.txt`, {seconds:.0f} s, {rounds} rounds after a warm-up. Ours: the child's own way "
            "(decode, voice activity, transcription, word times) without redaction.",
            f"Theirs: {FAST}; no voice activity filter (slower on these clips).",
            NORMAL + ".",
        ],
        "`benches/rows_models.py`, `benches/speech`, `benches/peers/whisper.py`",
    )


def quality(bench):
    """Fifty prompts; only their words count here, so the two run side by side."""
    prompts = sorted((bench.sounds / "prompts").glob("*.wav"))
    lines, table = [], [("model", "Salama", "faster-whisper int8")]
    for asr in ("whisper-base", "whisper-tiny-en"):
        told = []
        with ours(bench, asr, 1) as mine, peer(bench, asr, 1, "single") as theirs:
            for prompt in prompts:
                for talker in (mine, theirs):
                    talker.process.stdin.write(f"{prompt}\n")
                    talker.process.stdin.flush()
                told.append((said(prompt), mine.answer()["text"], theirs.answer()["text"]))
        errors = [score(bench, [(line[0], line[side]) for line in told]) for side in (1, 2)]
        table.append((asr, wer(*errors[0]), wer(*errors[1])))
        lines.append(
            Line(
                f"{asr}, WER on fifty prompts (theirs: {wer(*errors[1])})",
                wer(*errors[0]),
                errors[0][0],
                errors[1][0],
                below=True,
                goal="no worse",
            )
        )
    return Result(
        "Quality: word errors on fifty prompts",
        "faster-whisper int8 on the same weights",
        lines,
        table,
        [NORMAL + ".", "One voice, read prompts, about 800 words: a difference of under a point is chance."],
        "`benches/rows_models.py`",
    )


def call(bench, asr, title, rounds):
    """The whole machine on one recording: two threads, not pinned."""
    recording = bench.sounds / "call.wav"
    sides = {"ours": [], "batched": [], "vad": []}
    with ours(bench, asr, 2) as mine, peer(bench, asr, 2, "batched") as batched, peer(bench, asr, 2, "vad") as plain:
        talkers = {"ours": mine, "batched": batched, "vad": plain}
        warm = bench.sounds / "clips" / "vm-review.wav"
        for talker in talkers.values():
            talker.ask(warm)
        for number in range(rounds):
            for name, talker in talkers.items():
                # The slower of the peer's two ways is only shown, so once is enough.
                if name != "vad" or number == 0:
                    sides[name].append(talker.ask(recording))
    net = [told["wall_ms"] - told["redact_ms"] for told in sides["ours"]]
    used = [told["cpu_ms"] - told["redact_ms"] for told in sides["ours"]]
    best = min(("batched", "vad"), key=lambda name: Spread(told["wall_ms"] for told in sides[name]).median)
    theirs = [told["wall_ms"] for told in sides[best]]
    if len(theirs) < rounds:
        theirs = theirs * rounds
    by_wall = ratio(theirs, net)
    by_cpu = ratio(([told["cpu_ms"] for told in sides[best]] * rounds)[:rounds], used)
    seconds = sides["ours"][0]["audio_ms"] / 1000
    table = [("", "time, s", "processor time, s", "times faster than real time", "WER")]
    names = {"ours": "Salama", "batched": "faster-whisper int8, batched (8)", "vad": "faster-whisper int8, one after the other"}
    for side, name in names.items():
        walls = [told["wall_ms"] / 1000 - told.get("redact_ms", 0) / 1000 for told in sides[side]]
        cpus = [told["cpu_ms"] / 1000 - told.get("redact_ms", 0) / 1000 for told in sides[side]]
        errors = score(bench, [(said(recording), sides[side][0]["text"])])
        table.append((name, Spread(walls).text(1), Spread(cpus).text(1), f"{seconds / Spread(walls).median:.1f}", wer(*errors)))
    redact = Spread(told["redact_ms"] / 1000 for told in sides["ours"])
    stages = ", ".join(f"{name} {millis / 1000:.1f}" for name, millis in sides["ours"][-1]["stages"].items())
    return Result(
        title,
        "faster-whisper int8, 2 threads, the faster of its two ways, its own voice activity filter on",
        [
            Line("one ten-minute call, whole machine", by_wall.text(unit="x"), by_wall.median, 2.0, goal=">= 2x"),
            Line("the same by processor time", by_cpu.text(unit="x"), by_cpu.median),
        ],
        table,
        [
            f"A call of {seconds:.0f} s on two channels made by `benches/sounds.py`; {rounds} rounds. Ours hears both channels, theirs "
            f"mixes them. Redaction is not in these times; ours took {redact.text(1)} s more for it.",
            f"Ours by stage, busy seconds of both threads: {stages}. Theirs: {FAST}.",
        ],
        "`benches/rows_models.py`, `benches/speech`, `benches/peers/whisper.py`",
    )


def call_base(bench):
    return call(bench, "whisper-base", "One ten-minute call, Whisper base, whole machine", 3)


def call_tiny(bench):
    return call(bench, "whisper-tiny-en", "One ten-minute call, Whisper tiny.en, whole machine", 3)


def vad(bench, rounds=9):
    cpu = bench.cpus()[-1]
    graph = bench.models / "silero-vad/silero_vad_16k_sequence.onnx"
    batches = (16, 512)
    walls, cpus, heard = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.f32"
        with Talker([bench.program("speech"), "ear", "--samples", samples, bench.sounds / "five-minutes.wav"], cpu) as mine:
            length = mine.answer()["samples"]
            with Talker(bench.peer("ort.py") + ["vad", graph, samples], cpu) as theirs:
                sides = [("ours", mine, "go")] + [(f"onnxruntime, {batch} frames a run", theirs, f"go {batch}") for batch in batches]
                for number in range(rounds + 1):
                    for name, talker, line in sides:
                        told = talker.ask(line)
                        if number:
                            walls.setdefault(name, []).append(told["wall_ms"])
                            cpus.setdefault(name, []).append(told["cpu_ms"])
                            heard[name] = told
                note_version(bench, "onnxruntime", theirs)
    peers = [name for name in walls if name != "ours"]
    best = min(peers, key=lambda name: Spread(walls[name]).median)
    by_wall, by_cpu = ratio(walls[best], walls["ours"]), ratio(cpus[best], cpus["ours"])
    table = [("", "time, ms", "processor time, ms", "frames of speech")]
    for name in walls:
        table.append((name.replace("ours", "Salama"), Spread(walls[name]).text(0), Spread(cpus[name]).text(0), heard[name]["speech"]))
    return Result(
        "Voice activity on five minutes",
        "onnxruntime with the same graph, one thread, the faster of two run lengths; both pinned to one processor",
        [
            Line("voice activity on five minutes", by_wall.text(unit="x"), by_wall.median, 1.5, goal=">= 1.5x"),
            Line("the same by processor time", by_cpu.text(unit="x"), by_cpu.median),
        ],
        table,
        [f"{length / 16000:.0f} s of 16 kHz, {rounds} rounds after a warm-up; frames of 32 ms, state handed on."],
        "`benches/rows_models.py`, `benches/speech`, `benches/peers/ort.py`",
    )


def ner(bench, rounds=7):
    cpu = bench.cpus()[-1]
    walls, cpus, heard = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        windows = Path(folder) / "windows.json"
        with Talker([bench.program("speech"), "names", "--windows", windows, bench.sounds / "call.txt"], cpu) as mine:
            size = mine.answer()
            with Talker(bench.peer("ort.py") + ["ner", bench.models / "rampart/model_q4.onnx", windows], cpu) as theirs:
                for number in range(rounds + 1):
                    for name, talker in (("Salama", mine), ("onnxruntime", theirs)):
                        told = talker.ask()
                        if number:
                            walls.setdefault(name, []).append(told["wall_ms"] * 128 / told["tokens"])
                            cpus.setdefault(name, []).append(told["cpu_ms"] * 128 / told["tokens"])
                            heard[name] = told
                note_version(bench, "onnxruntime", theirs)
    by_wall, by_cpu = ratio(walls["onnxruntime"], walls["Salama"]), ratio(cpus["onnxruntime"], cpus["Salama"])
    table = [("", "time per 128 tokens, ms", "processor time per 128 tokens, ms")]
    for name in walls:
        table.append((name, Spread(walls[name]).text(1), Spread(cpus[name]).text(1)))
    return Result(
        "Names: per 128 tokens of a call",
        "onnxruntime on the model file as it is (4-bit weights), one thread, the same windows; both pinned to one processor",
        [
            Line("names per 128 tokens", by_wall.text(unit="x"), by_wall.median, 1.0, goal=">= 1x"),
            Line("the same by processor time", by_cpu.text(unit="x"), by_cpu.median),
        ],
        table,
        [
            f"The text of the ten-minute call: {size['tokens']} tokens in {size['windows']} windows, {rounds} rounds after a warm-up. Ours "
            "includes cutting into word pieces and scoring words, theirs is the bare model.",
        ],
        "`benches/rows_models.py`, `benches/speech`, `benches/peers/ort.py`",
    )


# What the functions do, first match counts. Kernels are of `sys::simd`, `mmm` of tract, which finds names.
WORK = (
    ("matrix products in bytes", r"simd::quantised"),
    ("matrix products in half and single precision, attention", r"simd::(product|panels|half)"),
    ("softmax, exponentials, GELU, norms", r"simd::pointwise|expf|logf|tanh"),
    ("names: tract's products and the rest of its graph", r"tract|mmm|ndarray"),
    ("speech: layers, decoding loop, alignment, voice activity", r"worker::speech"),
    ("decoding and resampling, spectrograms", r"symphonia|rubato|fft|mel|butterfl|worker::decode"),
    ("copies and filling", r"memmove|memcpy|memset|copy|clone"),
    ("allocation", r"malloc|free|alloc"),
)


def profile(bench):
    """Where a call's time goes: by stage as the child reports it, by function as perf sees it."""
    table = [("what", "share of processor time")]
    with ours(bench, "whisper-base", 2) as mine:
        mine.ask(bench.sounds / "clips" / "vm-review.wav")
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "perf.data"
            perf = None
            if shutil.which("perf"):
                record = ["perf", "record", "--quiet", "-F", "499", "-o", data, "-p", str(mine.process.pid)]
                perf = subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(1)
            told = mine.ask(bench.sounds / "five-minutes.wav")
            shares = functions(perf, data) if perf else []
    stages = [("stage, busy time of all threads", "seconds", "share")]
    busy = sum(told["stages"].values())
    for name, millis in told["stages"].items():
        stages.append((name, f"{millis / 1000:.2f}", f"{100 * millis / busy:.1f} %"))
    grouped = {}
    for share, name in shares:
        work = next((what for what, pattern in WORK if re.search(pattern, name, re.IGNORECASE)), "everything else")
        grouped.setdefault(work, []).append((share, name))
    for work, found in sorted(grouped.items(), key=lambda item: -sum(share for share, _ in item[1])):
        table.append((f"**{work}**", f"**{sum(share for share, _ in found):.1f} %**"))
        table += [(f"`{name[:100]}`", f"{share:.1f} %") for share, name in found[:3] if share >= 1]
    notes = [
        f"Five minutes, one channel, Whisper base, two threads: {told['wall_ms'] / 1000:.1f} s of wall time, "
        f"{told['cpu_ms'] / 1000:.1f} s of processor time. By stage: "
        + "; ".join(f"{name} {seconds} s ({share})" for name, seconds, share in stages[1:])
        + ". Sealing is the daemon's: see [upload](#upload) and [store](#store)."
    ]
    if not shares:
        notes.append("perf is not there or may not be used here, so there is no table of functions.")
    transcribe = 100 * told["stages"]["transcribe"] / busy
    return Result(
        "Where the time of a call goes",
        "nobody",
        [Line("share of a call's busy time that is transcription", f"{transcribe:.0f} %", transcribe)],
        table if shares else stages,
        notes,
        "`benches/rows_models.py`, `benches/speech`, perf",
    )


def functions(perf, data):
    """Share of the samples and name of each function, greatest first."""
    perf.send_signal(signal.SIGINT)
    perf.wait()
    report = ["perf", "report", "-i", data, "--stdio", "--no-children", "--sort", "symbol", "--field-separator", ";", "-g", "none"]
    ran = subprocess.run([str(word) for word in report], capture_output=True, text=True)
    found = []
    for line in ran.stdout.splitlines():
        cells = line.strip().split(";")
        if not line.startswith("#") and len(cells) >= 2 and re.fullmatch(r"\d+\.\d+%?", cells[0].strip()):
            name = re.sub(r"^\[.\]\s*", "", cells[1].strip())
            found.append((float(cells[0].strip().rstrip("%")), re.sub(r"\s*[-;\s]*$", "", name)))
    return sorted(found, reverse=True)
