#!/bin/sh
# Runs every fuzz target for SECONDS, with coverage to guide it, on a stable toolchain: `fuzz/run.sh 60 [TARGET...]`.
#
# libFuzzer needs no nightly: what it is guided by is a pass of LLVM that any rustc can be told to run. Only sanitizers
# need one, and in code without `unsafe` they have little to find; `cargo +nightly fuzz run TARGET` has them.
set -eu
cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -gt 0 ] && shift
cargo=${CARGO:-cargo}
built=${CARGO_TARGET_DIR:-target}

cxx=${CXX:-c++}
if ! command -v "$cxx" >/dev/null 2>&1; then
    echo "make fuzz needs a C++ compiler for libFuzzer, and there is no $cxx here: install g++ or clang, or set CXX." >&2
    echo "Without one, cargo test -p soma-testkit --features decoders tests the same decoders with a fixed number of inputs." >&2
    exit 1
fi

host=$(${RUSTC:-rustc} -vV | sed -n 's/^host: //p')
# With --target, these are not for build scripts and macros.
RUSTFLAGS="-Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1"
RUSTFLAGS=$(echo "$RUSTFLAGS" | tr -s '\n ' '  ')
export RUSTFLAGS
"$cargo" build --release --bins --target "$host"

unset RUSTFLAGS
targets=$("$cargo" run --quiet --manifest-path ../Cargo.toml -p soma-testkit --features decoders --bin corpus -- corpus)
failed=
for target in ${*:-$targets}; do
    mkdir -p "artifacts/$target" "corpus/$target"
    log="artifacts/$target.log"
    # One input may take 10 seconds and 1 GiB, which is far more than any decoder should.
    if "$built/$host/release/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" -max_len=65536 \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
        executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "$target: nothing found in $executed inputs"
    else
        failed="$failed $target"
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        grep -E 'panicked at|ERROR: libFuzzer|SUMMARY' -A 1 "$log" >&2 || tail -n 20 "$log" >&2
        echo "$target: FAILED; the input is fuzz/${input:-artifacts/$target}, all that was printed fuzz/$log" >&2
        echo "  again:  (cd fuzz && $built/$host/release/$target $input)" >&2
    fi
done
if [ -n "$failed" ]; then
    echo "found something:$failed" >&2
    echo "fix it, and keep the input as a regression test beside the decoder" >&2
    exit 1
fi
