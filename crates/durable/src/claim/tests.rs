use std::cell::Cell;

use super::*;

/// A fresh folder under the system's temporary folder, gone with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("logitcask-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LIMITS: Limits = Limits {
    silence: Duration::from_secs(60),
    beat: Duration::from_secs(60),
};

/// A claim file of this process, which lives, as if it were somebody else's.
fn rival(what: &Path, number: u32) -> PathBuf {
    let path = claim_path(what, number);
    let owner = Owner::this_process(unique(), 0);
    fs::write(&path, owner.to_string()).unwrap();
    path
}

#[test]
fn whoever_waits_does_so_in_growing_pauses() {
    let folder = Folder::new("pauses");
    let what = folder.join("work");
    let held = Watcher::new(LIMITS).claim(&what, |_| false).unwrap();
    let (since, asked) = (Instant::now(), Cell::new(0));
    let refused = Watcher::new(LIMITS).claim(&what, |_| {
        asked.set(asked.get() + 1);
        since.elapsed() < Duration::from_millis(900)
    });
    assert!(matches!(refused, Err(ClaimError::Held(_))));
    // 10, 20, 40, ... 250 ms; on a busy machine fewer.
    assert!((2..=9).contains(&asked.get()), "{asked:?}");
    drop(held);
}

#[test]
fn drafts_of_the_killed_go_and_those_of_other_claims_stay() {
    let folder = Folder::new("drafts");
    let drafts = ["work", "another"].map(|of| folder.join(format!(".{of}.tmp-77")));
    drafts
        .iter()
        .for_each(|draft| fs::write(draft, "").unwrap());
    let claim = Watcher::new(LIMITS).claim(&folder.join("work"), |_| false);
    assert_eq!(drafts.map(|draft| draft.exists()), [false, true]);
    drop(claim);
}

#[test]
fn silence_ends_a_claim_when_it_is_longer_than_the_limit_and_not_before() {
    let touched = UNIX_EPOCH + Duration::from_secs(1000);
    let living = |after: Duration| {
        let found = Found {
            owner: Some(Owner::this_process(7, 990)),
            touched,
        };
        Watcher::new(LIMITS).living(PathBuf::from("x"), found, touched + after)
    };
    let holder = living(LIMITS.silence).unwrap();
    assert_eq!(holder.silent_for, LIMITS.silence);
    assert_eq!(holder.held_for, Duration::from_secs(70));
    assert!(living(LIMITS.silence + Duration::from_nanos(1)).is_none());
}

#[test]
fn no_two_claims_have_the_same_nonce() {
    let folder = Folder::new("nonces");
    let claim = |name| Watcher::new(LIMITS).claim(&folder.join(name), |_| false);
    let (a, b) = (claim("a").unwrap(), claim("b").unwrap());
    assert_ne!(a.nonce(), b.nonce());
    let text = fs::read_to_string(a.path()).unwrap();
    assert!(text.contains(&format!("nonce {}\n", a.nonce())), "{text}");
}

#[test]
fn a_claim_whose_file_is_gone_is_lost_at_once() {
    let folder = Folder::new("gone");
    let claim = Watcher::new(LIMITS)
        .claim(&folder.join("work"), |_| false)
        .unwrap();
    claim.check().unwrap();
    fs::remove_file(claim.path()).unwrap();
    let since = Instant::now();
    assert!(matches!(
        claim.check(),
        Err(ClaimError::Lost { by: None, .. })
    ));
    assert!(since.elapsed() < Duration::from_millis(1500), "{since:?}");
}

#[test]
fn whoever_overtakes_may_let_go_again_but_not_for_ever() {
    let folder = Folder::new("overtaken");
    let what = folder.join("work");
    let claim = Watcher::new(LIMITS).claim(&what, |_| false).unwrap();
    let late = rival(&what, claim.number + 1);
    let lets_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        fs::remove_file(late).unwrap();
    });
    claim.check().unwrap();
    lets_go.join().unwrap();
    let stays = rival(&what, claim.number + 1);
    let since = Instant::now();
    match claim.check() {
        Err(ClaimError::Lost { by: Some(by), .. }) => assert_eq!(by.path, stays),
        other => panic!("{other:?}"),
    }
    assert!(since.elapsed() > Duration::from_secs(1), "{since:?}");
}

#[test]
fn a_server_that_does_not_answer_is_asked_again_soon() {
    let touched = Cell::new(0);
    let (stop, stopped) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            drop(stop);
        });
        let fails = || {
            touched.set(touched.get() + 1);
            Err(io::Error::other("no answer"))
        };
        beat(fails, Duration::from_millis(200), &stopped);
    });
    // Nine at the pace of the heart; a hundred at the pace of the impatient.
    assert!(touched.get() > 12, "{touched:?}");
}

#[test]
fn without_links_the_second_is_told_and_an_error_is_one() {
    let folder = Folder::new("without_links");
    let what = folder.join("work");
    let [first, second] = [(); 2].map(|()| Draft::write(&what).unwrap().unwrap());
    let path = claim_path(&what, 1);
    assert!(first.create_at(&path).unwrap().is_some());
    assert!(second.create_at(&path).unwrap().is_none());
    assert!(first.is_at(&path).unwrap() && !second.is_at(&path).unwrap());
    assert!(first.create_at(&folder.join("nowhere/1")).is_err());
}

