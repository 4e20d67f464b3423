//! What was meant by a name that there is not.

/// "did you mean `x`?", or all there are.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let best = known
        .clone()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min();
    match best {
        Some((distance, known)) if distance <= 2 => format!("did you mean `{known}`?"),
        _ => {
            let all: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            format!("known are {}", all.join(", "))
        }
    }
}
