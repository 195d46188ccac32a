#!/usr/bin/env bash
# Writes a release archive, an SBOM of the binary (CycloneDX), and checksums of both.
# dist.sh BINARY PACKAGE_FILES OUT
set -euo pipefail
binary=$1 files=$2 out=$3
version=$("$binary" --version | cut -d ' ' -f 2)
name=soma-p2p-$version-$(rustc -vV | sed -n 's/^host: //p')
rm -rf "$out"
mkdir -p "$out/$name"
cp -r "$binary" "$files"/* LICENSE README.md CHANGELOG.md docs crates/cli/package/soma-p2p.service \
    crates/cli/package/node.toml "$out/$name/"
# cargo-cyclonedx writes beside each Cargo.toml of the workspace, one file for each binary.
cargo-cyclonedx cyclonedx --format json --describe binaries --manifest-path crates/cli/Cargo.toml
cp crates/cli/soma-p2p_bin.cdx.json "$out/$name.cdx.json"
find . -name '*_bin.cdx.json' -not -path './target/*' -delete
[ -s "$out/$name.cdx.json" ] || { echo "dist: cargo-cyclonedx wrote no SBOM" >&2; exit 1; }
# The same input makes the same archive.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" -C "$out" -czf "$out/$name.tar.gz" "$name"
rm -rf "${out:?}/$name"
(cd "$out" && sha256sum ./*.tar.gz ./*.cdx.json > SHA256SUMS && sha256sum --check SHA256SUMS)
