//! Which numbers a recipe may hold: one table, by key.
//!
//! It is looked at before anything is made of a recipe. So an absurd number is refused by its name, with what would do, and not
//! by the memory that runs out over it; and none is cut down in silence to what a smaller integer holds. Rules that need more than
//! the number (a batch within its dataset) stand with whoever obeys them. `docs/ranges.md` is this table in print.

use std::fmt;

use toml::Value;

use crate::problem::Problem;

/// The most combinations of a sweep.
pub(crate) const MOST_RUNS: usize = 10_000;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Takes {
    /// A whole number from one to another, both included.
    Whole(i64, i64),
    /// A number from one to another, both included.
    Number(f64, f64),
}

use Takes::{Number, Whole};

/// Samples are numbered in 32 bits.
const SAMPLES: i64 = u32::MAX as i64;
/// TOML's integers have 63 bits and a sign.
const ANY: Takes = Whole(0, i64::MAX);
/// The next number above 0.
const ABOVE_0: f64 = f64::MIN_POSITIVE;
/// The next number below 1.
const BELOW_1: f64 = 1.0 - f64::EPSILON / 2.0;
/// Far from where f32 ends.
const LARGE: f64 = 1e30;
const SHARE: Takes = Number(0.0, 1.0);
const POSITIVE: Takes = Number(ABOVE_0, LARGE);
const NOT_NEGATIVE: Takes = Number(0.0, LARGE);
const SIDE: Takes = Whole(1, 16_384);
const BYTE: Takes = Whole(0, 255);
const PILLOW: Takes = Whole(12, 13);

/// By key; `*` is any position of a list. `views.clean` has the options of `views.augment`, and `views.strong` the keys of
/// `views`. A number of any other key has only to be finite, and its section says what it takes.
#[rustfmt::skip] // a table
pub(crate) const RANGES: &[(&str, Takes)] = &[
    ("seed", ANY),
    ("data.limit", Whole(1, SAMPLES)),
    ("data.subset.*", Whole(0, SAMPLES)),
    ("data.exclude.*", Whole(0, SAMPLES)),
    ("data.sample_weights.list.*", Whole(0, SAMPLES)),
    ("data.sample_weights.weight", NOT_NEGATIVE),
    ("data.n_classes", Whole(1, 1_000_000)),
    ("data.channels", Whole(1, 3)),
    ("data.max_image_pixels", Whole(1, u32::MAX as i64)),
    ("data.max_bytes", Whole(1, i64::MAX)),
    ("data.synthetic.n_train", Whole(0, SAMPLES)),
    ("data.synthetic.n_eval", Whole(0, SAMPLES)),
    ("data.synthetic.height", SIDE),
    ("data.synthetic.width", SIDE),
    ("data.synthetic.seed", ANY),
    ("views.count", Whole(1, 100_000)),
    ("views.views_per_step", Whole(1, 1024)),
    ("views.views_per_pass", Whole(1, 1024)),
    ("views.seed", ANY),
    ("views.augment.*.size", SIDE),
    ("views.augment.*.padding", Whole(0, 16_384)),
    ("views.augment.*.fill", BYTE),
    ("views.augment.*.value", BYTE),
    ("views.augment.*.value.*", BYTE),
    ("views.augment.*.pillow", PILLOW),
    ("views.augment.*.n_ops", Whole(1, 32)),
    ("views.augment.*.magnitude", Whole(0, 30)),
    ("teacher.*.mean.*", Number(-LARGE, LARGE)),
    ("teacher.*.std.*", POSITIVE),
    ("teacher.*.size", SIDE),
    ("teacher.*.pillow", PILLOW),
    ("teacher.*.channels", Whole(1, 3)),
    ("teacher.*.classes.*", Whole(0, 999_999)),
    ("teacher.*.min_accuracy", SHARE),
    ("teacher.*.batch_size", Whole(1, 65_536)),
    ("teacher.*.chunk_rows", Whole(1, 1_048_576)),
    ("ensemble.weights.*", NOT_NEGATIVE),
    ("ensemble.dropout", Number(0.0, BELOW_1)),
    ("student.mean.*", Number(-LARGE, LARGE)),
    ("student.std.*", POSITIVE),
    ("loss.*.weight", NOT_NEGATIVE),
    ("loss.*.bank", Whole(0, 1_048_576)),
    ("loss.*.depth", Whole(1, 1_000_000)),
    ("train.epochs", Whole(1, 1_000_000)),
    ("train.batch_size", Whole(1, 1_048_576)),
    ("train.accumulate", Whole(1, 65_536)),
    ("train.clip_norm", POSITIVE),
    ("train.ema", Number(0.0, BELOW_1)),
    ("train.eval_every", Whole(1, 1_000_000)),
    ("train.early_stop", Whole(1, 1_000_000)),
    ("train.held_out", Whole(0, SAMPLES)),
    ("train.checkpoint_steps", Whole(1, SAMPLES)),
    ("train.keep_checkpoints", Whole(0, 1_000_000)),
    ("train.optimizer.lr", POSITIVE),
    ("train.optimizer.momentum", Number(0.0, BELOW_1)),
    ("train.optimizer.weight_decay", NOT_NEGATIVE),
    ("train.optimizer.betas.*", Number(0.0, BELOW_1)),
    ("train.optimizer.eps", POSITIVE),
    ("train.schedule.milestones.*", NOT_NEGATIVE),
    ("train.schedule.gamma", POSITIVE),
    ("train.schedule.final_lr", NOT_NEGATIVE),
    ("train.schedule.warmup_epochs", Number(0.0, 1_000_000.0)),
];

