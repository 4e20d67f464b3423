//! Every student against PyTorch, and what every row of the zoo owes whoever trains it.
//!
//! `tests/fixtures/models/README.md` tells how weights and images are filled, what was written down, and how far a
//! correct implementation in f32 may lie from it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{collections::HashMap, path::PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use logitcask_layers::Mode;
use logitcask_student::{ImageShape, Network, StudentError, find_model, models, to_safetensors};
use serde_json::Value;

const BATCH: usize = 4;
const INPUT_NUMBER: u32 = 1_000_000;
const PROJECTION_NUMBER: u32 = 2_000_000;

/// Where an activation is zero but for rounding, or two values of a pooling window tie, other kernels decide otherwise,
/// and every gradient below moves: by 8.1e-3 for vgg16 and 6.3e-3 for vgg19 with AVX2, which the portable kernels, that
/// round in another order, get right to 6.3e-5 and 1.1e-4. A parameter wired wrongly is off by a tenth or more.
const FLIP: f64 = 3e-2;

#[test]
fn logits_gradients_and_statistics_are_those_of_pytorch() {
    let facts = facts();
    let golden = safetensors::load(fixture("models.safetensors"), &Device::Cpu).unwrap();
    let mut misses = vec![];
    let mut n_flips = 0;
    for (case, facts) in &facts {
        let mut told = format!("{case:16}");
        for (kind, error) in measure(case, facts, &golden) {
            // Ten times PyTorch's own error in f32, and never less than a few roundings.
            let bar = (10.0 * facts["float32_errors"][kind].as_f64().unwrap()).max(2e-6);
            told += &format!("  {kind} {error:.1e} ({bar:.0e})");
            if kind == "gradients" && error > bar && error <= FLIP {
                n_flips += 1;
            } else if error > bar || error.is_nan() {
                misses.push(format!(
                    "{case}: {kind} is off by {error:.1e}, the bar is {bar:.0e}"
                ));
            }
        }
        println!("{told}");
    }
    assert!(misses.is_empty(), "{misses:#?}");
    assert!(
        4 * n_flips <= facts.len(),
        "{n_flips} cases with flips are no accident"
    );
}

#[test]
fn each_student_has_a_golden_case() {
    let facts = facts();
    for row in models() {
        let published = &facts[row.name]["published"];
        assert_eq!(published["n_parameters"], row.n_parameters, "{}", row.name);
        assert_eq!(published["classes"], row.n_classes, "{}", row.name);
        assert_eq!(published["image"][1], row.image_size, "{}", row.name);
    }
}

#[test]
fn each_student_has_as_many_parameters_as_published() {
    for row in models() {
        let image = square(3, row.image_size);
        let network = Network::build(row.name, image, row.n_classes, 1, &Device::Cpu).unwrap();
        assert_eq!(network.n_parameters(), row.n_parameters, "{}", row.name);
    }
}

/// As small and grey as the digits; twice as large as CIFAR's, and no square.
#[test]
fn each_student_takes_images_of_any_size_or_says_why_not() {
    for row in models() {
        let oblong = ImageShape {
            channels: 3,
            height: 64,
            width: 48,
        };
        for image in [square(1, 8), oblong] {
            let network = match Network::build(row.name, image, 7, 1, &Device::Cpu) {
                Ok(network) => network,
                Err(StudentError::ImageSize {
                    name,
                    height,
                    width,
                    why,
                }) => {
                    assert_eq!(
                        (name.as_str(), height, width),
                        (row.name, image.height, image.width)
                    );
                    assert!(
                        row.name == "deit_tiny" && height == 8,
                        "{name} refuses {image:?}: {why}"
                    );
                    continue;
                }
                Err(error) => panic!("{}: {error}", row.name),
            };
            let logits = network.forward(&pixels(1, image), Mode::Eval).unwrap();
            assert_eq!(logits.dims(), [1, 7], "{} on {image:?}", row.name);
            assert!(
                values(&logits).iter().all(|logit| logit.is_finite()),
                "{} on {image:?}",
                row.name
            );
        }
    }
}

