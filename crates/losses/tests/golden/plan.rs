//! Which recipe entries the hyper-parameters of a golden file stand for.

use logitcask_losses::LossSpec;
use serde_json::{Value, json};

/// An objective, and which of its terms are which components of the golden file.
pub(crate) struct Plan {
    /// The entries of the recipe.
    pub(crate) entries: Vec<LossSpec>,
    /// (term of the objective, component of the file, factor on the term's value).
    pub(crate) terms: Vec<(String, String, f64)>,
    /// A component that is `size * (1 - mean of cosines)`, `size` being this, carries rounding of that size in the file.
    pub(crate) difference_of: f64,
    /// The epoch that the total is of, counted from 1.
    pub(crate) epoch: u32,
    /// The epochs of the whole run.
    pub(crate) epochs: u32,
}

impl Plan {
    /// None for a loss that nobody knows.
    pub(crate) fn of(loss: &str, hyper: &Value, n_classes: usize) -> Option<Plan> {
        let number = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
        let standardize = hyper["standardize"]
            .as_bool()
            .unwrap_or(loss.starts_with("lskd"));
        let (ce_weight, kd_weight) = (number("ce_weight", 1.0), number("kd_weight", 1.0));
        // What the file does not mention has no warm-up, whatever the method's default.
        let warmup = number("warmup", 0.0);
        let mut ce = json!({
            "name": "ce", "weight": ce_weight, "label_smoothing": number("label_smoothing", 0.0),
        });
        // Components in the files of mlkd hold their weights.
        let (mut ce_component, mut ce_factor) = ("ce", 1.0);
        let entries_and_terms = match loss {
            "ce" => (vec![], vec![]),
            "kd" | "lskd_kd" => (
                vec![json!({
                    "name": "kd", "weight": kd_weight, "standardize": standardize,
                    "temperature": number("temperature", 4.0),
                })],
                vec![("kd", "kd", 1.0), ("kd", "kd_standardized", 1.0)],
            ),
            "dkd" | "lskd_dkd" => (
                vec![json!({
                    "name": "dkd", "alpha": number("alpha", 1.0), "beta": number("beta", 8.0),
                    "temperature": number("temperature", 4.0), "standardize": standardize, "warmup_epochs": warmup,
                })],
                vec![("dkd.tckd", "tckd", 1.0), ("dkd.nckd", "nckd", 1.0)],
            ),
            "nkd" => (
                vec![json!({
                    "name": "nkd", "gamma": number("gamma", 1.5), "weight": kd_weight,
                    "temperature": number("temperature", 1.0), "warmup_epochs": warmup,
                })],
                vec![
                    ("nkd.target", "target", 1.0),
                    ("nkd.non_target", "non_target", 1.0),
                ],
            ),
            "rld" => (
                vec![json!({
                    "name": "rld", "alpha": number("alpha", 1.0), "beta": number("beta", 8.0),
                    "temperature": number("temperature", 4.0), "scd_temperature": number("scd_temperature", 1.0),
                    "standardize": standardize, "warmup_epochs": warmup,
                })],
                vec![("rld.scd", "scd", 1.0), ("rld.mcd", "mcd", 1.0)],
            ),
            "clkd" => clkd(hyper),
            "mcld" => mcld(hyper),
            "ldrld" => ldrld(hyper, n_classes),
            "cskd" => (
                vec![json!({
                    "name": "cskd", "weight": kd_weight, "temperature": number("temperature", 4.0),
                    "low_temperature": number("low_t", 2.0), "high_temperature": number("high_t", 6.0),
                    "inner_alpha": number("inner_alpha", 2.0),
                })],
                vec![
                    ("cskd.fixed", "cs_fixed", 1.0),
                    ("cskd.cswt", "cs_cswt", 1.0),
                ],
            ),
            "mlkd_one_view" | "mlkd_two_view" => {
                let two_view = loss == "mlkd_two_view";
                ce["strong"] = json!(two_view);
                (ce_component, ce_factor) = ("ce_weighted", ce_weight);
                (
                    vec![json!({
                        "name": "mlkd", "standardize": standardize, "two_view": two_view,
                        "temperatures": hyper.get("temperatures").cloned().unwrap_or(json!([4, 3, 5, 2, 6])),
                        "kd": { "weight": kd_weight }, "cc": { "weight": kd_weight }, "bc": { "weight": kd_weight },
                    })],
                    vec![
                        ("mlkd.kd", "kd_weighted", kd_weight),
                        ("mlkd.cc", "cc_weighted", kd_weight),
                        ("mlkd.bc", "bc_weighted", kd_weight),
                    ],
                )
            }
            "dist" => (
                vec![json!({
                    "name": "dist", "weight": kd_weight, "temperature": number("tau", 4.0),
                    "beta": number("beta", 1.0), "gamma": number("gamma", 1.0),
                })],
                vec![("dist.inter", "inter", 1.0), ("dist.intra", "intra", 1.0)],
            ),
            "rkd" | "rkd_logits" => (
                vec![json!({
                    "name": "rkd", "weight": number("feat_weight", 1.0),
                    "squared": hyper["squared"].as_bool().unwrap_or(false), "epsilon": number("eps", 1e-12),
                    "distance": { "weight": number("distance_weight", 25.0) },
                    "angle": { "weight": number("angle_weight", 50.0) },
                })],
                vec![
                    ("rkd.distance", "distance", 1.0),
                    ("rkd.angle", "angle", 1.0),
                ],
            ),
            "vid" | "vid_logits" => (
                vec![json!({
                    "name": "vid", "weight": number("feat_weight", 1.0), "epsilon": number("eps", 1e-5),
                    "initial_variance": number("init_pred_var", 5.0),
                })],
                vec![("vid", "vid", 1.0)],
            ),
            "jsd" | "reverse_kl" => (
                vec![
                    json!({ "name": loss, "weight": kd_weight, "temperature": number("temperature", 4.0) }),
                ],
                vec![(loss, loss, 1.0)],
            ),
            "mse" => (
                vec![json!({ "name": "mse", "weight": kd_weight })],
                vec![("mse", "mse", 1.0)],
            ),
            _ => return None,
        };
        let (mut entries, mut terms) = entries_and_terms;
        entries.insert(0, ce);
        terms.push(("ce", ce_component, ce_factor));
        let own = |(term, component, factor): (&str, &str, f64)| {
            (term.to_owned(), component.to_owned(), factor)
        };
        let epoch = number("epoch", 1.0) as u32;
        let difference_of = match loss {
            "cskd" => {
                number("inner_alpha", 2.0)
                    * number("high_t", 6.0)
                        .max(number("temperature", 4.0))
                        .powi(2)
            }
            "dist" => number("tau", 4.0).powi(2),
            _ => 0.0,
        };
        Some(Plan {
            difference_of,
            entries: entries
                .into_iter()
                .map(|entry| serde_json::from_value(entry).unwrap())
                .collect(),
            terms: terms.into_iter().map(own).collect(),
            epoch,
            epochs: epoch,
        })
    }
}

