//! The commands of the book, run as a reader would: each page in a directory of its own, with a node to ask.
//!
//! A block that cannot run here has a comment before it that says why. `bin` stands for the programs that blocks use: it
//! starts and stops the page's node, as the text around a block says in words.

use crate::{Home, Running, config};
use soma_p2p::{FjallStore, Store};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Begins the comment before a block that is not run; its reason follows.
const NOT_RUN: &str = "<!-- not run by the test of the book: ";

/// Programs that a block may use, and a machine may lack.
const OPTIONAL: [&str; 2] = ["curl", "jq"];

/// What stands for programs in blocks.
const STAND_INS: [(&str, &str); 4] = [
    ("soma-p2p", include_str!("soma-p2p")),
    ("soma-lab", include_str!("soma-lab")),
    ("curl", include_str!("curl")),
    ("make", include_str!("make")),
];

/// Commits of the page's node, and how many make an epoch.
const COMMITS: usize = 150;
const EPOCH: u32 = 50;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// README.md, and every page of the book.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![checkout().join("README.md")];
    let mut folders = vec![checkout().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => pages.extend(path.extension().is_some_and(|extension| extension == "md").then_some(path)),
            }
        }
    }
    pages.sort();
    pages
}

/// Commands between fences.
#[derive(Debug)]
struct Block {
    /// The page and the line.
    place: String,
    commands: String,
    /// Why it is not run.
    not_run: Option<String>,
}

/// The blocks of commands of a page.
fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let begins = |line: &&str| matches!(line.trim(), "```sh" | "```console");
    let starts = lines.iter().enumerate().filter(|(_, line)| begins(line)).map(|(start, _)| start);
    starts
        .map(|start| {
            let inside = lines[start + 1..].iter().take_while(|line| line.trim() != "```");
            // What a command prints stands below it.
            let is_console = lines[start].trim() == "```console";
            let commands = inside.filter_map(|line| if is_console { line.strip_prefix("$ ") } else { Some(*line) });
            let reason = lines[start - 1].strip_prefix(NOT_RUN);
            let not_run = reason.map(|reason| reason.strip_suffix(" -->").unwrap().to_owned());
            let place = format!("{}:{}", page.strip_prefix(checkout()).unwrap().display(), start + 1);
            Block { place, commands: commands.collect::<Vec<_>>().join("\n") + "\n", not_run }
        })
        .collect()
}

fn in_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&paths).map(|path| path.join(program)).find(|file| file.is_file())
}

/// A reader of the book: a peer to name, and the programs.
struct Reader {
    /// Files of the page's node.
    template: Home,
    bin: TempDir,
    /// `PEER_ID` and `ADDRESS` of a running node of the same chain.
    peer: [String; 2],
    _peer: Running,
}

