//! What was meant by a name that there is not.

/// "did you mean `x`?", or all there are.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match logitcask_suggest::nearest(name, known.clone()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => {
            let all: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            format!("known are {}", all.join(", "))
        }
    }
}
