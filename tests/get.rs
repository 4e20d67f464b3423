//! `dataset get` as a person meets it: through the binary, from local files and from a server on this machine that cuts
//! connections, knows no ranges, lies about lengths or says no. What bears the dataset's name afterwards is whole, or is
//! not there.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bench;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::{Bench, Run};
use logitcask_dataset::{DataSpec, Dataset, PUBLICATIONS, Role};
use md5::{Digest, Md5};

// ---------------------------------------------------------------------------------------------------- a server

/// What a client asked for.
struct Request {
    path: String,
    /// `Range: bytes=N-`.
    from: Option<usize>,
    /// How many requests came before this one.
    number: usize,
}

/// What it gets.
struct Answer {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Whether the connection then stays open in silence until the client goes away.
    stalls: bool,
}

impl Answer {
    fn status(status: &'static str) -> Self {
        Self {
            status,
            headers: vec!["Content-Length: 0".into()],
            body: Vec::new(),
            stalls: false,
        }
    }

    /// All of it, whatever part was asked for.
    fn whole(content: &[u8]) -> Self {
        Self {
            status: "200 OK",
            headers: vec![format!("Content-Length: {}", content.len())],
            body: content.to_vec(),
            stalls: false,
        }
    }

    /// As RFC 9110 wants it.
    fn ranged(content: &[u8], request: &Request) -> Self {
        let total = content.len();
        match request.from {
            None => Self::whole(content),
            Some(from) if from >= total => Self {
                headers: vec![
                    format!("Content-Range: bytes */{total}"),
                    "Content-Length: 0".into(),
                ],
                ..Self::status("416 Range Not Satisfiable")
            },
            Some(from) => Self {
                status: "206 Partial Content",
                headers: vec![
                    format!("Content-Range: bytes {from}-{}/{total}", total - 1),
                    format!("Content-Length: {}", total - from),
                ],
                body: content[from..].to_vec(),
                stalls: false,
            },
        }
    }

    /// Hangs up after `n_bytes` of the body.
    fn cut_after(mut self, n_bytes: usize) -> Self {
        self.body.truncate(n_bytes);
        self
    }
}

struct Server {
    address: String,
    /// The beginning of each range asked for; 0 where it was none.
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                // A client that goes away in the middle is what half of these tests are about.
                std::thread::spawn(move || serve(stream, &seen, &*answer).ok());
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<usize>>,
    answer: &dyn Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let from = head
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes="))
        .map(|range| range.trim_end_matches('-').parse().unwrap());
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(from.unwrap_or(0));
        seen.len() - 1
    };
    let path = head.split(' ').nth(1).unwrap_or("").to_owned();
    let answer = answer(&Request { path, from, number });
    write!(
        stream,
        "HTTP/1.1 {}\r\nConnection: close\r\n{}\r\n\r\n",
        answer.status,
        answer.headers.join("\r\n")
    )?;
    stream.write_all(&answer.body)?;
    stream.flush()?;
    while answer.stalls && stream.read(&mut byte)? > 0 {}
    Ok(())
}

/// An address at which nobody listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

// ----------------------------------------------------------------------------------------------- small datasets

/// Five records of noise, so that packing does not make them small.
fn cifar_files() -> Vec<(&'static str, Vec<u8>)> {
    let mut state = 1u32;
    let mut records = |n: usize| -> Vec<u8> {
        (0..n * 3073)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 3073 == 0 {
                    (at / 3073) as u8
                } else {
                    (state >> 24) as u8
                }
            })
            .collect()
    };
    vec![
        ("cifar-10-batches-bin/data_batch_1.bin", records(3)),
        ("cifar-10-batches-bin/test_batch.bin", records(2)),
    ]
}

/// A gzipped tar; `edit` may add what does not belong into one.
fn tar_gz(
    files: &[(&str, Vec<u8>)],
    edit: impl FnOnce(&mut tar::Builder<flate2::write::GzEncoder<Vec<u8>>>),
) -> Vec<u8> {
    let packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(packed);
    for (name, content) in files {
        builder
            .append(&header(name, content.len()), content.as_slice())
            .unwrap();
    }
    edit(&mut builder);
    builder.into_inner().unwrap().finish().unwrap()
}

