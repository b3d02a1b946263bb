#!/usr/bin/env python3
"""onnxruntime on the same graphs and the same inputs as ours, one thread, every graph optimisation.

usage: ort.py vad GRAPH SAMPLES     GRAPH: the sequence graph; SAMPLES: 16 kHz mono, float32, little endian
       ort.py ner GRAPH WINDOWS     WINDOWS: JSON, a list of lists of token ids

Each line `go` (and for vad a number of frames in one run) on standard input is answered by a line of JSON.
"""
import json
import resource
import sys
import time

import numpy as np
import onnxruntime

FRAME, CONTEXT = 512, 64


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def session(graph):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def vad(graph, samples):
    """Frames with their context, in runs of the given length, the state handed on: what ours does."""
    samples = np.fromfile(samples, dtype="<f4")
    samples = np.pad(samples, (CONTEXT, -len(samples) % FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + FRAME)[::FRAME]
    run = session(graph)
    for line in sys.stdin:
        batch = int(line.split()[1])
        used, began = cpu(), time.perf_counter()
        hidden = cell = np.zeros((1, 1, 128), np.float32)
        told = []
        for start in range(0, len(frames), batch):
            some, hidden, cell = run.run(None, {"input": np.ascontiguousarray(frames[start : start + batch]), "h": hidden, "c": cell})
            told.append(some)
        wall, used = time.perf_counter() - began, cpu() - used
        told = np.concatenate(told)
        yield {"wall_ms": wall * 1000, "cpu_ms": used * 1000, "frames": len(told), "sum": float(told.sum()), "speech": int((told >= 0.5).sum())}


def ner(graph, windows):
    windows = [np.array([ids], np.int64) for ids in json.load(open(windows))]
    run = session(graph)
    for _ in sys.stdin:
        used, began = cpu(), time.perf_counter()
        told = 0
        for ids in windows:
            (logits,) = run.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
            told += int((logits.argmax(-1) != 0).sum())
        wall, used = time.perf_counter() - began, cpu() - used
        tokens = sum(ids.shape[1] for ids in windows)
        yield {"wall_ms": wall * 1000, "cpu_ms": used * 1000, "tokens": tokens, "personal": told}


def main():
    print(json.dumps({"version": onnxruntime.__version__}), file=sys.stderr)
    for answer in {"vad": vad, "ner": ner}[sys.argv[1]](sys.argv[2], sys.argv[3]):
        print(json.dumps(answer), flush=True)


main()
