//! What networks do to feature maps besides layers: sums, activations, and channels put together and taken apart.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{
    Error, FeatureMap, Result,
    buffer::Buffer,
    feature_map::note_maps,
    kernels,
    tape::{self, Backward, Slot},
    tensors,
    trace::Op,
};

impl FeatureMap {
    /// `self + other`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        if self.dims() != other.dims() {
            return Err(misfit("add", format!("{:?}", self.dims()), other));
        }
        let made = if let Some(values) = &self.tensor {
            tensors::add(self, other, [values, other.expect_tensor()?])?
        } else {
            let mut y = self.room(self.values.len());
            kernels::add(&self.values, &other.values, &mut y);
            let op = AddBackward([self.slot(), other.slot()]);
            self.then(y, self.dims(), &[self, other], op)?
        };
        note_maps(|| Op::Add, &[self, other], &made);
        Ok(made)
    }

    /// `max(self, 0)`. After a batch norm, let [`crate::BatchNorm::forward`] do it.
    ///
    /// # Errors
    /// None of its own.
    pub fn relu(&self) -> Result<Self> {
        if let Some(values) = &self.tensor {
            let made = tensors::relu(self, values)?;
            note_maps(|| Op::Relu, &[self], &made);
            return Ok(made);
        }
        let mut y = self.room(self.values.len());
        kernels::relu(&self.values, &mut y);
        let made = Self::made(y, self.dims(), None, self.keeps());
        note_maps(|| Op::Relu, &[self], &made);
        let Some(dx) = self.slot() else {
            return Ok(made);
        };
        let tracked = tape::record(
            &[self.tracked()],
            &[],
            ReluBackward {
                y: Arc::clone(&made.values),
                dx,
            },
        )?;
        Ok(made.with_tracked(tracked))
    }

    /// Maps of the same size side by side: `C` is the sum of theirs.
    ///
    /// # Errors
    /// If there are none, or they differ in more than their channels.
    pub fn concat(maps: &[&Self]) -> Result<Self> {
        let Some(&first) = maps.first() else {
            return Err(Error::Spec {
                layer: "concat".into(),
                reason: "there is nothing to put together".into(),
            });
        };
        let [b, h, w, _] = first.dims();
        if let Some(other) = maps.iter().find(|map| map.dims()[..3] != [b, h, w]) {
            return Err(misfit(
                "concat",
                format!("maps of {b} x {h} x {w} pixels"),
                other,
            ));
        }
        let made = if first.tensor.is_some() {
            let values = maps.iter().map(|map| map.expect_tensor());
            tensors::concat(maps, &values.collect::<Result<Vec<_>>>()?)?
        } else {
            Self::concat_by_kernels(maps, [b, h, w])?
        };
        note_maps(|| Op::ConcatChannels, maps, &made);
        Ok(made)
    }

    /// The same on the CPU, of at least one map; all have the size `[B, H, W]`.
    fn concat_by_kernels(maps: &[&Self], [b, h, w]: [usize; 3]) -> Result<Self> {
        let channels: usize = maps.iter().map(|map| map.dims()[3]).sum();
        let mut y = maps[0].room(b * h * w * channels);
        let mut from = 0;
        let mut parts = vec![];
        for map in maps {
            let width = map.dims()[3];
            kernels::copy_channels((&map.values, width, 0), (&mut y, channels, from), width);
            parts.push((from, width, map.slot()));
            from += width;
        }
        let keep = maps.iter().any(|map| map.keeps());
        let tracked = if keep {
            let inputs: Vec<_> = maps.iter().map(|map| map.tracked()).collect();
            tape::record(&inputs, &[], ConcatBackward { channels, parts })?
        } else {
            None
        };
        Ok(Self::made(y, [b, h, w, channels], tracked, keep))
    }

    /// `width` channels from `first` on.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn channels(&self, first: usize, width: usize) -> Result<Self> {
        let [b, h, w, channels] = self.dims();
        if width == 0 || first + width > channels {
            return Err(misfit(
                "channels",
                format!("at least {} channels", first + width),
                self,
            ));
        }
        let made = if let Some(values) = &self.tensor {
            tensors::channels(self, values, first, width)?
        } else {
            let mut y = self.room(b * h * w * width);
            kernels::copy_channels((&self.values, channels, first), (&mut y, width, 0), width);
            let op = ChannelsBackward {
                channels,
                first,
                width,
                dx: self.slot(),
            };
            self.then(y, [b, h, w, width], &[self], op)?
        };
        note_maps(|| Op::Channels { first, width }, &[self], &made);
        Ok(made)
    }

    /// The channels of `groups` equal groups taken in turn: ShuffleNet's channel shuffle.
    ///
    /// # Errors
    /// If `groups` does not divide the channels.
    pub fn shuffle_channels(&self, groups: usize) -> Result<Self> {
        let channels = self.dims()[3];
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(misfit(
                "shuffle_channels",
                format!("{groups} equal groups of channels"),
                self,
            ));
        }
        let made = if let Some(values) = &self.tensor {
            tensors::shuffle_channels(self, values, groups)?
        } else {
            let mut y = self.room(self.values.len());
            kernels::shuffle_channels(&self.values, channels, groups, &mut y);
            let op = ShuffleBackward {
                channels,
                groups,
                dx: self.slot(),
            };
            self.then(y, self.dims(), &[self], op)?
        };
        note_maps(|| Op::ShuffleChannels { groups }, &[self], &made);
        Ok(made)
    }

    fn then(
        &self,
        y: Buffer,
        dims: [usize; 4],
        inputs: &[&Self],
        op: impl Backward + 'static,
    ) -> Result<Self> {
        let keep = inputs.iter().any(|input| input.keeps());
        let tracked = if keep {
            let inputs: Vec<_> = inputs.iter().map(|input| input.tracked()).collect();
            tape::record(&inputs, &[], op)?
        } else {
            None
        };
        Ok(Self::made(y, dims, tracked, keep))
    }
}