/// By hand, because the builder refuses the names that are wanted here.
fn header(name: &str, n_bytes: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(n_bytes as u64);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn cifar() -> Vec<u8> {
    tar_gz(&cifar_files(), |_| {})
}

fn sha256(content: &[u8]) -> String {
    sha2::Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn md5(content: &[u8]) -> String {
    Md5::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

// ------------------------------------------------------------------------------------------------------ a person

/// Where a test's dataset goes to, and the folder of unfinished work beside it.
struct Place {
    bench: Bench,
    to: PathBuf,
    workplace: PathBuf,
}

impl Place {
    fn new(test: &str) -> Self {
        let bench = Bench::new(test);
        let to = bench.folder.join("sets/target");
        fs::create_dir(bench.folder.join("sets")).unwrap();
        Self {
            workplace: to.with_file_name(".target.get"),
            to,
            bench,
        }
    }

    fn command(&self, name: &str, from: &str, checksums: &[String]) -> std::process::Command {
        let mut command = self
            .bench
            .command(&["dataset", "get", name, "--from", from, "--to"]);
        command.arg(&self.to);
        for checksum in checksums {
            command.args(["--checksum", checksum]);
        }
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    fn get(&self, name: &str, from: &str, checksums: &[String]) -> Run {
        let output = self.command(name, from, checksums).output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// CIFAR-10 in its small form, which has a checksum of its own.
    fn get_cifar(&self, from: &str) -> Run {
        self.get("cifar10", from, &[md5(&cifar())])
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.bench.folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Every byte is there, it opens by the section that was printed, and nothing else is left.
    fn assert_whole(&self, run: &Run) {
        assert_eq!(run.code, 0, "{}", run.stderr);
        for (name, content) in cifar_files() {
            assert_eq!(fs::read(self.to.join(name)).unwrap(), content, "{name}");
        }
        let section: toml::Table = run.stdout.parse().unwrap();
        let spec: DataSpec = section["data"].clone().try_into().unwrap();
        assert_eq!(Dataset::open(&spec, Role::Train).unwrap().len(), 3);
        assert_eq!(Dataset::open(&spec, Role::Eval).unwrap().len(), 2);
        assert!(!self.workplace.exists(), "unfinished work is left");
    }

    /// It failed with one message that says each of `words`, and nothing bears the dataset's name.
    fn assert_refused(&self, run: &Run, words: &[&str]) {
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{}", run.stderr);
        assert_eq!(run.stdout, "", "a section is printed for what is not there");
        for word in words {
            assert!(
                run.stderr.contains(word),
                "`{word}` is missing from: {}",
                run.stderr
            );
        }
        assert!(!self.to.exists(), "something bears the dataset's name");
    }
}

// --------------------------------------------------------------------------------------------------------- tests

#[test]
fn a_file_that_is_here_becomes_a_dataset() {
    let place = Place::new("get_file");
    let archive = place.write("cifar.tar.gz", &cifar());
    place.assert_whole(&place.get_cifar(&archive));
    assert!(Path::new(&archive).is_file(), "the person's file is gone");

    // A second time there is nothing to do, not even to look at the file.
    fs::remove_file(&archive).unwrap();
    let again = place.get_cifar(&archive);
    place.assert_whole(&again);
    assert!(again.stderr.contains("there and whole"), "{}", again.stderr);

    // And `dataset show` reads it by the section that was printed.
    let recipe = format!("seed = 1\n{}", again.stdout);
    fs::write(place.bench.folder.join("recipe.toml"), recipe).unwrap();
    let recipe = place.bench.folder.join("recipe.toml");
    let shown = place
        .bench
        .run(&["dataset", "show", recipe.to_str().unwrap()])
        .ok();
    assert!(shown.stdout.contains("3 selected"), "{}", shown.stdout);
}

#[test]
fn an_address_is_fetched() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| Answer::ranged(&served, request));
    let place = Place::new("get_address");
    let sha256 = sha256(&content);
    let run = place.get(
        "cifar10",
        &format!("{}/mirror/c.tar.gz", server.address),
        &[sha256],
    );
    place.assert_whole(&run);
    assert!(run.stderr.contains(&server.address), "{}", run.stderr);
    assert_eq!(server.asked(), [0]);
}

#[test]
fn broken_connections_are_gone_on_from() {
    let content = cifar();
    let n = content.len();
    let served = content.clone();
    let server = Server::start(move |request| {
        let answer = Answer::ranged(&served, request);
        match request.number {
            0..3 => answer.cut_after(4000),
            _ => answer,
        }
    });
    let place = Place::new("get_cut");
    let run = place.get_cifar(&format!("{}/c.tar.gz", server.address));
    place.assert_whole(&run);
    assert_eq!(server.asked(), [0, 4000, 8000, 12000], "of {n} bytes");
    assert_eq!(
        run.stderr.matches("the connection broke after").count(),
        3,
        "{}",
        run.stderr
    );
}

#[test]
fn a_server_that_never_gets_further_is_given_up_on_and_kept_for_later() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| match request.from {
        None => Answer::whole(&served).cut_after(5000),
        // It works again with the second command.
        Some(_) if request.number >= 2 => Answer::ranged(&served, request),
        Some(_) => Answer::ranged(&served, request).cut_after(0),
    });
    let place = Place::new("get_stuck");
    let from = format!("{}/c.tar.gz", server.address);
    place.assert_refused(
        &place.get_cifar(&from),
        &["broke after", "what has come is kept", "goes on from there"],
    );
    assert_eq!(server.asked(), [0, 5000]);
    place.assert_whole(&place.get_cifar(&from));
    assert_eq!(server.asked(), [0, 5000, 5000]);
}

#[test]
fn a_server_without_ranges_is_started_over_with() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| {
        let answer = Answer::whole(&served);
        if request.number == 0 {
            answer.cut_after(4000)
        } else {
            answer
        }
    });
    let place = Place::new("get_no_ranges");
    place.assert_whole(&place.get_cifar(&format!("{}/c.tar.gz", server.address)));
    assert_eq!(server.asked(), [0, 4000]);
}

