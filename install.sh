#!/bin/sh
# Installs Bulkhead on a fresh Debian and shows that it works. Run as root; may be run again, after an update of the
# sources, too: a configuration that is there stays, and says the names.
#
#   ./install.sh [--prefix DIR] [--hostname NAME] [--domain NAME] [--account NAME] [--no-start]
#   ./install.sh --uninstall [--prefix DIR]      # leaves configuration, accounts, queue and mail
#   DESTDIR=DIR ./install.sh                     # files only, for a package
set -eu
cd "$(dirname "$0")"

prefix=/usr/local
sysconf=/etc
hostname=$(cat /proc/sys/kernel/hostname)
domain=
account=${SUDO_USER:-admin}
start=yes
uninstall=no
destdir=${DESTDIR:-}
roles="authd keyd tlsd dnsd qmgr local relay submitd smtpd pop3d imapd idled"

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --hostname | --domain | --account) [ $# -gt 1 ] || die "$1 wants a value" ;;
    esac
    case $1 in
    --prefix) prefix=$2 && shift ;;
    --hostname) hostname=$2 && shift ;;
    --domain) domain=$2 && shift ;;
    --account) account=$2 && shift ;;
    --no-start) start=no ;;
    --uninstall) uninstall=yes ;;
    -h | --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' install.sh
        exit 0
        ;;
    *) die "unknown option $1; see ./install.sh --help" ;;
    esac
    shift
done
[ "$account" != root ] || account="admin"
case $prefix in
/*) ;;
*) die "--prefix wants a path from / on" ;;
esac
libexec=$prefix/libexec/bulkhead
bulkhead=$prefix/sbin/bulkhead
conf=$sysconf/bulkhead/bulkhead.conf
case $hostname in
*.*) [ -n "$domain" ] || domain=${hostname#*.} ;;
*) [ -n "$domain" ] || domain=$hostname ;;
esac
# Of a configuration that is there its own check says what is wrong.
for name in "$hostname" "$domain" "$account"; do
    case $name in
    "" | *[!A-Za-z0-9._=-]*)
        [ -n "$destdir" ] || [ -e "$conf" ] ||
            die "\"$name\" will not do; use --hostname, --domain, --account"
        ;;
    esac
done

systemd() { [ -d /run/systemd/system ]; }

[ "$(id -u)" -eq 0 ] || [ -n "$destdir" ] || die "run me as root: sudo ./install.sh"

if [ $uninstall = yes ]; then
    if systemd; then systemctl disable --now bulkhead 2>/dev/null || true; fi
    [ ! -x "$bulkhead" ] || "$bulkhead" stop 2>/dev/null || true
    make -s uninstall PREFIX="$prefix"
    rm -f "$sysconf/systemd/system/bulkhead.service" "$sysconf/logrotate.d/bulkhead"
    if [ "$(readlink /usr/sbin/sendmail 2>/dev/null)" = "$prefix/sbin/sendmail" ]; then
        rm -f /usr/sbin/sendmail
    fi
    say "Bulkhead is removed. Left in place: $sysconf/bulkhead, /var/lib/bulkhead (accounts),"
    say "/var/spool/bulkhead (queue), /var/mail/bulkhead (mail), $sysconf/aliases, the log, and the users bh-*."
    exit 0
fi

say "1. packages, build"
if ! command -v make >/dev/null; then apt-get update -qq && apt-get install -y -qq make >/dev/null; fi
sh tests/deps.sh build
command -v openssl >/dev/null || apt-get install -y -qq openssl >/dev/null
make -s -j"$(nproc)" all PREFIX="$prefix" SYSCONFDIR="$sysconf"

say "2. files below $destdir$prefix"
make -s install PREFIX="$prefix" SYSCONFDIR="$sysconf" DESTDIR="$destdir"
[ -z "$destdir" ] || exit 0

say "3. users, directories, configuration"
for role in $roles; do
    id "bh-$role" >/dev/null 2>&1 ||
        useradd --system --user-group --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "bh-$role"
done
install -d -m 0755 "$sysconf/bulkhead"
if [ ! -e "$sysconf/bulkhead/key.pem" ]; then
    (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj "/CN=$hostname" -addext "subjectAltName=DNS:$hostname" \
        -keyout "$sysconf/bulkhead/key.pem" -out "$sysconf/bulkhead/cert.pem" 2>/dev/null)
    chmod 0644 "$sysconf/bulkhead/cert.pem"
fi
if [ -e "$conf" ]; then
    say "$conf is there and stays"
    # The first value of a word.
    value() { sed -n "s/^[[:space:]]*$1[[:space:]]\{1,\}\"\{0,1\}\([^[:space:];#\"]*\).*/\1/p" "$conf" | head -n 1; }
    domain=$(value domain)
else
    cat >"$conf" <<EOF
