#!/bin/sh
# Fuzzes for so many seconds (60 unless told) from the corpus in the tree, on the stable toolchain: the
# coverage instrumentation that libFuzzer wants is an LLVM pass that stable rustc can be told to run, and no
# sanitizer is needed. Exit status not 0 if the core differs from its reference, panics, or hangs on an input for
# 20 seconds. New inputs go to target/fuzz/corpus, failures to target/fuzz/.
#
# usage: run.sh [SECONDS]          fuzz
#        run.sh merge              make the corpus in the tree the smallest that covers what has been found
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${CARGO_TARGET_DIR:-$here/../../target}/fuzz
mkdir -p "$out/corpus"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and procedural macros are not instrumented.
RUSTFLAGS="-Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
CARGO_TARGET_DIR="$out/build" \
cargo build --quiet --release --locked --manifest-path "$here/Cargo.toml" --target "$host"
lockstep=$out/build/$host/release/lockstep
if [ "${1:-}" = merge ]; then
	rm -rf "$out/merged" && mkdir "$out/merged"
	"$lockstep" -set_cover_merge=1 -use_counters=0 -max_len=512 "$out/merged" "$here/corpus" "$out/corpus"
	rm -rf "$here/corpus" && mv "$out/merged" "$here/corpus"
	exit
fi
exec "$lockstep" -max_total_time="${1:-60}" -timeout=20 -max_len=2048 -print_final_stats=1 -verbosity=0 \
	-artifact_prefix="$out/" "$out/corpus" "$here/corpus"
