#!/bin/sh
# Installs the Debian packages that building, testing and the demo need. Does nothing when all are there.
set -eu
packages="build-essential pkg-config libtss2-dev libtss2-tcti-device0 libtss2-tcti-swtpm0 libsystemd-dev
swtpm swtpm-tools tpm2-tools openssl curl flite sox ffmpeg pocketsphinx-testdata python3 python3-pip python3-scipy libpython3.11-testsuite strace systemd binutils util-linux e2fsprogs mount"

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    [ -z "$sudo" ] || command -v sudo >/dev/null || { echo "setup: these packages are missing; install them as root:$missing" >&2; exit 1; }
    echo "setup: installing$missing"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 -- a list of words on purpose
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# The users that the daemon's processes become.
for user in salama salama-keeper salama-worker; do
    getent passwd "$user" >/dev/null || { $sudo systemd-sysusers - <"$(dirname "$0")/../systemd/salama.sysusers"; break; }
done

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || :)
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "setup: Rust $wanted or newer is needed (found: ${have:-none}); install it with rustup" >&2
    exit 1
fi
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || { echo "setup: cargo $component is missing: rustup component add rustfmt clippy" >&2; exit 1; }
done
