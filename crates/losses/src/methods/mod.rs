//! The registry. To add a method, write its file, and put its row under its `mod` line; parsing, `logitcask list
//! losses`, error hints and the sweeping tests read the same table.

use crate::loss::{MethodRow, OptionRow};
use crate::{LossError, options};

mod ce;
mod clkd;
mod cskd;
mod dist;
mod dkd;
mod jsd;
mod kd;
mod ldrld;
mod mcld;
mod mlkd;
mod mse;
mod nkd;
mod reverse_kl;
mod rkd;
mod rld;
mod vid;

const METHODS: &[MethodRow] = &[
    ce::METHOD,
    kd::METHOD,
    dkd::METHOD,
    nkd::METHOD,
    rld::METHOD,
    clkd::METHOD,
    mcld::METHOD,
    ldrld::METHOD,
    cskd::METHOD,
    mlkd::METHOD,
    dist::METHOD,
    rkd::METHOD,
    vid::METHOD,
    jsd::METHOD,
    mse::METHOD,
    reverse_kl::METHOD,
];

pub use cskd::cswt_temperatures;

/// Every method, in the order in which `logitcask list losses` prints them.
pub fn methods() -> &'static [MethodRow] {
    METHODS
}

/// Keys that any `[[loss]]` entry takes, beside its name or (but for `accept_shift`) in the table of one component.
pub const COMMON_OPTIONS: &[OptionRow] = &[
    OptionRow::new(
        "weight",
        "see the components",
        "weight in the sum; beside the name of a method of several components it multiplies theirs",
    ),
    OptionRow::new(
        "warmup_epochs",
        "see the components",
        "epochs over which the weight grows linearly to its full value",
    ),
    OptionRow::new(
        "warmup_share",
        "see the components",
        "the same, as a share of the run's epochs",
    ),
    OptionRow::new(
        "sample_weight",
        "uniform",
        "`uniform`, `confidence` (the teacher's probability of the label at temperature 1) or `correctness` (1 where the teacher is right, else 0)",
    ),
    OptionRow::new(
        "trim",
        "0",
        "share of the batch, the samples with the largest losses, that is left out",
    ),
    OptionRow::new(
        "accept_shift",
        "false",
        "serve a loss that needs absolute logits with logits recovered from probabilities; reports show it",
    ),
];

/// The option of methods that can work on standardised logits.
pub(crate) const STANDARDIZE: OptionRow = OptionRow::new(
    "standardize",
    "false",
    "LSKD (arXiv:2403.01427): both networks' rows are brought to mean 0 and standard deviation 1 first",
);

/// The row of a method.
pub(crate) fn find(name: &str) -> Result<&'static MethodRow, LossError> {
    METHODS
        .iter()
        .find(|row| row.name == name)
        .ok_or_else(|| LossError::UnknownLoss {
            name: name.to_owned(),
            nearest: options::nearest(name, METHODS.iter().map(|row| row.name)),
        })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::{Options, Setup};

    #[test]
    fn every_option_that_a_method_reads_is_in_its_row() {
        let setup = Setup {
            n_classes: 10,
            epochs: 1,
            dtype: DType::F32,
            device: &Device::Cpu,
        };
        for row in METHODS {
            let mut options = Options::new(row.name, serde_json::Map::new());
            (row.build)(&mut options, &setup).unwrap();
            let mut read = options.known().to_vec();
            let mut documented: Vec<&str> = row.options.iter().map(|option| option.key).collect();
            read.sort();
            documented.sort_unstable();
            assert_eq!(read, documented, "{}", row.name);
        }
    }
}
