#!/bin/sh
# Stands before rustc for our own package: counts branches and comparisons, and links libFuzzer into the fuzz targets.
compiler=$1
shift
case " $* " in
*" --crate-name salama "*" --crate-type lib "*) link= ;;
*" --crate-name fuzz "*) link="-Clink-arg=$SALAMA_LIBFUZZER -Clink-arg=-lstdc++" ;;
*) exec "$compiler" "$@" ;;
esac
# shellcheck disable=SC2086 -- a list of words on purpose
exec "$compiler" "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares $link
