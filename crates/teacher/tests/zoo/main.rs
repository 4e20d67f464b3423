//! A zoo of small teachers: each is captured as ONNX Runtime answers it, or refused for the right reason, or captured with a
//! warning that says why it is doubtful. The models are written here, without Python.
//!
//! `LOGITCASK_ZOO=FOLDER` leaves every captured teacher there with its images and rows, as raw f32: another onnxruntime can
//! then be asked too.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../common/mod.rs"]
mod common;
mod models;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{N_CLASSES, images, load, runtime, write_model};
use logitcask_cache::{Encoding, LogitCache, LogitWriter, Manifest, OpenOptions};
use logitcask_dataset::{PixelBatch, PixelLayout, Preprocess, ViewFamily, render};
use logitcask_teacher::{
    Element, Job, Pixels, Teacher, TeacherError, cache_key, capture, find_batch_size, prepare,
};
use models::{Case, Verdict};

/// The last batch and the last chunk hold fewer than the others.
const N_IMAGES: u32 = 41;
const CHUNK_ROWS: u32 = 32;

#[test]
fn every_teacher_is_captured_as_it_answers_or_refused_for_the_right_reason() {
    let cases = models::cases();
    assert!(cases.len() >= 40, "{} teachers", cases.len());
    let faults: Vec<String> = cases.iter().filter_map(|case| judge(case).err()).collect();
    println!("{} teachers", cases.len());
    assert!(
        faults.is_empty(),
        "{} of {} teachers:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
}

/// What is wrong with how a teacher was treated.
fn judge(case: &Case) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let told = |error: &TeacherError| {
        let because =
            std::error::Error::source(error).map_or(String::new(), |cause| format!(" | {cause}"));
        format!("{error} | {}{because}", error.hint().unwrap_or_default())
    };
    let lacks = |text: &str, words: &[&str]| {
        let missing = words.iter().find(|word| !text.contains(**word));
        missing.map_or(Ok(()), |word| {
            Err(format!("{}: `{word}` is missing in: {text}", case.name))
        })
    };
    let captured = captured(folder.path(), case);
    match (case.verdict, captured) {
        (Verdict::Refused(words), Err(error)) => lacks(&told(&error), words),
        (Verdict::Refused(_), Ok(_)) => Err(format!("{}: captured without a word", case.name)),
        (_, Err(error)) => Err(format!("{}: refused: {}", case.name, told(&error))),
        (verdict, Ok((mut teacher, cache))) => {
            let warnings: Vec<String> = teacher
                .warnings()
                .iter()
                .map(|w| format!("{w} | {}", w.hint()))
                .collect();
            match verdict {
                Verdict::Warned(words) => lacks(&warnings.join("; "), words)?,
                _ if !warnings.is_empty() => {
                    return Err(format!("{}: {}", case.name, warnings.join("; ")));
                }
                _ => {}
            }
            compare(folder.path(), case, &mut teacher, &cache)
        }
    }
}