impl Reader {
    fn new() -> Self {
        let template = Home::empty(crate::PROGRAM);
        let mut chain = ChainBuilder::new(ChainSpec { commits_per_epoch: EPOCH, ..ChainSpec::default() }).unwrap();
        fs::write(template.path("genesis.bin"), chain.genesis().encode()).unwrap();
        let store = FjallStore::open(&template.path("data/store"), chain.genesis()).unwrap();
        store.apply(&chain.build(COMMITS)).unwrap();
        drop(store);
        for key in ["node.key", "peer.key"] {
            template.run(["keygen", "--out", key]).ok();
        }
        template.run(["archive", "push", "data/store", "archive"]).ok();
        let text = config("", "").replace("chain/genesis.bin", "genesis.bin");
        template.write("peer.toml", &text.replace("node.key", "peer.key").replace("\"data\"", "\"peer\""));
        let peer = template.start_node("peer.toml");
        let ready = peer.printed();
        let words: Vec<_> = ready.split_whitespace().collect();
        let ["ready:", "peer", id, "listens", "on", address, ..] = words[..] else { panic!("{ready:?}") };
        let peer_names = [id.to_owned(), address.trim_end_matches(',').to_owned()];
        // The default address of the admin endpoint may be taken.
        template.write("node.toml", &text.replace("admin = \"127.0.0.1:0\"\n", ""));
        let bin = tempfile::tempdir().unwrap();
        for (program, script) in STAND_INS {
            let path = bin.path().join(program);
            fs::write(&path, script).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { template, bin, peer: peer_names, _peer: peer }
    }

    /// A directory for a page. One that makes its own key begins with nothing.
    fn directory(&self, blocks: &[Block]) -> Directory {
        let directory = Directory { home: Home::empty(crate::PROGRAM), bin: self.bin.path().to_owned() };
        if !blocks.iter().any(|block| block.not_run.is_none() && block.commands.contains("soma-p2p keygen")) {
            let files =
                ["genesis.bin", "node.key", "node.toml", "data", "archive"].map(|name| self.template.path(name));
            let copied = Command::new("cp").arg("-r").args(files).arg(directory.home.dir.path()).status().unwrap();
            assert!(copied.success());
        }
        directory
    }

    /// What a block means here.
    fn script(&self, block: &Block) -> String {
        let [peer, address] = &self.peer;
        let meant = [
            ("PEER_ID@/ip4/192.0.2.7/tcp/9100", format!("{peer}@{address}")),
            ("PEER_ID", peer.clone()),
            ("@ADDRESS", format!("@{address}")),
            ("s3://history/soma", "archive".to_owned()),
            ("/tcp/9100", "/tcp/0".to_owned()),
        ];
        meant.iter().fold(block.commands.clone(), |text, (from, to)| text.replace(from, to))
    }
}

/// Where a page's commands run. Whatever runs there ends with it.
struct Directory {
    home: Home,
    bin: PathBuf,
}

impl Directory {
    fn bash(&self, script: &str) -> Running {
        let path = std::env::join_paths(
            [self.bin.clone()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.home.dir.path()).env("PATH", path.unwrap());
        command.env("SOMA_LAB", crate::PROGRAM).env("CHECKOUT", checkout()).env("BOOK_ADMIN", "127.0.0.1:0");
        for (name, program) in [("MAKE_PROGRAM", "make"), ("CURL", "curl")] {
            command.env(name, in_path(program).unwrap_or_default());
        }
        Running::start(&mut command)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let ended = self.bash("soma-p2p stop; [ ! -e localnet.pid ] || kill -INT $(cat localnet.pid)").wait();
        if !std::thread::panicking() {
            ended.ok();
        }
    }
}

#[test]
fn every_command_of_the_book_works_or_says_why_it_is_not_tried() {
    let reader = Reader::new();
    let (mut ran, mut lacking, mut failed) = (0, BTreeSet::new(), Vec::new());
    for page in pages() {
        let blocks = blocks(&page);
        let wanted = blocks.iter().filter(|block| block.not_run.is_none()).collect::<Vec<_>>();
        if wanted.is_empty() {
            continue;
        }
        let directory = reader.directory(&blocks);
        for block in wanted {
            let lacks = |program: &&&str| block.commands.contains(**program) && in_path(program).is_none();
            if let Some(program) = OPTIONAL.iter().find(lacks) {
                lacking.insert(*program);
                continue;
            }
            let finished = directory.bash(&reader.script(block)).wait();
            if finished.code() != 0 {
                failed.push(format!("{}: {}\n{finished:#?}", block.place, block.commands));
            }
            ran += 1;
        }
    }
    println!("{ran} blocks ran; skipped those that need: {lacking:?}");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(ran > 60, "{ran}");
}

/// Commands in a text: between backticks, beginning with a program of this project.
fn commands_between_backticks(text: &str) -> BTreeSet<&str> {
    let spans =
        text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| span.starts_with("soma-p2p ") || span.starts_with("soma-lab ")).collect()
}

#[test]
fn every_command_that_the_text_names_exists_with_its_options() {
    let home = Home::empty(crate::PROGRAM);
    let texts: Vec<_> = pages().iter().map(|page| fs::read_to_string(page).unwrap()).collect();
    let commands: BTreeSet<_> = texts.iter().flat_map(|text| commands_between_backticks(text)).collect();
    assert!(commands.len() > 40, "{commands:?}");
    for command in commands {
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        let is_subcommand = |word: &&&str| {
            !word.starts_with('-') && word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-')
        };
        // `control --config FILE COMMAND` has its own subcommand behind its options.
        let names: Vec<_> = match words[..] {
            ["control", "--config", _, inner, ..] => {
                ["control", inner].into_iter().filter(|word| is_subcommand(&word)).collect()
            }
            _ => words.iter().take_while(is_subcommand).copied().collect(),
        };
        let help = home.run(names.iter().copied().chain(["--help"])).ok();
        for option in words.iter().filter(|word| word.starts_with("--") && **word != "--config") {
            assert!(help.contains(option), "`{command}`: {names:?} has no {option}\n{help}");
        }
    }
}
