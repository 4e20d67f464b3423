//! Every loss against golden values and gradients.
//!
//! `LOGITCASK_GOLDEN_DIR` names the folder (default: `tests/golden` of the workspace), laid out as
//! `<loss>/<case>[__<variant>].{safetensors,json}`. The json holds the hyper-parameters, the unweighted components
//! and the total; the safetensors file holds inputs and gradients in float64. `plan.rs` says which recipe entries a
//! folder's hyper-parameters stand for. A folder or a component that nobody compares is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on should stop, and its table is for reading"
)]

mod plan;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use logitcask_losses::{LogitBatch, Objective, Setup, StrongView, cswt_temperatures};
use plan::Plan;
use serde_json::Value;

#[test]
fn every_golden_file() {
    let folder = std::env::var_os("LOGITCASK_GOLDEN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    );
    let mut report = Report::default();
    for loss in sorted(&folder).into_iter().filter(|path| path.is_dir()) {
        let name = loss.file_name().unwrap().to_str().unwrap().to_owned();
        let files: Vec<PathBuf> = sorted(&loss)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        if files.is_empty() {
            report.fail(format!("{name}: no golden file in {}", loss.display()));
        }
        for json in &files {
            for dtype in [DType::F64, DType::F32] {
                check_file(&name, json, dtype, &mut report);
            }
        }
        report.line(&name, files.len());
    }
    assert!(
        report.n_files > 0,
        "no golden files in {}",
        folder.display()
    );
    println!("{} files, each in f64 and f32", report.n_files);
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
}

fn check_file(loss: &str, json: &Path, dtype: DType, report: &mut Report) {
    let text = std::fs::read_to_string(json).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let tensors =
        candle_core::safetensors::load(json.with_extension("safetensors"), &Device::Cpu).unwrap();
    let file = format!(
        "{loss}/{} {dtype:?}",
        json.file_stem().unwrap().to_str().unwrap()
    );
    let n_classes = tensors["student"].dim(1).unwrap();
    let Some(plan) = Plan::of(loss, &golden["hyperparameters"], n_classes) else {
        return report.fail(format!("{file}: nobody knows a loss `{loss}`"));
    };
    let bar = match (
        dtype,
        json.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("large50"),
    ) {
        (DType::F64, _) => Bar {
            rounding: 4.0 * f64::EPSILON * plan.difference_of,
            relative: 1e-10,
            zero: 1e-12,
        },
        (_, false) => Bar {
            rounding: 0.0,
            relative: 1e-4,
            zero: 1e-6,
        },
        (_, true) => Bar {
            rounding: 0.0,
            relative: 2e-3,
            zero: 1e-6,
        },
    };
    let mut check = Check {
        file: &file,
        bar,
        report,
        dtype,
    };
    if let Err(error) = check.run(&plan, &golden, &tensors) {
        report.fail(format!("{file}: {error}"));
    }
}

struct Check<'a> {
    file: &'a str,
    bar: Bar,
    report: &'a mut Report,
    dtype: DType,
}

/// Error of a tensor: max|a - b| / max|b|; where max|b| < 1e-12, max|a| must not exceed `zero`.
///
/// `rounding` is taken off |a - b| first. It is 0 but for components that a file computed as `size * (1 - mean of
/// cosines)`, where it is 4 units in the last place of `size`: student and teacher being equal, `cskd/equal_5x9` holds
/// 5.124546508e-6 where 40 digits give 5.124546515e-6 (1.4e-9 off), and `dist/equal_5x9` is 1.6e-10 off.
#[derive(Clone, Copy)]
struct Bar {
    relative: f64,
    zero: f64,
    rounding: f64,
}

