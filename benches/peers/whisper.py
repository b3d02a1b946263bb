#!/usr/bin/env python3
"""faster-whisper on the same recordings, as fast as it goes: int8, greedy, one attempt, no time tokens.

usage: whisper.py MODEL_DIRECTORY THREADS single|batched     names of recordings on standard input, a line of JSON each on standard output
"""
import json
import os
import resource
import sys
import time

os.environ["OMP_NUM_THREADS"] = sys.argv[2]

import faster_whisper
from faster_whisper import BatchedInferencePipeline, WhisperModel


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    directory, threads, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    model = WhisperModel(directory, device="cpu", compute_type="int8", cpu_threads=threads, num_workers=1)
    settings = dict(
        language="en", beam_size=1, best_of=1, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
    )
    if how == "batched":
        # Cuts at pauses with its own voice activity detection and decodes eight pieces of up to 30 s as one batch.
        model = BatchedInferencePipeline(model)
        settings.update(batch_size=8)
    elif how == "vad":
        settings.update(vad_filter=True)
    print(json.dumps({"version": faster_whisper.__version__, "settings": settings}), file=sys.stderr)
    for line in sys.stdin:
        used, began = cpu(), time.perf_counter()
        segments, info = model.transcribe(line.strip(), **settings)
        text = " ".join(segment.text.strip() for segment in segments)
        wall, used = time.perf_counter() - began, cpu() - used
        print(json.dumps({"wall_ms": wall * 1000, "cpu_ms": used * 1000, "audio_ms": info.duration * 1000, "text": text}), flush=True)


main()