/// A number that is out of its range, or is none.
pub(crate) struct OutOfRange {
    /// What the user calls it: `loss.0.weight`.
    pub(crate) place: String,
    /// What it may be, where the table says so.
    pub(crate) takes: Option<Takes>,
    pub(crate) problem: Problem,
}

/// Refuses the first number of a recipe that is out of its range, and any that is not finite.
pub(crate) fn check(recipe: &Value) -> Result<(), Problem> {
    match problems(recipe).into_iter().next() {
        Some(first) => Err(first.problem),
        None => Ok(()),
    }
}

/// Every number that is out of its range or not finite.
pub(crate) fn problems(recipe: &Value) -> Vec<OutOfRange> {
    let mut found = Vec::new();
    walk(recipe, String::new(), "", &mut found);
    found
}

/// `place` is what the user calls it, `key` the table.
fn walk(value: &Value, place: String, key: &str, found: &mut Vec<OutOfRange>) {
    let below = |name: &str| match place.is_empty() {
        true => name.to_owned(),
        false => format!("{place}.{name}"),
    };
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                walk(value, below(name), &key_below(key, name), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, below(&index.to_string()), &key_below(key, "*"), found);
            }
        }
        Value::Integer(n) => found.extend(out_of_range(place, key, *n as f64, Some(*n))),
        Value::Float(x) => found.extend(out_of_range(place, key, *x, None)),
        _ => {}
    }
}

fn key_below(key: &str, name: &str) -> String {
    match (key, name) {
        ("", name) => name.to_owned(),
        ("views", "strong") => key.to_owned(),
        ("views", "clean") => "views.augment".to_owned(),
        _ => format!("{key}.{name}"),
    }
}

fn out_of_range(place: String, key: &str, number: f64, whole: Option<i64>) -> Option<OutOfRange> {
    let takes = RANGES.iter().find(|(known, _)| *known == key);
    let takes = takes.map(|(_, takes)| *takes);
    let is_in = match (takes, whole) {
        (Some(Whole(from, to)), Some(n)) => (from..=to).contains(&n),
        // What takes whole numbers refuses others by itself.
        (None | Some(Whole(..)), _) => number.is_finite(),
        (Some(Number(from, to)), _) => (from..=to).contains(&number),
    };
    if is_in {
        return None;
    }
    let found = whole.map_or_else(|| number.to_string(), |n| n.to_string());
    let expected = takes.map_or("a finite number".to_owned(), |takes| takes.to_string());
    let problem = Problem {
        message: format!("`{place}` is {found}, expected {expected}"),
        hint: Some("docs/ranges.md has the range of every key".to_owned()),
    };
    Some(OutOfRange {
        place,
        takes,
        problem,
    })
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Whole(from, to) => write!(f, "a whole number from {from} to {to}"),
            Number(from, to) => {
                match from == ABOVE_0 {
                    true => write!(f, "a number above 0")?,
                    false => write!(f, "a number from {}", plain(from))?,
                }
                match to == BELOW_1 {
                    true => write!(f, " to just below 1"),
                    false => write!(f, " to {}", plain(to)),
                }
            }
        }
    }
}

