#!/bin/sh
# Makes a chain with four validators and a configuration for each, once. make-chain.sh DIRECTORY
# P2P_PORTS and ADMIN_PORTS have a port for each node.
set -eu
directory=$1
set -- ${P2P_PORTS:-9100 9101 9102 9103}
p2p=$*
set -- ${ADMIN_PORTS:-9184 9185 9186 9187}
admin=$*
[ -e "$directory/node-3.toml" ] && exit 0

addresses=
for port in $p2p; do
    addresses="$addresses${addresses:+,}/ip4/127.0.0.1/tcp/$port"
done
# Left by a run that was killed.
rm -rf "$directory/keys"
soma-p2p genesis --out "$directory/keys" --validators 4 --addresses "$addresses" > "$directory/chain.txt"
seed=$(sed -n 's/^validator 0: peer //p' "$directory/chain.txt")@${addresses%%,*}

node=0
for port in $p2p; do
    set -- $admin
    shift $node
    cat > "$directory/node-$node.toml" <<END
data_dir = "data-$node"
genesis = "keys/genesis.bin"
key = "keys/validator-$node.network.key"
admin = "127.0.0.1:$1"

[p2p]
listen = "/ip4/127.0.0.1/tcp/$port"
external_addresses = ["/ip4/127.0.0.1/tcp/$port"]
seed_peers = [$([ $node = 0 ] || echo "\"$seed\"")]
role = "validator"
END
    node=$((node + 1))
done