fn misfit(name: &str, expected: String, map: &FeatureMap) -> Error {
    Error::Shape {
        layer: name.into(),
        expected,
        found: format!("{:?}", map.dims()),
    }
}

struct AddBackward([Option<Arc<Slot>>; 2]);

impl Backward for AddBackward {
    fn name(&self) -> &'static str {
        "add"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        match self.0 {
            [Some(a), Some(b)] => {
                a.put(Buffer::copy_of(&dy));
                b.put(dy);
            }
            [Some(one), None] | [None, Some(one)] => one.put(dy),
            [None, None] => {}
        }
        Ok(vec![])
    }
}

struct ReluBackward {
    y: Arc<Buffer>,
    dx: Arc<Slot>,
}

impl Backward for ReluBackward {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn backward(self: Box<Self>, mut dy: Buffer) -> Result<Vec<Tensor>> {
        kernels::relu_backward(&self.y, &mut dy);
        self.dx.put(dy);
        Ok(vec![])
    }
}

struct ConcatBackward {
    channels: usize,
    parts: Vec<(usize, usize, Option<Arc<Slot>>)>,
}

impl Backward for ConcatBackward {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        for (first, width, slot) in self.parts {
            if let Some(slot) = slot {
                let mut dx = Buffer::for_overwrite(dy.len() / self.channels * width);
                kernels::copy_channels((&dy, self.channels, first), (&mut dx, width, 0), width);
                slot.put(dx);
            }
        }
        Ok(vec![])
    }
}

struct ChannelsBackward {
    channels: usize,
    first: usize,
    width: usize,
    dx: Option<Arc<Slot>>,
}

impl Backward for ChannelsBackward {
    fn name(&self) -> &'static str {
        "channels"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        if let Some(slot) = self.dx {
            let mut dx = Buffer::for_overwrite(dy.len() / self.width * self.channels);
            dx.fill(0.0);
            kernels::copy_channels(
                (&dy, self.width, 0),
                (&mut dx, self.channels, self.first),
                self.width,
            );
            slot.put(dx);
        }
        Ok(vec![])
    }
}

struct ShuffleBackward {
    channels: usize,
    groups: usize,
    dx: Option<Arc<Slot>>,
}

impl Backward for ShuffleBackward {
    fn name(&self) -> &'static str {
        "shuffle_channels"
    }

    fn backward(self: Box<Self>, dy: Buffer) -> Result<Vec<Tensor>> {
        if let Some(slot) = self.dx {
            let mut dx = Buffer::for_overwrite(dy.len());
            // Taking turns among channels / groups undoes taking turns among groups.
            kernels::shuffle_channels(&dy, self.channels, self.channels / self.groups, &mut dx);
            slot.put(dx);
        }
        Ok(vec![])
    }
}
