//! What a person sees while work goes on: a bar on a terminal, plain lines elsewhere. Everything here goes to stderr;
//! stdout is data.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// True where a bar can be drawn.
pub(crate) fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Colour where it is wanted: on a terminal, unless `NO_COLOR` is set.
pub(crate) fn style(paint: fn(&str) -> String) -> impl Fn(&str) -> String {
    let coloured =
        on_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    move |text| {
        if coloured {
            paint(text)
        } else {
            text.to_owned()
        }
    }
}

/// What `println!` of this program does: a line of data on stdout.
pub(crate) fn print_line(line: std::fmt::Arguments<'_>) {
    use std::io::Write;

    let line = line.to_string();
    // A reader that went away (`| head`) has what it wants. Any other failure would leave data that looks whole.
    if let Err(error) = writeln!(std::io::stdout().lock(), "{}", harmless(&line)) {
        let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !gone {
            say(format!("error: stdout cannot be written: {error}"));
        }
        std::process::exit(if gone { 0 } else { 1 });
    }
}

/// Says a line to the person.
pub(crate) fn say(line: impl AsRef<str>) {
    eprintln!("{}", harmless(line.as_ref()));
}

/// The text as a terminal may have it. Names come out of files that anybody may have written, and a terminal obeys what
/// stands in them: control characters, and those that turn the direction of writing, are spelled out as JSON spells them, so
/// that a line of JSON stays what it is.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| match c {
        '\n' | '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => c.is_control(),
    };
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut spelled = String::with_capacity(text.len());
    for c in text.chars() {
        match is_obeyed(c) {
            true => spelled += &format!("\\u{:04x}", u32::from(c)),
            false => spelled.push(c),
        }
    }
    Cow::Owned(spelled)
}

/// A bar with rate and time left; without a terminal a plain line every ten seconds.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
    started: Instant,
    plain: bool,
    last_line: Cell<Instant>,
    last_message: Cell<Instant>,
    resumed_at: Cell<u64>,
}

impl Progress {
    /// `unit` is what is counted: `img`, `steps`.
    pub(crate) fn new(what: impl Into<String>, total: u64, unit: &str) -> Self {
        let line =
            format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}  {{rate}}  {{eta}} left");
        Self::with_template(what, total, &format!("{line}  {{msg}}"))
    }

    /// The same with the message on lines of its own below the bar. Without a terminal its lines become one.
    pub(crate) fn tall(what: impl Into<String>, total: u64, unit: &str) -> Self {
        let line = format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}  {{eta}} left");
        Self::with_template(what, total, &format!("{line}\n{{msg}}"))
    }

    fn with_template(what: impl Into<String>, total: u64, template: &str) -> Self {
        let what = what.into();
        let plain = !on_terminal();
        // A bar without an end would be drawn full; it appears once the end is known.
        let target = match plain || total == 0 {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(5),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, w: &mut dyn std::fmt::Write| {
                let per_s = state.per_sec();
                // A bar that cannot write has nobody to tell.
                let _ = match per_s < 10.0 {
                    true => write!(w, "{per_s:.1}/s"),
                    false => write!(w, "{per_s:.0}/s"),
                };
            };
            bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
        }
        bar.set_prefix(what.clone());
        let now = Instant::now();
        Self {
            bar,
            what,
            started: now,
            plain,
            last_line: Cell::new(now),
            last_message: Cell::new(now),
            resumed_at: Cell::new(0),
        }
    }

    /// How much there is to do, where that was not known at first.
    pub(crate) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
        if !self.plain && self.bar.is_hidden() {
            self.bar
                .set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
    }

    /// Starts counting at `position`: what an earlier run has done says nothing about today's rate.
    pub(crate) fn resume_at(&self, position: u64) {
        self.resumed_at.set(position);
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// Moves the bar. The message is made where somebody will see it: at most ten times a second.
    pub(crate) fn set_with(&self, position: u64, message: impl FnOnce() -> String) {
        let due = match self.plain {
            true => self.last_line.get().elapsed() > Duration::from_secs(10),
            false => self.last_message.get().elapsed() > Duration::from_millis(100),
        };
        match due {
            true => {
                self.last_message.set(Instant::now());
                self.set(position, message());
            }
            false => self.bar.set_position(position),
        }
    }

    /// Moves the bar; where there is none to see, says a line every ten seconds.
    pub(crate) fn set(&self, position: u64, message: impl Into<String>) {
        let message = message.into();
        self.bar.set_position(position);
        if self.plain && self.last_line.get().elapsed() > Duration::from_secs(10) {
            self.last_line.set(Instant::now());
            let done = position.saturating_sub(self.resumed_at.get());
            let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
            let total = self.bar.length().unwrap_or(0);
            let left = total.saturating_sub(position) as f64 / rate.max(1e-9);
            say(format!(
                "{}: {position}/{total}, {rate:.0}/s, {} left  {}",
                self.what,
                duration(left),
                message.replace('\n', "  ")
            ));
        }
        self.bar.set_message(message);
    }

    /// A line above the bar.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if self.plain {
            say(text);
        } else {
            self.bar.println(text);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Seconds as a person says them.
pub(crate) fn duration(seconds: f64) -> String {
    // A record may say anything.
    if !(0.0..1e12).contains(&seconds) {
        return format!("{seconds} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes as a person says them, in powers of ten.
pub(crate) fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        _ if n < 1e3 => format!("{n} B"),
        _ if n < 1e6 => format!("{:.1} kB", n / 1e3),
        _ if n < 1e9 => format!("{:.1} MB", n / 1e6),
        _ => format!("{:.2} GB", n / 1e9),
    }
}
