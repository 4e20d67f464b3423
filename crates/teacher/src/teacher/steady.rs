//! Is a row a function of the teacher and the pixels, and of nothing else? The same images are asked together, alone, in
//! unequal parts, and once more.

use std::ops::Range;

use logitcask_dataset::PixelBatch;

use super::Teacher;
use crate::error::TeacherError;
use crate::graph::{Graph, Node};
use crate::rows::largest_difference;
use crate::session::{Answer, Probe, SessionPlan};
use crate::spec::Precision;
use crate::suspects::{self, Fault};
use crate::warning::Warning;

/// What answers may differ by, as a share of the largest value: kernels sum in another order for another batch.
const TOLERANCE: f32 = 1e-4;
/// The same where values carry 11 bits or 8.
const TOLERANCE_OF_HALF: f32 = 5e-3;

/// ONNX's numbers for f16 and bf16.
const HALF: [i64; 2] = [10, 16];

/// Images that are asked alone; each costs a run.
const ALONE: usize = 4;

impl Teacher {
    /// Refuses a teacher whose answers depend on chance or on the batch. `batch` holds real images.
    pub(crate) fn check_steady(&mut self, batch: &PixelBatch) -> Result<(), TeacherError> {
        if batch.n == 0 {
            return Ok(());
        }
        let batch = &at_least_four(batch);
        let together = self.values(batch, 0..batch.n)?;
        let again = self.values(batch, 0..batch.n)?;
        let largest = together
            .iter()
            .fold(0f32, |largest, z| largest.max(z.abs()));
        let is_half = self.spec.precision == Precision::F16 || self.file.bfloat || self.device.tf32;
        let share = if is_half {
            TOLERANCE_OF_HALF
        } else {
            TOLERANCE
        };
        let allowed = share * largest;
        let by_chance = largest_difference(&together, &again);
        if by_chance > allowed {
            let node = self.blame(batch, Fault::Chance);
            return Err(TeacherError::Chance {
                node,
                difference: by_chance,
                allowed,
            });
        }
        if let Some(node) = suspects::find(&self.file, &self.output.name, Fault::Chance) {
            self.warnings.push(Warning::Chance { node });
        }
        // Where the recipe says what a batch is, it may decide.
        if self.input.at_once.is_some() {
            return Ok(());
        }
        let width = together.len() / batch.n;
        let cut = batch.n / 3;
        let alone = (0..batch.n.min(ALONE)).map(|index| index..index + 1);
        for part in alone.chain([0..cut, cut..batch.n]) {
            let values = self.values(batch, part.clone())?;
            let by_batch =
                largest_difference(&together[part.start * width..part.end * width], &values);
            if by_batch > allowed {
                let node = self.blame(batch, Fault::Training);
                return Err(TeacherError::Batch {
                    node,
                    difference: by_batch,
                    allowed,
                });
            }
        }
        Ok(())
    }

    /// What two answers to one image may differ by, as a share of the largest logit: more where anything on the way is f16 or
    /// bf16, or rounded to TF32.
    pub fn tolerance(&self) -> f32 {
        let behind = self
            .file
            .graph
            .behind(&self.output.name, &self.file.functions);
        let rounds = |(_, node): &(&Graph, &Node)| {
            node.operator == "Cast" && HALF.contains(&node.int("to", 0))
        };
        let is_half = self.spec.precision == Precision::F16 || self.file.bfloat || self.device.tf32;
        match is_half || behind.iter().any(rounds) {
            true => TOLERANCE_OF_HALF,
            false => TOLERANCE,
        }
    }

    /// Everything that the teacher answers to some images: rows as it gives them, then features, image by image.
    fn values(
        &mut self,
        batch: &PixelBatch,
        images: Range<usize>,
    ) -> Result<Vec<f32>, TeacherError> {
        let part = part_of(batch, images);
        let whole = self.output.as_given();
        let mut answer = Answer::default();
        self.workers[0].forward(
            &self.input,
            &whole,
            self.features.as_ref(),
            &part,
            &mut answer,
        )?;
        let rows = answer.rows.chunks_exact(answer.width.max(1));
        let mut features = answer.features.chunks_exact(answer.feature_len.max(1));
        let all = rows.flat_map(|row| {
            row.iter()
                .chain(features.next().unwrap_or_default())
                .copied()
        });
        Ok(all.collect())
    }

    /// The node at fault: one that is known for it, or the first whose result differs.
    fn blame(&self, batch: &PixelBatch, fault: Fault) -> Option<String> {
        let known = suspects::find(&self.file, &self.output.name, fault);
        known.or_else(|| self.first_that_differs(batch, fault))
    }

    fn first_that_differs(&self, batch: &PixelBatch, fault: Fault) -> Option<String> {
        let graph = &self.file.graph;
        let tensors: Vec<&String> = graph.nodes.iter().flat_map(|node| &node.outputs).collect();
        let mut probe = self.probe(&tensors)?;
        let n = batch.n.min(ALONE);
        let together = probe.values(&self.input, &part_of(batch, 0..n)).ok()?;
        // Of what is asked alone, the last and the first image: sums along the batch leave the first as it is, and of the
        // largest of the batch any may be the owner.
        let asked_again = match fault {
            Fault::Chance => [Some(0..n), None],
            _ => [Some(n - 1..n), Some(0..1)],
        };
        asked_again.into_iter().flatten().find_map(|images| {
            let other = probe
                .values(&self.input, &part_of(batch, images.clone()))
                .ok()?;
            let differs = |tensor: &&&String| {
                let (Some((a, is_shared)), Some((b, _))) =
                    (together.get(**tensor), other.get(**tensor))
                else {
                    return false;
                };
                let each = a.len() / n;
                // What has no share for each image must be the same for any.
                let a = match *is_shared && each * images.len() == b.len() {
                    true => &a[images.start * each..images.end * each],
                    false => a,
                };
                let largest = a.iter().fold(0f32, |largest, z| largest.max(z.abs()));
                a.len() == b.len() && largest_difference(a, b) > TOLERANCE * largest
            };
            let first = tensors.iter().find(differs)?;
            graph.producer(first).map(ToString::to_string)
        })
    }

    /// A session of its own that also answers with those of `tensors` that lie inside the graph.
    fn probe(&self, tensors: &[&String]) -> Option<Probe> {
        let inner = tensors.iter().filter(|tensor| self.file.is_inner(tensor));
        let inner: Vec<String> = inner.map(|tensor| (*tensor).clone()).collect();
        let plan = SessionPlan {
            runtime: &self.runtime,
            path: &self.spec.onnx,
            device: &self.device,
            precision: self.spec.precision,
            gpu: self.device.gpus.first().copied().unwrap_or(0),
            threads: 1,
            inner: &inner,
        };
        Probe::new(&plan).ok()
    }
}

/// Some images of a batch as a batch of their own.
fn part_of(batch: &PixelBatch, images: Range<usize>) -> PixelBatch {
    let values = batch.channels * batch.height * batch.width;
    let mut part = PixelBatch::new(batch.layout);
    (part.n, part.channels, part.height, part.width) =
        (images.len(), batch.channels, batch.height, batch.width);
    part.pixels = batch.pixels[images.start * values..images.end * values].to_vec();
    part
}

/// Of fewer than four images no batch could be told from another: the same ones, last pixel first, join them.
fn at_least_four(batch: &PixelBatch) -> PixelBatch {
    let mut all = part_of(batch, 0..batch.n);
    while (1..4).contains(&all.n) {
        let turned: Vec<f32> = all.pixels.iter().rev().copied().collect();
        all.pixels.extend(turned);
        all.n *= 2;
    }
    all
}
