//! The registry. To add a method, write its file, its `mod` line, its row and its `pub use`; parsing, `logitcask list
//! losses`, error hints and the sweeping tests read the same table.

use logitcask_suggest::nearest;

use crate::LossError;
use crate::loss::MethodRow;

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

pub use ce::{CeSpec, ce};
pub use clkd::{ClkdParts, ClkdSpec, CorrelationReading, CorrelationSpec, clkd};
pub use cskd::{CskdParts, CskdSpec, cskd, cswt_temperatures};
pub use dist::{DistParts, DistSpec, dist};
pub use dkd::{DkdParts, DkdSpec, dkd};
pub use jsd::{JsdSpec, jsd};
pub use kd::{KdSpec, kd, kd_top_k};
pub use ldrld::{LdrldParts, LdrldSpec, PairsReading, PairsSpec, ldrld};
pub use mcld::{
    CategoryReading, CategorySpec, InstanceReading, InstanceSpec, McldParts, McldSpec, Normalize,
    SampleReading, SampleSpec, mcld, mcld_with_bank,
};
pub use mlkd::{MlkdParts, MlkdSpec, mlkd};
pub use mse::{MseSpec, mse};
pub use nkd::{NkdParts, NkdSpec, nkd};
pub use reverse_kl::{ReverseKlSpec, reverse_kl};
pub use rkd::{RkdParts, RkdSpec, rkd};
pub use rld::{RldParts, RldSpec, rld};
pub use vid::{VidSpec, vid};

/// Every method, in the order in which `logitcask list losses` prints them.
pub fn methods() -> &'static [MethodRow] {
    METHODS
}

/// Keys that any `[[loss]]` entry takes, beside its name or (but for `accept_shift`) in the table of one component: key,
/// default, meaning.
pub const COMMON_OPTIONS: &[[&str; 3]] = &[
    [
        "weight",
        "1",
        "multiplies the weight of every component; in the table of one it replaces its weight",
    ],
    [
        "warmup_epochs",
        "see the components",
        "epochs over which the weight grows linearly to its full value",
    ],
    [
        "warmup_share",
        "see the components",
        "the same, as a share of the run's epochs",
    ],
    [
        "sample_weight",
        "uniform",
        "`uniform`, `confidence` (the teacher's probability of the label at temperature 1) or `correctness` (1 where the teacher is right, else 0)",
    ],
    [
        "trim",
        "0",
        "share of the batch, the samples with the largest losses, that is left out",
    ],
    [
        "accept_shift",
        "false",
        "serve a loss that needs absolute logits with logits recovered from probabilities; reports show it",
    ],
];

/// The row of a method, in the registry or among a program's own.
pub(crate) fn find(name: &str, own: &'static [MethodRow]) -> Result<&'static MethodRow, LossError> {
    let rows = || METHODS.iter().chain(own);
    rows()
        .find(|row| row.name == name)
        .ok_or_else(|| LossError::UnknownLoss {
            name: name.to_owned(),
            nearest: nearest(name, rows().map(|row| row.name)),
        })
}