version 1
hostname $hostname
domain $domain
postmaster $account@$domain
certificate $sysconf/bulkhead/cert.pem key $sysconf/bulkhead/key.pem

smtpd { }      # port 25
submitd { }    # ports 587 and 465, and sendmail(1)
imapd { }      # ports 143 and 993
pop3d { }      # ports 110 and 995
EOF
fi
[ -e "$sysconf/aliases" ] || printf 'postmaster: root\nroot: %s\n' "$account" >"$sysconf/aliases"
grep -qi '^root[[:space:]]*:' "$sysconf/aliases" ||
    say "note: $sysconf/aliases has no line for root, whose mail is refused now: add \"root: $account\""
# One that leads nowhere is what a removed mail server left, or we below another prefix.
[ -e /usr/sbin/sendmail ] || ln -sf "$prefix/sbin/sendmail" /usr/sbin/sendmail
[ "$(readlink -f /usr/sbin/sendmail)" = "$(readlink -f "$prefix/sbin/sendmail")" ] ||
    say "note: /usr/sbin/sendmail, which cron and others call, is another's: remove its package, and run this again"
if [ -d "$sysconf/logrotate.d" ]; then
    cat >"$sysconf/logrotate.d/bulkhead" <<EOF
/var/log/bulkhead.log {
    weekly
    rotate 8
    compress
    delaycompress
    missingok
    postrotate
        $bulkhead reload >/dev/null
    endscript
}
EOF
fi
if systemd; then
    sed "s|@LIBEXEC@|$libexec|g; s|@SYSCONFDIR@|$sysconf|g" common/master/bulkhead.service \
        >"$sysconf/systemd/system/bulkhead.service"
    systemctl daemon-reload
fi
"$bulkhead" check
[ $start = yes ] || exit 0

say "4. start"
if systemd; then systemctl stop bulkhead 2>/dev/null || true; fi
"$bulkhead" stop >/dev/null 2>&1 || true
if systemd; then
    systemctl enable --now bulkhead >/dev/null 2>&1 || {
        journalctl -u bulkhead -n 5 -o cat --no-pager >&2 2>/dev/null || true
        systemctl disable --now bulkhead >/dev/null 2>&1 || true # or it tries again and again
        die "it does not start: see also /var/log/bulkhead.log; is another mail server running?"
    }
else
    "$bulkhead" start || {
        tail -n 5 /var/log/bulkhead.log >&2 2>/dev/null || true
        die "it does not start; is another mail server running?"
    }
fi
"$bulkhead" status

say "5. account $account, and a message through the whole suite"
password=
if ! "$bulkhead" account list | grep -q "^$account "; then
    password=$(openssl rand -base64 12 | tr -d '/+=')
    echo "$password" | "$bulkhead" account add "$account"
fi
# A probe with a password of its own reads the message back: the account's we may not know any more.
probe=bulkhead-probe-$(openssl rand -hex 4)
secret=$(openssl rand -hex 12)
maildir=
forget_probe() {
    [ -z "$maildir" ] || rm -rf "$maildir"
    "$bulkhead" account remove "$probe" >/dev/null
}
echo "$secret" | "$bulkhead" account add "$probe" >/dev/null
trap forget_probe EXIT
maildir=$("$bulkhead" account list | awk -v name="$probe" '$1 == name { print $4 }')
token=probe-$(openssl rand -hex 8)
runs() { "$bulkhead" status | grep -q "^$1 "; }
# Over IMAP with TLS, as a mail reader would.
read_back() {
    { printf 'a login %s %s\r\nb select INBOX\r\n' "$probe" "$secret" && sleep 1 &&
        printf 'c fetch 1:* body.peek[header.fields (subject)]\r\n' && sleep 1 && printf 'd logout\r\n'; } |
        openssl s_client -quiet -connect 127.0.0.1:993 2>/dev/null | grep -q "$token"
}
sent="Sent with sendmail(1), delivered to a Maildir"
works=""
if runs submitd; then
    printf 'From: root@%s\nTo: %s@%s\nSubject: %s\n\nIt works.\n' "$domain" "$probe" "$domain" "$token" |
        "$prefix/sbin/sendmail" -i -f "root@$domain" "$probe@$domain"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if runs imapd; then
            read_back && works="$sent, and read back over IMAP with TLS" && break
        else
            grep -qrs "$token" "$maildir" && break
        fi
        sleep 1
    done
    # It may have no port 993.
    [ -n "$works" ] || ! grep -qrs "$token" "$maildir" || works="$sent"
else
    works="All programs run"
fi
[ -n "$works" ] || die "the message did not come through: see /var/log/bulkhead.log and: bulkhead queue list"
say "$works: Bulkhead works."
[ -z "$password" ] || say "Account $account, password $password   (change it: bulkhead account passwd $account)"
