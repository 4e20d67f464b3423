//! Numbers as people read them in messages.

/// Without the digits that rounding left.
pub(crate) fn rounded(value: f32) -> f32 {
    (value * 1e3).round() / 1e3
}

/// A share as people read it, with the same digits everywhere.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
