//! Nodes that sync from one another, over real TLS and gRPC.

use soma_tests::{STOP, chain, config, expect_commits, mem_store, node};

#[tokio::test]
async fn a_fresh_node_fetches_every_commit_across_epochs_from_its_one_seed() {
    let (builder, commits) = chain(130);
    let genesis = builder.genesis().clone();
    let server = node(1, &genesis, mem_store(&genesis, &commits), config(&[])).start().unwrap();
    let client = node(2, &genesis, mem_store(&genesis, &[]), config(&[&server])).start().unwrap();
    expect_commits(&client, &commits).await;
    assert_eq!(client.shutdown(STOP).await.overdue, Vec::<String>::new());
    assert_eq!(server.shutdown(STOP).await.overdue, Vec::<String>::new());
}
