#!/bin/sh
# Installs from Debian's packages what is missing: deps.sh build [test] [fuzz] [fault] [interop]. Asks for nothing; as an
# ordinary user it only says what is missing.
set -eu
want=""
for part in "$@"; do
    case $part in
    build) want="$want gcc make libc6-dev libssl-dev libc-ares-dev libcrypt-dev zlib1g-dev" ;;
    test) want="$want check pkg-config libsubunit-dev python3 openssl nsd strace procps uidmap" ;;
    fuzz) want="$want clang libclang-rt-14-dev" ;;
    fault) want="$want e2fsprogs xfsprogs btrfs-progs postfix" ;;
    interop) want="$want systemd systemd-container postfix swaks libnet-ssleay-perl curl s-nail mutt dovecot-imapd dovecot-pop3d isync offlineimap3 fetchmail getmail6 mpop"
        command -v npm >/dev/null || want="$want nodejs npm" ;;
    esac
done
missing=""
for p in $want; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing packages:$missing" >&2
    echo "as root: apt-get install -y$missing" >&2
    exit 1
fi
echo "installing:$missing"
# A package's daemon must not start: /usr/sbin/policy-rc.d says so for as long as this lasts.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
