#!/bin/sh
# Gates licences, sources, duplicates and bans. usage: deny.sh TOOLS_DIR (cargo-deny is installed there once)
set -eu
version=0.20.2
tools=$1
if [ "$("$tools/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "deny: installing cargo-deny $version (about three minutes, once)"
    cargo install --quiet --locked --root "$tools" --profile dev "cargo-deny@$version"
fi
cargo fetch --quiet --locked
"$tools/bin/cargo-deny" --offline --config deny.toml check --hide-inclusion-graph bans licenses sources
