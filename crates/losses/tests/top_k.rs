//! KD from a top-k cache: exact over the listed classes and the rest as one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use candle_core::{DType, Device, Tensor, Var};
use logitcask_losses::{LogitBatch, LossError, LossSpec, Need, Objective, Setup, TopKLogits};
use serde_json::json;

const B: usize = 4;
const C: usize = 7;
const TEMPERATURES: [f32; 3] = [1.0, 2.0, 4.0];

fn wave(phase: f64, scale: f64) -> Vec<f64> {
    let z = |i: usize| (scale * (1.7 * i as f64 + phase).sin()) as f32;
    (0..B * C).map(|i| f64::from(z(i))).collect()
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}

/// The k largest of each row, and the log-sum-exp of the others.
fn top_k(teacher: &[f64], k: usize) -> TopKLogits {
    let mut found = TopKLogits {
        k,
        temperatures: TEMPERATURES.to_vec(),
        ..TopKLogits::default()
    };
    for row in teacher.chunks_exact(C) {
        let mut order: Vec<usize> = (0..C).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        found
            .classes
            .extend(order[..k].iter().map(|class| *class as u32));
        found
            .logits
            .extend(order[..k].iter().map(|class| row[*class] as f32));
        for temperature in TEMPERATURES {
            let others: Vec<f64> = order[k..]
                .iter()
                .map(|class| row[*class] / f64::from(temperature))
                .collect();
            found.rest.push(log_sum_exp(&others) as f32);
        }
    }
    found
}

/// Value and gradient of KD in double precision.
fn kd(
    temperature: f64,
    student: &[f64],
    teacher: Option<&[f64]>,
    top_k: Option<&TopKLogits>,
) -> Result<(f64, Vec<f64>), LossError> {
    let entries: Vec<LossSpec> =
        serde_json::from_value(json!([{ "name": "kd", "weight": 1, "temperature": temperature }]))
            .unwrap();
    let setup = Setup {
        n_classes: C,
        epochs: 1,
        dtype: DType::F64,
        device: &Device::Cpu,
    };
    let matrix = |z: &[f64]| Tensor::from_slice(z, (B, C), &Device::Cpu).unwrap();
    let student = Var::from_tensor(&matrix(student)).unwrap();
    let teacher = teacher.map(matrix);
    let labels = Tensor::zeros(B, DType::U32, &Device::Cpu).unwrap();
    let batch = LogitBatch {
        top_k,
        ..LogitBatch::new(&student, teacher.as_ref(), &labels)
    };
    let value = Objective::new(&entries, &setup)?.forward(&batch, 1)?;
    let gradients = value.total.backward()?;
    let gradient = gradients.get(&student).unwrap().flatten_all()?.to_vec1()?;
    Ok((value.total.to_scalar()?, gradient))
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64, what: &str) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance, "{what}: {a} {b}");
    }
}

#[test]
fn with_one_class_left_it_is_the_loss_over_all_classes() {
    for temperature in [1.0, 2.0, 4.0] {
        for scale in [0.5, 8.0, 40.0] {
            let (student, teacher) = (wave(0.0, scale), wave(2.0, scale));
            let rows = top_k(&teacher, C - 1);
            let (value, gradient) = kd(temperature, &student, None, Some(&rows)).unwrap();
            let (dense, dense_gradient) = kd(temperature, &student, Some(&teacher), None).unwrap();
            // The rest is kept in single precision.
            let tolerance = 1e-6 * scale * temperature;
            let what = format!("T = {temperature}, scale {scale}");
            assert_close(&[value], &[dense], tolerance * temperature, &what);
            assert_close(&gradient, &dense_gradient, tolerance, &what);
        }
    }
}