/// Starts a command, waits until `n_bytes` have arrived, and ends it by `how`.
fn interrupt(place: &Place, from: &str, n_bytes: u64, how: &str) -> std::process::Output {
    let child = place
        .command("cifar10", from, &[md5(&cifar())])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let part = place.workplace.join("cifar-10-binary.tar.gz.part");
    let start = Instant::now();
    while fs::metadata(&part).map_or(0, |found| found.len()) < n_bytes {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    let kill = std::process::Command::new("kill")
        .args([how, &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    child.wait_with_output().unwrap()
}

#[test]
fn a_killed_command_is_gone_on_from() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| {
        let mut answer = Answer::ranged(&served, request);
        if request.number == 0 {
            answer = answer.cut_after(6000);
            answer.stalls = true;
        }
        answer
    });
    let place = Place::new("get_killed");
    let from = format!("{}/c.tar.gz", server.address);
    interrupt(&place, &from, 6000, "-KILL");
    assert!(!place.to.exists());
    place.assert_whole(&place.get_cifar(&from));
    assert_eq!(server.asked(), [0, 6000]);
}

#[test]
fn a_partial_file_of_something_else_costs_one_more_attempt() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| Answer::ranged(&served, request));
    let place = Place::new("get_foreign_part");
    let part = ".target.get/cifar-10-binary.tar.gz.part";
    let from = format!("{}/c.tar.gz", server.address);
    // Longer than the file: the server says so, and it is fetched from the beginning.
    place.write(&format!("sets/{part}"), &vec![7; content.len() + 9]);
    place.assert_whole(&place.get_cifar(&from));
    assert_eq!(server.asked(), [content.len() + 9, 0]);

    // Shorter: only the checksum can tell, and then the next command starts anew.
    fs::remove_dir_all(&place.to).unwrap();
    place.write(&format!("sets/{part}"), &[7; 100]);
    place.assert_refused(&place.get_cifar(&from), &["is not the file"]);
    place.assert_whole(&place.get_cifar(&from));

    // Whole, but never checked because the command was killed just then.
    fs::remove_dir_all(&place.to).unwrap();
    place.write(&format!("sets/{part}"), &content);
    place.assert_whole(&place.get_cifar(&from));
}

