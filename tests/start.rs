//! What keeps a server from starting is told in one line with the remedy, and nothing is touched. Two servers never
//! write one data directory.

mod common;

use common::{Server, rounds, run, trefoil};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use tokio::task::block_in_place;

const PORTS: [&str; 6] = [
    "--otlp-grpc-addr",
    "127.0.0.1:0",
    "--otlp-http-addr",
    "127.0.0.1:0",
    "--http-addr",
    "127.0.0.1:0",
];

/// Every file below a folder with its content, every folder with its mode.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            let mode = entry.metadata().unwrap().permissions().mode();
            all.insert(path.clone(), mode.to_le_bytes().into());
            all.extend(tree(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// A data directory with something in it, not in use.
fn used() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path()).stop();
    dir
}

/// Starts a server that must refuse; its words.
fn refused(mut command: Command, dir: &Path) -> String {
    let before = tree(dir);
    let Output { status, stderr, .. } = run(&mut command);
    let told = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(tree(dir) == before, "files were touched: {told}");
    told
}

fn serve(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = trefoil();
    command.arg("serve").args(PORTS).arg("--data-dir").arg(data_dir).args(arguments);
    command
}

#[test]
fn each_reason_not_to_start_is_told_with_the_remedy_and_nothing_is_touched() {
    let dir = used();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for flag in ["--otlp-grpc-addr", "--otlp-http-addr", "--http-addr"] {
        let mut command = trefoil();
        command.arg("serve").arg("--data-dir").arg(dir.path());
        for pair in PORTS.chunks(2) {
            let addr = if pair[0] == flag { &taken } else { pair[1] };
            command.args([pair[0], addr]);
        }
        let told = refused(command, dir.path());
        assert!(told.contains(flag) && told.contains(&taken), "{told}");
    }
    for (arguments, remedy) in [
        (["--retention", "soon"], "retention"),
        (["--retention-size", "1MiB"], "retention-size"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ] {
        let told = refused(serve(dir.path(), &arguments), dir.path());
        assert!(told.contains(remedy), "{told}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let told = refused(serve(&file, &[]), dir.path());
    assert!(told.contains("--data-dir"), "{told}");
    fs::remove_file(&file).unwrap();

    // Of a later version: the manifest, then the log.
    let newer = copy_of(dir.path());
    let crc = crc32fast::hash(b"99\n{}");
    fs::write(
        newer.path().join("manifest/9999999999999999.json"),
        format!("trefoil-manifest 99 {crc:08x}\n{{}}"),
    )
    .unwrap();
    let told = refused(serve(newer.path(), &[]), newer.path());
    assert!(told.contains("newer Trefoil") && told.contains("--data-dir"), "{told}");
    let newer = copy_of(dir.path());
    let mut header = b"TREFWAL2".to_vec();
    header.extend_from_slice(&7_000_000u64.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    fs::write(newer.path().join("wal/00000000000007000000.wal"), header).unwrap();
    let told = refused(serve(newer.path(), &[]), newer.path());
    assert!(told.contains("newer version") && told.contains("--data-dir"), "{told}");

    // Segments without any manifest are not taken for a new directory.
    let headless = copy_of(dir.path());
    fs::remove_dir_all(headless.path().join("manifest")).unwrap();
    fs::create_dir_all(headless.path().join("segments/logs/1")).unwrap();
    fs::write(headless.path().join("segments/logs/1/0000000000000001.parquet"), "rows").unwrap();
    let told = refused(serve(headless.path(), &[]), headless.path());
    assert!(told.contains("manifest") && told.contains("--data-dir"), "{told}");

    // In use.
    let _server = Server::start(dir.path());
    let told = words(&run(&mut serve(dir.path(), &[])));
    assert!(told.contains("in use") && told.contains("--data-dir"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

fn words(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn copy_of(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(status.success());
    to
}

/// Root may write anywhere, so it asks as nobody.
fn as_nobody(command: Command) -> Command {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !is_root {
        return command;
    }
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    nobody.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nobody.env(name, value),
            None => nobody.env_remove(name),
        };
    }
    nobody
}

#[test]
fn a_directory_that_may_not_be_written_is_told_with_the_remedy() {
    let dir = used();
    let public = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // The binary may stand in a folder that nobody else may enter.
    let program = tempfile::tempdir().unwrap();
    public(program.path(), 0o755);
    let binary = program.path().join("trefoil");
    fs::copy(common::binary(), &binary).unwrap();
    let as_stranger = |data_dir: &Path| {
        let mut command = Command::new(&binary);
        command.arg("serve").args(PORTS).arg("--data-dir").arg(data_dir).current_dir("/");
        command.env_clear();
        as_nobody(command)
    };
    for mode in [0o555, 0o000] {
        public(dir.path(), mode);
        let told = words(&run(&mut as_stranger(dir.path())));
        assert!(told.contains("--data-dir") && told.lines().count() == 1, "{told}");
    }
    public(dir.path(), 0o555);
    let told = words(&run(&mut as_stranger(&dir.path().join("below"))));
    assert!(told.contains("--data-dir") && told.lines().count() == 1, "{told}");
    public(dir.path(), 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_at_the_same_time_one_gets_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..rounds("PAIRS", 4, 50) {
        let path = dir.path().to_owned();
        let one = || {
            let path = path.clone();
            tokio::task::spawn_blocking(move || Server::try_start(&[], &path, &[]))
        };
        let (first, second) = tokio::join!(one(), one());
        let both = [first.unwrap(), second.unwrap()];
        let told: Vec<&String> = both.iter().filter_map(|one| one.as_ref().err()).collect();
        assert_eq!(told.len(), 1, "one of two");
        assert!(told[0].contains("in use"), "{}", told[0]);
        // Killed: its lock blocks nobody.
        let winner = both.into_iter().find_map(Result::ok).unwrap();
        block_in_place(|| winner.kill());
    }
    Server::start(dir.path()).stop();
}