fn captured(folder: &Path, case: &Case) -> Result<(Teacher, LogitCache), TeacherError> {
    for (name, content) in &case.beside {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let path = write_model(folder, &case.model);
    let mut teacher = load(&path, case.more, 2)?;
    let (dataset, family) = (images(N_IMAGES), ViewFamily::clean());
    let preprocess = Preprocess::new(&teacher.spec().preprocess)?;
    let pixels = Pixels {
        dataset: &dataset,
        family: &family,
        preprocess: &preprocess,
    };
    let images = prepare(&mut teacher, pixels)?;
    let batch_size = match teacher.spec().batch_size {
        None if teacher.input().fixed_batch.is_none() => 10,
        _ => find_batch_size(&mut teacher, images)?.rows,
    };
    let fingerprint = dataset.fingerprint(&|_, _| {})?;
    let key = cache_key(teacher.spec(), teacher.file(), &fingerprint, &family)?;
    assert_eq!(
        key.batch.is_empty(),
        teacher.input().at_once.is_none(),
        "{}",
        case.name
    );
    let mut manifest = Manifest::new("teacher", key, Encoding::F32, N_IMAGES, N_CLASSES);
    manifest.chunk_rows = CHUNK_ROWS;
    let writer = LogitWriter::open(&folder.join("cache"), &manifest)?;
    let job = Job {
        pixels,
        views: &[0],
        batch_size,
        decoders: 2,
        views_per_pass: 1,
        images,
    };
    capture(
        &mut teacher,
        &job,
        &writer,
        &AtomicBool::new(false),
        &|_| {},
    )?;
    let path = writer.path().to_owned();
    drop(writer);
    Ok((teacher, LogitCache::open(&path, OpenOptions::default())?))
}

/// Holds the cache against a plain session that is asked about one image at a time.
fn compare(
    folder: &Path,
    case: &Case,
    teacher: &mut Teacher,
    cache: &LogitCache,
) -> Result<(), String> {
    let wanted: Vec<(u32, u32)> = (0..N_IMAGES).map(|sample| (sample, 0)).collect();
    let (mut rows, mut labels) = (vec![0.0; wanted.len() * N_CLASSES], vec![0; wanted.len()]);
    cache.rows(&wanted, &mut rows, &mut labels).unwrap();
    let preprocess = Preprocess::new(&teacher.spec().preprocess).unwrap();
    let mut batch = PixelBatch::new(teacher.layout());
    render(
        &images(N_IMAGES),
        &ViewFamily::clean(),
        &preprocess,
        &wanted,
        &mut batch,
    )
    .unwrap();
    let plain = folder.join("plain.onnx");
    std::fs::write(&plain, case.plain.as_ref().unwrap_or(&case.model)).unwrap();
    if let Some(kept) = std::env::var_os("LOGITCASK_ZOO") {
        keep(Path::new(&kept), folder, case, &batch, &rows);
    }
    let plain = match case.by_batch {
        // A session alone cannot say what a row among others is; the teacher's own batches can, cut by hand.
        Some(at_once) => in_batches(teacher, &batch, at_once),
        None => one_by_one(&plain, teacher, &batch),
    };
    let largest = plain.iter().fold(0f32, |largest, z| largest.max(z.abs()));
    let difference = rows
        .iter()
        .zip(&plain)
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    // f16 kernels round by batch as well.
    let allowed = if case.more.contains("f16") {
        2e-3
    } else {
        1e-5
    } * largest;
    match plain.len() == rows.len() && difference <= allowed {
        true => Ok(()),
        false => Err(format!("{}: off by {difference:e} of {largest}", case.name)),
    }
}

fn one_by_one(model: &Path, teacher: &Teacher, batch: &PixelBatch) -> Vec<f32> {
    let library = runtime();
    let mut session = ort::session::Session::builder(library.environment())
        .unwrap()
        .commit_from_file(model)
        .unwrap();
    let (output, input) = (teacher.output().name.clone(), teacher.input());
    let rows = input.fixed_batch.unwrap_or(1);
    let sides = [batch.channels, batch.height, batch.width];
    let mut shape = vec![rows];
    shape.extend(match batch.layout {
        PixelLayout::Nchw => sides,
        PixelLayout::Nhwc => [batch.height, batch.width, batch.channels],
    });
    let values = sides.iter().product::<usize>();
    let mut all = Vec::new();
    for image in batch.pixels.chunks_exact(values) {
        let mut pixels = image.to_vec();
        pixels.resize(rows * values, 0.0);
        use ort::value::Tensor;
        let shape = shape.clone();
        let tensor = match input.element {
            Element::F32 => Tensor::from_array((shape, pixels)).unwrap().into_dyn(),
            Element::F16 => {
                let halves: Vec<half::f16> =
                    pixels.iter().map(|z| half::f16::from_f32(*z)).collect();
                Tensor::from_array((shape, halves)).unwrap().into_dyn()
            }
            Element::U8 => {
                let bytes: Vec<u8> = pixels.iter().map(|z| *z as u8).collect();
                Tensor::from_array((shape, bytes)).unwrap().into_dyn()
            }
        };
        let outputs = session
            .run([ort::session::SessionInputValue::from(tensor)])
            .unwrap();
        let value = &outputs[output.as_str()];
        let row: Vec<f32> = if let Ok((_, data)) = value.try_extract_tensor::<f32>() {
            data.to_vec()
        } else if let Ok((_, data)) = value.try_extract_tensor::<f64>() {
            data.iter().map(|z| *z as f32).collect()
        } else {
            let (_, data) = value.try_extract_tensor::<half::f16>().unwrap();
            data.iter().map(|z| z.to_f32()).collect()
        };
        all.extend(as_stored(&row[..N_CLASSES], teacher));
    }
    all
}

/// What the recipe makes of a row: with `output_is`, centred logarithms.
fn as_stored(row: &[f32], teacher: &Teacher) -> Vec<f32> {
    use logitcask_teacher::OutputIs;
    let logs: Vec<f32> = match teacher.spec().output_is {
        OutputIs::Logits => return row.to_vec(),
        OutputIs::Probabilities => row.iter().map(|p| p.ln()).collect(),
        OutputIs::LogProbabilities => row.to_vec(),
    };
    let mean = logs.iter().sum::<f32>() / logs.len() as f32;
    logs.iter().map(|z| z - mean).collect()
}

fn in_batches(teacher: &mut Teacher, batch: &PixelBatch, at_once: usize) -> Vec<f32> {
    let values = batch.channels * batch.height * batch.width;
    let mut all = Vec::new();
    for chunk in batch.pixels.chunks(CHUNK_ROWS as usize * values) {
        for pixels in chunk.chunks(at_once * values) {
            let mut part = PixelBatch::new(batch.layout);
            (part.n, part.channels, part.height, part.width) = (
                pixels.len() / values,
                batch.channels,
                batch.height,
                batch.width,
            );
            part.pixels = pixels.to_vec();
            let mut rows = Vec::new();
            teacher.forward(&part, &mut rows).unwrap();
            all.extend(rows);
        }
    }
    all
}

fn keep(kept: &Path, folder: &Path, case: &Case, batch: &PixelBatch, rows: &[f32]) {
    let place = kept.join(case.name);
    std::fs::create_dir_all(&place).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, place.join(path.file_name().unwrap())).unwrap();
        }
    }
    std::fs::write(place.join("pixels.f32"), common::raw_f32(&batch.pixels)).unwrap();
    std::fs::write(place.join("rows.f32"), common::raw_f32(rows)).unwrap();
    std::fs::write(place.join("recipe.txt"), case.more).unwrap();
}
