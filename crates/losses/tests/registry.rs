//! What every loss must hold to, asked of every row of the registry: a method added tomorrow is tested unasked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use candle_core::DType;
use common::{Batch, assert_all_close, assert_close, batches, cases, sized};
use logitcask_losses::{LabelNeed, LossError, MethodRow, Need, Needs, TeacherNeed, methods};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Every method with its defaults, and with the options that change its mathematics.
fn entries() -> Vec<Value> {
    let mut entries: Vec<Value> = methods()
        .iter()
        .map(|row| json!({ "name": row.name }))
        .collect();
    entries.extend([
        json!({ "name": "ce", "strong": true }),
        json!({ "name": "kd", "standardize": true, "temperature": 2 }),
        json!({ "name": "kd", "temperature": 0.5 }),
        json!({ "name": "dkd", "standardize": true, "temperature": 1 }),
        json!({ "name": "rld", "standardize": true, "scd_temperature": 2 }),
        json!({ "name": "mlkd", "standardize": true, "temperatures": [2, 3] }),
        json!({ "name": "mlkd", "two_view": true }),
        json!({ "name": "clkd", "correlation": { "reading": "cxc" } }),
        json!({ "name": "ldrld", "depth": 2, "pairs": { "reading": "unweighted" }, "temperature": 1 }),
        json!({ "name": "rkd", "squared": true }),
        json!({ "name": "mcld", "normalize": "none", "temperature": 4, "target_mask": false }),
        json!({ "name": "mcld", "normalize": "softmax", "bank": 3 }),
        json!({ "name": "mcld", "normalize": "teacher", "sample": { "reading": "scld_within" } }),
        json!({ "name": "mcld", "category": { "reading": "ccld_label_out" }, "bank": 2 }),
        json!({ "name": "mcld", "category": { "reading": "ccld_column" }, "temperature": 0.1 }),
    ]);
    entries
}

fn row_of(entry: &Value) -> &'static MethodRow {
    methods()
        .iter()
        .find(|row| row.name == entry["name"].as_str().unwrap())
        .unwrap()
}

fn needs(entry: &Value, batch: &Batch) -> Needs {
    batch.objective(entry, DType::F64).unwrap().needs()
}

fn some_batch() -> Batch {
    let n_classes = 8;
    let wave = |phase: f64| {
        (0..7 * n_classes)
            .map(|i| 2.0 * (1.7 * i as f64 + phase).sin())
            .collect()
    };
    Batch {
        n_classes,
        student: wave(0.0),
        teacher: wave(2.0),
        labels: vec![0, 1, 2, 1, 4, 5, 0],
        mixed: None,
        bank: Some((wave(4.0), vec![0, 3, 3, 2, 5, 1, 1])),
    }
}

