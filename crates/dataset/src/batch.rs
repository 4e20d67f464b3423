//! Samples become pixels: decoded as far as a view needs them, its steps applied, mixed, normalised, and laid into a batch.

use crate::codec::Partial;
use crate::formats::Fetched;
use crate::pixels::{self, Part};
use crate::{
    Dataset, DatasetError, Image, ImageSize, Mix, MixHow, PixelLayout, Preprocess, View, ViewFamily,
};

/// Normalised pixels of some views, in the order asked for. Reused from batch to batch.
#[derive(Debug)]
pub struct PixelBatch {
    /// `n * channels * height * width` values.
    pub pixels: Vec<f32>,
    /// The number of views.
    pub n: usize,
    /// Values per pixel, as the model wants them.
    pub channels: usize,
    /// Rows of pixels in each view.
    pub height: usize,
    /// Columns of pixels in each view.
    pub width: usize,
    /// The order of the values.
    pub layout: PixelLayout,
    /// The (sample, view) of each row.
    pub requests: Vec<(u32, u32)>,
    /// One per row where the family mixes images; empty where it does not.
    pub mixed: Vec<Mixed>,
    /// The rows whose sample is bad: their pixels are zeros. Empty unless `on_bad = "skip"`.
    pub bad: Vec<BadSample>,
}

/// What a mixed view is made of: `lambda` of the sample itself and the rest of its partner, in pixels and in label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixed {
    /// The partner's index; the sample's own where nothing was mixed in.
    pub partner: u32,
    /// Label of the sample that `partner` points to.
    pub partner_label: u32,
    /// The share of the sample itself, 0 to 1.
    pub lambda: f32,
}

/// A row of a batch that holds no image.
#[derive(Debug)]
pub struct BadSample {
    /// The row in the batch.
    pub row: usize,
    /// Index of the sample in the split, from 0.
    pub index: u32,
    /// Which sample it is in words, and why it has no image.
    pub error: DatasetError,
}

impl PixelBatch {
    /// An empty batch, to render into.
    pub fn new(layout: PixelLayout) -> Self {
        Self {
            pixels: Vec::new(),
            n: 0,
            channels: 0,
            height: 0,
            width: 0,
            layout,
            requests: Vec::new(),
            mixed: Vec::new(),
            bad: Vec::new(),
        }
    }

    /// The shape in the order of the layout: (B, C, H, W) or (B, H, W, C).
    pub fn shape(&self) -> [usize; 4] {
        match self.layout {
            PixelLayout::Nchw => [self.n, self.channels, self.height, self.width],
            PixelLayout::Nhwc => [self.n, self.height, self.width, self.channels],
        }
    }

    fn begin(&mut self, requests: &[(u32, u32)], dataset: &Dataset, family: &ViewFamily) {
        self.requests.clear();
        self.requests.extend_from_slice(requests);
        self.mixed.clear();
        self.bad.clear();
        self.n = requests.len();
        (self.channels, self.height, self.width) = (0, 0, 0);
        if family.mixes() {
            for &(sample, _) in requests {
                // Until its view says otherwise, a sample is its own partner.
                let label = dataset.labels().get(sample as usize).copied().unwrap_or(0);
                self.mixed.push(Mixed {
                    partner: sample,
                    partner_label: label,
                    lambda: 1.0,
                });
            }
        }
    }

    /// Makes the rows of bad samples zeros.
    fn finish(
        &mut self,
        dataset: &Dataset,
        family: &ViewFamily,
        preprocess: &Preprocess,
    ) -> Result<(), DatasetError> {
        if self.bad.len() == self.n {
            // Not one image told the size. A batch of zeros still has one where the dataset does.
            let size = dataset
                .uniform_size()
                .map(|size| preprocess.output_size(family.output_size(size)?));
            if let Some(size) = size.transpose()?
                && self.n > 0
            {
                let _ = self.row(0, size);
            }
        }
        let length = self.channels * self.height * self.width;
        for bad in &self.bad {
            self.pixels[bad.row * length..][..length].fill(0.0);
        }
        self.pixels.truncate(self.n * length);
        Ok(())
    }

    /// Row `row`, after the first image has told the size of them all.
    fn row(&mut self, row: usize, size: ImageSize) -> Result<&mut [f32], ImageSize> {
        let expected = ImageSize {
            height: self.height,
            width: self.width,
            channels: self.channels,
        };
        if expected.n_bytes() == 0 {
            (self.channels, self.height, self.width) = (size.channels, size.height, size.width);
            self.pixels.resize(self.n * size.n_bytes(), 0.0);
        } else if expected != size {
            return Err(expected);
        }
        Ok(&mut self.pixels[row * size.n_bytes()..][..size.n_bytes()])
    }
}