/// Recipe entries, and (term, component, factor).
type Part = (Vec<Value>, Vec<(&'static str, &'static str, f64)>);

/// The reading that the total uses, and the other one with weight 0.
fn clkd(hyper: &Value) -> Part {
    let number = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
    let (mu, nu, beta) = (number("mu", 0.5), number("nu", 0.4), number("beta", 2.0));
    let (in_total, other) = match hyper["total_uses"].as_str() {
        Some("corr_cxc") => (("cxc", "corr_cxc"), ("nxn", "corr_nxn")),
        _ => (("nxn", "corr_nxn"), ("cxc", "corr_cxc")),
    };
    let entry = |weight: f64, reading: &str| {
        json!({
            "name": "clkd", "weight": weight, "instance": { "weight": mu }, "class": { "weight": mu * beta },
            "correlation": { "weight": nu, "reading": reading },
        })
    };
    (
        vec![entry(1.0, in_total.0), entry(0.0, other.0)],
        vec![
            ("clkd.instance", "instance", 1.0),
            ("clkd.class", "class", 1.0),
            ("clkd.correlation", in_total.1, 1.0),
            ("clkd#2.correlation", other.1, 1.0),
        ],
    )
}

/// The files' alpha is the factor on the sum of pairs and llki, the authors' (and ours) divided by the terms, n + 1.
fn ldrld(hyper: &Value, n_classes: usize) -> Part {
    let number = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
    let depth = n_classes.min(hyper["depth"].as_u64().unwrap_or(5) as usize);
    let n_terms = (depth * (depth - 1) / 2 + 1) as f64;
    let entry = |weight: f64, reading: &str| {
        json!({
            "name": "ldrld", "weight": weight,
            "depth": depth,
            "temperature": number("temperature", 4.0),
            "irw_epsilon": number("irw_eps", 1.5), "erd_delta": number("erd_delta", 2.0),
            "erd_lambda": number("erd_lambda", 0.05),
            "tau_squared": hyper["tau_squared_scaling"].as_bool().unwrap_or(true),
            "alpha": number("alpha", 1.0) * n_terms, "beta": number("beta", 1.0),
            "pairs": { "reading": reading },
        })
    };
    (
        vec![entry(1.0, "weighted"), entry(0.0, "unweighted")],
        vec![
            ("ldrld.pairs", "pairs_weighted", n_terms),
            ("ldrld#2.pairs", "pairs_unweighted", n_terms),
            ("ldrld.llki", "llki", n_terms),
            ("ldrld.rntk", "rntk", 1.0),
        ],
    )
}

/// The readings of the golden total, and two more entries of weight 0 that measure the others.
fn mcld(hyper: &Value) -> Part {
    let number = |key: &str, default: f64| hyper[key].as_f64().unwrap_or(default);
    let common = |entry: Value| {
        let mut entry = entry;
        entry["name"] = json!("mcld");
        entry["temperature"] = json!(number("temperature", 0.1));
        entry["normalize"] = hyper.get("normalize").cloned().unwrap_or(json!("l2"));
        entry
    };
    let warmup = number("warmup", 0.0);
    (
        vec![
            common(json!({
                "instance": { "reading": "icld", "weight": number("icld_weight", 1.0) },
                "sample": { "reading": "scld_teacher_anchor", "weight": number("scld_weight", 1.0) },
                "category": {
                    "reading": "ccld_label_out", "weight": number("ccld_weight", 1.0), "warmup_epochs": warmup,
                },
            })),
            common(json!({
                "weight": 0,
                "instance": { "reading": "icld_masked" },
                "sample": { "reading": "scld_within" },
                "category": { "reading": "ccld_label_in" },
            })),
            common(json!({ "weight": 0, "category": { "reading": "ccld_column" } })),
        ],
        vec![
            ("mcld.instance", "icld", 1.0),
            ("mcld.sample", "scld_teacher_anchor", 1.0),
            ("mcld.category", "ccld_label_out", 1.0),
            ("mcld#2.instance", "icld_masked", 1.0),
            ("mcld#2.sample", "scld_within", 1.0),
            ("mcld#2.category", "ccld_label_in", 1.0),
            ("mcld#3.category", "ccld_column", 1.0),
        ],
    )
}
