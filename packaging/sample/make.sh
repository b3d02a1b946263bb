#!/bin/sh
# Makes the sample telephone call from script.txt: two channels, 8 kHz, 300-3400 Hz, mu-law in WAV.
# usage: make.sh OUT_DIR     writes sample.wav and reference.txt (CHANNEL: TEXT) there; needs flite and sox
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
for tool in flite sox soxi; do
    command -v "$tool" >/dev/null || { echo "sample call: $tool is missing: apt-get install flite sox" >&2; exit 1; }
done
mkdir -p "$out"
[ "$out/sample.wav" -nt "$here/script.txt" ] && [ "$out/sample.wav" -nt "$0" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

turn=0
: >"$work/reference.txt"
grep -v -e '^#' -e '^$' "$here/script.txt" | while read -r channel voice pause text; do
    turn=$((turn + 1))
    spoken=$(printf '%s' "$text" | sed -E 's/\{[A-Z_]+\|([^}]*)\}/\1/g')
    flite -voice "$voice" -t "$spoken" -o "$work/raw.wav" >/dev/null
    sox "$work/raw.wav" -r 8000 -c 1 -b 16 "$work/spoken.wav" sinc 300-3400 gain -n -6 pad "$pause" 0
    sox -n -r 8000 -c 1 -b 16 "$work/silent.wav" trim 0 "$(soxi -D "$work/spoken.wav")"
    # Each turn adds speech to its own channel and the same length of silence to the other.
    cp "$work/spoken.wav" "$(printf '%s/%s-%03d.wav' "$work" "$channel" "$turn")"
    cp "$work/silent.wav" "$(printf '%s/%s-%03d.wav' "$work" "$((1 - channel))" "$turn")"
    printf '%s: %s\n' "$((channel + 1))" "$text" | sed -E 's/\{([A-Z_]+)\|[^}]*\}/[\1]/g' >>"$work/reference.txt"
done
sox "$work"/0-*.wav "$work/left.wav"
sox "$work"/1-*.wav "$work/right.wav"
# Line noise as on a real trunk, then G.711.
sox -M "$work/left.wav" "$work/right.wav" "$work/both.wav"
sox -R -n -r 8000 -c 2 -b 16 "$work/noise.wav" synth "$(soxi -D "$work/both.wav")" whitenoise gain -60
sox -m -v 1 "$work/both.wav" -v 1 "$work/noise.wav" -e mu-law -b 8 "$out/sample.wav"
cp "$work/reference.txt" "$out/reference.txt"