#[test]
fn values_and_gradients_are_finite_where_logits_are_extreme() {
    let scales = [1e4, 1e-20, 0.0];
    for (n_rows, n_classes) in [(1, 2), (1, 9), (2, 2), (6, 2), (5, 12)] {
        for scale in scales {
            for equal_labels in [false, true] {
                let wave = |phase: f64, n: usize| -> Vec<f64> {
                    (0..n * n_classes)
                        .map(|i| scale * (1.7 * i as f64 + phase).sin())
                        .collect()
                };
                let label = |i: usize| {
                    if equal_labels {
                        1
                    } else {
                        (i % n_classes) as u32
                    }
                };
                let batch = Batch {
                    n_classes,
                    student: wave(0.0, n_rows),
                    teacher: wave(2.0, n_rows),
                    labels: (0..n_rows).map(label).collect(),
                    mixed: None,
                    bank: Some((wave(4.0, 3), (0..3).map(label).collect())),
                };
                let tied = Batch {
                    student: vec![scale; n_rows * n_classes],
                    ..batch.clone()
                };
                let agreed = Batch {
                    student: batch.teacher.clone(),
                    ..batch.clone()
                };
                for entry in entries() {
                    for (kind, batch) in [
                        ("waves", &batch),
                        ("ties", &tied),
                        ("student = teacher", &agreed),
                    ] {
                        for dtype in [DType::F32, DType::F64] {
                            let what = format!(
                                "{entry} {n_rows}x{n_classes} {kind} scale {scale} {dtype:?}"
                            );
                            batch.evaluate(&entry, dtype).assert_finite(&what);
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn the_order_of_rows_does_not_matter(batch in batches(4.0), seed in 0usize..100) {
        let n = batch.n_rows();
        let order: Vec<usize> = (0..n).map(|i| (i * (2 * seed + 1) + seed) % n).collect();
        let distinct: std::collections::HashSet<_> = order.iter().collect();
        prop_assume!(distinct.len() == n);
        for entry in entries() {
            let (plain, permuted) = (batch.evaluate(&entry, DType::F64), batch.permuted(&order).evaluate(&entry, DType::F64));
            assert_close(plain.total, permuted.total, 1e-9, &entry.to_string());
            let c = batch.n_classes;
            for (to, &from) in order.iter().enumerate() {
                let what = format!("{entry} row {from}");
                assert_all_close(&permuted.gradient[to * c..(to + 1) * c], &plain.gradient[from * c..(from + 1) * c], 1e-8, &what);
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences(batch in sized(5, 6, 3.0)) {
        // Steps that change the order of a row's logits change what LDRLD compares, which has no derivative.
        let nearest = batch.student.chunks(6).flat_map(|row| {
            (0..6).flat_map(move |i| (0..i).map(move |j| (row[i] - row[j]).abs()))
        });
        prop_assume!(nearest.fold(f64::INFINITY, f64::min) > 1e-3);
        for mut entry in entries() {
            // The temperatures of CSWT follow the student, but are constants for its gradient.
            if entry["name"] == "cskd" {
                entry["cswt"] = json!({ "weight": 0 });
            }
            let outcome = batch.evaluate(&entry, DType::F64);
            let h = 1e-4;
            for index in (0..batch.student.len()).step_by(7) {
                let at = |step: f64| {
                    let mut moved = batch.clone();
                    moved.student[index] += step * h;
                    moved.evaluate(&entry, DType::F64).total
                };
                let numeric = (at(-2.0) - 8.0 * at(-1.0) + 8.0 * at(1.0) - at(2.0)) / (12.0 * h);
                let scale = outcome.gradient.iter().fold(1e-3, |scale: f64, g| scale.max(g.abs()));
                let error = (numeric - outcome.gradient[index]).abs() / scale;
                prop_assert!(error < 1e-6, "{entry} at {index}: {numeric} for {}", outcome.gradient[index]);
            }
        }
    }

    #[test]
    fn f32_follows_f64(batch in batches(4.0)) {
        for entry in entries() {
            let (wide, narrow) = (batch.evaluate(&entry, DType::F64), batch.evaluate(&entry, DType::F32));
            assert_close(wide.total, narrow.total, 1e-3, &entry.to_string());
        }
    }
}

#[test]
fn what_a_method_declares_is_what_it_does() {
    let batch = some_batch();
    for entry in entries() {
        let needs = needs(&entry, &batch);
        let plain = batch.evaluate(&entry, DType::F64).total;
        let shifted = batch
            .with_shifted_teacher()
            .evaluate(&entry, DType::F64)
            .total;
        match needs.absolute_logits {
            false => assert_close(plain, shifted, 1e-9, &format!("{entry}: teacher shifted")),
            true => assert!(
                (plain - shifted).abs() > 1e-9,
                "{entry} calls itself absolute, yet ignores a shift"
            ),
        }
        let relabelled = batch
            .with_labels(vec![3; 7])
            .evaluate(&entry, DType::F64)
            .total;
        match needs.labels {
            LabelNeed::Ignored => assert_eq!(plain, relabelled, "{entry}: other labels"),
            _ => assert_ne!(plain, relabelled, "{entry} wants labels, yet ignores them"),
        }
    }
}

#[test]
fn mixed_views_are_taken_or_refused_as_declared() {
    let mut batch = some_batch();
    batch.mixed = Some((vec![3; 7], vec![0.25; 7]));
    for entry in entries() {
        let outcome = batch.try_evaluate(&entry, DType::F64);
        match needs(&entry, &batch).labels {
            LabelNeed::Single => {
                let error = outcome.expect_err(&entry.to_string());
                assert!(
                    matches!(
                        error,
                        LossError::Unserved {
                            needs: Need::SingleLabel,
                            ..
                        }
                    ),
                    "{entry}: {error}"
                );
            }
            LabelNeed::Mixable | LabelNeed::Ignored => {
                outcome.unwrap().assert_finite(&entry.to_string())
            }
        }
    }
}

#[test]
fn a_teacher_is_asked_for_only_where_needed() {
    use candle_core::{Device, Tensor};
    use logitcask_losses::LogitBatch;
    let batch = some_batch();
    for row in methods() {
        let objective = batch
            .objective(&json!({ "name": row.name }), DType::F32)
            .unwrap();
        let student = Tensor::new(&[[0f32, 1., 2., 3., 4., 5., 6., 7.]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0u32], &Device::Cpu).unwrap();
        let outcome = objective.forward(&LogitBatch::new(&student, None, &labels), 1);
        match objective.needs().teacher {
            TeacherNeed::Nothing => assert!(outcome.is_ok()),
            _ => assert!(
                matches!(
                    outcome,
                    Err(LossError::Unserved {
                        needs: Need::Teacher,
                        ..
                    })
                ),
                "{}",
                row.name
            ),
        }
    }
}

#[test]
fn the_defaults_in_the_registry_are_the_defaults() {
    let batch = some_batch();
    for row in methods() {
        let plain = batch.evaluate(&json!({ "name": row.name }), DType::F64);
        let mut spelled_out = json!({ "name": row.name });
        for option in (row.options)() {
            let value: Value =
                serde_json::from_str(&option.default).unwrap_or_else(|_| json!(option.default));
            match option.key.split_once('.') {
                None => spelled_out[&option.key] = value,
                Some((table, key)) => spelled_out[table][key] = value,
            }
        }
        for component in row.components {
            let key = match component.name == row.name {
                // Beside the name of a method of one part, a weight multiplies.
                true => {
                    spelled_out["weight"] = json!(1);
                    continue;
                }
                false => component.name,
            };
            spelled_out[key]["weight"] = json!(component.default_weight);
        }
        let explicit = batch.evaluate(&spelled_out, DType::F64);
        assert_eq!(plain.total, explicit.total, "{spelled_out}");
    }
}

#[test]
fn losses_per_sample_exist_where_the_registry_says_so() {
    let batch = some_batch();
    for row in methods() {
        for component in row.components {
            let mut entry = json!({ "name": row.name });
            let options = json!({ "sample_weight": "confidence", "trim": 0.3 });
            match component.name == row.name {
                true => options
                    .as_object()
                    .unwrap()
                    .iter()
                    .for_each(|(key, value)| entry[key] = value.clone()),
                false => entry[component.name] = options,
            }
            let outcome = batch.try_evaluate(&entry, DType::F64);
            match component.whole_batch_because {
                None => outcome
                    .unwrap_or_else(|error| panic!("{entry}: {error}"))
                    .assert_finite(row.name),
                Some(_) => assert!(
                    matches!(
                        outcome,
                        Err(LossError::Unserved {
                            needs: Need::PerSample,
                            ..
                        })
                    ),
                    "{entry}"
                ),
            }
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let batch = some_batch();
    for row in methods() {
        let error = batch
            .try_evaluate(&json!({ "name": row.name, "wieght": 1 }), DType::F64)
            .unwrap_err();
        assert!(matches!(error, LossError::UnknownOption { .. }), "{error}");
        assert_eq!(
            error.hint().as_deref(),
            Some("did you mean `weight`?"),
            "{}",
            row.name
        );
    }
    let error = batch
        .try_evaluate(&json!({ "name": "mcdl" }), DType::F64)
        .unwrap_err();
    assert_eq!(error.to_string(), "no loss is called `mcdl`");
    assert_eq!(error.hint().as_deref(), Some("did you mean `mcld`?"));
    let entry = json!({ "name": "mcld", "instance": { "temprature": 1 } });
    let error = batch.try_evaluate(&entry, DType::F64).unwrap_err();
    assert_eq!(
        error.to_string(),
        "loss `mcld` has no option `instance.temprature`"
    );
    assert_eq!(
        error.hint().as_deref(),
        Some("did you mean `instance.temperature`?")
    );
}

#[test]
fn the_registry_can_be_listed() {
    for row in methods() {
        let listed = serde_json::to_value(row).unwrap();
        assert!(
            !row.title.is_empty() && !row.paper.is_empty() && !row.components.is_empty(),
            "{listed}"
        );
        assert!(
            (row.options)()
                .iter()
                .all(|option| !option.default.is_empty() && !option.meaning.is_empty()),
            "{listed}"
        );
        assert!(
            row.components
                .iter()
                .all(|component| !component.meaning.is_empty()),
            "{listed}"
        );
    }
    let mut names: Vec<_> = methods().iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), methods().len());
    assert_eq!(row_of(&json!({ "name": "kd" })).paper, "arXiv:1503.02531");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let (n_rows, n_classes) = (150, 500);
    let wave = |phase: f64, n: usize| -> Vec<f64> {
        (0..n * n_classes)
            .map(|i| 3.0 * (1.7 * i as f64 + phase).sin())
            .collect()
    };
    let batch = Batch {
        n_classes,
        student: wave(0.0, n_rows),
        teacher: wave(1.0, n_rows),
        labels: (0..n_rows as u32).map(|i| i % 40).collect(),
        mixed: None,
        bank: Some((wave(4.0, 3), vec![0, 1, 2])),
    };
    for entry in entries() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| batch.evaluate(&entry, DType::F32))
        };
        let (one, three) = (on(1), on(3));
        assert_eq!(one.total, three.total, "{entry}");
        assert_eq!(one.gradient, three.gradient, "{entry}");
    }
}