#[test]
fn wrong_lengths_do_no_harm() {
    // The server claims fewer bytes than the file has: what comes is a beginning, and the checksum says so.
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |_| Answer::whole(&served[..3000]));
    let place = Place::new("get_short");
    place.assert_refused(
        &place.get_cifar(&format!("{}/c.tar.gz", server.address)),
        &["is not the file"],
    );

    // It claims more bytes than it then has: asked for the rest, it says that there is none.
    let served = content.clone();
    let server = Server::start(move |request| match request.from {
        None => Answer {
            headers: vec![format!("Content-Length: {}", served.len() + 50)],
            ..Answer::whole(&served)
        },
        Some(_) => Answer::ranged(&served, request),
    });
    place.assert_whole(&place.get_cifar(&format!("{}/c.tar.gz", server.address)));

    // It gives no length at all.
    let place = Place::new("get_no_length");
    let server = Server::start(move |_| Answer {
        headers: vec!["Content-Type: application/gzip".into()],
        ..Answer::whole(&content)
    });
    place.assert_whole(&place.get_cifar(&format!("{}/c.tar.gz", server.address)));
}

#[test]
fn a_wrong_checksum_is_refused_with_both() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| Answer::ranged(&served, request));
    let place = Place::new("get_checksum");
    let official = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";
    for from in [
        place.write("cifar.tar.gz", &content),
        format!("{}/c.tar.gz", server.address),
    ] {
        // Without `--checksum` it must be what the publisher has. That was an MD5, which a forger can meet.
        let run = place.get("cifar10", &from, &[]);
        let found = sha256(&content);
        let advice = format!("--checksum {found}");
        place.assert_refused(&run, &[&from, &found, official, &advice]);
        let kept = fs::read_dir(&place.workplace).map_or(0, |entries| entries.count());
        assert_eq!(kept, 0, "a wrong file would only be gone on from");
    }
    let run = place.get("cifar10", "x", &["12".into()]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("MD5 has 32"), "{}", run.stderr);
}

#[test]
fn without_a_network_one_message_says_what_to_do() {
    let place = Place::new("get_no_network");
    let address = closed_port();
    let run = place.get("cifar10", &address, &[]);
    let url = PUBLICATIONS[0].files[0].url;
    place.assert_refused(
        &run,
        &[
            &address,
            url,
            "dataset get cifar10 --from cifar-10-binary.tar.gz",
        ],
    );
    // Four files need a folder to be put into.
    let run = place.get("fashion-mnist", &address, &[]);
    place.assert_refused(&run, &["t10k-labels-idx1-ubyte.gz", "--from FOLDER"]);
}

#[test]
fn what_a_server_refuses_is_named() {
    let server = Server::start(|_| Answer::status("404 Not Found"));
    let place = Place::new("get_404");
    let from = format!("{}/moved.tar.gz", server.address);
    place.assert_refused(
        &place.get_cifar(&from),
        &[
            "/moved.tar.gz",
            "404 Not Found",
            "--from cifar-10-binary.tar.gz",
        ],
    );
    place.assert_refused(
        &place.get_cifar("/nowhere/cifar.tar.gz"),
        &["/nowhere/cifar.tar.gz"],
    );
    let run = place.get_cifar("ftp://example.org/cifar.tar.gz");
    assert_eq!(run.code, 2, "{}", run.stderr);
    let run = place.get("cifar11", "x", &[]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("cifar10, cifar100"), "{}", run.stderr);
}

/// An archive with something in it that must not leave the folder.
fn check_entry(place: &Place, name: &str, archive: &[u8], entry: &str, why: &str) {
    let path = place.write("sets/evil/archive", archive);
    let run = place.get(name, &path, &[md5(archive)]);
    place.assert_refused(&run, &[entry, why]);
    assert!(
        !place.bench.folder.join("sets/escaped").exists(),
        "it climbed out"
    );
    assert!(
        !place.bench.folder.join("escaped").exists(),
        "it climbed out"
    );
    assert!(
        !Path::new("/tmp/logitcask-escaped").exists(),
        "it climbed out"
    );
}

