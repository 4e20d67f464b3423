//! What the equations promise of single methods.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use candle_core::DType;
use common::{Batch, Outcome, assert_all_close, assert_close, batches, cases, sized};
use proptest::prelude::*;
use serde_json::{Value, json};

const F64: DType = DType::F64;

/// All readings of mcld at once, with weights 0 but for the one named.
fn mcld(batch: &Batch, normalize: &str, temperature: f64, trained: &str) -> Outcome {
    let weight = |reading: &str| f64::from(u8::from(reading == trained));
    let part = |reading: &str| json!({ "reading": reading, "weight": weight(reading) });
    let entry = |instance: &str, sample: &str, category: &str| {
        json!({
            "name": "mcld", "normalize": normalize, "temperature": temperature,
            "instance": part(instance), "sample": part(sample),
            "category": { "reading": category, "weight": weight(category), "warmup_epochs": 0 },
        })
    };
    let entries = json!([
        entry("icld", "scld_teacher_anchor", "ccld_label_out"),
        entry("icld_masked", "scld_within", "ccld_label_in"),
    ]);
    let mut outcome = batch.evaluate(&entries, F64);
    let names = [
        "icld",
        "scld_teacher_anchor",
        "ccld_label_out",
        "icld_masked",
        "scld_within",
        "ccld_label_in",
    ];
    outcome
        .terms
        .iter_mut()
        .zip(names)
        .for_each(|(term, name)| term.0 = name.to_owned());
    outcome
}

