//! Which recipe entries the hyper-parameters of a golden file stand for.

use logitcask_losses::LossSpec;
use serde_json::{Value, json};

/// An objective, and which of its terms are which components of the golden file.
pub struct Plan {
    pub entries: Vec<LossSpec>,
    /// (term of the objective, component of the file, factor on the term's value).
    pub terms: Vec<(String, String, f64)>,
    pub epoch: u32,
    pub epochs: u32,
}

impl Plan {
    /// None for a loss that nobody knows.
    pub fn of(loss: &str, hyper: &Value, n_rows: usize, n_classes: usize) -> Option<Plan> {
        let number = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
        let _ = n_rows;
        let _ = n_classes;
        // A method's default warm-up must not touch a file that says nothing of one.
        let warmup = number("warmup", 0.0);
        let (mut entries, terms) = match loss {
            "ce" => (vec![], vec![]),
            "kd" | "lskd_kd" => (
                vec![json!({
                    "name": "kd",
                    "weight": number("kd_weight", 0.9),
                    "temperature": number("temperature", 4.0),
                    "standardize": standardized(loss, hyper),
                })],
                vec![("kd", "kd"), ("kd", "kd_standardized")],
            ),
            "mcld" => (mcld(hyper), vec![
                ("mcld.instance", "icld"),
                ("mcld.sample", "scld_teacher_anchor"),
                ("mcld.category", "ccld_label_out"),
                ("mcld#2.instance", "icld_masked"),
                ("mcld#2.sample", "scld_within"),
                ("mcld#2.category", "ccld_label_in"),
                ("mcld#3.category", "ccld_column"),
            ]),
            _ => return None,
        };
        let mut terms: Vec<(String, String, f64)> =
            terms.into_iter().map(|(term, component)| (term.to_owned(), component.to_owned(), 1.0)).collect();
        entries.insert(0, json!({ "name": "ce", "weight": number("ce_weight", 1.0), "warmup_epochs": 0 }));
        terms.push(("ce".to_owned(), "ce".to_owned(), 1.0));
        for entry in &mut entries[1..] {
            entry["warmup_epochs"] = entry.get("warmup_epochs").cloned().unwrap_or(json!(warmup));
        }
        let epoch = number("epoch", 1.0) as u32;
        Some(Plan {
            entries: entries.into_iter().map(|entry| serde_json::from_value(entry).unwrap()).collect(),
            terms,
            epoch,
            epochs: epoch.max(1),
        })
    }
}

fn standardized(loss: &str, hyper: &Value) -> bool {
    hyper["standardize"].as_bool().unwrap_or(loss.starts_with("lskd"))
}

/// The readings of the golden total, and two more entries of weight 0 that measure the others.
fn mcld(hyper: &Value) -> Vec<Value> {
    let number = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
    let common = |entry: Value| {
        let mut entry = entry;
        entry["name"] = json!("mcld");
        entry["temperature"] = json!(number("temperature", 0.1));
        entry["normalize"] = hyper.get("normalize").cloned().unwrap_or(json!("l2"));
        entry
    };
    let warmup = number("warmup", 0.0);
    vec![
        common(json!({
            "instance": { "reading": "icld", "weight": number("icld_weight", 1.0), "warmup_epochs": 0 },
            "sample": { "reading": "scld_teacher_anchor", "weight": number("scld_weight", 1.0), "warmup_epochs": 0 },
            "category": { "reading": "ccld_label_out", "weight": number("ccld_weight", 1.0), "warmup_epochs": warmup },
        })),
        common(json!({
            "weight": 0,
            "instance": { "reading": "icld_masked" },
            "sample": { "reading": "scld_within" },
            "category": { "reading": "ccld_label_in" },
        })),
        common(json!({ "weight": 0, "category": { "reading": "ccld_column" } })),
    ]
}
