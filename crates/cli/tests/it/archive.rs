//! `archive` copies history between stores and object storage: an S3 server in this process, with real HTTP and real
//! signatures, and a directory.

use crate::{Home, stored};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use soma_p2p::{FjallStore, Store};
use soma_testkit::{
    ChainBuilder, ChainSpec,
    command::{Finished, Running},
};
use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Runtime};

const ACCESS_KEY: &str = "AKIDTESTACCESSKEY";
const SECRET_KEY: &str = "a-secret-that-no-output-may-have";
const BUCKET: &str = "history";

/// Commits in an epoch, and in the store.
const EPOCH: u32 = 100;
const COMMITS: usize = 250;

/// What the server does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The first requests get status 503.
    Unavailable(usize),
    /// The first connections are closed without an answer.
    Cut(usize),
    /// Each answer takes this long.
    Slow(Duration),
    /// Objects end in the middle.
    Truncates,
    /// A bit of each object is flipped.
    Flips,
}

/// An S3 server.
struct S3 {
    _runtime: Runtime,
    address: SocketAddr,
    objects: PathBuf,
    requests: Arc<AtomicUsize>,
}

impl S3 {
    /// Serves a directory of `home`.
    fn start(home: &Home, fault: Fault) -> Self {
        let objects = home.path("s3");
        fs::create_dir_all(objects.join(BUCKET)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(&objects).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        runtime.spawn(async move {
            let mut connections = 0;
            while let Ok((socket, _)) = listener.accept().await {
                connections += 1;
                if matches!(fault, Fault::Cut(first) if connections <= first) {
                    continue;
                }
                let (service, counted) = (service.clone(), counted.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (service, number) = (service.clone(), counted.fetch_add(1, Ordering::Relaxed));
                    async move { Ok::<_, Infallible>(answer(service, request, number, fault).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
            }
        });
        Self { _runtime: runtime, address, objects: objects.join(BUCKET), requests }
    }

    /// Runs the command with the settings of this server.
    fn run(&self, home: &Home, secret: &str, args: &[&str]) -> Finished {
        self.start_command(home, secret, args).wait()
    }

    fn start_command(&self, home: &Home, secret: &str, args: &[&str]) -> Running {
        let mut command = home.command(args);
        command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_ENDPOINT", format!("http://{}", self.address))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1");
        Running::start(&mut command)
    }
}

async fn answer(
    service: s3s::service::S3Service,
    request: Request<Incoming>,
    number: usize,
    fault: Fault,
) -> Response<Full<hyper::body::Bytes>> {
    match fault {
        Fault::Unavailable(first) if number < first => {
            return Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Full::default()).unwrap();
        }
        Fault::Slow(time) => tokio::time::sleep(time).await,
        _ => {}
    }
    // A listing has a query.
    let is_object = request.method() == "GET" && request.uri().query().is_none();
    let answer = service.call(request.map(s3s::Body::from)).await.unwrap();
    let (head, body) = answer.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    match fault {
        Fault::Truncates if is_object => body.truncate(body.len() / 2),
        Fault::Flips if is_object => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        _ => {}
    }
    Response::from_parts(head, Full::from(body))
}

const URL: &str = "s3://history/soma";

fn push(server: &S3, home: &Home) -> serde_json::Value {
    server.run(home, SECRET_KEY, &["archive", "push", "store", URL, "--json"]).json()
}

fn pull(server: &S3, home: &Home) -> Finished {
    server.run(home, SECRET_KEY, &["archive", "pull", URL, "--genesis", "genesis.bin", "new", "--json"])
}

/// Both stores of `home` hold the same chain.
fn assert_equal_stores(home: &Home) {
    let [old, new] = ["store", "new"].map(|name| FjallStore::open_existing(&home.path(name)).unwrap());
    assert_eq!(old.watermarks().unwrap(), new.watermarks().unwrap());
    for index in 1..=COMMITS as u32 {
        assert_eq!(old.sub_dag(index).unwrap(), new.sub_dag(index).unwrap());
    }
    assert_eq!(
        old.epoch_proof(1).unwrap().map(|proof| proof.commit),
        new.epoch_proof(1).unwrap().map(|proof| proof.commit)
    );
}

#[test]
fn new_store_gets_from_s3_what_another_store_pushed() {
    let home = stored(COMMITS, EPOCH);
    let server = S3::start(&home, Fault::None);
    let pushed = push(&server, &home);
    assert_eq!((&pushed["commits"], &pushed["segments"], &pushed["last"]), (&250.into(), &3.into(), &250.into()));
    let again = push(&server, &home);
    assert_eq!((&again["commits"], &again["last"]), (&0.into(), &250.into()), "everything is there");

    let listed = server.run(&home, SECRET_KEY, &["archive", "ls", URL, "--json"]).json();
    let epochs: Vec<_> = listed["epochs"].as_array().unwrap().iter().map(|epoch| epoch["last"].clone()).collect();
    assert_eq!(epochs, [100, 200, 250]);
    let verified = server.run(&home, SECRET_KEY, &["archive", "verify", URL, "--genesis", "genesis.bin", "--json"]);
    assert_eq!(verified.json()["commits"], 250);
    assert_eq!(pull(&server, &home).json()["commits"], 250);
    assert_equal_stores(&home);
    assert_eq!(pull(&server, &home).json()["commits"], 0, "nothing is new");
}

#[test]
fn server_that_fails_for_a_while_is_tried_again() {
    for fault in [Fault::Unavailable(3), Fault::Cut(2), Fault::Slow(Duration::from_millis(200))] {
        let home = stored(COMMITS, EPOCH);
        let server = S3::start(&home, fault);
        assert_eq!(push(&server, &home)["commits"], 250, "{fault:?}");
        assert_eq!(pull(&server, &home).json()["commits"], 250, "{fault:?}");
        assert_equal_stores(&home);
        assert!(server.requests.load(Ordering::Relaxed) > 6);
    }
}

#[test]
fn object_that_is_not_what_was_written_is_named_and_never_stored() {
    for (fault, parts) in [(Fault::Flips, "checksum"), (Fault::Truncates, "cannot read")] {
        let home = stored(COMMITS, EPOCH);
        let whole = S3::start(&home, Fault::None);
        push(&whole, &home);
        let server = S3::start(&home, fault);
        let error = pull(&server, &home).failed(&[parts, "0000000000/0000000001-0000000100"]);
        assert!(!error.contains(SECRET_KEY), "{error}");
        let new = FjallStore::open_existing(&home.path("new")).unwrap();
        assert_eq!(new.watermarks().unwrap().highest_synced.index, 0, "{fault:?}");
    }
}

#[test]
fn missing_object_is_a_gap_and_everything_before_it_is_stored() {
    let home = stored(COMMITS, EPOCH);
    let server = S3::start(&home, Fault::None);
    push(&server, &home);
    let chain = fs::read_dir(server.objects.join("soma")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(chain.join("0000000001/0000000101-0000000200")).unwrap();
    pull(&server, &home).failed(&["commit 101 of epoch 1"]);
    let height = || {
        let new = FjallStore::open_existing(&home.path("new")).unwrap();
        new.watermarks().unwrap().highest_synced.index
    };
    assert_eq!(height(), 100);
    // The store still has them, and the next push closes the gap.
    assert_eq!(push(&server, &home)["commits"], 100);
    pull(&server, &home).ok();
    assert_equal_stores(&home);
}

#[test]
fn refused_credentials_and_other_chains_are_said_so() {
    let home = stored(COMMITS, EPOCH);
    let server = S3::start(&home, Fault::None);
    let wrong = "another-secret-that-no-output-may-have";
    let error =
        server.run(&home, wrong, &["archive", "push", "store", URL]).failed(&["credentials", "s3://history/soma"]);
    assert!(!error.contains(wrong) && !error.contains(ACCESS_KEY), "{error}");
    push(&server, &home);
    let other = ChainBuilder::new(ChainSpec { seed: 7, ..ChainSpec::default() }).unwrap();
    fs::write(home.path("genesis.bin"), other.genesis().encode()).unwrap();
    pull(&server, &home).failed(&["has nothing of chain", &other.chain_id().to_string(), "it has "]);
    assert!(!home.path("new").exists(), "no store is made for nothing");
}

#[test]
fn place_that_is_no_archive_is_refused_with_the_forms() {
    let home = stored(COMMITS, EPOCH);
    home.run(["archive", "ls", "nothing"]).refused(&["nothing: there is no such directory"]);
    home.run(["archive", "push", "store", "ftp://host/path"]).refused(&["ftp://host/path", "s3://BUCKET/PATH"]);
    for place in ["https://user:word@host/path", "https://host/path?sig=word"] {
        let error = home.run(["archive", "ls", place]).refused(&["credentials come from the environment"]);
        assert!(!error.contains("word"), "{error}");
    }
}

#[test]
fn node_without_peers_syncs_from_s3_and_prints_no_credentials() {
    let home = stored(COMMITS, EPOCH);
    let server = S3::start(&home, Fault::Slow(Duration::from_millis(5)));
    push(&server, &home);
    home.run(["keygen", "--out", "node.key"]).ok();
    let config = "data_dir = \"data\"\ngenesis = \"genesis.bin\"\nkey = \"node.key\"\nadmin = \"127.0.0.1:0\"\n\n\
                  [p2p]\nlisten = \"/ip4/127.0.0.1/tcp/0\"\n\n\
                  [p2p.archive]\nplace = \"s3://history/soma\"\nread = \"first\"\n";
    home.write("node.toml", config);
    let node = server.start_command(&home, SECRET_KEY, &["node", "--config", "node.toml"]);
    node.until("it is ready", |output| output.stdout.contains("ready"));
    let reached = format!("height     {COMMITS} of {COMMITS}");
    let mut last = String::new();
    // Far more often than a sync of so few commits takes.
    for _ in 0..2_000 {
        last = home.run(["status", "--config", "node.toml"]).stdout;
        if last.contains(&reached) {
            break;
        }
    }
    assert!(last.contains(&reached), "{last}");
    let archive = last.lines().find(|line| line.starts_with("archive")).unwrap_or_else(|| panic!("{last}"));
    assert!(archive.contains("s3://history/soma") && archive.contains("segments read"), "{archive}");
    let stopped = node.stop("TERM");
    for output in [&stopped.stdout, &stopped.stderr, &last] {
        assert!(!output.contains(SECRET_KEY) && !output.contains(ACCESS_KEY), "{output}");
    }
}