/// Evaluation takes as many images at once as memory allows, so a row may not know which others it came with.
#[test]
fn an_image_has_the_same_logits_alone_and_in_any_batch() {
    for row in models() {
        let image = square(3, 16);
        let network = Network::build(row.name, image, 10, 1, &Device::Cpu).unwrap();
        let together = pixels(5, image);
        let logits = |images: &Tensor| values(&network.forward(images, Mode::Eval).unwrap());
        let expected = logits(&together);
        for sizes in [vec![1; 5], vec![3, 2]] {
            let mut first = 0;
            let mut apart = vec![];
            for size in sizes {
                apart.extend(logits(&together.narrow(0, first, size).unwrap()));
                first += size;
            }
            assert_eq!(apart, expected, "{}", row.name);
        }
    }
}

#[test]
fn students_refuse_images_that_their_strides_use_up() {
    for (name, size, reason) in [
        ("vgg8", 7, "three poolings halve it"),
        ("deit_tiny", 8, "16x16"),
        ("deit_tiny", 40, "only whole ones"),
        ("deit_tiny", 0, "only whole ones"),
    ] {
        let refusal = Network::build(name, square(3, size), 10, 1, &Device::Cpu)
            .err()
            .unwrap();
        assert!(refusal.to_string().contains(reason), "{refusal}");
    }
}

/// As in timm's tests: a parameter that the loss cannot reach was wired wrongly.
#[test]
fn each_parameter_of_each_student_gets_a_gradient() {
    for row in models() {
        let image = square(3, 16);
        let network = Network::build(row.name, image, 5, 1, &Device::Cpu).unwrap();
        let logits = network.forward(&pixels(3, image), Mode::Train).unwrap();
        let gradients = logits
            .sqr()
            .unwrap()
            .mean_all()
            .unwrap()
            .backward()
            .unwrap();
        for (name, var) in network.params().parameters() {
            let gradient = gradients
                .get(&var)
                .unwrap_or_else(|| panic!("{}: {name} gets none", row.name));
            assert!(
                values(gradient).iter().all(|g| g.is_finite()),
                "{}: {name}",
                row.name
            );
        }
    }
}

