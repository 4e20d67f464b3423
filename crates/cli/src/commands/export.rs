//! `export`: a run's student as ONNX or safetensors, checked against itself by the runtime that teachers run in.

use std::io::Write;
use std::path::Path;

use logitcask_dataset::{
    ChannelOrder, PixelBatch, PixelLayout, Preprocess, PreprocessSpec, Scale, render,
};
use logitcask_experiment::{Failure, Outcome, Split, Trained};
use logitcask_student::{Normalisation, OnnxSpec, to_onnx, to_safetensors};
use logitcask_teacher::{Device, ExecutionProvider, Runtime, Teacher, TeacherSpec};
use serde_json::json;

use crate::args::Export;
use crate::progress::{bytes, say};
use crate::watch::shown;

pub(crate) fn run(args: &Export) -> Outcome {
    if args.onnx.is_none() && (args.check || args.with_normalisation || args.keep_batch_norm) {
        return Err(Failure::asked(
            "`--check`, `--with-normalisation` and `--keep-batch-norm` speak of an ONNX file",
        )
        .with_hint("name it: `--onnx student.onnx`"));
    }
    let trained = Trained::open(&args.run, args.checkpoint.file(), &args.overrides)?;
    if let Some(path) = &args.safetensors {
        if args.calibrated {
            return Err(Failure::asked(
                "`--calibrated` divides inside an ONNX file; safetensors hold the weights as trained",
            ));
        }
        write(path, &to_safetensors(&trained.network)?)?;
    }
    let Some(path) = &args.onnx else {
        return Ok(());
    };
    let temperature = match args.calibrated {
        true => Some(trained.temperature(&shown())?),
        false => None,
    };
    let spec = OnnxSpec {
        keep_batch_norm: args.keep_batch_norm,
        normalisation: match args.with_normalisation {
            true => Some(normalisation(&trained)),
            false => None,
        },
        temperature,
        metadata: metadata(args, &trained, temperature),
    };
    write(path, &to_onnx(&trained.network, &spec)?)?;
    if args.check {
        check(path, &trained, &spec)?;
    }
    println!("{}", path.display());
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Outcome {
    logitcask_durable::write_atomic(path, |w| w.write_all(content))
        .map_err(|error| Failure::work(format!("cannot write `{}`: {error}", path.display())))?;
    say(format!(
        "wrote `{}` ({})",
        path.display(),
        bytes(content.len() as u64)
    ));
    Ok(())
}

/// `(x / 255 - mean) / std` as one product and one sum per channel.
fn normalisation(trained: &Trained) -> Normalisation {
    let spec = trained.preprocess.spec();
    let n_channels = trained.network.shape().image.channels;
    let of = |values: &[f32], absent: f32, channel: usize| match values.len() {
        0 => absent,
        n => values[channel.min(n - 1)],
    };
    let largest = match spec.scale {
        Scale::Unit => 255.0,
        Scale::Byte => 1.0,
    };
    let channels = 0..n_channels;
    Normalisation {
        scale: channels
            .clone()
            .map(|c| 1.0 / (largest * of(&spec.std, 1.0, c)))
            .collect(),
        offset: channels
            .map(|c| -of(&spec.mean, 0.0, c) / of(&spec.std, 1.0, c))
            .collect(),
        reverse_channels: spec.channel_order == ChannelOrder::Bgr && n_channels > 1,
    }
}

/// What the next reader needs to know: how to make the pixels, and where the student comes from.
fn metadata(args: &Export, trained: &Trained, temperature: Option<f64>) -> Vec<(String, String)> {
    let preprocess = match args.with_normalisation {
        true => "bytes 0..255 as floats".to_owned(),
        false => trained.preprocess.identity(),
    };
    let mut facts = vec![
        ("tool", logitcask_experiment::VERSION.to_owned()),
        ("student", trained.network.name().to_owned()),
        ("epochs", trained.epochs_done.to_string()),
        ("preprocess", preprocess),
    ];
    if let Some(temperature) = temperature {
        facts.push(("temperature", temperature.to_string()));
    }
    let named = facts
        .into_iter()
        .map(|(name, fact)| (format!("logitcask.{name}"), fact));
    named.collect()
}

/// What the file may differ by, as a share of the largest logit.
const TOLERANCE: f32 = 1e-4;

/// Runs the file through ONNX Runtime on the evaluation split, beside the student.
fn check(path: &Path, trained: &Trained, spec: &OnnxSpec) -> Outcome {
    let split = Split::open_eval(&trained.recipe, &shown())?;
    trained.check_fits(&split)?;
    let samples = split.dataset.selected();
    let mut ours = trained.logits(&split, &samples, None)?.logits;
    if let Some(temperature) = spec.temperature {
        ours.iter_mut().for_each(|z| *z /= temperature as f32);
    }
    let theirs = run_file(
        path,
        trained,
        &split,
        &samples,
        spec.normalisation.is_some(),
    )?;
    let n_classes = trained.network.shape().n_classes;
    let largest = ours.iter().fold(0f32, |max, z| max.max(z.abs()));
    let error = ours
        .iter()
        .zip(&theirs)
        .fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    let rows = || {
        ours.chunks_exact(n_classes)
            .zip(theirs.chunks_exact(n_classes))
    };
    let n_flipped = rows()
        .filter(|(a, b)| flips(a, b, TOLERANCE * largest))
        .count();
    let share = error / largest;
    if share.is_nan() || share > TOLERANCE || n_flipped > 0 {
        return Err(Failure::work(format!(
            "`{}` does not agree with the student: logits differ by up to {share:.1e} of the largest (at most \
             {TOLERANCE:.0e}), {n_flipped} of {} images get another class",
            path.display(),
            samples.len()
        )));
    }
    say(format!(
        "checked by ONNX Runtime on {} images: logits agree to {share:.1e} of the largest, the classes are the same",
        samples.len()
    ));
    Ok(())
}

/// Another class is named, and not because two classes were level in the first place.
fn flips(a: &[f32], b: &[f32], level: f32) -> bool {
    let top = |row: &[f32]| {
        let larger = |best: usize, class: usize| if row[class] > row[best] { class } else { best };
        (0..row.len()).fold(0, larger)
    };
    let (a_top, b_top) = (top(a), top(b));
    a_top != b_top && a[a_top] - a[b_top] > 2.0 * level
}

fn run_file(
    path: &Path,
    trained: &Trained,
    split: &Split,
    samples: &[u32],
    raw: bool,
) -> Outcome<Vec<f32>> {
    let student = trained.preprocess.spec();
    let preprocess = match raw {
        // What the graph does not do: bytes as they are, in the file's own order of channels.
        true => PreprocessSpec {
            scale: Scale::Byte,
            channels: student
                .channels
                .or(Some(trained.network.shape().image.channels)),
            ..PreprocessSpec::default()
        },
        false => student.clone(),
    };
    let spec: TeacherSpec =
        serde_json::from_value(json!({ "onnx": path })).map_err(Failure::work)?;
    let spec = TeacherSpec {
        preprocess: preprocess.clone(),
        ..spec
    };
    let provider = ExecutionProvider::Cpu;
    let runtime = Runtime::load(crate::runtime::library_path().as_deref(), provider)?;
    let device = Device {
        provider,
        ..Device::default()
    };
    let mut session = Teacher::load(&runtime, &spec, &device, 1)?;
    let preprocess = Preprocess::new(&preprocess)?;
    let mut logits = Vec::new();
    for batch in samples.chunks(256) {
        let requests: Vec<(u32, u32)> = batch.iter().map(|&sample| (sample, 0)).collect();
        let mut pixels = PixelBatch::new(PixelLayout::Nchw);
        render(
            &split.dataset,
            &split.family,
            &preprocess,
            &requests,
            &mut pixels,
        )?;
        let mut made = Vec::new();
        session.forward(&pixels, &mut made)?;
        logits.extend(made);
    }
    Ok(logits)
}
