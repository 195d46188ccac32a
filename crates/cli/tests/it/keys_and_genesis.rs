//! What `keygen` and `genesis` write.

use crate::Home;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

fn mode(home: &Home, file: &str) -> u32 {
    fs::metadata(home.path(file)).unwrap().permissions().mode() & 0o777
}

#[test]
fn keygen_writes_a_key_for_its_owner_only_and_prints_its_peer_id() {
    let home = Home::empty(crate::PROGRAM);
    let peer_id = home.run(["keygen", "--out", "node.key"]).ok();
    assert_eq!(mode(&home, "node.key"), 0o600);
    let digits = peer_id.trim_end();
    assert!(digits.len() == 64 && digits.chars().all(|digit| digit.is_ascii_hexdigit()), "{peer_id}");
    let other = home.run(["keygen", "--out", "other.key"]).ok();
    assert_ne!(peer_id, other);
}

#[test]
fn keygen_never_overwrites() {
    let home = Home::empty(crate::PROGRAM);
    home.run(["keygen", "--out", "node.key"]).ok();
    home.refuses(&["keygen", "--out", "node.key"], &["key file node.key cannot be written", "exists"]);
    home.refuses(&["keygen", "--out", "absent/node.key"], &["key file absent/node.key", "No such file"]);
}

#[test]
fn genesis_writes_the_chain_and_two_keys_for_each_validator() {
    let home = Home::empty(crate::PROGRAM);
    let addresses = "/ip4/192.0.2.1/tcp/9000,/dns/two.example/tcp/9000,/ip6/::1/tcp/9000";
    let args = ["genesis", "--out", "chain", "--validators", "3", "--stakes", "5,1,2", "--addresses", addresses];
    let printed = home.run(args).ok();
    assert_eq!(printed.lines().filter(|line| line.starts_with("validator ")).count(), 3, "{printed}");
    let names: BTreeSet<_> =
        fs::read_dir(home.path("chain")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut expected = BTreeSet::from(["genesis.bin".into()]);
    for index in 0..3 {
        for kind in ["network", "protocol"] {
            let name = format!("validator-{index}.{kind}.key");
            assert_eq!(mode(&home, &format!("chain/{name}")), 0o600);
            expected.insert(name.into());
        }
    }
    assert_eq!(names, expected);
    let genesis = soma_p2p::Genesis::decode(&fs::read(home.path("chain/genesis.bin")).unwrap()).unwrap();
    assert!(printed.starts_with(&format!("chain {}\n", genesis.chain_id())), "{printed}");
    let authorities = &genesis.committee().authorities;
    assert_eq!(authorities.iter().map(|authority| authority.stake).collect::<Vec<_>>(), [5, 1, 2]);
    let listed: Vec<_> = authorities.iter().map(|authority| authority.address.as_str()).collect();
    assert_eq!(listed.join(","), addresses);
}

#[test]
fn genesis_refuses_bad_counts_and_stakes_without_a_committee() {
    let home = Home::empty(crate::PROGRAM);
    let genesis = |more: &[&'static str]| [&["genesis", "--out", "chain"], more].concat();
    home.refuses(&genesis(&["--stakes", "1,2"]), &["2 stakes for 4 validators"]);
    home.refuses(&genesis(&["--addresses", "/ip4/192.0.2.1/tcp/9000"]), &["1 addresses for 4 validators"]);
    home.refuses(&genesis(&["--validators", "2", "--stakes", "1,0"]), &["stake"]);
    let longest = u64::MAX.to_string();
    let stakes = format!("{longest},{longest}");
    home.refuses(&["genesis", "--out", "chain", "--validators", "2", "--stakes", &stakes], &["stake"]);
    for count in ["0", "1001", "many"] {
        let refused = home.run(genesis(&["--validators", count]));
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains("--validators"), "{refused:?}");
    }
    assert!(home.files().is_empty());
}

#[test]
fn genesis_writes_nothing_where_any_of_its_files_is() {
    let home = Home::empty(crate::PROGRAM);
    let args = ["genesis", "--out", "."];
    home.write("validator-2.network.key", "somebody's");
    home.refuses(&args, &["validator-2.network.key is there already"]);
    fs::remove_file(home.path("validator-2.network.key")).unwrap();
    home.run(args).ok();
    home.refuses(&args, &["is there already"]);
}
