//! The sentence this project lives by: training from the cache is training beside the teacher.
//!
//! Fifty steps are trained from an f32 cache of the whole view family, and fifty steps whose logits the ONNX Runtime
//! teacher computes on the very pixels of each batch. Rows agree to 1e-5 of max|z|, losses to 1e-3 at every step.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests too"
)]

mod bench;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use bench::{Bench, ROOT};
use candle_core::{DType, Device};
use logitcask_cache::LogitCache;
use logitcask_dataset::{Draw, PixelBatch, PixelLayout, Preprocess, Role, render};
use logitcask_experiment::{CacheWant, Experiment, Recipe, student_preprocess};
use logitcask_losses::{Objective, Setup};
use logitcask_student::{Event, ImageShape, Job, Network, Shown, StudentError, TeacherRows, train};
use logitcask_teacher::{ExecutionProvider, Runtime, Teacher};

const N_STEPS: usize = 50;

/// The teacher itself in the cache's place. It renders nothing anew: it runs on the pixels of the batch.
struct Online<'a> {
    teacher: Mutex<Teacher>,
    cache: &'a LogitCache,
    labels: Vec<u32>,
    n_classes: usize,
    worst: Mutex<f32>,
}

impl TeacherRows for Online<'_> {
    fn n_classes(&self) -> usize {
        self.n_classes
    }

    fn rows(
        &self,
        pixels: &PixelBatch,
        logits: &mut [f32],
        labels: &mut [u32],
    ) -> Result<(), StudentError> {
        let mut computed = Vec::new();
        // The student's batch is (B, H, W, 1), which for one channel is (B, 1, H, W) byte for byte.
        assert_eq!((pixels.layout, pixels.channels), (PixelLayout::Nhwc, 1));
        let mut batch = PixelBatch::new(PixelLayout::Nchw);
        batch.pixels.clone_from(&pixels.pixels);
        (batch.n, batch.channels, batch.height, batch.width) =
            (pixels.n, 1, pixels.height, pixels.width);
        batch.requests.clone_from(&pixels.requests);
        self.teacher
            .lock()
            .unwrap()
            .forward(&batch, &mut computed)
            .unwrap();
        self.cache.rows(&pixels.requests, logits, labels)?;
        let scale = computed.iter().fold(0f32, |max, z| max.max(z.abs()));
        let error = computed
            .iter()
            .zip(logits.iter())
            .fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        let mut worst = self.worst.lock().unwrap();
        *worst = worst.max(error / scale);
        logits.copy_from_slice(&computed);
        for (label, &(sample, _)) in labels.iter_mut().zip(&pixels.requests) {
            *label = self.labels[sample as usize];
        }
        Ok(())
    }
}

#[test]
fn training_from_the_cache_is_training_beside_the_teacher() {
    for losses in ["kd", "mcld"] {
        check(losses);
    }
}

fn check(losses: &str) {
    let bench = Bench::new("equivalence");
    let path = format!("pipelines/digits/resnet-resnet8/{losses}.toml");
    let overrides = [
        "views.count=\"all\"",
        "teacher.0.encoding=f32",
        "data.limit=1200",
        "train.epochs=2",
        "train.batch_size=48",
    ];
    let sets: Vec<&str> = overrides.iter().flat_map(|set| ["--set", set]).collect();
    bench
        .run(&[&["teacher-logits", &path], &sets[..]].concat())
        .ok();

    std::env::set_current_dir(ROOT).unwrap();
    let overrides = overrides.map(str::to_owned);
    let recipe =
        Recipe::load(Path::new(&path), &overrides).unwrap_or_else(|failure| panic!("{failure}"));
    let experiment =
        Experiment::open(recipe.clone(), &|_| {}).unwrap_or_else(|failure| panic!("{failure}"));
    let spec = &recipe.teacher[0];
    let wants = experiment
        .wants(spec)
        .unwrap_or_else(|failure| panic!("{failure}"));
    let want: &CacheWant = wants
        .iter()
        .find(|want| want.split.role == Role::Train)
        .unwrap();
    let cache = want
        .open(&bench.cache_dir(), Path::new(&path), &|_| {})
        .unwrap_or_else(|failure| panic!("{failure}"));
    let preprocess = student_preprocess(&recipe).unwrap_or_else(|failure| panic!("{failure}"));

    let runtime = Runtime::load(None, ExecutionProvider::Cpu).unwrap();
    let teacher = Teacher::load(&runtime, spec, &Default::default(), 1).unwrap();
    let online = Online {
        n_classes: cache.n_classes(),
        labels: experiment.train.dataset.labels().to_vec(),
        teacher: Mutex::new(teacher),
        cache: &cache,
        worst: Mutex::new(0.0),
    };
    let from_cache = losses_of(&bench, &experiment, &preprocess, &cache, "cached");
    let from_teacher = losses_of(&bench, &experiment, &preprocess, &online, "online");
    assert_eq!(from_cache.len(), N_STEPS);
    assert_eq!(from_teacher.len(), N_STEPS);
    let worst_row = *online.worst.lock().unwrap();
    assert!(worst_row > 0.0 || from_cache == from_teacher);
    assert!(
        worst_row <= 1e-5,
        "{losses}: a cached row differs by {worst_row} of max|z|"
    );
    for (step, (a, b)) in from_cache.iter().zip(&from_teacher).enumerate() {
        assert!(
            (a - b).abs() <= 1e-3 * b.abs(),
            "{losses}, step {step}: {a} from the cache, {b} beside the teacher"
        );
    }
    println!(
        "{losses}: worst row {worst_row:.1e} of max|z|, last losses {:?} {:?}",
        from_cache.last(),
        from_teacher.last()
    );

    every_row(
        &experiment,
        want,
        &cache,
        &mut online.teacher.lock().unwrap(),
    );
}

