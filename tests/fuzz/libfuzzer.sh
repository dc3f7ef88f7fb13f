#!/bin/sh
# One target under libFuzzer: libfuzzer.sh PROGRAM SEEDS SECONDS. What it finds is left in crash-NAME-*. Its corpus grows in
# a directory of its own, which is removed.
set -u
corpus=$(mktemp -d)
seeds=$(cd "$2" && pwd) # targets change their working directory
trap 'rm -rf "$corpus"' EXIT
if "$1" -max_total_time="$3" -timeout=20 -rss_limit_mb=1024 -max_len=8192 -artifact_prefix="$PWD/crash-$(basename "$1")-" \
    -print_final_stats=1 "$corpus" "$seeds" >"$corpus.log" 2>&1; then
    grep -E 'stat::number_of_executed_units|cov:' "$corpus.log" | tail -n 2
    echo "1 passed, 0 failed"
else
    tail -n 40 "$corpus.log"
    echo "0 passed, 1 failed"
    rm -f "$corpus.log"
    exit 1
fi
rm -f "$corpus.log"
