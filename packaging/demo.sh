#!/bin/sh
# One call in, one redacted transcript out: on a software TPM, with the daemon fully confined.
# usage: demo.sh BIN_DIR SAMPLE_DIR    (make demo builds both; nothing is left behind)
set -eu
bin=$1
sample=$2
models=$(cd "$(dirname "$0")/../firmware-models" && pwd)

work=$(mktemp -d)
chmod 711 "$work"
tpm_pid= daemon_pid=
finish() {
    [ -z "$daemon_pid" ] || kill "$daemon_pid" 2>/dev/null || :
    [ -z "$daemon_pid" ] || wait "$daemon_pid" 2>/dev/null || :
    [ -z "$tpm_pid" ] || kill "$tpm_pid" 2>/dev/null || :
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

say() { printf '\n== %s\n' "$1"; }
as_root=
[ "$(id -u)" = 0 ] || as_root="not root"

say "a software TPM (a real one is /dev/tpmrm0)"
mkdir "$work/tpm" "$work/state"
# The first pair of ports that is free: swtpm ends at once when one is taken.
for port in 2321 2331 2341 2351; do
    swtpm socket --tpm2 --tpmstate "dir=$work/tpm,mode=0600" --server "type=tcp,port=$port,bindaddr=127.0.0.1" \
        --ctrl "type=tcp,port=$((port + 1)),bindaddr=127.0.0.1" --flags not-need-init,startup-clear --seccomp action=kill \
        2>"$work/swtpm.log" &
    tpm_pid=$!
    until swtpm_ioctl --tcp "127.0.0.1:$((port + 1))" -g >/dev/null 2>&1; do
        kill -0 "$tpm_pid" 2>/dev/null || { tpm_pid=; break; }
    done
    [ -z "$tpm_pid" ] || break
done
[ -n "$tpm_pid" ] || { cat "$work/swtpm.log" >&2; echo "demo: swtpm did not start" >&2; exit 1; }
tpm="swtpm:host=127.0.0.1,port=$port"

say "keys and a certificate authority, sealed by the TPM"
owner="--owner salama-keeper"
[ -z "$as_root" ] || owner=
# shellcheck disable=SC2086 -- an option or nothing
"$bin/salama" init --name demo --server-name 127.0.0.1 --tpm "$tpm" --keys "$work/keys" --ca "$work/ca.pem" $owner
"$bin/salama" enrol amina --role counsellor --tpm "$tpm" --keys "$work/keys" --out "$work/amina.pem" --lines "$work/daemon.log"

say "the daemon, confined"
[ -n "$as_root" ] || chown salama:salama "$work/state"
cat >"$work/salama.toml" <<TOML
[listen]
address = "127.0.0.1:8443"
[state]
directory = "$work/state"
ballast = "16 MiB"
[keeper]
directory = "$work/keys"
tpm = "$tpm"
[models]
directory = "$models"
TOML
"$bin/salamad" --config "$work/salama.toml" 2>>"$work/daemon.log" &
daemon_pid=$!
export SALAMA_SERVER=https://127.0.0.1:8443 SALAMA_CA="$work/ca.pem" SALAMA_IDENTITY="$work/amina.pem"
if ! "$bin/salama" status --wait 60; then
    cat "$work/daemon.log" >&2
    exit 1
fi

say "a telephone call goes in: two channels, 8 kHz, mu-law, synthetic voices"
"$bin/salama" call send "$sample/sample.wav" --consent caller --watch >"$work/sent"
id=$(sed -n 's/^call \([0-9a-f]*\) is .*/\1/p' "$work/sent")

say "its redacted transcript"
"$bin/salama" call transcript "$id"
"$bin/salama" call transcript "$id" --reference "$sample/reference.txt"

say "what the audit trail says of it"
# In the journal where there is one, on standard error else.
"$bin/salama" audit tail -n 8 2>/dev/null ||
    sed -n 's/^{"timestamp":"\([^"]*\)".*"message":"\([^"]*\)".*"target":"salama::audit".*/\1  \2/p' "$work/daemon.log" | tail -n 8
say "the API listens on https://127.0.0.1:8443 (mutual TLS) while the daemon runs; the daemon stops now"
kill "$daemon_pid"
wait "$daemon_pid"
daemon_pid=
echo "stopped cleanly"
