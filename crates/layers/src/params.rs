//! Named parameters and buffers, in order of creation.
//!
//! Names and layouts are PyTorch's at the border, so that weights travel both ways; inside, a convolution's weight is
//! `(kH, kW, I / groups, O)` because the kernels want output channels side by side.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use candle_core::{DType, Device, Tensor, Var};

use crate::{Error, Init, Result};

/// The parameters and buffers of one network. Clones share them.
#[derive(Clone, Debug)]
pub struct Params {
    seed: u64,
    device: Device,
    entries: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    var: Var,
    role: Role,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Parameter,
    Buffer,
}

/// How a value lies inside, compared to PyTorch.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Same,
    /// `(kH, kW, I / groups, O)` here, `(O, I / groups, kH, kW)` there.
    Kernel,
    /// `(1, 1, I, O)` here, `(O, I)` there.
    Matrix,
}

impl Layout {
    fn to_torch(self, tensor: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Same => tensor.clone(),
            Self::Kernel => tensor.permute((3, 2, 0, 1))?.contiguous()?,
            Self::Matrix => tensor.squeeze(0)?.squeeze(0)?.t()?.contiguous()?,
        })
    }

    fn of_torch(self, tensor: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Same => tensor.contiguous()?,
            Self::Kernel => tensor.permute((2, 3, 1, 0))?.contiguous()?,
            Self::Matrix => tensor.t()?.contiguous()?.unsqueeze(0)?.unsqueeze(0)?,
        })
    }
}

impl Params {
    /// An empty set. `seed` decides every initial value.
    ///
    /// # Errors
    /// If the layers cannot compute in `dtype` on `device`: today that is f32 on the CPU, and on CUDA where this crate was
    /// built with its feature `cuda`.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let can_compute = device.is_cpu() || (cfg!(feature = "cuda") && device.is_cuda());
        if dtype != DType::F32 || !can_compute {
            return Err(Error::Unsupported {
                supported: match cfg!(feature = "cuda") {
                    true => "f32 on the cpu or on cuda",
                    false => "f32 on the cpu",
                },
                found: format!("{dtype:?} on {:?}", device.location()),
            });
        }
        Ok(Self {
            seed,
            device: device.clone(),
            entries: Arc::default(),
        })
    }

    /// Where the parameters lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The scope without a name.
    pub fn root(&self) -> Scope {
        Scope {
            params: self.clone(),
            prefix: String::new(),
        }
    }

    /// What the optimiser changes, in order of creation.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        self.of_role(Role::Parameter)
    }

    /// What is kept but not optimised: running statistics.
    pub fn buffers(&self) -> Vec<(String, Var)> {
        self.of_role(Role::Buffer)
    }

    /// How many numbers the optimiser changes.
    pub fn n_parameters(&self) -> usize {
        self.parameters()
            .iter()
            .map(|(_, var)| var.elem_count())
            .sum()
    }

    /// Parameters and buffers under PyTorch's names and in its layouts, in order of creation. The tensors are copies.
    pub fn to_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let entries = self.entries();
        let copy = |entry: &Entry| {
            Ok((
                entry.name.clone(),
                entry
                    .layout
                    .to_torch(&entry.var.as_detached_tensor().copy()?)?,
            ))
        };
        entries.iter().map(copy).collect()
    }

    /// Takes every value from `tensors`, which are named and laid out as PyTorch does.
    ///
    /// Nothing is changed unless all fits. Weights that lack `num_batches_tracked`, as old torchvision files do,
    /// leave it as it is.
    ///
    /// # Errors
    /// If a name is missing or unexpected, or a shape differs.
    pub fn load(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let entries = self.entries();
        check_names(&entries, tensors)?;
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let Some(tensor) = tensors.get(&entry.name) else {
                continue;
            };
            let expected = entry.layout.to_torch(&entry.var)?;
            if tensor.dims() != expected.dims() {
                return Err(Error::WeightShape {
                    name: entry.name.clone(),
                    expected: expected.dims().to_vec(),
                    found: tensor.dims().to_vec(),
                });
            }
            let value = tensor
                .to_dtype(entry.var.dtype())?
                .to_device(entry.var.device())?;
            values.push((&entry.var, entry.layout.of_torch(&value)?));
        }
        for (var, value) in values {
            // A copy, because a variable refuses a value that shares its storage: its own, loaded back.
            var.set(&value.copy()?)?;
        }
        Ok(())
    }

    fn of_role(&self, role: Role) -> Vec<(String, Var)> {
        let entries = self.entries();
        let wanted = entries.iter().filter(|entry| entry.role == role);
        wanted
            .map(|entry| (entry.name.clone(), entry.var.clone()))
            .collect()
    }

    /// A panic elsewhere cannot leave the list half changed, so a poisoned lock is as good as a clean one.
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses tensors with a name that no entry has, or without that of an entry; `num_batches_tracked` may be missing.
fn check_names(entries: &[Entry], tensors: &HashMap<String, Tensor>) -> Result<()> {
    let known: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let absent = |entry: &&Entry| {
        !tensors.contains_key(&entry.name) && !entry.name.ends_with("num_batches_tracked")
    };
    let missing: Vec<String> = entries
        .iter()
        .filter(absent)
        .map(|entry| entry.name.clone())
        .collect();
    let mut unexpected: Vec<String> = tensors
        .keys()
        .filter(|name| !known.contains(name.as_str()))
        .cloned()
        .collect();
    unexpected.sort();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(Error::Names {
            missing,
            unexpected,
        });
    }
    Ok(())
}

