//! Weights, warm-ups, refusals: what the objective does beside adding up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use candle_core::{DType, Device, Tensor, Var};
use logitcask_losses::{LogitBatch, LossError, LossSpec, Need, Objective, Setup, Supply};
use serde_json::{Value, json};

fn objective(entries: Value) -> Result<Objective, LossError> {
    let entries: Vec<LossSpec> = serde_json::from_value(entries).unwrap();
    let setup = Setup {
        n_classes: 4,
        epochs: 240,
        dtype: DType::F32,
        device: &Device::Cpu,
    };
    Objective::new(&entries, &setup)
}

struct Tensors {
    student: Var,
    teacher: Tensor,
    labels: Tensor,
}

fn tensors() -> Tensors {
    let student = [[1f32, -2., 0.5, 3.], [0., 1., 2., -1.], [2., 2., 0., 1.]];
    let teacher = [[4f32, 0., -1., 1.], [0., 3., 1., -2.], [1., 5., 0., 2.]];
    Tensors {
        student: Var::new(&student, &Device::Cpu).unwrap(),
        teacher: Tensor::new(&teacher, &Device::Cpu).unwrap(),
        labels: Tensor::new(&[0u32, 1, 3], &Device::Cpu).unwrap(),
    }
}

/// Names and weights of the terms in an epoch, and the total checked to be their sum.
fn weights(entries: Value, epoch: u32) -> Vec<(String, f64)> {
    let Tensors {
        student,
        teacher,
        labels,
    } = tensors();
    let objective = objective(entries).unwrap();
    let value = objective
        .forward(&LogitBatch::new(&student, Some(&teacher), &labels), epoch)
        .unwrap();
    let scalar = |tensor: &Tensor| f64::from(tensor.to_scalar::<f32>().unwrap());
    let sum: f64 = value
        .terms
        .iter()
        .map(|term| term.weight * scalar(&term.value))
        .sum();
    assert!((scalar(&value.total) - sum).abs() < 1e-5 * sum.abs().max(1.0));
    value
        .terms
        .into_iter()
        .map(|term| (term.name, term.weight))
        .collect()
}

fn check(entries: Value, epoch: u32, expected: &[(&str, f64)]) {
    let found = weights(entries, epoch);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((name, weight), (expected_name, expected_weight)) in found.iter().zip(expected) {
        assert_eq!(name, expected_name);
        assert!(
            (weight - expected_weight).abs() < 1e-12,
            "{name}: {weight} for {expected_weight}"
        );
    }
}

#[test]
fn mcld_warms_its_category_part_up_over_the_first_third() {
    let entry = json!([{ "name": "mcld" }]);
    let expected = |category| {
        [
            ("mcld.instance", 1.0),
            ("mcld.sample", 1.0),
            ("mcld.category", category),
        ]
    };
    check(entry.clone(), 1, &expected(1.0 / 80.0));
    check(entry.clone(), 40, &expected(0.5));
    check(entry.clone(), 80, &expected(1.0));
    check(entry, 240, &expected(1.0));
}

#[test]
fn warm_up_is_given_in_epochs_or_as_a_share() {
    let entry = json!([{
        "name": "mcld",
        "instance": { "weight": 2, "warmup_share": 0.5 },
        "category": { "warmup_epochs": 20 },
        "weight": 3,
    }]);
    check(
        entry,
        5,
        &[
            ("mcld.instance", 6.0 * 5.0 / 120.0),
            ("mcld.sample", 3.0),
            ("mcld.category", 3.0 * 0.25),
        ],
    );
    check(
        json!([{ "name": "dkd" }]),
        5,
        &[("dkd.tckd", 0.25), ("dkd.nckd", 2.0)],
    );
    let entry =
        json!([{ "name": "dkd", "alpha": 9, "nckd": { "weight": 72 }, "warmup_epochs": 0 }]);
    check(entry, 1, &[("dkd.tckd", 9.0), ("dkd.nckd", 72.0)]);
    let twice = json!([{ "name": "dkd", "alpha": 9, "tckd": { "weight": 1 } }]);
    assert!(matches!(objective(twice), Err(LossError::BadOption { .. })));
    let twice = json!([{ "name": "kd", "warmup_epochs": 9, "warmup_share": 0.1 }]);
    assert!(matches!(objective(twice), Err(LossError::BadOption { .. })));
}

