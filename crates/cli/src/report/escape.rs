//! Text between tags and in attributes, as HTML takes it.

/// Without the characters that mean something there.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
