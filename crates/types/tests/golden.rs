//! The wire format, pinned: encodings, digests and signatures of fixed values. If a test fails here, nodes of this
//! version cannot talk to nodes of the previous version, read their stores, or verify their chain.

use bytes::Bytes;
use soma_types::{
    Access, Author, Authority, AuthoritySignature, Block, BlockBodyDigest, BlockDigest, BlockRef, Capabilities,
    Certificate, CertificateDigest, ChainId, Commit, CommitDigest, CommitRef, Committee, CommitteeDigest, EndOfEpoch,
    Genesis, Intent, Message, MessageId, NodeInfo, NodeInfoDigest, NodeRole, PeerId, ProtocolVersions, PublicKey,
    QuorumSignatures, Scope, Signature, Signed, SignedBlock, SignedMessage, SignedNodeInfo, SignedTransaction,
    SigningKey, Topic, Transaction, TransactionBytes, TransactionDigest, TrustedCommit, codec, epoch_genesis_refs,
};

const CHAIN: ChainId = ChainId([0xc1; 32]);
const REF: BlockRef = BlockRef { epoch: 1, round: 2, author: 3, digest: BlockDigest([4; 32]) };

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn committee(epoch: u64) -> Committee {
    let authority = |seed: u8| Authority {
        stake: u64::from(seed) * 10,
        protocol_key: PublicKey::from(&key(seed)),
        network_key: PublicKey::from(&key(seed + 100)),
        address: format!("/ip4/10.0.0.{seed}/tcp/9000").parse().unwrap(),
    };
    Committee { epoch, authorities: vec![authority(1), authority(2)] }
}

fn quorum() -> QuorumSignatures {
    let one = |authority, byte| AuthoritySignature { authority, signature: Signature([byte; 64]) };
    QuorumSignatures { signatures: vec![one(0, 0xa0), one(1, 0xa1)] }
}

fn signed_transaction() -> SignedTransaction {
    let transaction = Transaction { sender: PublicKey::from(&key(50)), nonce: 7, payload: b"pay".to_vec() };
    let intent = Intent { scope: Scope::Transaction, chain: CHAIN };
    SignedTransaction { signature: intent.sign(&key(50), &transaction.digest().0), transaction }
}

fn certificate() -> Certificate {
    Certificate { epoch: 5, signed_transaction: signed_transaction(), quorum: quorum() }
}

fn block() -> Block {
    Block {
        epoch: 1,
        round: 3,
        author: 3,
        timestamp_ms: 1_700_000_000_123,
        ancestors: vec![REF],
        transactions: vec![TransactionBytes(Bytes::from_static(b"\x01\x02\x03"))],
        commit_votes: vec![CommitRef { index: 9, digest: CommitDigest([8; 32]) }],
        end_of_epoch: Some(EndOfEpoch { next_committee: committee(2), certificate: quorum() }),
    }
}

fn commit() -> Commit {
    Commit {
        index: 10,
        previous_digest: CommitDigest([8; 32]),
        timestamp_ms: 1_700_000_000_123,
        leader: REF,
        blocks: vec![BlockRef { round: 1, ..REF }, REF],
        epoch: 1,
    }
}

fn node_info() -> NodeInfo {
    NodeInfo {
        peer_id: PeerId::from(&key(60)),
        addresses: vec!["/dns/node.example/tcp/9000".parse().unwrap(), "/ip6/::1/tcp/1".parse().unwrap()],
        chain_id: CHAIN,
        timestamp_ms: 1_700_000_000_456,
        protocol_versions: ProtocolVersions { min: 1, max: 2 },
        capabilities: Capabilities { role: NodeRole::FullNode, archive: true, lowest_commit: 1 },
        access: Access::Trusted,
    }
}

fn message(topic: Topic, author: Author) -> Message {
    Message { topic, epoch: 0x0102, author, payload: Bytes::from_static(b"proposal") }
}

/// Hex hash of `bytes` that are too long to compare literally.
fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn node_info_without_the_lowest_commit_is_refused() {
    let signed = Signed::sign(node_info(), CHAIN, &key(60)).bytes().to_vec();
    // The body ends with the lowest commit and the access, 4 bytes each.
    let lowest = signed.len() - 64 - 8;
    let older = [&signed[..lowest], &signed[lowest + 4..]].concat();
    assert!(SignedNodeInfo::decode_bounded(older.into()).is_err());
    assert!(SignedNodeInfo::decode_bounded(signed.into()).is_ok());
}