fn single(batch: &Batch, entry: Value) -> Outcome {
    batch.evaluate(&entry, F64)
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn mcld_with_distinct_labels_has_one_instance_loss(batch in sized(4, 7, 3.0)) {
        let outcome = mcld(&batch.with_labels(vec![5, 0, 3, 1]), "l2", 0.3, "icld");
        for reading in ["icld_masked", "ccld_label_out", "ccld_label_in"] {
            assert_close(outcome.term(reading), outcome.term("icld"), 1e-12, reading);
        }
    }

    #[test]
    fn mcld_with_equal_labels_masks_every_negative(batch in sized(5, 4, 3.0)) {
        let outcome = mcld(&batch.with_labels(vec![2; 5]), "l2", 0.3, "icld_masked");
        prop_assert_eq!(outcome.term("icld_masked"), 0.0);
        prop_assert_eq!(outcome.term("ccld_label_in"), 0.0);
        prop_assert!(outcome.gradient.iter().all(|&g| g == 0.0));
    }

    #[test]
    fn mcld_on_a_batch_of_one_is_zero(batch in sized(1, 6, 3.0)) {
        for part in ["icld", "scld_teacher_anchor"] {
            let outcome = mcld(&batch, "l2", 0.3, part);
            prop_assert_eq!(outcome.term(part), 0.0);
            prop_assert!(outcome.gradient.iter().all(|&g| g == 0.0));
        }
    }

    #[test]
    fn swapping_the_networks_swaps_instance_and_sample(batch in batches(3.0)) {
        let swapped = Batch { student: batch.teacher.clone(), teacher: batch.student.clone(), ..batch.clone() };
        for normalize in ["l2", "none", "softmax"] {
            let (one, other) = (mcld(&batch, normalize, 2.0, "icld"), mcld(&swapped, normalize, 2.0, "icld"));
            assert_close(one.term("icld"), other.term("scld_teacher_anchor"), 1e-12, normalize);
            assert_close(one.term("scld_teacher_anchor"), other.term("icld"), 1e-12, normalize);
        }
    }

    #[test]
    fn unit_rows_forget_their_length(batch in batches(3.0), k in 0.1..10.0f64) {
        let mut scaled = batch.clone();
        scaled.student[..batch.n_classes].iter_mut().for_each(|z| *z *= k);
        let readings = ["icld", "icld_masked", "scld_teacher_anchor", "scld_within", "ccld_label_out", "ccld_label_in"];
        for reading in readings {
            let outcome = mcld(&batch, "l2", 0.3, reading);
            assert_close(outcome.total, mcld(&scaled, "l2", 0.3, reading).total, 1e-10, reading);
            for (row, gradient) in batch.student.chunks(batch.n_classes).zip(outcome.gradient.chunks(batch.n_classes)) {
                let along: f64 = row.iter().zip(gradient).map(|(z, g)| z * g).sum();
                prop_assert!(along.abs() < 1e-10, "{} is not orthogonal: {}", reading, along);
            }
        }
    }

    #[test]
    fn a_bank_of_the_other_rows_makes_a_batch_of_one_whole(batch in sized(4, 5, 3.0)) {
        let c = batch.n_classes;
        let settings = json!({
            "name": "mcld", "target_mask": false, "temperature": 0.3,
            "sample": { "weight": 0 }, "category": { "weight": 0 },
        });
        let whole = single(&batch, settings.clone());
        let mut mean = 0.0;
        for i in 0..4 {
            let others = [&batch.teacher[..i * c], &batch.teacher[(i + 1) * c..]].concat();
            let one = Batch {
                student: batch.student[i * c..(i + 1) * c].to_vec(),
                teacher: batch.teacher[i * c..(i + 1) * c].to_vec(),
                labels: vec![batch.labels[i]],
                bank: Some((others, vec![0; 3])),
                ..batch.clone()
            };
            let mut with_bank = settings.clone();
            with_bank["bank"] = json!(3);
            let outcome = single(&one, with_bank);
            mean += outcome.total / 4.0;
            // The whole batch averages over four anchors.
            let gradient: Vec<f64> = outcome.gradient.iter().map(|g| g / 4.0).collect();
            assert_all_close(&gradient, &whole.gradient[i * c..(i + 1) * c], 1e-10, "bank gradient");
        }
        assert_close(mean, whole.total, 1e-12, "bank");
    }

    #[test]
    fn bank_rows_of_the_anchors_class_are_no_negatives(batch in sized(3, 5, 3.0)) {
        let labels = vec![1; 3];
        let bank = Some((batch.bank.clone().unwrap().0, vec![1; 3]));
        let batch = Batch { labels, bank, ..batch };
        let entry = |bank: usize| json!({ "name": "mcld", "bank": bank });
        let (with, without) = (single(&batch, entry(3)), single(&batch, entry(0)));
        assert_close(with.total, without.total, 1e-12, "masked bank");
    }

    #[test]
    fn kd_falls_apart_into_tckd_and_nckd(batch in sized(1, 6, 4.0), temperature in 0.5..5.0f64) {
        // KL = KL(target against rest) + (1 - q_y) KL(among the rest): the identity that DKD starts from.
        let kd = single(&batch, json!({ "name": "kd", "temperature": temperature, "weight": 1 })).total;
        let dkd = single(&batch, json!({ "name": "dkd", "temperature": temperature }));
        let e: Vec<f64> = batch.teacher.iter().map(|z| (z / temperature).exp()).collect();
        let q_y = e[batch.labels[0] as usize] / e.iter().sum::<f64>();
        assert_close(kd, dkd.term("dkd.tckd") + (1.0 - q_y) * dkd.term("dkd.nckd"), 1e-10, "kd");
    }

    #[test]
    fn rld_is_dkd_where_the_teacher_is_right(batch in sized(5, 6, 4.0)) {
        let first = |row: &[f64]| (0..6).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
        let labels = batch.teacher.chunks(6).map(first).collect();
        let batch = batch.with_labels(labels);
        let dkd = single(&batch, json!({ "name": "dkd" }));
        let rld = single(&batch, json!({ "name": "rld", "scd_temperature": 4 }));
        assert_close(dkd.term("dkd.tckd"), rld.term("rld.scd"), 1e-12, "scd");
        assert_close(dkd.term("dkd.nckd"), rld.term("rld.mcd"), 1e-12, "mcd");
        assert_all_close(&rld.gradient, &dkd.gradient, 1e-12, "gradient");
    }

    #[test]
    fn agreement_is_a_minimum_of_the_divergences(batch in batches(4.0)) {
        let agreed = Batch { student: batch.teacher.clone(), ..batch };
        for name in ["kd", "dkd", "jsd", "reverse_kl", "mse", "ldrld", "clkd", "rkd", "mlkd"] {
            for dtype in [DType::F64, DType::F32] {
                // In units of the weights and of T^2, which weigh the rounding as well.
                let weight = match name {
                    "ldrld" => 10.5 * 16.0,
                    "dkd" => 8.0 * 16.0,
                    _ => 16.0,
                };
                let entry = json!({ "name": name });
                let outcome = agreed.evaluate(&entry, dtype);
                prop_assert!(outcome.total.abs() < 1e-12, "{}: {}", name, outcome.total);
                prop_assert!(outcome.gradient.iter().all(|g| g.abs() < 1e-7 * weight), "{}: {:?}", name, outcome.gradient);
            }
        }
    }

    #[test]
    fn softmax_losses_do_not_see_a_shift_of_the_student(batch in batches(4.0)) {
        for name in ["ce", "kd", "dkd", "nkd", "rld", "ldrld", "cskd", "mlkd", "dist", "jsd", "reverse_kl"] {
            let entry = json!({ "name": name });
            let (plain, shifted) = (single(&batch, entry.clone()), single(&batch.with_shifted_student(), entry));
            assert_close(plain.total, shifted.total, 1e-9, name);
            for row in plain.gradient.chunks(batch.n_classes) {
                prop_assert!(row.iter().sum::<f64>().abs() < 1e-9, "{}: gradient along a shift", name);
            }
        }
    }

    #[test]
    fn standardised_losses_do_not_see_an_affine_change(batch in sized(4, 6, 3.0), k in 0.5..4.0f64) {
        let changed = Batch { student: batch.student.iter().map(|z| k * z + 1.5).collect(), ..batch.clone() };
        for name in ["kd", "dkd", "rld"] {
            let entry = json!({ "name": name, "standardize": true });
            // Up to the 1e-7 that is added to the deviation.
            assert_close(single(&batch, entry.clone()).total, single(&changed, entry).total, 1e-5, name);
        }
    }

    #[test]
    fn jsd_is_symmetric_and_bounded(batch in batches(30.0)) {
        let swapped = Batch { student: batch.teacher.clone(), teacher: batch.student.clone(), ..batch.clone() };
        let entry = json!({ "name": "jsd", "temperature": 2 });
        let (one, other) = (single(&batch, entry.clone()).total, single(&swapped, entry).total);
        assert_close(one, other, 1e-10, "jsd");
        prop_assert!((0.0..=4.0 * std::f64::consts::LN_2 + 1e-12).contains(&one), "{}", one);
    }

    #[test]
    fn weights_per_sample_and_trimming_act_as_said(batch in sized(6, 5, 3.0)) {
        let losses: Vec<f64> = (0..6)
            .map(|i| single(&batch.permuted(&[i]), json!({ "name": "kd", "weight": 1 })).total)
            .collect();
        let mut sorted = losses.clone();
        sorted.sort_by(f64::total_cmp);
        let trimmed = single(&batch, json!({ "name": "kd", "weight": 1, "trim": 0.4 })).total;
        assert_close(trimmed, sorted[..4].iter().sum::<f64>() / 4.0, 1e-12, "trim");

        let trust: Vec<f64> = batch.teacher.chunks(5).zip(&batch.labels).map(|(row, &label)| {
            row[label as usize].exp() / row.iter().map(|z| z.exp()).sum::<f64>()
        }).collect();
        let expected = losses.iter().zip(&trust).map(|(loss, trust)| loss * trust).sum::<f64>() / 6.0;
        let weighted = single(&batch, json!({ "name": "kd", "weight": 1, "sample_weight": "confidence" })).total;
        assert_close(weighted, expected, 1e-12, "confidence");

        let right = |i: &usize| {
            let row = &batch.teacher[i * 5..(i + 1) * 5];
            row.iter().all(|&z| z <= row[batch.labels[*i] as usize])
        };
        let expected = (0..6).filter(right).map(|i| losses[i]).sum::<f64>() / 6.0;
        let weighted = single(&batch, json!({ "name": "kd", "weight": 1, "sample_weight": "correctness" })).total;
        assert_close(weighted, expected, 1e-12, "correctness");
    }

    #[test]
    fn a_mixed_label_is_a_mixture_of_losses(batch in sized(5, 6, 3.0), lambda in 0.0..1.0f64) {
        let partner: Vec<u32> = batch.labels.iter().map(|label| (label + 2) % 6).collect();
        let entry = json!({ "name": "ce" });
        let (first, second) = (single(&batch, entry.clone()), single(&batch.with_labels(partner.clone()), entry.clone()));
        let mixed = Batch { mixed: Some((partner, vec![lambda; 5])), ..batch };
        let expected = lambda * first.total + (1.0 - lambda) * second.total;
        assert_close(single(&mixed, entry).total, expected, 1e-12, "mixed ce");
    }
}
