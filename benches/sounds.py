#!/usr/bin/env python3
"""The recordings of the speech benchmarks, made from Debian's asterisk-core-sounds-en-wav (CC-BY-SA, so not in git).

usage: sounds.py DIRECTORY      makes DIRECTORY/{clips,prompts}/NAME.{wav,txt} and DIRECTORY/{call,five-minutes}.{wav,txt}

clips.txt and prompts.txt beside this file name what is taken: eight clips of 7 to 15 s and fifty prompts of five words and 4 s or more (drawn by chance once, seed 7).
The call is ten minutes of two channels that take turns, with pauses of 0.3 to 1.5 s and a faint noise on the line.
"""
import array
import gzip
import random
import shutil
import sys
import wave
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOUNDS = Path("/usr/share/asterisk/sounds/en")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
RATE = 8000
CALL_SECONDS = 600


def transcripts():
    texts = {}
    with gzip.open(TEXTS, "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, colon, text = line.strip().partition(":")
            if colon and not name.startswith(";"):
                texts[name.strip()] = " ".join(text.split())
    return texts


def named(file):
    return [line for line in (HERE / file).read_text().split("\n") if line]


def samples(name):
    with wave.open(str(SOUNDS / f"{name}.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (RATE, 1, 2), name
        return array.array("h", sound.readframes(sound.getnframes()))


def copy(names, texts, to):
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        flat = name.replace("/", "-")
        shutil.copyfile(SOUNDS / f"{name}.wav", to / f"{flat}.wav")
        (to / f"{flat}.txt").write_text(texts[name] + "\n")


def suitable(texts):
    """Prompts whose transcript says what is heard and that a person could say in one breath."""
    for name, text in sorted(texts.items()):
        path = SOUNDS / f"{name}.wav"
        if len(text.split()) >= 5 and not any(mark in text for mark in "[(<") and path.exists():
            if len(samples(name)) <= 15 * RATE:
                yield name


def call(texts, path, seconds, channels):
    chance = random.Random(20)
    order = list(suitable(texts))
    chance.shuffle(order)
    frames = seconds * RATE
    lines = []
    for _ in range(channels):
        second = array.array("h", (chance.randrange(-6, 7) for _ in range(RATE)))
        lines.append(second * seconds)
    at, speaker, said = RATE, 0, []
    for name in order:
        sound = samples(name)
        if at + len(sound) > frames - RATE:
            break
        line = lines[speaker]
        for place, sample in enumerate(sound, at):
            line[place] = max(-32768, min(32767, line[place] + sample))
        said.append(texts[name])
        at += len(sound) + int(chance.uniform(0.3, 1.5) * RATE)
        if chance.random() < 0.6:
            speaker = (speaker + 1) % channels
    woven = array.array("h", bytes(2 * frames * channels))
    for number, line in enumerate(lines):
        woven[number::channels] = line
    with wave.open(str(path.with_suffix(".wav")), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(woven.tobytes())
    path.with_suffix(".txt").write_text(" ".join(said) + "\n")


def main():
    to = Path(sys.argv[1])
    texts = transcripts()
    copy(named("clips.txt"), texts, to / "clips")
    copy(named("prompts.txt"), texts, to / "prompts")
    call(texts, to / "call", CALL_SECONDS, 2)
    call(texts, to / "five-minutes", 300, 1)


if __name__ == "__main__":
    main()