#[test]
fn integers_are_little_endian_and_of_fixed_width() {
    let reference = BlockRef { epoch: 0x0102, round: 3, author: 4, digest: BlockDigest([0xdd; 32]) };
    let expected = format!("{}{}{}{}", "0201000000000000", "03000000", "04000000", "dd".repeat(32));
    assert_eq!(hex::encode(codec::encode(&reference)), expected);
    assert_eq!(codec::encode(&reference).len(), BlockRef::BYTES);
}

#[test]
fn block_is_its_fields_in_order_then_the_signature() {
    let bare = Block { ancestors: vec![], transactions: vec![], commit_votes: vec![], end_of_epoch: None, ..block() };
    let signed = Signed::with_signature(bare, Signature([0x55; 64]));
    let fields = [
        "0100000000000000", // epoch
        "03000000",         // round
        "03000000",         // author
        "7b68e5cf8b010000", // timestamp
        "0000000000000000", // ancestors: none
        "0000000000000000", // transactions: none
        "0000000000000000", // commit votes: none
        "00",               // end of epoch: absent
    ];
    assert_eq!(hex::encode(signed.bytes()), fields.concat() + &"55".repeat(64));
}

#[test]
fn node_info_is_its_fields_in_order() {
    let info =
        NodeInfo { peer_id: PeerId([0x11; 32]), addresses: vec!["/ip6/::1/tcp/1".parse().unwrap()], ..node_info() };
    let fields = [
        "11".repeat(32),               // peer id
        "0100000000000000".into(),     // addresses: one,
        "0e00000000000000".into(),     // of 14 bytes
        hex::encode("/ip6/::1/tcp/1"), //
        "c1".repeat(32),               // chain id
        "c869e5cf8b010000".into(),     // timestamp
        "01000000".into(),             // oldest version
        "02000000".into(),             // newest version
        "01000000".into(),             // role: full node
        "01".into(),                   // archive
        "01000000".into(),             // lowest commit
        "01000000".into(),             // access: trusted
    ];
    assert_eq!(hex::encode(codec::encode(&info)), fields.concat());
}

#[test]
fn intent_message_is_scope_version_chain_and_digest() {
    let scopes =
        [Scope::Block, Scope::NodeInfo, Scope::Transaction, Scope::Certificate, Scope::NextCommittee, Scope::Message];
    for (number, scope) in (0u8..).zip(scopes) {
        let message = Intent { scope, chain: CHAIN }.message(&[0xee; 32]);
        let expected = format!("{number:02x}01{}{}", "c1".repeat(32), "ee".repeat(32));
        assert_eq!(hex::encode(message), expected, "{scope:?}");
    }
}

#[test]
fn digests_of_one_input_differ_by_kind() {
    let digests = [
        BlockBodyDigest::of(&[b"soma"]).to_string(),
        BlockDigest::of(&[b"soma"]).to_string(),
        CommitDigest::of(&[b"soma"]).to_string(),
        CommitteeDigest::of(&[b"soma"]).to_string(),
        NodeInfoDigest::of(&[b"soma"]).to_string(),
        TransactionDigest::of(&[b"soma"]).to_string(),
        CertificateDigest::of(&[b"soma"]).to_string(),
        ChainId::of(&[b"soma"]).to_string(),
        MessageId::of(&[b"soma"]).to_string(),
    ];
    assert_eq!(digests, GOLDEN_DIGESTS);
}

#[test]
fn encodings_of_every_kind_are_unchanged() {
    let genesis = Genesis::new("golden", 1_700_000_000_000, committee(0)).unwrap();
    let encodings = [
        ("block", hash(&codec::encode(&block()))),
        ("commit", hash(&codec::encode(&commit()))),
        ("committee", hash(&codec::encode(&committee(2)))),
        ("certificate", hash(&codec::encode(&certificate()))),
        ("node info", hash(&codec::encode(&node_info()))),
        ("genesis", hash(&genesis.encode())),
    ];
    assert_eq!(encodings.each_ref().map(|(what, hash)| (*what, hash.as_str())), GOLDEN_ENCODINGS);
}

#[test]
fn references_of_every_kind_are_unchanged() {
    let genesis = Genesis::new("golden", 1_700_000_000_000, committee(0)).unwrap();
    let names = [
        ("block", SignedBlock::sign(block(), CHAIN, &key(1)).reference().digest.to_string()),
        ("epoch genesis block", epoch_genesis_refs(1, 4)[3].digest.to_string()),
        ("commit", TrustedCommit::assume_trusted(commit()).reference().digest.to_string()),
        ("genesis commit", genesis.commit().reference().digest.to_string()),
        ("committee", committee(2).digest().to_string()),
        ("transaction", signed_transaction().transaction.digest().to_string()),
        ("certificate", Certificate::signed_digest(5, &signed_transaction()).to_string()),
        ("chain", genesis.chain_id().to_string()),
    ];
    assert_eq!(names.each_ref().map(|(what, name)| (*what, name.as_str())), GOLDEN_NAMES);
}