/// Renders `requests`, (sample, view) each, into `into`, on the calling thread. Views of one sample that follow each
/// other share its decoding, so ask for several views sample by sample.
///
/// # Errors
/// A bad sample, unless `on_bad = "skip"`: then its row is zeros and listed in `into.bad`. Images of different sizes.
pub fn render(
    dataset: &Dataset,
    family: &ViewFamily,
    preprocess: &Preprocess,
    requests: &[(u32, u32)],
    into: &mut PixelBatch,
) -> Result<(), DatasetError> {
    render_with(
        dataset,
        family,
        preprocess,
        requests,
        into,
        &mut Scratch::default(),
    )
}

/// Renders every one of `views` of every sample, a batch per view, on the calling thread: as [`render`] for each view by
/// itself, but each image is decoded once.
///
/// # Errors
/// As [`render`].
///
/// # Panics
/// If there are not as many batches as views.
pub fn render_views(
    dataset: &Dataset,
    family: &ViewFamily,
    preprocess: &Preprocess,
    samples: &[u32],
    views: &[u32],
    into: &mut [PixelBatch],
) -> Result<(), DatasetError> {
    assert_eq!(views.len(), into.len(), "a batch per view");
    let scratch = &mut Scratch::default();
    for (&view, batch) in views.iter().zip(&mut *into) {
        let requests: Vec<(u32, u32)> = samples.iter().map(|&sample| (sample, view)).collect();
        batch.begin(&requests, dataset, family);
    }
    for row in 0..samples.len() {
        for (at, batch) in into.iter_mut().enumerate() {
            scratch.keeps_whole = at + 1 < views.len();
            render_row(dataset, family, preprocess, row, batch, scratch)?;
        }
    }
    into.iter_mut()
        .try_for_each(|batch| batch.finish(dataset, family, preprocess))
}

pub(crate) fn render_with(
    dataset: &Dataset,
    family: &ViewFamily,
    preprocess: &Preprocess,
    requests: &[(u32, u32)],
    into: &mut PixelBatch,
    scratch: &mut Scratch,
) -> Result<(), DatasetError> {
    into.begin(requests, dataset, family);
    scratch.decoded = None;
    for (row, &(sample, _)) in requests.iter().enumerate() {
        let next = requests.get(row + 1);
        scratch.keeps_whole = next.is_some_and(|next| next.0 == sample);
        render_row(dataset, family, preprocess, row, into, scratch)?;
    }
    into.finish(dataset, family, preprocess)
}