#[test]
fn archives_stay_inside_their_folder() {
    let place = Place::new("get_escape");
    for name in [
        "../escaped",
        "../../escaped",
        "cifar-10-batches-bin/../../escaped",
        "/tmp/logitcask-escaped",
    ] {
        let archive = tar_gz(&cifar_files(), |builder| {
            builder.append(&header(name, 2), &b"hi"[..]).unwrap();
        });
        check_entry(&place, "cifar10", &archive, name, "leads out of the folder");
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Fifo,
    ] {
        let archive = tar_gz(&cifar_files(), |builder| {
            let mut header = header("link", 0);
            header.set_entry_type(kind);
            header.set_link_name("..").unwrap();
            header.set_cksum();
            builder.append(&header, &b""[..]).unwrap();
            builder
                .append(&self::header("link/escaped", 2), &b"hi"[..])
                .unwrap();
        });
        check_entry(
            &place,
            "cifar10",
            &archive,
            "`link`",
            "neither a file nor a folder",
        );
    }
    let plain = zip::write::SimpleFileOptions::default();
    type Writer = zip::ZipWriter<std::io::Cursor<Vec<u8>>>;
    let zipped = |fill: &dyn Fn(&mut Writer)| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        fill(&mut writer);
        writer.finish().unwrap().into_inner()
    };
    let climbing = zipped(&|writer| {
        writer.start_file("../escaped", plain).unwrap();
        writer.write_all(b"hi").unwrap();
    });
    check_entry(
        &place,
        "tiny-imagenet",
        &climbing,
        "../escaped",
        "leads out of the folder",
    );
    let linking = zipped(&|writer| writer.add_symlink("link", "..", plain).unwrap());
    check_entry(
        &place,
        "tiny-imagenet",
        &linking,
        "`link`",
        "neither a file nor a folder",
    );
}

#[test]
fn damaged_and_foreign_archives_leave_nothing_behind() {
    let place = Place::new("get_damaged");
    let whole = cifar();
    let cut = &whole[..whole.len() / 2];
    let path = place.write("cut.tar.gz", cut);
    place.assert_refused(
        &place.get("cifar10", &path, &[md5(cut)]),
        &["cannot unpack", "cut.tar.gz"],
    );

    let text = b"<html>please log in</html>";
    let path = place.write("login.html", text);
    place.assert_refused(
        &place.get("cifar10", &path, &[md5(text)]),
        &["cannot unpack"],
    );
    place.assert_refused(
        &place.get("tiny-imagenet", &path, &[md5(text)]),
        &["cannot unpack"],
    );

    // An archive of something else does not appear as this.
    let other = tar_gz(&[("readme.txt", b"hello".to_vec())], |_| {});
    let path = place.write("other.tar.gz", &other);
    place.assert_refused(
        &place.get("cifar10", &path, &[md5(&other)]),
        &["does not read as `cifar10`"],
    );
    assert!(!place.workplace.exists());
}

#[test]
fn what_stands_where_the_dataset_would_go_is_not_touched() {
    let place = Place::new("get_occupied");
    let archive = place.write("cifar.tar.gz", &cifar());
    let notes = place.write("sets/target/notes.txt", b"mine");
    let run = place.get_cifar(&archive);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("is there already"), "{}", run.stderr);
    assert!(run.stderr.contains("--to DIR"), "{}", run.stderr);
    assert_eq!(fs::read(&notes).unwrap(), b"mine");

    // An empty folder is nobody's.
    fs::remove_file(&notes).unwrap();
    place.assert_whole(&place.get_cifar(&archive));

    // Another dataset's folder is not this one's.
    let run = place.get("cifar100", &archive, &[]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("holds `cifar10`"), "{}", run.stderr);
    assert_eq!(run.stdout, "");

    // What was there and is not whole any more is said, and not mended in silence.
    let lost = place.to.join("cifar-10-batches-bin/test_batch.bin");
    fs::write(&lost, b"short").unwrap();
    let run = place.get_cifar(&archive);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("test_batch.bin"), "{}", run.stderr);
    assert_eq!(fs::read(&lost).unwrap(), b"short");
}