/// The losses of the first fifty steps.
fn losses_of(
    bench: &Bench,
    experiment: &Experiment,
    preprocess: &Preprocess,
    teacher: &dyn TeacherRows,
    name: &str,
) -> Vec<f64> {
    let recipe = &experiment.recipe;
    let n_classes = experiment.train.dataset.n_classes();
    let setup = Setup {
        n_classes,
        epochs: 2,
        dtype: DType::F32,
        device: &Device::Cpu,
    };
    let objective = Objective::new(&recipe.loss, &setup).unwrap();
    let image = ImageShape {
        channels: 1,
        height: 8,
        width: 8,
    };
    let network = Network::build("resnet8", image, n_classes, recipe.seed, &Device::Cpu).unwrap();
    let run = bench.folder.join(name);
    std::fs::create_dir_all(&run).unwrap();
    let job = Job {
        seed: recipe.seed,
        spec: recipe.train.as_ref().unwrap(),
        train: experiment.train.dataset.clone(),
        views: Shown {
            family: experiment.train.family.clone(),
            n_views: experiment.train.n_views,
            draw: Draw::Uniform,
            teacher: Some(teacher),
        },
        views_per_step: 1,
        strong: None,
        preprocess: preprocess.clone(),
        evaluation: None,
        run_digest: name.to_owned(),
        run: &run,
        claim: None,
        loader_threads: 1,
        device: Device::Cpu,
    };
    let losses = RefCell::new(Vec::new());
    train(
        &job,
        &network,
        &objective,
        &AtomicBool::new(false),
        &|event| {
            if let Event::Step { loss, .. } = event {
                losses.borrow_mut().push(loss);
            }
        },
    )
    .unwrap();
    let mut losses = losses.into_inner();
    losses.truncate(N_STEPS);
    losses
}

/// Not only the rows that training happened to draw: every sample in every view.
fn every_row(experiment: &Experiment, want: &CacheWant, cache: &LogitCache, teacher: &mut Teacher) {
    let dataset = &experiment.train.dataset;
    let preprocess = Preprocess::new(&want.teacher.preprocess).unwrap();
    let n_classes = cache.n_classes();
    let samples: Vec<u32> = (0..dataset.len() as u32).collect();
    let mut worst = 0f32;
    for view in 0..experiment.train.n_views {
        for chunk in samples.chunks(256) {
            let requests: Vec<(u32, u32)> = chunk.iter().map(|&sample| (sample, view)).collect();
            let mut pixels = PixelBatch::new(PixelLayout::Nchw);
            render(
                dataset,
                &experiment.train.family,
                &preprocess,
                &requests,
                &mut pixels,
            )
            .unwrap();
            let mut computed = Vec::new();
            teacher.forward(&pixels, &mut computed).unwrap();
            let mut cached = vec![0.0; requests.len() * n_classes];
            let mut labels = vec![0; requests.len()];
            cache.rows(&requests, &mut cached, &mut labels).unwrap();
            let scale = computed.iter().fold(0f32, |max, z| max.max(z.abs()));
            for (a, b) in computed.iter().zip(&cached) {
                worst = worst.max((a - b).abs() / scale);
            }
        }
    }
    assert!(
        worst <= 1e-5,
        "a row of the cache differs by {worst} of max|z|"
    );
}
