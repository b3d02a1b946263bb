#!/bin/sh
# Runs one fuzz target under libFuzzer, guided by the branches of our own code that inputs reach.
# Usage: fuzz/run.sh TARGET SECONDS [libFuzzer's own options]
#
# Only our own package is instrumented (RUSTC_WORKSPACE_WRAPPER): dependencies stay as they were compiled, and the programs are not built.
set -eu
target=${1:?a target: see fuzz/README.md}
seconds=${2:?seconds}
shift 2
cd "$(dirname "$0")/.."

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
library() { find /usr/lib/llvm-* -name 'libclang_rt.fuzzer_no_main-x86_64.a' 2>/dev/null | sort -V | tail -n 1; }
if [ -z "$(library)" ]; then
    echo "fuzz: installing libclang-rt-dev, for libFuzzer"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends libclang-rt-dev >/dev/null
fi
SALAMA_LIBFUZZER=$(library)
[ -n "$SALAMA_LIBFUZZER" ] || { echo "fuzz: libFuzzer is missing: apt-get install libclang-rt-dev" >&2; exit 1; }
export SALAMA_LIBFUZZER

folder=${CARGO_TARGET_DIR:-$PWD/target}/fuzz/$target
program=${CARGO_TARGET_DIR:-$PWD/target}/debug/examples/fuzz-guided
mkdir -p "$folder/corpus"
RUSTC_WORKSPACE_WRAPPER="$PWD/fuzz/instrument.sh" ${CARGO:-cargo} build --locked --example fuzz
# Under a name of its own: the next `cargo build` puts the plain program back.
cp "${program%-guided}" "$program"
longest=$("$program" seeds "$target" "$folder")

# -timeout: only an endless loop takes so long. -rss_limit_mb: each target's own bound on heap is far lower and checked for each input.
exec "$program" guided "$target" "$folder/corpus" "$folder/seeds" \
    -dict="$folder/words" -max_len="$longest" -artifact_prefix="$folder/" -timeout=30 -rss_limit_mb=2048 -reload=0 \
    -use_value_profile=1 -print_final_stats=1 -max_total_time="$seconds" "$@"