#[test]
fn each_student_is_the_same_after_saving_and_loading() {
    let folder = std::env::temp_dir().join(format!("logitcask-models-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for row in models() {
        let image = square(3, 16);
        let build = |seed| Network::build(row.name, image, 5, seed, &Device::Cpu).unwrap();
        let (saved, loaded) = (build(1), build(2));
        saved.forward(&pixels(3, image), Mode::Train).unwrap(); // moves the running statistics
        let path = folder.join(row.name).with_extension("safetensors");
        let state: HashMap<String, Tensor> = saved.state().unwrap().into_iter().collect();
        safetensors::save(&state, &path).unwrap();
        loaded
            .load(&safetensors::load(&path, &Device::Cpu).unwrap())
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let logits =
            |network: &Network| values(&network.forward(&pixels(2, image), Mode::Eval).unwrap());
        assert_eq!(logits(&saved), logits(&loaded), "{}", row.name);
    }
    std::fs::remove_dir(&folder).unwrap();
}

/// Fine-tuning: the same network for other classes keeps all but its head. Another network is refused.
#[test]
fn weights_from_elsewhere_fit_or_are_refused() {
    let folder = std::env::temp_dir().join(format!("logitcask-init-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("theirs.safetensors");
    let image = square(3, 32);
    let build =
        |name, classes, seed| Network::build(name, image, classes, seed, &Device::Cpu).unwrap();
    let state = |network: &Network| -> HashMap<String, Vec<f64>> {
        let state = network.state().unwrap();
        state.into_iter().map(|(n, t)| (n, values(&t))).collect()
    };
    let theirs = build("resnet20", 100, 1);
    std::fs::write(&path, to_safetensors(&theirs).unwrap()).unwrap();

    let same = build("resnet20", 100, 2);
    assert_eq!(same.init_from(&path).unwrap(), [""; 0]);
    assert_eq!(state(&same), state(&theirs));

    let fewer_classes = build("resnet20", 10, 2);
    let before = state(&fewer_classes);
    assert_eq!(
        fewer_classes.init_from(&path).unwrap(),
        ["fc.weight", "fc.bias"]
    );
    for (name, values) in state(&fewer_classes) {
        let from = match name.starts_with("fc.") {
            true => &before,
            false => &state(&theirs),
        };
        assert_eq!(values, from[&name], "{name}");
    }

    let error = build("resnet32", 100, 2).init_from(&path).unwrap_err();
    assert!(matches!(error, StudentError::Weights { .. }), "{error}");
    std::fs::write(&path, "no weights").unwrap();
    let error = same.init_from(&path).unwrap_err();
    assert!(matches!(error, StudentError::WeightsFile { .. }), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_misspelt_student_is_told_its_neighbour() {
    let Err(StudentError::UnknownStudent { nearest, .. }) = find_model("resnet8_4", &[]) else {
        panic!("no student is named so");
    };
    assert_eq!(nearest, Some("resnet8x4"));
}

/// The errors of one case, each relative to what the fixture's README says.
fn measure(
    case: &str,
    facts: &Value,
    golden: &HashMap<String, Tensor>,
) -> Vec<(&'static str, f64)> {
    let wanted = |key: &str| values(&golden[&format!("{case}.{key}")]);
    let size = |place: usize| facts["image"][place].as_u64().unwrap() as usize;
    let image = ImageShape {
        channels: size(0),
        height: size(1),
        width: size(2),
    };
    let model = facts["model"].as_str().unwrap();
    let classes = facts["classes"].as_u64().unwrap() as usize;
    let network = Network::build(model, image, classes, 1, &Device::Cpu).unwrap();
    assert_eq!(facts["n_parameters"], network.n_parameters(), "{case}");
    let tensors: Vec<(String, Vec<usize>)> =
        serde_json::from_value(facts["tensors"].clone()).unwrap();
    let weights = tensors
        .iter()
        .zip(0..)
        .map(|((name, shape), number)| (name.clone(), fill(name, shape, number)));
    network.load(&weights.collect()).unwrap(); // refuses any other name or shape

    let draw = facts["draw"].as_u64().unwrap() as u32;
    let pixels = Tensor::from_vec(
        (0..BATCH * image.channels * image.height * image.width)
            .map(|position| uniform(INPUT_NUMBER + draw, position as u32) as f32)
            .collect(),
        (BATCH, image.channels, image.height, image.width),
        &Device::Cpu,
    );
    let pixels = pixels
        .unwrap()
        .permute((0, 2, 3, 1))
        .unwrap()
        .contiguous()
        .unwrap();
    let logits_eval = network.forward(&pixels, Mode::Eval).unwrap();
    let logits_train = network.forward(&pixels, Mode::Train).unwrap();
    let loss = cross_entropy(&logits_train);
    let gradients = loss.backward().unwrap();

    let vars: HashMap<String, _> = network.params().parameters().into_iter().collect();
    let wanted_gradients: Vec<Vec<f64>> =
        wanted("gradients").chunks(6).map(<[f64]>::to_vec).collect();
    let largest_norm = wanted_gradients
        .iter()
        .map(|six| six[0])
        .fold(0.0, f64::max);
    let mut gradient_error = 0f64;
    let parameters = tensors
        .iter()
        .zip(0..)
        .filter(|((name, _), _)| vars.contains_key(name));
    let mut n_compared = 0;
    for (((name, shape), number), wanted) in parameters.zip(&wanted_gradients) {
        let six = six_numbers(
            &as_in_pytorch(gradients.get(&vars[name]).unwrap(), shape),
            number,
        );
        let scale = wanted[0].max(1e-3 * largest_norm);
        gradient_error = worse(gradient_error, largest_difference(&six, wanted) / scale);
        n_compared += 1;
    }
    assert_eq!(
        (n_compared, n_compared),
        (vars.len(), wanted_gradients.len()),
        "{case}"
    );

    let state: HashMap<String, Tensor> = network.state().unwrap().into_iter().collect();
    let running = tensors.iter().filter(|(name, _)| !vars.contains_key(name));
    let running_norms = running.map(|(name, _)| norm(&values(&state[name])));
    let running_error = running_norms
        .zip(wanted("running_norms"))
        .map(|(ours, theirs)| (ours / theirs - 1.0).abs());

    let relative = |ours: &Tensor, key| {
        let wanted = wanted(key);
        largest_difference(&values(ours), &wanted)
            / wanted.iter().fold(0.0, |max, v| v.abs().max(max))
    };
    vec![
        ("logits_eval", relative(&logits_eval, "logits_eval")),
        ("logits_train", relative(&logits_train, "logits_train")),
        ("loss", relative(&loss, "loss")),
        ("gradients", gradient_error),
        ("running_norms", running_error.fold(0.0, worse)),
    ]
}

/// The mean over the batch for the labels 1, 4, 7, 0.
fn cross_entropy(logits: &Tensor) -> Tensor {
    let labels: Vec<u32> = (0..BATCH as u32).map(|b| (3 * b + 1) % 10).collect();
    let labels = Tensor::from_vec(labels, (BATCH, 1), &Device::Cpu).unwrap();
    let chosen = logits.gather(&labels, 1).unwrap().squeeze(1).unwrap();
    (logits.log_sum_exp(1).unwrap() - chosen)
        .unwrap()
        .mean_all()
        .unwrap()
}

/// A gradient lies as its parameter does: `(kH, kW, I, O)`, which PyTorch has as `(O, I, kH, kW)` or `(O, I)`.
fn as_in_pytorch(gradient: &Tensor, shape: &[usize]) -> Vec<f64> {
    let gradient = match shape {
        [_, _, _, _] => gradient.permute((3, 2, 0, 1)).unwrap(),
        [_, _] => gradient
            .squeeze(0)
            .unwrap()
            .squeeze(0)
            .unwrap()
            .t()
            .unwrap(),
        _ => gradient.clone(),
    };
    assert_eq!(gradient.dims(), shape);
    values(&gradient)
}

/// Norm, projection, first four values.
fn six_numbers(gradient: &[f64], number: u32) -> [f64; 6] {
    let projected = gradient
        .iter()
        .zip(0..)
        .map(|(g, position)| g * uniform(PROJECTION_NUMBER + number, position));
    let value = |position| gradient.get(position).copied().unwrap_or(0.0);
    [
        norm(gradient),
        projected.sum(),
        value(0),
        value(1),
        value(2),
        value(3),
    ]
}

fn fill(name: &str, shape: &[usize], number: u32) -> Tensor {
    let kind = name.rsplit('.').next().unwrap();
    let (shift, scale) = match kind {
        "running_var" => (1.5, 0.5),
        "weight" if shape.len() == 1 => (0.2, 0.04),
        "weight" => (
            0.0,
            (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt(),
        ),
        "bias" => (0.5, 0.1),
        _ => (0.0, 0.1),
    };
    let filled = (0..shape.iter().product::<usize>() as u32)
        .map(|position| (shift + scale * uniform(number, position)) as f32)
        .collect();
    Tensor::from_vec(filled, shape, &Device::Cpu).unwrap()
}

/// In [-1, 1).
fn uniform(number: u32, position: u32) -> f64 {
    let mut h = position
        .wrapping_mul(0x9E37_79B9)
        .wrapping_add(number.wrapping_mul(0x85EB_CA6B));
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h = (h ^ (h >> 15)).wrapping_mul(0x846C_A68B);
    h ^= h >> 16;
    f64::from(h >> 8) / 8_388_608.0 - 1.0
}

fn pixels(batch: usize, image: ImageShape) -> Tensor {
    let ImageShape {
        channels,
        height,
        width,
    } = image;
    let values =
        (0..(batch * height * width * channels) as u32).map(|position| uniform(7, position) as f32);
    Tensor::from_vec(
        values.collect(),
        (batch, height, width, channels),
        &Device::Cpu,
    )
    .unwrap()
}

fn square(channels: usize, size: usize) -> ImageShape {
    ImageShape {
        channels,
        height: size,
        width: size,
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor
        .flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn largest_difference(left: &[f64], right: &[f64]) -> f64 {
    assert_eq!(left.len(), right.len());
    left.iter()
        .zip(right)
        .map(|(l, r)| (l - r).abs())
        .fold(0.0, worse)
}

/// The larger one, or NaN, which `f64::max` would lose.
fn worse(left: f64, right: f64) -> f64 {
    if right <= left { left } else { right }
}

fn facts() -> serde_json::Map<String, Value> {
    serde_json::from_slice(&std::fs::read(fixture("models.json")).unwrap()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/models"
    ))
    .join(name)
}