/// The number in digits; from 1e15 on with an exponent, without thirty zeros.
fn plain(number: f64) -> String {
    match number.abs() < 1e15 {
        true => number.to_string(),
        false => format!("{number:e}"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use logitcask_dataset::{AugmentSpec, ViewFamily, augmentations};
    use logitcask_losses::{LossSpec, Objective, Setup, methods};

    use super::*;
    use crate::recipe::{Recipe, set};

    const RECIPE: &str = r#"
        [data]
        format = "synthetic"
        [data.sample_weights]
        list = [1]
        weight = 1.0
        [[teacher]]
        onnx = "t.onnx"
        [ensemble]
        combine = "logits"
        [student]
        name = "resnet8"
        [[loss]]
        name = "kd"
        [train]
        epochs = 1
        batch_size = 8
        optimizer = { name = "sgd", lr = 0.1 }
        schedule = { name = "step", milestones = [1] }
    "#;

    /// What users typed, and what 32 bits make of it: 4294967295, 256, and on.
    const ABSURD: [i64; 5] = [0, -1, (1 << 32) - 1, (1 << 32) + 256, i64::MAX];

    fn with(place: &str, value: Value) -> Result<Recipe, Problem> {
        let mut recipe: Value = toml::from_str(RECIPE).unwrap();
        let steps: Vec<&str> = place.split('.').collect();
        set(&mut recipe, &steps, value).unwrap();
        Recipe::from_value(recipe)
    }

    /// The keys that a section knows, out of the refusal of one that it does not.
    fn keys_of(section: &str) -> Vec<String> {
        let problem = with(&format!("{section}unheard_of"), Value::Boolean(true)).unwrap_err();
        let (_, known) = problem.message.split_once("expected").unwrap();
        let keys = known.split('`').skip(1).step_by(2);
        keys.map(|key| format!("{section}{key}")).collect()
    }

    /// `chunk_rows = 2^32 + 256` became 256, `batch_size = 0` became 1, and 2^32 - 1 views were made room for.
    #[test]
    fn each_integer_of_a_recipe_is_refused_by_name_or_obeyed() {
        let sections = [
            "",
            "data.",
            "data.synthetic.",
            "views.",
            "views.strong.",
            "teacher.0.",
            "ensemble.",
            "student.",
            "train.",
            "train.optimizer.",
            "train.schedule.",
        ];
        let (mut n_obeyed, mut n_refused) = (0, 0);
        for place in sections.iter().flat_map(|section| keys_of(section)) {
            for n in ABSURD {
                let last = place.rsplit('.').next().unwrap();
                match with(&place, Value::Integer(n)) {
                    Err(problem) => {
                        n_refused += 1;
                        // Of a word or a switch inside a tagged table, serde names the table.
                        let section = place.rsplit('.').nth(1).unwrap_or_default();
                        let names = |name: &str| problem.message.contains(name);
                        let is_switch = names("found the number") && names(section);
                        assert!(
                            names(last) || is_switch,
                            "{place} = {n}: {}",
                            problem.message
                        );
                    }
                    Ok(recipe) => {
                        n_obeyed += 1;
                        let kept = Value::try_from(&recipe).unwrap();
                        let kept = place.split('.').try_fold(&kept, |value, step| match value {
                            Value::Array(items) => items.get(step.parse::<usize>().unwrap()),
                            value => value.get(step),
                        });
                        let is_kept = match kept {
                            Some(Value::Integer(kept)) => *kept == n,
                            Some(Value::Float(kept)) => *kept == n as f64,
                            Some(_) => false,
                            None => n == 0, // a default that is not written
                        };
                        assert!(is_kept, "{place} = {n} became {kept:?}");
                        let key = place
                            .replace("teacher.0", "teacher.*")
                            .replace("views.strong", "views");
                        assert!(
                            RANGES.iter().any(|(known, _)| *known == key),
                            "`{key}` has no range"
                        );
                    }
                }
            }
        }
        println!("{n_obeyed} obeyed, {n_refused} refused");
        assert!(n_obeyed > 30 && n_refused > 300, "{n_obeyed} {n_refused}");
    }

    #[test]
    fn lists_are_walked_and_what_is_no_number_is_refused() {
        for (place, value, words) in [
            (
                "data.subset",
                "[3, -1]",
                "`data.subset.1` is -1, expected a whole number from 0 to 4294967295",
            ),
            (
                "train.optimizer.lr",
                "nan",
                "`train.optimizer.lr` is NaN, expected a number above 0 to 1e30",
            ),
            (
                "train.optimizer.lr",
                "-0.1",
                "`train.optimizer.lr` is -0.1, expected a number above 0",
            ),
            (
                "train.ema",
                "1.0",
                "`train.ema` is 1, expected a number from 0 to just below 1",
            ),
            (
                "loss.0.temperature",
                "inf",
                "`loss.0.temperature` is inf, expected a finite number",
            ),
            (
                "views.augment",
                "[{ name = \"resize\", size = 1000000 }]",
                "`views.augment.0.size` is 1000000",
            ),
            (
                "views.clean",
                "[{ name = \"resize\", size = 1000000 }]",
                "`views.clean.0.size` is 1000000",
            ),
            (
                "teacher.0.std",
                "[0.2, 0.0]",
                "`teacher.0.std.1` is 0, expected a number above 0",
            ),
            (
                "views.strong.count",
                "4294967295",
                "`views.strong.count` is 4294967295, expected a whole number from 1 to 100000",
            ),
        ] {
            let value =
                toml::from_str::<toml::Table>(&format!("x = {value}")).unwrap()["x"].clone();
            let problem = with(place, value).unwrap_err();
            assert!(problem.message.contains(words), "{}", problem.message);
        }
    }

    /// Their sections take any key, and each method reads its own.
    #[test]
    fn each_integer_of_each_loss_and_augmentation_is_refused_by_name_or_fits() {
        let setup = Setup {
            n_classes: 10,
            epochs: 1,
            dtype: DType::F32,
            device: &Device::Cpu,
        };
        for row in methods() {
            let options = (row.options)();
            let options = options.iter().map(|option| option.key.as_str());
            for (option, n) in options.flat_map(|key| ABSURD.map(|n| (key, n))) {
                let Err(message) = of_loss(row.name, option, n, &setup) else {
                    continue;
                };
                let last = option.rsplit('.').next().unwrap();
                assert!(
                    message.contains(last),
                    "{} {option} = {n}: {message}",
                    row.name
                );
            }
        }
        for row in augmentations() {
            let spec = AugmentSpec::new(row.name);
            let message = refusal(&spec.clone().with("unheard_of", 1));
            let (_, known) = message.split_once("expected").unwrap();
            let keys: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            for (key, n) in keys.iter().flat_map(|key| ABSURD.map(|n| (*key, n))) {
                let augment = format!("[[views.augment]]\nname = \"{}\"\n{key} = {n}", row.name);
                if check(&toml::from_str(&augment).unwrap()).is_ok() {
                    let spec = match keys.contains(&"size") {
                        true => spec.clone().with("size", 8),
                        false => spec.clone(),
                    };
                    let message = refusal(&spec.with(key, n));
                    let is_switch = message.contains("invalid type");
                    let is_named = message.is_empty() || message.contains(key) || is_switch;
                    assert!(is_named, "{} {key} = {n}: {message}", row.name);
                }
            }
        }
    }

    fn of_loss(name: &str, option: &str, n: i64, setup: &Setup) -> Result<(), String> {
        let mut recipe: Value = toml::from_str(RECIPE).unwrap();
        let place = format!("loss.0.{option}");
        set(
            &mut recipe,
            &["loss", "0", "name"],
            Value::String(name.to_owned()),
        )
        .unwrap();
        set(
            &mut recipe,
            &place.split('.').collect::<Vec<_>>(),
            Value::Integer(n),
        )
        .unwrap();
        let recipe = Recipe::from_value(recipe).map_err(|problem| problem.message)?;
        let losses: &[LossSpec] = &recipe.loss;
        Objective::new(losses, setup)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Nothing where it is taken.
    fn refusal(spec: &AugmentSpec) -> String {
        let made = ViewFamily::new(std::slice::from_ref(spec), 1, None);
        made.err().map_or_else(String::new, |error| {
            let why = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", why.unwrap_or_default())
        })
    }

    #[test]
    fn the_page_in_print_is_this_table() {
        let page = include_str!("../../../docs/ranges.md");
        let rows: Vec<String> = RANGES
            .iter()
            .map(|(key, takes)| format!("| `{key}` | {takes} |"))
            .collect();
        let missing: Vec<&String> = rows.iter().filter(|row| !page.contains(*row)).collect();
        assert!(missing.is_empty(), "docs/ranges.md lacks {missing:#?}");
        let n_rows = page
            .lines()
            .filter(|line| line.starts_with("| `") && !line.starts_with("| `--"))
            .count();
        assert_eq!(n_rows, rows.len());
    }
}