#[test]
fn signatures_of_every_kind_are_unchanged() {
    let next = Intent { scope: Scope::NextCommittee, chain: CHAIN };
    let certify = Intent { scope: Scope::Certificate, chain: CHAIN };
    let vouched = Certificate::signed_digest(5, &signed_transaction());
    let signatures = [
        ("block", *SignedBlock::sign(block(), CHAIN, &key(1)).signature()),
        ("node info", *Signed::sign(node_info(), CHAIN, &key(60)).signature()),
        ("transaction", signed_transaction().signature),
        ("certificate", certify.sign(&key(1), &vouched.0)),
        ("next committee", next.sign(&key(1), &committee(2).digest().0)),
    ];
    let hex = signatures.map(|(what, signature)| (what, hex::encode(signature.0)));
    assert_eq!(hex.each_ref().map(|(what, signature)| (*what, signature.as_str())), GOLDEN_SIGNATURES);
}

#[test]
fn message_id_covers_topic_epoch_author_and_payload() {
    let of_authority = message(Topic::Consensus, Author::Authority(0x0304));
    let parts = ["01", "0201000000000000", "00", "04030000", &hex::encode("proposal")].concat();
    assert_eq!(of_authority.id(), MessageId::of(&[&hex::decode(parts).unwrap()]));
    let of_peer = message(Topic::Transactions, Author::Peer(PeerId([0x11; 32])));
    let parts = ["03", "0201000000000000", "01", &"11".repeat(32), &hex::encode("proposal")].concat();
    assert_eq!(of_peer.id(), MessageId::of(&[&hex::decode(parts).unwrap()]));
}

#[test]
fn ids_and_signatures_of_messages_are_unchanged() {
    let authors = [Author::Authority(3), Author::Authority(3), Author::Peer(PeerId::from(&key(60)))];
    let messages = Topic::ALL.into_iter().zip(authors).map(|(topic, author)| message(topic, author));
    let signed: Vec<_> = messages.map(|message| message.sign(CHAIN, &key(60))).collect();
    let hex: Vec<_> = signed.iter().map(|it| (it.id().to_string(), hex::encode(it.signature().0))).collect();
    let hex: Vec<_> = hex.iter().map(|(id, signature)| (id.as_str(), signature.as_str())).collect();
    assert_eq!(hex, GOLDEN_MESSAGES);
}

#[test]
fn messages_hashed_side_by_side_have_the_ids_of_each_alone() {
    let lengths = [0, 1, 7, 511, 512, 983, 984, 1_024, 5_000, 8_192, 8_193, 100_000];
    let messages: Vec<_> = (0..200)
        .map(|number: u32| {
            let author =
                if number.is_multiple_of(3) { Author::Authority(number) } else { Author::Peer(PeerId([9; 32])) };
            let payload = vec![number as u8; lengths[number as usize % lengths.len()]].into();
            let topic = Topic::ALL[number as usize % 3];
            (Message { topic, epoch: u64::from(number), author, payload }, Signature([number as u8; 64]))
        })
        .collect();
    let alone: Vec<_> = messages.iter().cloned().map(|(message, it)| SignedMessage::new(message, it)).collect();
    assert_eq!(SignedMessage::new_each(messages), alone);
    assert_eq!(SignedMessage::new_each(Vec::new()), []);
}