/// Fashion-MNIST in small: (name, content) of its four files.
fn fashion() -> Vec<(String, Vec<u8>)> {
    let idx = |dimensions: &[u32], n_bytes: usize| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed
            .write_all(&[0, 0, 8, dimensions.len() as u8])
            .unwrap();
        for n in dimensions {
            packed.write_all(&n.to_be_bytes()).unwrap();
        }
        packed.write_all(&vec![3; n_bytes]).unwrap();
        packed.finish().unwrap()
    };
    let publication = PUBLICATIONS
        .iter()
        .find(|p| p.name == "fashion-mnist")
        .unwrap();
    let name = |at: usize| {
        publication.files[at]
            .url
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    };
    vec![
        (name(0), idx(&[6, 28, 28], 6 * 784)),
        (name(1), idx(&[6], 6)),
        (name(2), idx(&[2, 28, 28], 2 * 784)),
        (name(3), idx(&[2], 2)),
    ]
}

#[test]
fn four_files_come_from_one_folder_or_one_address() {
    let files = fashion();
    let checksums: Vec<String> = files.iter().map(|(_, content)| md5(content)).collect();
    let place = Place::new("get_four");
    for (name, content) in &files {
        place.write(&format!("here/{name}"), content);
    }
    let folder = place.bench.folder.join("here");
    let run = place
        .get("fashion-mnist", folder.to_str().unwrap(), &checksums)
        .ok();
    assert!(
        run.stderr
            .contains("6 samples for training, 2 for evaluation"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout.contains("format = \"fashion_mnist\""),
        "{}",
        run.stdout
    );

    fs::remove_dir_all(&place.to).unwrap();
    let served = files.clone();
    let server = Server::start(move |request| {
        let found = served
            .iter()
            .find(|(name, _)| request.path == format!("/mirror/{name}"));
        match found {
            Some((_, content)) => Answer::ranged(content, request),
            None => Answer::status("404 Not Found"),
        }
    });
    place
        .get(
            "fashion-mnist",
            &format!("{}/mirror", server.address),
            &checksums,
        )
        .ok();
    for (name, content) in &files {
        assert_eq!(&fs::read(place.to.join(name)).unwrap(), content);
    }
    let run = place.get("fashion-mnist", folder.to_str().unwrap(), &checksums[..2]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("2 checksums are given"),
        "{}",
        run.stderr
    );
}

#[test]
fn zip_archives_unpack() {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let mut put = |name: &str, content: &[u8]| {
        writer
            .start_file(format!("tiny-imagenet-200/{name}"), options)
            .unwrap();
        writer.write_all(content).unwrap();
    };
    put("train/n01/images/n01_0.JPEG", b"opening does not decode");
    put("train/n02/images/n02_0.JPEG", b"opening does not decode");
    put("val/images/val_0.JPEG", b"opening does not decode");
    put("val/val_annotations.txt", b"val_0.JPEG\tn02\t0\t0\t1\t1\n");
    let archive = writer.finish().unwrap().into_inner();
    let place = Place::new("get_zip");
    let path = place.write("tiny.zip", &archive);
    let run = place.get("tiny-imagenet", &path, &[md5(&archive)]).ok();
    assert!(
        run.stderr
            .contains("2 samples for training, 1 for evaluation, 2 classes"),
        "{}",
        run.stderr
    );
}

#[test]
fn two_commands_at_once_do_not_meet() {
    let content = cifar();
    let served = content.clone();
    let server = Server::start(move |request| {
        let mut answer = Answer::ranged(&served, request).cut_after(2000);
        answer.stalls = true;
        answer
    });
    let place = Place::new("get_two");
    let from = format!("{}/c.tar.gz", server.address);
    let mut first = place.command("cifar10", &from, &[md5(&content)]);
    let mut first = first.stderr(std::process::Stdio::null()).spawn().unwrap();
    let part = place.workplace.join("cifar-10-binary.tar.gz.part");
    let start = Instant::now();
    while fs::metadata(&part).map_or(0, |found| found.len()) < 2000 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = place.get_cifar(&from);
    first.kill().unwrap();
    first.wait().unwrap();
    place.assert_refused(&second, &[&first.id().to_string()]);
}