/// A place in the tree of names, such as `layer1.0.conv1`.
#[derive(Clone, Debug)]
pub struct Scope {
    params: Params,
    prefix: String,
}

impl Scope {
    /// The scope one name deeper.
    pub fn enter(&self, name: impl std::fmt::Display) -> Self {
        Self {
            params: self.params.clone(),
            prefix: self.full_name(name),
        }
    }

    /// The path so far, without a trailing dot.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// A parameter that lies here as it does in PyTorch.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn parameter(&self, name: &str, shape: &[usize], fan_in: usize, init: Init) -> Result<Var> {
        let values = init.draw(self.params.seed, self.next_number(), shape, fan_in);
        let var = Var::from_vec(values, shape, &self.params.device)?;
        self.add(name, var, Role::Parameter, Layout::Same)
    }

    /// A convolution's weight, given as PyTorch's `(O, I / groups, kH, kW)`, kept as `(kH, kW, I / groups, O)`.
    pub(crate) fn kernel(&self, name: &str, shape: [usize; 4], init: Init) -> Result<Var> {
        self.weight(name, &shape, init, Layout::Kernel)
    }

    /// A fully connected layer's weight, given as PyTorch's `(O, I)`, kept as `(1, 1, I, O)`.
    pub(crate) fn matrix(&self, name: &str, shape: [usize; 2], init: Init) -> Result<Var> {
        self.weight(name, &shape, init, Layout::Matrix)
    }

    /// Drawn in PyTorch's order, so that the initial network does not depend on our layout.
    fn weight(&self, name: &str, shape: &[usize], init: Init, layout: Layout) -> Result<Var> {
        let fan_in = shape[1..].iter().product();
        let values = init.draw(self.params.seed, self.next_number(), shape, fan_in);
        let tensor = layout.of_torch(&Tensor::from_vec(values, shape, &self.params.device)?)?;
        self.add(name, Var::from_tensor(&tensor)?, Role::Parameter, layout)
    }

    /// A value that is saved with the network but not optimised: a running statistic.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn buffer(&self, name: &str, value: &Tensor) -> Result<Var> {
        self.add(name, Var::from_tensor(value)?, Role::Buffer, Layout::Same)
    }

    /// All parameters that this is a place among.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The device on which parameters lie.
    pub fn device(&self) -> &Device {
        &self.params.device
    }

    fn next_number(&self) -> u64 {
        let entries = self.params.entries();
        entries
            .iter()
            .filter(|entry| entry.role == Role::Parameter)
            .count() as u64
    }

    fn add(&self, name: &str, var: Var, role: Role, layout: Layout) -> Result<Var> {
        let name = self.full_name(name);
        let mut entries = self.params.entries();
        if entries.iter().any(|entry| entry.name == name) {
            return Err(Error::Duplicate(name));
        }
        entries.push(Entry {
            name,
            var: var.clone(),
            role,
            layout,
        });
        Ok(var)
    }

    fn full_name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}
