//! One file over HTTP, into a partial file from which a later call goes on.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::Agent;
use ureq::http::Response;

use super::error::GetError;
use crate::progress::{Progress, bytes};

/// A server that hangs up again and again is given up on some day.
const MAX_ATTEMPTS: usize = 50;
/// So long may a connection be silent. There is no limit on the whole: 2.6 GB take what they take.
const SILENCE: Duration = Duration::from_secs(60);

/// Brings `url` into `part`, going on from what is there already, and after a broken connection as long as each attempt
/// gains something.
///
/// Whether the file is the right one is for its checksum to say; a file that changed on the server between two attempts
/// is found out by it too.
pub(super) fn download(url: &str, part: &Path, stop: &AtomicBool) -> Result<(), GetError> {
    let agent = agent();
    let name = url.rsplit('/').next().unwrap_or(url);
    // Bars count in numbers that a person can read.
    let bar = Progress::new(name, 0, "kB");
    let mut n_attempts = 0;
    let result = loop {
        let before = length(part)?;
        n_attempts += 1;
        match attempt(&agent, url, part, &bar, stop) {
            Err(GetError::Cut { .. }) if length(part)? > before && n_attempts < MAX_ATTEMPTS => {
                bar.line(format!(
                    "the connection broke after {}; going on from there",
                    bytes(length(part)?)
                ));
            }
            result => break result,
        }
    };
    bar.finish();
    result
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .user_agent(concat!("logitcask/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn attempt(
    agent: &Agent,
    url: &str,
    part: &Path,
    bar: &Progress,
    stop: &AtomicBool,
) -> Result<(), GetError> {
    let have = length(part)?;
    // The checksum is of the file, not of what a server might make of it on the way.
    let mut request = agent.get(url).header("Accept-Encoding", "identity");
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request.call().map_err(|source| GetError::Unreachable {
        url: url.into(),
        source: Box::new(source),
    })?;
    let status = response.status();
    let range = ContentRange::of(&response);
    let (start, total) = match (status.as_u16(), range) {
        (206, Some(range)) if have > 0 && range.first == Some(have) => (have, range.total),
        // A server that knows no ranges sends everything again.
        (200, _) => (0, content_length(&response)),
        // There is nothing after what we have: an earlier call was stopped before it checked the file.
        (416, Some(range)) if have > 0 && range.total == Some(have) => return Ok(()),
        // What we have does not fit what is there; from the beginning, then, and so at most once.
        (206 | 416, _) if have > 0 => {
            fs::remove_file(part).map_err(GetError::io("remove", part))?;
            return attempt(agent, url, part, bar, stop);
        }
        _ => {
            return Err(GetError::Refused {
                url: url.into(),
                status: status.to_string(),
            });
        }
    };
    if let Some(total) = total {
        bar.set_total(total / 1000);
    }
    bar.resume_at(start / 1000);
    // A partial file may be partial; it gets no other name before its checksum is right.
    let opened = match start {
        0 => File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(part),
        _ => File::options().append(true).open(part),
    };
    let mut file = opened.map_err(GetError::io("write", part))?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut have = start;
    let cut = |have, source| GetError::Cut {
        url: url.into(),
        have,
        total,
        source,
    };
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(GetError::Stopped);
        }
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => return Err(cut(have, Some(error))),
        };
        file.write_all(&buffer[..n])
            .map_err(GetError::io("write", part))?;
        have += n as u64;
        bar.set(have / 1000, "");
    }
    if total.is_some_and(|total| have < total) {
        return Err(cut(have, None));
    }
    file.sync_all().map_err(GetError::io("write", part))
}

/// No bytes of a file that is not there.
fn length(path: &Path) -> Result<u64, GetError> {
    let found = logitcask_durable::metadata(path).map_err(GetError::io("look at", path))?;
    Ok(found.map_or(0, |found| found.len()))
}

fn content_length<T>(response: &Response<T>) -> Option<u64> {
    response
        .headers()
        .get("content-length")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// `Content-Range: bytes 100-199/200`, or `bytes */200` where nothing could be sent.
#[derive(Debug, PartialEq)]
struct ContentRange {
    first: Option<u64>,
    total: Option<u64>,
}

impl ContentRange {
    fn of<T>(response: &Response<T>) -> Option<Self> {
        Self::parse(response.headers().get("content-range")?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let first = range
            .split_once('-')
            .and_then(|(first, _)| first.parse().ok());
        Some(Self {
            first,
            total: total.parse().ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let check = |text, first, total| {
            assert_eq!(
                ContentRange::parse(text),
                Some(ContentRange { first, total }),
                "{text}"
            );
        };
        check("bytes 100-199/200", Some(100), Some(200));
        check("bytes */200", None, Some(200));
        check("bytes 100-199/*", Some(100), None);
        assert_eq!(ContentRange::parse("pages 1-2/3"), None);
    }
}
