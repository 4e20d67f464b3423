//! Classes are compared by name: a label means what its name says, not what its number happens to be.

use std::collections::HashMap;

/// The place in `reference` of each class of `found`; None where each has its own already.
///
/// # Errors
/// The first class that the reference lacks, or, without `allow_subset`, the first that `found` lacks.
pub(crate) fn map_classes(
    reference: &[String],
    found: &[String],
    allow_subset: bool,
) -> Result<Option<Vec<u32>>, String> {
    // Names that are there twice can be told apart by their places only.
    if reference == found {
        return Ok(None);
    }
    let places: HashMap<&str, u32> = reference.iter().map(String::as_str).zip(0..).collect();
    let mut map = Vec::with_capacity(found.len());
    for (name, number) in found.iter().zip(0u32..) {
        match places.get(name.as_str()) {
            Some(&place) if map.contains(&place) => {
                return Err(format!("its class {number}, `{name}`, is there twice"));
            }
            Some(&place) => map.push(place),
            None => return Err(format!("its class {number}, `{name}`, is not among these")),
        }
    }
    let missing = reference.iter().find(|name| !found.contains(name));
    if let (Some(name), false) = (missing, allow_subset) {
        return Err(format!("it lacks class `{name}`"));
    }
    let is_identity = map.iter().copied().eq(0..map.len() as u32);
    Ok((!is_identity).then_some(map))
}

/// The classes of labels that are names: sorted by their bytes.
pub(crate) fn from_names<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: std::collections::BTreeSet<&str> = labels.collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Numbers that sort as text: `0`, `1`, `10`, `2`. Nobody means that, and class 2 is `10`.
pub(crate) fn numbers_as_text(names: &[String]) -> Option<String> {
    let numbers: Vec<(&str, u64)> = names
        .iter()
        .map(|name| {
            let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
            Some((prefix, name[prefix.len()..].parse().ok()?))
        })
        .collect::<Option<_>>()?;
    let at = numbers
        .windows(2)
        .position(|pair| pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1)?;
    Some(format!(
        "class names are numbers that sort as text: `{}` comes before `{}`, and class {at} is `{}`",
        names[at],
        names[at + 1],
        names[at]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        reference: &[&str],
        found: &[&str],
        allow_subset: bool,
    ) -> Result<Option<Vec<u32>>, String> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        map_classes(&owned(reference), &owned(found), allow_subset)
    }

    #[test]
    fn classes_are_mapped_by_name_or_refused() {
        assert_eq!(check(&["a", "b"], &["a", "b"], false), Ok(None));
        assert_eq!(check(&["a", "b"], &["b", "a"], false), Ok(Some(vec![1, 0])));
        assert_eq!(check(&["a", "b"], &["a"], true), Ok(None));
        assert_eq!(check(&["a", "b"], &["b"], true), Ok(Some(vec![1])));
        assert_eq!(
            check(&["a", "b"], &["b"], false),
            Err("it lacks class `a`".into())
        );
        let error = Err("its class 1, `c`, is not among these".into());
        assert_eq!(check(&["a", "b"], &["b", "c"], true), error);
        // ImageNet's `crane` is a bird and a machine.
        assert_eq!(
            check(&["crane", "crane"], &["crane", "crane"], false),
            Ok(None)
        );
        let error = Err("its class 2, `crane`, is there twice".into());
        assert_eq!(
            check(&["crane", "x", "crane"], &["x", "crane", "crane"], false),
            error
        );
    }
}