#[test]
fn a_claim_is_held_where_it_is_there_and_nobody_else_lives() {
    let folder = Folder::new("held");
    let path = rival(&folder.join("work"), 1);
    let around = |is_ours: bool, is_alone: bool| {
        let found = Found::read(&path).unwrap().unwrap();
        let holder = Watcher::new(LIMITS).living(path.clone(), found, SystemTime::now());
        Surroundings {
            is_ours,
            living: holder.filter(|_| !is_alone),
            ..Surroundings::default()
        }
    };
    for (is_ours, is_alone) in [(true, true), (true, false), (false, true), (false, false)] {
        let held = around(is_ours, is_alone).is_held();
        assert_eq!(held, is_ours && is_alone, "{is_ours} {is_alone}");
    }
}

#[test]
fn a_claim_that_cannot_be_read_is_not_absent() {
    let folder = Folder::new("unreadable");
    let file = folder.join("file");
    fs::write(&file, "no claim").unwrap();
    assert!(Found::read(&file).unwrap().unwrap().owner.is_none());
    assert!(Found::read(&folder.join("absent")).unwrap().is_none());
    assert!(Found::read(&file.join("below a file")).is_err());
}

#[test]
fn a_touched_file_was_changed_just_now() {
    let folder = Folder::new("touched");
    let file = File::create(folder.join("file")).unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    touch(&file).unwrap();
    let age = SystemTime::now().duration_since(file.metadata().unwrap().modified().unwrap());
    assert!(age.is_ok_and(|age| age < Duration::from_secs(60)));
}

#[test]
fn claims_are_found_by_their_numbers() {
    let folder = Folder::new("numbers");
    let what = folder.join("work");
    for name in [
        "work.claim-0012",
        "work.claim-0003",
        "work.claim-4294967295", // there is no next one
        "work.claim-x",
        "works.claim-0001",
    ] {
        fs::write(folder.join(name), "").unwrap();
    }
    let found = numbered(&what).unwrap();
    let expected = [3, 12].map(|number| (number, claim_path(&what, number)));
    assert_eq!(found, expected);
    assert_eq!(expected[1].1, folder.join("work.claim-0012"));
    assert_eq!(folder_of(&what), &*folder);
    assert_eq!(folder_of(Path::new("work")), Path::new("."));
}

#[test]
fn a_failure_of_the_moment_is_asked_again_and_absence_is_not() {
    let asked = |kind: io::ErrorKind, good_at: usize| {
        let times = Cell::new(0);
        let answer = patiently(|| {
            times.set(times.get() + 1);
            match times.get() >= good_at {
                true => Ok(()),
                false => Err(io::Error::from(kind)),
            }
        });
        (times.get(), answer.is_ok())
    };
    assert_eq!(asked(io::ErrorKind::TimedOut, 1), (1, true));
    assert_eq!(asked(io::ErrorKind::TimedOut, 3), (3, true));
    assert_eq!(asked(io::ErrorKind::TimedOut, 9), (3, false));
    assert_eq!(asked(io::ErrorKind::NotFound, 2), (1, false));
}

#[test]
fn who_is_in_the_way_and_what_to_do_is_said() {
    let seconds = Duration::from_secs;
    let mut owner = Owner::this_process(7, 0);
    (owner.host, owner.pid) = ("node7".to_owned(), 4711);
    let holder = |owner: Option<Owner>| {
        Box::new(Holder {
            path: PathBuf::from("x.claim-0001"),
            is_alive: owner.is_some(),
            owner,
            held_for: seconds(7200),
            silent_for: seconds(119),
        })
    };
    let known = ClaimError::Held(holder(Some(owner.clone())));
    assert_eq!(
        known.to_string(),
        "in the way is process 4711 on host `node7`, which has held `x.claim-0001` for 2 h and was heard of 119 s ago"
    );
    assert!(known.hint().unwrap().contains("`kill 4711` on `node7`"));
    let unknown = ClaimError::Held(holder(None));
    assert!(unknown.to_string().contains("not written their name"));
    assert!(unknown.hint().unwrap().contains("90 s"));
    assert_eq!(told(seconds(120)), "2 min");
    assert_eq!(told(seconds(7199)), "119 min");

    let path = || PathBuf::from("x.claim-0001");
    let by = Some(holder(Some(owner)));
    let overtaken = ClaimError::Lost { path: path(), by };
    assert!(overtaken.to_string().contains("by process 4711"));
    let returned = ClaimError::Lost {
        path: path(),
        by: None,
    };
    assert!(returned.to_string().contains("given back since"));
    assert!(returned.hint().unwrap().contains("nothing is lost"));
    let no_rename = ClaimError::NoRename {
        folder: path(),
        source: io::Error::other("why"),
    };
    assert!(no_rename.to_string().contains("cannot be renamed"));
    assert!(no_rename.hint().unwrap().contains("another file system"));
    let io = failed(&path())(io::Error::other("why"));
    assert_eq!(io.to_string(), "cannot claim `x.claim-0001`");
    assert!(io.hint().is_none());
    for error in [&no_rename, &io] {
        let source = std::error::Error::source(error).unwrap();
        assert_eq!(source.to_string(), "why");
    }
    assert!(std::error::Error::source(&returned).is_none());
}
