use serde_json::{Value, json};

use crate::args::{List, Listed};
use crate::exit::Outcome;

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
        }
        print_table(&rows);
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
                let about = format!("{} parameters at 100 classes; {}", row.n_parameters, row.source);
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

fn loss(row: &logitcask_losses::MethodRow) -> Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    value["about"] = format!("{} ({})", row.title, row.paper).into();
    value
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
