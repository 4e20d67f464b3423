//! How much a gather holds at once: so many rows of so many columns, and no allocation.

/// So many rows are checked side by side in a gather. The processor's instruction for CRC-32C takes eight bytes in each
/// cycle but answers after three, so that a row alone would leave it idle for two thirds of the time.
pub(crate) const ABREAST: usize = 4;

/// The most columns that a codec may have, so that a gather needs no allocation.
pub(crate) const MAX_COLUMNS: usize = 8;