#[test]
fn entries_of_one_name_are_told_apart() {
    let entries = json!([{ "name": "ce", "weight": 0.1 }, { "name": "kd" }, { "name": "kd", "temperature": 1, "weight": 0 }]);
    check(entries, 1, &[("ce", 0.1), ("kd", 1.0), ("kd#2", 0.0)]);
}

#[test]
fn options_out_of_range_say_what_they_may_be() {
    let cases = [
        (
            json!({ "name": "kd", "temperature": 0 }),
            "loss `kd`: `temperature` must be a number above 0, found 0",
        ),
        (
            json!({ "name": "kd", "temperature": "hot" }),
            "loss `kd`: `temperature` must be a number above 0, found \"hot\"",
        ),
        (
            json!({ "name": "kd", "weight": -1 }),
            "loss `kd`: `weight` must be a number, 0 or more, found -1",
        ),
        (
            json!({ "name": "ldrld", "depth": 7 }),
            "loss `ldrld`: `depth` must be 1 to 4 classes, found 7",
        ),
        (
            json!({ "name": "mcld", "normalize": "unit" }),
            "loss `mcld`: `normalize` must be one of `l2`, `none`, `softmax`, `teacher`, found \"unit\"",
        ),
        (
            json!({ "name": "mcld", "instance": 1 }),
            "loss `mcld`: `instance` must be a table, found 1",
        ),
        (
            json!({ "name": "mcld", "target_mask": true, "instance": { "reading": "icld" } }),
            "loss `mcld`: `target_mask` must be false or left out with `instance.reading = \"icld\"`, found true",
        ),
    ];
    for (entry, message) in cases {
        assert_eq!(
            objective(json!([entry])).err().unwrap().to_string(),
            message
        );
    }
    assert!(matches!(objective(json!([])), Err(LossError::NoLoss)));
}

const EVERYTHING: Supply = Supply {
    teacher: true,
    dense: true,
    rest_temperatures: &[],
    absolute_logits: true,
    mixed_labels: false,
    strong_view: true,
    sample_weights: false,
};

#[test]
fn what_a_run_cannot_serve_is_refused_before_it_starts() {
    let refused =
        |entry: Value, supply: Supply| match objective(json!([entry])).unwrap().check(&supply) {
            Err(LossError::Unserved { needs, .. }) => Some(needs),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        };
    let from_probabilities = Supply {
        absolute_logits: false,
        ..EVERYTHING
    };
    for name in ["mcld", "clkd", "rkd", "vid", "mse"] {
        assert_eq!(
            refused(json!({ "name": name }), from_probabilities),
            Some(Need::AbsoluteLogits),
            "{name}"
        );
    }
    for name in ["kd", "dkd", "rld", "dist", "jsd"] {
        assert_eq!(
            refused(json!({ "name": name }), from_probabilities),
            None,
            "{name}"
        );
    }
    let mixed = Supply {
        mixed_labels: true,
        ..EVERYTHING
    };
    for name in ["dkd", "nkd", "rld", "mcld"] {
        assert_eq!(
            refused(json!({ "name": name }), mixed),
            Some(Need::SingleLabel),
            "{name}"
        );
    }
    for name in ["ce", "kd", "dist", "clkd", "mse", "jsd"] {
        assert_eq!(refused(json!({ "name": name }), mixed), None, "{name}");
    }
    let top_k = Supply {
        dense: false,
        rest_temperatures: &[1.0, 2.0, 4.0],
        ..EVERYTHING
    };
    for temperature in [1, 2, 4] {
        let entry = json!({ "name": "kd", "temperature": temperature });
        assert_eq!(refused(entry, top_k), None);
    }
    assert_eq!(
        refused(json!({ "name": "kd", "temperature": 3 }), top_k),
        Some(Need::RestAt(3.0))
    );
    for option in ["standardize", "sample_weight"] {
        let value = if option == "standardize" {
            json!(true)
        } else {
            json!("confidence")
        };
        let entry = json!({ "name": "kd", "temperature": 2, (option): value });
        assert_eq!(refused(entry, top_k), Some(Need::DenseLogits), "{option}");
    }
    let notes = objective(json!([{ "name": "kd" }])).unwrap().check(&top_k);
    assert!(notes.unwrap()[0].contains("one bucket for the rest"));
    assert_eq!(
        refused(json!({ "name": "dkd" }), top_k),
        Some(Need::DenseLogits)
    );
    let weak = Supply {
        strong_view: false,
        ..EVERYTHING
    };
    assert_eq!(
        refused(json!({ "name": "mlkd", "two_view": true }), weak),
        Some(Need::StrongView)
    );
    assert_eq!(refused(json!({ "name": "mlkd" }), weak), None);
    let alone = Supply {
        teacher: false,
        ..EVERYTHING
    };
    assert_eq!(refused(json!({ "name": "kd" }), alone), Some(Need::Teacher));
    assert_eq!(refused(json!({ "name": "ce" }), alone), None);
}