const GOLDEN_DIGESTS: [&str; 9] = [
    "e9f586fbfa03051b4ad589f5dcb988f92584681f2ae76908638b5f2c1cf7c58d",
    "5a5689a38fc6488935df3c006c14931c92e3467332086480605f4dec90a74942",
    "f61370b1b385aff8bc05f000b47750ce4aefc07ef6c3d66e98335579de8628a6",
    "b3485d7ba39c539008e653101eeecd388a333a8407fe89b7adfe0705884ae8ec",
    "d072ea170c5217bbf5543218b22839ceb3b8de740fca125d1733ac00002a21c3",
    "0d7a1c2698924b0588ad2a5d3e380ac18c9412307ad96d804e0e7760802460d8",
    "140f57aa548668f188464193c7763b61dae6d6c356c6c329f8b4f153341f413a",
    "5db38403fe1ba7614f3ef8746065308d472b402cb06fa1e378cfa021556fca80",
    "bb54119a1fba0eeb9e56f797082d8a3384deadd8c934fb3c99918f16bed96ddd",
];
const GOLDEN_ENCODINGS: [(&str, &str); 6] = [
    ("block", "6beba332fa512e28e54c1a750a5b5d6363349867545c1bc0dbe0073317591222"),
    ("commit", "eed4c165c9902d11ee4ca07513aa12626e1e13925f7aa3e97e33f9752424a55a"),
    ("committee", "74114340f42a61996ab2914ac3ad1342223b50e7b6ce3a9c7c0ec80a36068ec0"),
    ("certificate", "0a1185ebec0c9ef61072e8beee795f73953ffb9839e48df951568bb5d43a6933"),
    ("node info", "95935f43662bc9fde43fd51c851358afbc448ed38eedc62cfa2e85ba2e7a3c84"),
    ("genesis", "0e1d11cd9fd053dfaef7de5640c38e87f34459419cf87c779d17ad3c68d0fcea"),
];
const GOLDEN_NAMES: [(&str, &str); 8] = [
    ("block", "00296135cf453837e2db850127f0bbc65b826d6689da3ddbcc31e17a913ac4f5"),
    ("epoch genesis block", "06750e7fa7b82cd64952483b1bb91f387e1cfa622f639753dad10f8f07538831"),
    ("commit", "93c7cc3f7bca15778f1b4f8fef5ab6fcbe3251b3102a7ed09d086d98f320acfa"),
    ("genesis commit", "a07b93767792c1b87a7b4e5a5ed1b2033e73e2755a589bc6b81f9079db4ddac5"),
    ("committee", "9d9e5a57ba29661152184c469ec70236ebbd7fbbccaabf4d6a1c63dbebd9a473"),
    ("transaction", "ebe3ff31ac94b0c8d2b680198844ab6d14bac683dc1421ad3feba4543490bd23"),
    ("certificate", "0c4af807078ad3ce6a78ad84a7b5475a5fa416162afc35b2cd38fd5f25c1ff01"),
    ("chain", "562ac6ecef8d3eacfc0877e2d803ffebf9382658676f9b11dcca10a1a1191b46"),
];
const GOLDEN_SIGNATURES: [(&str, &str); 5] = [
    (
        "block",
        "87272f18046df793ba7af14f90afc756a10258c4c65bab97fdd4ecc76efb57b0ad57e3525d31569b27433bfb7a090e0c534ceefe2dd51a7053c36831ee53e10b",
    ),
    (
        "node info",
        "c60c25783a86a65d75e1a0b23d002587e388b328166a93856c56c07f54464975508972861440539d1237e70979ad1bd8b0b13d0f1d8886121fb0752d65cad701",
    ),
    (
        "transaction",
        "5ecb96fbb91dbc70f773e3086b965b06435ceefc596626e9bc1dc0da6c4c5349b3d04206708c9367d4c082762566795a4870e4c519993c6743648ac923a35d04",
    ),
    (
        "certificate",
        "c106509bd6d752df21e82c03be28c66294d74d720ef2bad1e9726f8421371b80bb0c5f891bd999a539426f6bf24ff93ffa9daaffa8061e0252f16a141908890a",
    ),
    (
        "next committee",
        "eae42183d6e1ac11935cbaa963c5a7b739e67b8a26a927ea3e67c90b7cae14f69f7259f0ce309e732a76afdf5a2f09ad55d771986123c430043d313630010305",
    ),
];
const GOLDEN_MESSAGES: [(&str, &str); 3] = [
    (
        "2c9ab43a252e52cb0e67f114d1706399ad65d38f2db13068af44284a371396f0",
        "30ad55dd6ace359bc2c66329c9623a22099bec126a71b99124258aa3044e267dc587c556c205a708c9c47813800959abaf4ad898cdc55522c2ab30796cfa2509",
    ),
    (
        "c3d14a47a18ffe20f5e3d745648325d4dc496f872efb9e4a0d698711d293963b",
        "9dbcf6ab39b6dc1b2ccc9957e3c7b991f64e41e6d83ff4db4694d95326b8dd691ae2667c6551d5fe775738bf2f206d458c90ea034a4c5d4b77cf09bab647fc04",
    ),
    (
        "1eef69b1465d73f66345da17bb6fe5ec237bfe35e951201a235f330a6602c314",
        "1219bff399a043b48a7be5cca9e6cda259b6f66fb353dec12d8077f2a8b6041be7caac6541792c64c26648356fc64157a266229a351f42dbabcaefbcf95e0905",
    ),
];
