//! `list`: the registries of losses, students, formats, augmentations and encodings, in columns or as JSON.

use candle_core::{DType, Device};
use logitcask_experiment::Outcome;
use logitcask_losses::{COMMON_OPTIONS, MethodRow, Options, Setup};
use serde_json::{Value, json};

use crate::args::{List, Listed};

pub(crate) fn run(args: &List) -> Outcome {
    let all = [
        Listed::Losses,
        Listed::Students,
        Listed::Datasets,
        Listed::Augmentations,
        Listed::Encodings,
        Listed::Providers,
    ];
    let wanted: Vec<Listed> = args.what.map_or(all.to_vec(), |what| vec![what]);
    for (index, what) in wanted.iter().enumerate() {
        let rows = rows(*what);
        if args.json {
            for mut row in rows {
                row["kind"] = kind(*what).into();
                println!("{row}");
            }
            continue;
        }
        if wanted.len() > 1 {
            println!("{}{}", if index > 0 { "\n" } else { "" }, kind(*what));
            print_table(&rows);
        } else if *what == Listed::Losses {
            print_losses(&rows);
        } else {
            print_table(&rows);
        }
    }
    Ok(())
}

fn kind(what: Listed) -> &'static str {
    match what {
        Listed::Losses => "losses",
        Listed::Students => "students",
        Listed::Datasets => "datasets",
        Listed::Augmentations => "augmentations",
        Listed::Encodings => "encodings",
        Listed::Providers => "providers",
    }
}

fn rows(what: Listed) -> Vec<Value> {
    let named = |name: &str, about: &str| json!({ "name": name, "about": about });
    match what {
        Listed::Losses => logitcask_losses::methods().iter().map(loss).collect(),
        Listed::Students => logitcask_student::models()
            .map(|row| {
                let about = format!("{} parameters at {} classes; {}", row.n_parameters, row.n_classes, row.source);
                json!({ "name": row.name, "about": about, "n_parameters": row.n_parameters, "source": row.source })
            })
            .collect(),
        Listed::Datasets => logitcask_dataset::formats().iter().map(|row| named(row.name, row.summary)).collect(),
        Listed::Augmentations => logitcask_dataset::augmentations().iter().map(|row| named(row.name, row.summary)).collect(),
        Listed::Encodings => logitcask_cache::encodings().iter().map(|row| named(row.name, row.about)).collect(),
        Listed::Providers => logitcask_teacher::ExecutionProvider::ALL
            .iter()
            .map(|provider| named(provider.name(), "`logitcask doctor` says whether it runs here"))
            .collect(),
    }
}

fn loss(row: &MethodRow) -> Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    value["about"] = format!("{} ({})", row.title, row.paper).into();
    // What a method needs depends on its options; this is what it needs by default.
    let setup = Setup {
        n_classes: 100,
        epochs: 240,
        dtype: DType::F32,
        device: &Device::Cpu,
    };
    let built = (row.build)(&mut Options::new(row.name, serde_json::Map::new()), &setup);
    if let Ok(method) = built {
        value["needs"] = serde_json::to_value(method.needs()).unwrap_or_default();
    }
    value
}

/// Everything a recipe can say about each loss.
fn print_losses(rows: &[Value]) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for row in rows {
        println!("{}: {}", plain(&row["name"]), plain(&row["about"]));
        list(&row["components"]).iter().for_each(print_part);
        for option in list(&row["options"]) {
            let (key, meaning) = (plain(&option["key"]), plain(&option["meaning"]));
            match option["default"].as_str() {
                // What leaving it out means is in the meaning.
                Some("null") | None => println!("    {key}: {meaning}"),
                Some(default) => println!("    {key} = {default}: {meaning}"),
            }
        }
        println!("    needs: {}\n", needs(&row["needs"]));
    }
    println!("every loss also takes:");
    for [key, default, meaning] in COMMON_OPTIONS {
        println!("    {key} = {default}: {meaning}");
    }
}

/// One component of a loss: what it means, and what it weighs from when on.
fn print_part(part: &Value) {
    let warmup = match &part["default_warmup"] {
        Value::Object(given) => match (given.get("epochs"), given.get("share")) {
            (Some(epochs), _) => format!(", growing over {epochs} epochs"),
            (_, Some(share)) => format!(", growing over {share:.2} of the run"),
            _ => String::new(),
        },
        _ => String::new(),
    };
    let key = part["weight_key"]
        .as_str()
        .map_or(String::new(), |key| format!(" (`{key}`)"));
    println!(
        "    part {}: {}; weight {}{key}{warmup}",
        plain(&part["name"]),
        plain(&part["meaning"]),
        part["default_weight"]
    );
}

/// A text without its quotation marks, anything else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn needs(needs: &Value) -> String {
    let mut words = vec![match &needs["teacher"] {
        Value::String(what) if what == "nothing" => "no teacher".to_owned(),
        Value::String(_) => "the teacher's logit of every class".to_owned(),
        top_k => format!(
            "the teacher's largest logits and {}",
            top_k["top_k"].as_str().unwrap_or("a rest")
        ),
    }];
    if needs["absolute_logits"] == true {
        words.push("logits as the teacher gave them, not recovered from probabilities".to_owned());
    }
    match needs["labels"].as_str() {
        Some("single") => words.push("one label per sample".to_owned()),
        Some("mixable") => words.push("labels, mixed or single".to_owned()),
        _ => {}
    }
    if needs["strong_view"] == true {
        words.push("a strong view".to_owned());
    }
    words.join("; ")
}

/// Name and description, aligned.
fn print_table(rows: &[Value]) {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let width = rows
        .iter()
        .map(|row| text(row, "name").len())
        .max()
        .unwrap_or(0);
    for row in rows {
        println!("  {:width$}  {}", text(row, "name"), text(row, "about"));
    }
}