#[test]
fn accepting_a_shift_is_reported() {
    let supply = Supply {
        absolute_logits: false,
        ..EVERYTHING
    };
    let notes = objective(json!([{ "name": "mse", "accept_shift": true }]))
        .unwrap()
        .check(&supply)
        .unwrap();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("`mse`"), "{notes:?}");
    assert!(
        objective(json!([{ "name": "mse" }]))
            .unwrap()
            .check(&EVERYTHING)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_batch_that_is_wrong_is_named() {
    let Tensors {
        student,
        teacher,
        labels,
    } = tensors();
    let kd = objective(json!([{ "name": "kd" }, { "name": "mcld", "bank": 8 }])).unwrap();
    let error = |batch: LogitBatch<'_>| kd.forward(&batch, 1).unwrap_err();
    let plain = LogitBatch::new(&student, Some(&teacher), &labels);
    assert!(matches!(
        error(plain),
        LossError::Unserved {
            needs: Need::Bank(8),
            ..
        }
    ));

    let poisoned = (student.as_tensor() * f64::NAN).unwrap();
    let poisoned = error(LogitBatch {
        student_logits: &poisoned,
        ..plain
    });
    assert_eq!(
        poisoned.to_string(),
        "student logits of row 0 in the batch are not finite"
    );
    let far = (teacher.clone() / 0.0).unwrap();
    assert!(matches!(
        error(LogitBatch {
            teacher_logits: Some(&far),
            ..plain
        }),
        LossError::NotFinite { .. }
    ));
    let short = teacher.narrow(0, 0, 2).unwrap();
    let short = error(LogitBatch {
        teacher_logits: Some(&short),
        ..plain
    });
    assert_eq!(
        short.to_string(),
        "teacher logits must have shape (3, 4), found [2, 4]"
    );
    let wild = Tensor::new(&[0u32, 4, 1], &Device::Cpu).unwrap();
    let wild = error(LogitBatch {
        labels: &wild,
        ..plain
    });
    assert_eq!(
        wild.to_string(),
        "label 4 of row 1 in the batch is not below the 4 classes"
    );
}

#[test]
fn vid_learns_its_variances() {
    let Tensors {
        student,
        teacher,
        labels,
    } = tensors();
    let objective = objective(json!([{ "name": "vid" }])).unwrap();
    let parameters = objective.parameters();
    assert_eq!(parameters.len(), 1);
    let (name, log_scale) = &parameters[0];
    assert_eq!(name, "vid.log_scale");
    let batch = LogitBatch::new(&student, Some(&teacher), &labels);
    let loss = || objective.forward(&batch, 1).unwrap().total;
    let before = loss().to_scalar::<f32>().unwrap();
    for _ in 0..300 {
        let gradients = loss().backward().unwrap();
        let step = (gradients.get(log_scale).unwrap() * 2.0).unwrap();
        log_scale
            .set(&(log_scale.as_tensor() - step).unwrap())
            .unwrap();
    }
    assert!(loss().to_scalar::<f32>().unwrap() < before);
    // Where the loss is least, every variance is the mean squared difference of its class.
    let fitted = ((log_scale.as_tensor().exp().unwrap() + 1.0)
        .unwrap()
        .log()
        .unwrap()
        + 1e-5)
        .unwrap();
    let squares = (student.as_tensor() - &teacher)
        .unwrap()
        .sqr()
        .unwrap()
        .mean(0)
        .unwrap();
    let (fitted, squares): (Vec<f32>, Vec<f32>) =
        (fitted.to_vec1().unwrap(), squares.to_vec1().unwrap());
    for (v, expected) in fitted.iter().zip(&squares) {
        assert!(
            (v - expected).abs() < 0.05 * expected.max(0.1),
            "{fitted:?} for {squares:?}"
        );
    }
}

#[test]
fn narrow_logits_are_widened_and_get_their_gradient_back() {
    let Tensors {
        student,
        teacher,
        labels,
    } = tensors();
    let narrow = Var::from_tensor(&student.to_dtype(DType::F16).unwrap()).unwrap();
    let objective = objective(json!([{ "name": "kd" }])).unwrap();
    let value = objective
        .forward(&LogitBatch::new(&narrow, Some(&teacher), &labels), 1)
        .unwrap();
    assert_eq!(value.total.dtype(), DType::F32);
    let gradients = value.total.backward().unwrap();
    assert_eq!(gradients.get(&narrow).unwrap().dtype(), DType::F16);
}

#[test]
fn the_gradient_reaches_logits_that_are_a_view_of_something() {
    let Tensors {
        student,
        teacher,
        labels,
    } = tensors();
    let wide =
        Var::from_tensor(&Tensor::cat(&[student.as_tensor(), student.as_tensor()], 1).unwrap())
            .unwrap();
    let view = wide.narrow(1, 4, 4).unwrap();
    let objective = objective(json!([{ "name": "mcld" }, { "name": "kd" }])).unwrap();
    let from = |logits: &Tensor, var: &Var| {
        let value = objective
            .forward(&LogitBatch::new(logits, Some(&teacher), &labels), 9)
            .unwrap();
        value.total.backward().unwrap().get(var).unwrap().clone()
    };
    let (plain, viewed) = (from(&student, &student), from(&view, &wide));
    let viewed: Vec<Vec<f32>> = viewed.narrow(1, 4, 4).unwrap().to_vec2().unwrap();
    assert_eq!(plain.to_vec2::<f32>().unwrap(), viewed);
}

/// Weights of samples multiply each sample's loss; the divisor stays the batch size. What is a property of the whole batch is
/// left alone, and said to be.
#[test]
fn samples_count_as_much_as_their_weights_say() {
    let tensors = tensors();
    let weights = [0.5f32, 0.0, 2.0];
    let kd = json!({ "name": "kd", "temperature": 2.0 });
    let run = |entries: Value, rows: &[u32], weights: Option<&[f32]>| {
        let rows = Tensor::new(rows, &Device::Cpu).unwrap();
        let pick = |tensor: &Tensor| tensor.index_select(&rows, 0).unwrap();
        let student = pick(&tensors.student);
        let (teacher, labels) = (pick(&tensors.teacher), pick(&tensors.labels));
        let weights = weights.map(|weights| Tensor::new(weights, &Device::Cpu).unwrap());
        let batch = LogitBatch {
            sample_weights: weights.as_ref(),
            ..LogitBatch::new(&student, Some(&teacher), &labels)
        };
        let value = objective(entries).unwrap().forward(&batch, 1)?;
        let terms = value.terms.iter();
        let values = terms.map(|term| term.value.to_scalar::<f32>().unwrap());
        Ok::<Vec<f32>, LossError>(values.collect())
    };
    let both = json!([kd, { "name": "rkd" }]);
    let all = [0, 1, 2];
    let found = run(both.clone(), &all, Some(&weights)).unwrap();
    let alone = all.map(|row| run(json!([kd]), &[row], None).unwrap()[0]);
    let expected = alone.iter().zip(weights).map(|(l, w)| l * w).sum::<f32>() / 3.0;
    assert!((found[0] - expected).abs() < 1e-6, "{found:?} {expected}");
    let plain = run(both.clone(), &all, None).unwrap();
    assert!(plain[0] != found[0] && plain[1] == found[1]);

    let weighted = Supply {
        sample_weights: true,
        ..EVERYTHING
    };
    let notes = objective(both).unwrap().check(&weighted).unwrap();
    assert!(
        !notes.is_empty() && notes.iter().all(|note| note.starts_with("`rkd")),
        "{notes:?}"
    );
    for wrong in [&[1.0, 1.0][..], &[1.0, -1.0, 1.0], &[1.0, f32::NAN, 1.0]] {
        let error = run(json!([kd]), &all, Some(wrong)).unwrap_err().to_string();
        assert!(error.contains("sample weights"), "{error}");
    }
}
