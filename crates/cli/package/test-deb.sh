#!/usr/bin/env bash
# Installs a Debian package in a fresh root file system and runs its service there, as systemd would: the service's
# user, no privileges, NOTIFY_SOCKET, SIGTERM. test-deb.sh PACKAGE LAB
# LAB is the program soma-lab: its network gives the node a history that a restart could lose.
# ROOT, if set, is a root file system to use instead of a new one.
set -euo pipefail
deb=$1 lab=$2
[ "$(id -u)" = 0 ] || { echo "test-deb needs root: it uses chroot"; exit 1; }
for tool in debootstrap chroot socat curl; do
    command -v $tool > /dev/null || { echo "test-deb needs $tool: apt-get install debootstrap socat curl"; exit 1; }
done

work=$(mktemp -d)
root=${ROOT:-$work/root}
children=()
clean_up() {
    code=$?
    [ $code = 0 ] || tail -n 20 "$work"/*.log >&2
    for child in "${children[@]}"; do kill "$child" 2> /dev/null || true; done
    wait
    umount "$root/proc" 2> /dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
fail() { echo "test-deb: $*" >&2; exit 1; }
# A command that must hold within two minutes.
eventually() {
    for _ in $(seq 600); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done
    fail "waited in vain for: $*"
}

if [ ! -d "$root/usr" ]; then
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
    debootstrap --variant=minbase --include=adduser "$suite" "$root" "$mirror" > "$work/debootstrap.log"
fi
mount -t proc proc "$root/proc"
cp "$deb" "$root/soma-p2p.deb"
chroot "$root" dpkg --install /soma-p2p.deb
for file in /lib/systemd/system/soma-p2p.service /etc/soma-p2p/node.toml /usr/share/man/man1/soma-p2p.1.gz \
    /usr/share/bash-completion/completions/soma-p2p; do
    [ -s "$root$file" ] || fail "the package has no $file"
done
[ "$(chroot "$root" stat -c %U:%a /var/lib/soma-p2p)" = soma-p2p:750 ] || fail "/var/lib/soma-p2p has another owner or mode"

# What the unit says: its user, no capabilities, no new privileges.
as_service() {
    exec chroot "$root" setpriv --reuid soma-p2p --regid soma-p2p --init-groups --no-new-privs --bounding-set=-all \
        --inh-caps=-all "$@"
}

# A chain with 200 commits, and validators that serve it.
"$lab" localnet --commits 200 --full-nodes 1 --seconds 900 --dir "$work/localnet" > "$work/localnet.log" 2>&1 &
children+=($!)
seed_config="$work/localnet/full-node-0/node.toml"
eventually grep -q seed_peers "$seed_config"
cp "$work/localnet/full-node-0/genesis.bin" "$root/etc/soma-p2p/"
chmod 644 "$root/etc/soma-p2p/genesis.bin"
(as_service soma-p2p keygen --out /var/lib/soma-p2p/node.key)
# The template, with the test's seed, and ports that the system chooses, on loopback.
sed -i 's/^admin = .*/admin = "127.0.0.1:0"/; s/^listen = .*/listen = "\/ip4\/127.0.0.1\/tcp\/0"/' "$root/etc/soma-p2p/node.toml"
grep seed_peers "$seed_config" >> "$root/etc/soma-p2p/node.toml"

notices=$work/notices.txt
socat -u UNIX-RECV:"$root/var/lib/soma-p2p/notify" OPEN:"$notices",creat,append &
children+=($!)
eventually test -S "$root/var/lib/soma-p2p/notify"
chmod 666 "$root/var/lib/soma-p2p/notify"
command=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/soma-p2p.service")
start() {
    : > "$notices"
    # shellcheck disable=SC2086
    (NOTIFY_SOCKET=/var/lib/soma-p2p/notify WATCHDOG_USEC=3000000 as_service $command) > "$work/node.log" 2>&1 &
    node=$!
    children+=("$node")
    eventually grep -q READY=1 "$notices"
    admin=$(sed -n 's/.*"admin": "\([^"]*\)".*/\1/p' "$root/var/lib/soma-p2p/data/run.json")
    eventually grep -q WATCHDOG=1 "$notices"
    [ "$(stat -c %U "/proc/$node")" != root ] || fail "the node runs as root"
    eventually curl --fail --silent "http://$admin/livez"
    eventually curl --fail --silent "http://$admin/readyz"
}
stop() {
    kill -TERM "$node"
    code=0
    wait "$node" || code=$?
    [ $code = 0 ] || fail "SIGTERM ended the node with exit code $code"
    grep -q STOPPING=1 "$notices" || fail "the node did not send STOPPING=1"
}
# "height" of the executor and of the store, from /status.
height() { curl --fail --silent "http://$admin/status" | sed -n 's/.*"height":\([0-9]*\).*/\1/p'; }
has() { [ "$(height)" -ge "$1" ]; }

start
eventually has 200
stored=$(height)
stop
# Nobody can give it anything now: what it has then is what it kept.
kill -INT "${children[0]}" && wait "${children[0]}" || true
start
kept=$(height)
[ "$kept" -ge "$stored" ] || fail "it had $stored commits, and $kept after a restart"
stop
store=/var/lib/soma-p2p/data/store
(as_service soma-p2p store verify "$store")
chroot "$root" dpkg --purge soma-p2p
[ ! -e "$root/usr/bin/soma-p2p" ] && [ -s "$root/var/lib/soma-p2p/node.key" ] || fail "a purge leaves the key and nothing else"
echo "ok: installed, ran as soma-p2p, had $stored commits, kept $kept after a restart"