fn render_row(
    dataset: &Dataset,
    family: &ViewFamily,
    preprocess: &Preprocess,
    row: usize,
    into: &mut PixelBatch,
    scratch: &mut Scratch,
) -> Result<(), DatasetError> {
    let (sample, view) = into.requests[row];
    match scratch.render(dataset, family, sample, view) {
        Ok(()) => {}
        Err(error @ DatasetError::BadSample { .. }) if dataset.skips_bad() => {
            into.bad.push(BadSample {
                row,
                index: sample,
                error,
            });
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    if let Some(mix) = scratch.mix {
        into.mixed[row] = Mixed {
            partner: mix.partner,
            partner_label: dataset.labels()[mix.partner as usize],
            lambda: mix.lambda,
        };
    }
    preprocess.fit(&mut scratch.image, &mut scratch.pixels)?;
    let (layout, found) = (into.layout, scratch.image.size());
    let values = into
        .row(row, found)
        .map_err(|expected| DatasetError::BatchSize {
            place: dataset.place(sample),
            expected,
            found,
        })?;
    preprocess.normalise(&scratch.image, layout, values);
    Ok(())
}

/// What one thread needs to render; every buffer is reused.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The sample as it was decoded, kept for further views of it.
    original: Image,
    decoded: Option<u32>,
    /// Whether further views of the sample follow.
    pub(crate) keeps_whole: bool,
    /// A partner as it was decoded, and the view made of it.
    partner: Image,
    mixed: Image,
    mix: Option<Mix>,
    image: Image,
    view: View,
    order: Vec<u32>,
    pixels: pixels::Scratch,
}

impl Scratch {
    /// The pixels of the view rendered last.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Renders the u8 pixels of one view.
    pub(crate) fn render(
        &mut self,
        dataset: &Dataset,
        family: &ViewFamily,
        sample: u32,
        view: u32,
    ) -> Result<(), DatasetError> {
        self.mix = None;
        self.render_steps(dataset, family, sample, view)?;
        let size = self.image.size();
        let mix = family.draw_mix(sample, view, size, dataset.len());
        // A partner without an image leaves the sample as it is: it is not the sample that is bad.
        let Some(mix) = mix.filter(|mix| !dataset.is_bad(mix.partner)) else {
            return Ok(());
        };
        // The sample's own pixels step aside while the partner's are made in their place.
        std::mem::swap(&mut self.image, &mut self.mixed);
        self.render_partner(dataset, family, mix.partner, view)?;
        std::mem::swap(&mut self.image, &mut self.mixed);
        if self.mixed.size() != size {
            return Err(DatasetError::BatchSize {
                place: format!(
                    "{}, the partner of {},",
                    dataset.place(mix.partner),
                    dataset.place(sample)
                ),
                expected: size,
                found: self.mixed.size(),
            });
        }
        self.mix_in(mix.how);
        self.mix = Some(mix);
        Ok(())
    }

    /// Mixes the partner's view into the sample's, which has the same size.
    fn mix_in(&mut self, how: MixHow) {
        match how {
            MixHow::Blend { share } => pixels::mix_blend(&mut self.image, &self.mixed, share),
            MixHow::Paste {
                top,
                left,
                height,
                width,
            } => {
                pixels::mix_paste(&mut self.image, &self.mixed, [top, left, height, width]);
            }
        }
    }

    fn render_steps(
        &mut self,
        dataset: &Dataset,
        family: &ViewFamily,
        sample: u32,
        view: u32,
    ) -> Result<(), DatasetError> {
        if self.decoded == Some(sample) {
            return self.apply_steps(family, sample, view);
        }
        self.decoded = None;
        let is_whole = self.decode_and_apply(dataset, family, sample, view, self.keeps_whole)?;
        self.decoded = is_whole.then_some(sample);
        Ok(())
    }

    /// As [`Self::render_steps`], leaving the sample's own decoded image for further views of it.
    fn render_partner(
        &mut self,
        dataset: &Dataset,
        family: &ViewFamily,
        partner: u32,
        view: u32,
    ) -> Result<(), DatasetError> {
        std::mem::swap(&mut self.original, &mut self.partner);
        let rendered = self.decode_and_apply(dataset, family, partner, view, false);
        std::mem::swap(&mut self.original, &mut self.partner);
        rendered.map(|_| ())
    }

    /// Decodes the sample and applies the steps of one view. Where the view begins with a window of a JPEG, no more than
    /// that window is decoded, unless the whole image is to be kept for further views. Returns whether the whole one is
    /// in `original` now.
    fn decode_and_apply(
        &mut self,
        dataset: &Dataset,
        family: &ViewFamily,
        sample: u32,
        view: u32,
        keeps_whole: bool,
    ) -> Result<bool, DatasetError> {
        let bad = |source| dataset.bad(sample, source);
        if dataset.fetch(sample, &mut self.original)? == Fetched::Pixels {
            return self.apply_steps(family, sample, view).map(|()| true);
        }
        let max_pixels = dataset.reading().max_pixels;
        // A window of an image that is to be turned lies elsewhere in the file: such an image is decoded as a whole. So is a
        // bad one, to say again what is wrong with it: the window may lie clear of the damage.
        if family.begins_with_window()
            && !dataset.is_bad(sample)
            && dataset.orientation(&self.original.encoded).is_none()
            && let Some(partial) = Partial::of(&self.original.encoded, max_pixels).map_err(bad)?
        {
            let size = partial.size(dataset.channels);
            family.draw_into(sample, view, size, &mut self.view, &mut self.order)?;
            let part = Part::of(self.view.steps.first(), |by| partial.reduced(by));
            if let Some(part) = part.filter(|part| part.reduction > 1 || !keeps_whole) {
                let encoded = std::mem::take(&mut self.original.encoded);
                let image = &mut self.original;
                let channels = dataset.channels;
                let decoded =
                    partial.decode(&encoded, channels, part.reduction, part.window, image);
                self.original.encoded = encoded;
                decoded.map_err(bad)?;
                let (steps, original) = (&self.view.steps, &self.original);
                pixels::apply_to_part(steps, original, &part, &mut self.image, &mut self.pixels);
                return Ok(false);
            }
        }
        dataset.decode_fetched(&mut self.original).map_err(bad)?;
        self.apply_steps(family, sample, view).map(|()| true)
    }

    fn apply_steps(
        &mut self,
        family: &ViewFamily,
        sample: u32,
        view: u32,
    ) -> Result<(), DatasetError> {
        let size = self.original.size();
        family.draw_into(sample, view, size, &mut self.view, &mut self.order)?;
        pixels::apply_all(
            &self.view.steps,
            &self.original,
            &mut self.image,
            &mut self.pixels,
        );
        Ok(())
    }
}