impl Check<'_> {
    fn run(
        &mut self,
        plan: &Plan,
        golden: &Value,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let device = Device::Cpu;
        let input = |name: &str| tensors[name].to_dtype(self.dtype);
        let student = Var::from_tensor(&input("student")?)?;
        let teacher = input("teacher")?;
        let labels = tensors["labels"].to_dtype(DType::U32)?;
        let mut batch = LogitBatch::new(&student, Some(&teacher), &labels);
        let strong = match tensors.contains_key("student_strong") {
            true => Some((
                Var::from_tensor(&input("student_strong")?)?,
                input("teacher_strong")?,
            )),
            false => None,
        };
        if let Some((student_logits, teacher_logits)) = &strong {
            batch.strong = Some(StrongView {
                student_logits,
                teacher_logits,
            });
        }
        let setup = Setup {
            n_classes: student.dim(1)?,
            epochs: plan.epochs,
            dtype: self.dtype,
            device: &device,
        };
        let objective = Objective::new(&plan.entries, &setup)?;
        for (name, var) in objective.parameters() {
            let stored = name.rsplit('.').next().unwrap_or_default();
            var.set(&input(stored)?)?;
        }
        let value = objective.forward(&batch, plan.epoch)?;

        let mut compared = Vec::new();
        for (term_name, component, factor) in &plan.terms {
            let Some(expected) = golden["components"][component].as_f64() else {
                continue;
            };
            let term = value
                .terms
                .iter()
                .find(|term| term.name == *term_name)
                .ok_or(term_name.as_str())?;
            let found = (&term.value * *factor)?;
            self.compare(component, &found, &Tensor::new(expected, &device)?)?;
            if let Some(expected) = tensors.get(&format!("grad.{component}")) {
                let gradients = found.backward()?;
                let found = gradients.get(&student).ok_or("no gradient")?;
                self.compare(&format!("gradient of {component}"), found, expected)?;
            }
            compared.push(component.as_str());
        }
        for component in golden["components"]
            .as_object()
            .ok_or("no components")?
            .keys()
        {
            if !compared.contains(&component.as_str()) {
                self.report.fail(format!(
                    "{}: component `{component}` is compared with nothing",
                    self.file
                ));
            }
        }

        if let Some(expected) = tensors.get("cswt_temperatures") {
            self.compare_temperatures(&student, &teacher, &golden["hyperparameters"], expected)?;
        }

        let expected = golden["total"].as_f64().ok_or("no total")?;
        self.compare("total", &value.total, &Tensor::new(expected, &device)?)?;
        let gradients = value.total.backward()?;
        let mut wanted = vec![("grad_student".to_owned(), student.as_tensor().clone())];
        if let Some((student, _)) = &strong {
            wanted.push((
                "grad_student_strong".to_owned(),
                student.as_tensor().clone(),
            ));
        }
        for (name, var) in objective.parameters() {
            let stored = name.rsplit('.').next().unwrap_or_default();
            wanted.push((format!("grad_{stored}"), var.as_tensor().clone()));
        }
        for (name, input) in wanted {
            let found = gradients.get(&input).ok_or("no gradient")?;
            self.compare(&name, found, &tensors[&name])?;
        }
        Ok(())
    }

    /// Temperatures are linear in a row's cosine between the least and the greatest of the batch, so an error of a few
    /// units in the last place of a cosine grows by the inverse of what lies between those two (3e-8 in `equal_5x9`).
    fn compare_temperatures(
        &mut self,
        student: &Tensor,
        teacher: &Tensor,
        hyper: &Value,
        expected: &Tensor,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let low = hyper["low_t"].as_f64().unwrap_or(2.0);
        let high = hyper["high_t"].as_f64().unwrap_or(6.0);
        let found: Vec<f64> = cswt_temperatures(student, teacher, low, high)?.to_vec1()?;
        let softmax = |logits: &Tensor| {
            let logits = logits.to_dtype(DType::F64)?;
            let e = logits.broadcast_sub(&logits.max_keepdim(1)?)?.exp()?;
            e.broadcast_div(&e.sum_keepdim(1)?)
        };
        let (p, q) = (softmax(student)?, softmax(teacher)?);
        let inner = |a: &Tensor, b: &Tensor| (a * b)?.sum(1);
        let lengths = (inner(&p, &p)? * inner(&q, &q)?)?.sqrt()?;
        let cosines: Vec<f64> = (inner(&p, &q)? / (lengths + 1e-8)?)?.to_vec1()?;
        let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        let most = cosines.iter().copied().fold(0.0, f64::max);
        let unit = match self.dtype {
            DType::F64 => f64::EPSILON,
            _ => f64::from(f32::EPSILON),
        };
        let by_cosine = (high - low) * 4.0 * unit / (most - least).max(f64::MIN_POSITIVE);
        let allowed = self.bar.relative * high + by_cosine;
        for (found, expected) in found.iter().zip(expected.to_vec1::<f64>()?) {
            let error = (found - expected).abs();
            if error.is_nan() || error > allowed {
                let file = self.file;
                self.report.fail(format!(
                    "{file}: temperature {found} for {expected}, allowed {allowed:.0e}"
                ));
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        what: &str,
        found: &Tensor,
        expected: &Tensor,
    ) -> candle_core::Result<()> {
        let found: Vec<f64> = found.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        let expected: Vec<f64> = expected.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
        assert_eq!(found.len(), expected.len(), "{} {what}", self.file);
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let scale = largest(&mut expected.iter().map(|x| x.abs()));
        let (error, bar) = match scale < 1e-12 {
            true => (largest(&mut found.iter().map(|x| x.abs())), self.bar.zero),
            false => {
                let differences = &mut found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                {
                    let rounding = if what == "total" {
                        0.0
                    } else {
                        self.bar.rounding
                    };
                    (
                        (largest(differences) - rounding).max(0.0) / scale,
                        self.bar.relative,
                    )
                }
            }
        };
        if !found.iter().all(|x| x.is_finite()) || error > bar {
            self.report.fail(format!(
                "{}: {what} is off by {error:.1e}, allowed {bar:.0e}",
                self.file
            ));
        }
        if scale >= 1e-12 {
            self.report.seen(
                self.dtype,
                self.bar.relative,
                error,
                format!("{what} of {}", self.file),
            );
        }
        Ok(())
    }
}

#[derive(Default)]
struct Report {
    n_files: usize,
    failures: Vec<String>,
    /// Worst error and where, per precision; and on the cases of scale 50 in f32.
    worst: [(f64, String); 3],
}

impl Report {
    fn fail(&mut self, failure: String) {
        self.failures.push(failure);
    }

    fn seen(&mut self, dtype: DType, bar: f64, error: f64, place: String) {
        let slot = match (dtype, bar > 1e-3) {
            (DType::F64, _) => 0,
            (_, false) => 1,
            (_, true) => 2,
        };
        if error > self.worst[slot].0 {
            self.worst[slot] = (error, place);
        }
    }

    fn line(&mut self, loss: &str, n_files: usize) {
        self.n_files += n_files;
        let [f64_error, f32_error, large] = std::mem::take(&mut self.worst);
        println!(
            "{loss:14} {n_files:3} files   worst f64 {:.1e}   f32 {:.1e}   f32 at scale 50 {:.1e}   ({})",
            f64_error.0, f32_error.0, large.0, f32_error.1
        );
    }
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
