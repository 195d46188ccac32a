#!/bin/sh
# Writes what packages hold besides the binary: man pages and completions. package-files.sh BINARY DIRECTORY
set -eu
binary=$1 out=$2
rm -rf "$out"
mkdir -p "$out"
"$binary" man --out "$out/man"
"$binary" completions bash > "$out/soma-p2p.bash"
"$binary" completions zsh > "$out/_soma-p2p"
"$binary" completions fish > "$out/soma-p2p.fish"
