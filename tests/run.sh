#!/bin/sh
# Runs parts of the tests: run.sh BUILD_DIR [-b PARTS] PART... where a part is unit, a folder of tests/, or fault-all. Each test
# program ends with "N passed, N failed"; so does this. The exit status says the same. The parts after -b run
# beside the others: most of what tests do is wait.
set -u
build=$1
shift
beside_parts=
if [ "$1" = -b ]; then
    beside_parts=$2
    shift 2
fi
BULKHEAD_BIN=$(cd "$build" && pwd)/bin
export BULKHEAD_BIN
out=$(mktemp)
beside=$(mktemp)
copy=
trap 'rm -rf "$out" "$beside" "$copy"' EXIT
# The programs change to users that may not be let into the tree (a clone below /root): then a copy is tested.
if [ "$(id -u)" -eq 0 ] && ! runuser -u nobody -- test -x "$BULKHEAD_BIN/bulkhead"; then
    copy=$(mktemp -d)
    chmod 755 "$copy"
    cp -r "$BULKHEAD_BIN" "$copy/bin"
    chmod 755 "$copy/bin"
    for tool in print_tables queue_fill fault breach; do
        [ ! -e "$build/$tool" ] || cp -r "$build/$tool" "$copy/"
    done
    BULKHEAD_BIN=$copy/bin
fi
passed=0
failed=0
table=""
show=""

# One that hangs has failed; those of the long parts have limits of their own.
limit=900

one() { # NAME COMMAND...
    name=$1
    shift
    start=$(date +%s)
    timeout -k 10 "$limit" "$@" >"$out" 2>&1
    status=$?
    [ $status -lt 124 ] || echo "stopped after $limit seconds" >>"$out"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$out" | tail -n 1)
    p=${line%% passed*}
    f=${line#*, }
    f=${f%% failed}
    if [ -z "$line" ]; then
        p=0
        f=1
    elif [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
    fi
    if [ "$f" -ne 0 ] || [ -n "$show" ]; then
        cat "$out"
    fi
    passed=$((passed + p))
    failed=$((failed + f))
    row=$(printf '%-36s %6d %6d %5ds' "$name" "$p" "$f" $(($(date +%s) - start)))
    echo "$row"
    table="$table$row
"
}

# Of so many minutes, seconds or cuts (then 0: a whole number) the part that FAULT_SHARE says, in hundredths.
part_of() {
    awk -v n="$1" -v share="${FAULT_SHARE:-100}" -v digits="${2:-2}" 'BEGIN { printf "%.*f", digits, n * share / 100 }'
}

# Slices of the longer checks, which make check leaves to make check-slow.
slow="exhaust full failures kernels keys logins loris store_run"
# Of protocol, those that mostly wait: part "patient".
patient="bad_input imap_catalogue imap_park"

printf '%-36s %6s %6s %6s\n' test passed failed time
if [ -n "$beside_parts" ]; then
    # shellcheck disable=SC2086
    sh "$0" "$build" $beside_parts >"$beside" 2>&1 &
fi
for part in "$@"; do
    if [ "$part" = unit ]; then
        limit=3600 # sanitized, they are slow
        one unit "$build/unit"
        limit=900
        continue
    fi
    if [ "$part" = patient ]; then
        for t in $patient; do
            one "protocol/test_$t" python3 "tests/protocol/test_$t.py"
        done
        continue
    fi
    if [ "$part" = slow ]; then
        for t in $slow; do
            one "fault/check_$t" python3 "tests/fault/check_$t.py"
        done
        continue
    fi
    if [ "$part" = fuzz ]; then
        one fuzz "$build/fuzz-driver" -n 3000
        continue
    fi
    if [ "$part" = fuzz-all ]; then
        for t in "$build"/fuzz/*; do
            seeds=tests/fuzz/seeds/$(basename "$t")
            [ -d "$seeds" ] && one "fuzz/$(basename "$t")" sh tests/fuzz/libfuzzer.sh "$t" "$seeds" "${SECONDS_EACH:-60}"
        done
        continue
    fi
    if [ "$part" = queue ]; then
        one fault/check_queue python3 tests/fault/check_queue.py
        continue
    fi
    if [ "$part" = keys ] || [ "$part" = logins ] || [ "$part" = loris ]; then
        show=1
        limit=3600
        one "fault/check_$part" python3 "tests/fault/check_$part.py" --all
        continue
    fi
    if [ "$part" = breach-all ]; then
        show=1
        limit=3600
        one fault/breach python3 tests/fault/check_breach.py --all
        continue
    fi
    if [ "$part" = fault-all ]; then
        show=1 # their tables are what they are run for
        limit=7200
        one fault/model "$build/fault/model"
        one protocol/imap_park python3 tests/protocol/test_imap_park.py --all
        one fault/flips python3 tests/fault/check_flips.py --all
        one fault/kill python3 tests/fault/check_kill.py
        one fault/calls python3 tests/fault/check_calls.py --all --minutes "$(part_of 40)"
        one fault/kill_peers python3 tests/fault/kill_peers.py --kills 40 --peer bulkhead,postfix,exim,opensmtpd
        one fault/store python3 tests/fault/check_store.py --all --minutes "$(part_of 10)"
        one fault/store_run python3 tests/fault/check_store_run.py --seconds "$(part_of 600)"
        one fault/crash python3 tests/fault/check_crash.py --all --minutes "$(part_of 8)" --model strict,twonames,journal,posix
        one fault/crash_peers python3 tests/fault/check_crash.py --peer postfix,exim,opensmtpd --model strict,journal --states 20 --minutes "$(part_of 2)"
        for p in postfix exim opensmtpd; do
            one "fault/calls_$p" python3 tests/fault/check_calls.py --peer "$p" --runs 40 --minutes "$(part_of 3)"
        done
        one fault/exhaust python3 tests/fault/check_exhaust.py --all
        one fault/full python3 tests/fault/check_full.py --all
        one fault/failures python3 tests/fault/check_failures.py --all
        one fault/kernels python3 tests/fault/check_kernels.py --all
        one fault/sockets python3 tests/protocol/test_local_sockets.py --all
        one fault/powercut python3 tests/fault/check_powercut.py --cuts "$(part_of 340 0)" --fs ext4,xfs,btrfs --minutes "$(part_of 15)"
        one fault/powercut_more python3 tests/fault/check_powercut.py --cuts "$(part_of 60 0)" --fs xfs-512,ext4-writeback,ext4-journal --minutes "$(part_of 5)" --no-control
        continue
    fi
    [ "$part" != fault ] || one fault/model "$build/fault/model"
    for t in tests/"$part"/test_*.py tests/"$part"/check_*.py; do
        name=$(basename "$t" .py)
        case " $slow $patient " in *" ${name#*_} "*) continue ;; esac
        [ -e "$t" ] && one "$part/$(basename "$t" .py)" python3 "$t"
    done
done
if [ -n "$beside_parts" ]; then
    wait
    sed -e 1d -e '$d' "$beside"
    line=$(tail -n 1 "$beside")
    f=${line#*, }
    passed=$((passed + ${line%% passed*}))
    failed=$((failed + ${f%% failed}))
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