#[test]
fn it_is_the_divergence_of_the_merged_distributions() {
    for k in 1..C {
        for (at, temperature) in [1.0, 2.0, 4.0].into_iter().enumerate() {
            let (student, teacher) = (wave(0.0, 3.0), wave(2.0, 5.0));
            let rows = top_k(&teacher, k);
            let mut expected = 0.0;
            for (row, (s, t)) in student.chunks(C).zip(teacher.chunks(C)).enumerate() {
                let listed = &rows.classes[row * k..][..k];
                let merged = |z: &[f64], rest: Option<f64>| -> Vec<f64> {
                    let listed_only = listed.iter().map(|class| z[*class as usize] / temperature);
                    let others: Vec<f64> = (0..C)
                        .filter(|class| !listed.contains(&(*class as u32)))
                        .map(|class| z[class] / temperature)
                        .collect();
                    let rest = rest.unwrap_or_else(|| log_sum_exp(&others));
                    let all: Vec<f64> = listed_only.chain([rest]).collect();
                    let sum = log_sum_exp(&all);
                    all.iter().map(|z| z - sum).collect()
                };
                let log_q = merged(t, Some(f64::from(rows.rest[row * 3 + at])));
                let log_p = merged(s, None);
                let kl = log_q.iter().zip(&log_p).map(|(q, p)| q.exp() * (q - p));
                expected += temperature * temperature * kl.sum::<f64>() / B as f64;
            }
            let (value, gradient) = kd(temperature, &student, None, Some(&rows)).unwrap();
            assert_close(
                &[value],
                &[expected],
                1e-10,
                &format!("k = {k}, T = {temperature}"),
            );
            let (dense, _) = kd(temperature, &student, Some(&teacher), None).unwrap();
            assert!(value <= dense + 1e-6, "merging cannot add: {value} {dense}");
            for at in 0..B * C {
                let moved = |by: f64| {
                    let mut moved = student.clone();
                    moved[at] += by;
                    kd(temperature, &moved, None, Some(&rows)).unwrap().0
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert_close(
                    &[gradient[at]],
                    &[slope],
                    1e-8,
                    &format!("k = {k}, logit {at}"),
                );
            }
        }
    }
}

#[test]
fn it_vanishes_where_the_student_agrees_and_stays_finite_where_logits_are_extreme() {
    let teacher = wave(2.0, 5.0);
    let (value, gradient) = kd(4.0, &teacher, None, Some(&top_k(&teacher, 3))).unwrap();
    assert_close(&[value], &[0.0], 1e-5, "value");
    assert_close(&gradient, &[0.0; B * C], 1e-6, "gradient");
    for scale in [1e4, 1e-20, 0.0] {
        let (value, gradient) = kd(
            1.0,
            &wave(0.0, scale),
            None,
            Some(&top_k(&wave(2.0, scale), 2)),
        )
        .unwrap();
        assert!(
            value.is_finite() && gradient.iter().all(|g| g.is_finite()),
            "scale {scale}"
        );
    }
}

#[test]
fn rows_that_cannot_be_are_refused() {
    let student = wave(0.0, 1.0);
    let rows = top_k(&wave(2.0, 1.0), 3);
    let refused = |change: &dyn Fn(&mut TopKLogits)| {
        let mut rows = rows.clone();
        change(&mut rows);
        kd(1.0, &student, None, Some(&rows)).unwrap_err()
    };
    let twice = refused(&|rows| rows.classes[4] = rows.classes[3]);
    assert!(
        matches!(twice, LossError::ClassTwice { row: 1, .. }),
        "{twice}"
    );
    let beyond = refused(&|rows| rows.classes[0] = C as u32);
    assert!(
        matches!(beyond, LossError::Label { row: 0, .. }),
        "{beyond}"
    );
    let broken = refused(&|rows| rows.rest[3] = f32::NAN);
    assert!(
        matches!(broken, LossError::NotFinite { row: 1, .. }),
        "{broken}"
    );
    let short = refused(&|rows| rows.logits.truncate(2));
    assert!(matches!(short, LossError::Shape { .. }), "{short}");
    let other = refused(&|rows| rows.temperatures[0] = 3.0);
    let needs = Need::RestAt(1.0);
    assert!(
        matches!(other, LossError::Unserved { needs: found, .. } if found == needs),
        "{other}"
    );
    assert!(other.hint().unwrap().contains("1, 2 or 4"));
}
