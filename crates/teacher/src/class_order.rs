//! The order of a teacher's classes, told from what it answers: a good teacher whose classes stand in another order than the
//! dataset's is wrong in one and the same way about each class.

/// From this gain on, an order is no luck.
const FAR_ABOVE: f64 = 0.1;

/// For each class of the dataset the teacher's class that answers for it, if that makes the teacher far better, and the
/// accuracy with it. `pairs` are (label, class of the largest logit).
///
/// The order is learnt from one half of the pairs and tried on the other, both ways: of few samples any answers could be
/// put into some order.
pub(crate) fn find(pairs: &[(u32, u32)], n_classes: usize) -> Option<(Vec<u32>, f64)> {
    let half = |odd: usize| {
        pairs
            .iter()
            .skip(odd)
            .step_by(2)
            .copied()
            .collect::<Vec<_>>()
    };
    let (even, odd) = (half(0), half(1));
    let right =
        right_with(&learn(&even, n_classes), &odd) + right_with(&learn(&odd, n_classes), &even);
    let stated = pairs.iter().filter(|(label, class)| label == class).count();
    let share = |right: usize| right as f64 / pairs.len().max(1) as f64;
    (share(right) > share(stated) + FAR_ABOVE).then(|| (learn(pairs, n_classes), share(right)))
}

/// An order on top of the one that the recipe has already.
pub(crate) fn composed(order: &[u32], stated: Option<&[u32]>) -> Vec<u32> {
    let class_of = |class: &u32| stated.map_or(*class, |stated| stated[*class as usize]);
    order.iter().map(class_of).collect()
}

fn right_with(order: &[u32], pairs: &[(u32, u32)]) -> usize {
    pairs
        .iter()
        .filter(|(label, class)| order[*label as usize] == *class)
        .count()
}

/// The most frequent pairs first, each class once; what is left stays in its own order.
fn learn(pairs: &[(u32, u32)], n_classes: usize) -> Vec<u32> {
    let mut counts = std::collections::BTreeMap::<(u32, u32), u32>::new();
    for pair in pairs {
        *counts.entry(*pair).or_default() += 1;
    }
    let mut by_count: Vec<((u32, u32), u32)> = counts.into_iter().collect();
    by_count.sort_by_key(|((label, class), count)| (std::cmp::Reverse(*count), label != class));
    let mut order = vec![None; n_classes];
    let mut taken = vec![false; n_classes];
    for ((label, class), _) in by_count {
        let (label, class) = (label as usize, class as usize);
        if order[label].is_none() && !taken[class] {
            order[label] = Some(class as u32);
            taken[class] = true;
        }
    }
    for label in (0..n_classes)
        .filter(|label| order[*label].is_none())
        .collect::<Vec<_>>()
    {
        if !std::mem::replace(&mut taken[label], true) {
            order[label] = Some(label as u32);
        }
    }
    let mut free = (0..n_classes)
        .filter(|class| !taken[*class])
        .map(|class| class as u32);
    order
        .into_iter()
        .map(|class| class.or_else(|| free.next()).unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A teacher that is right on nine of ten samples, its classes turned by `by`.
    fn turned(n: u32, n_classes: u32, by: u32) -> Vec<(u32, u32)> {
        let class = |i: u32| match i % 10 {
            9 => (i * 7 + i / 10) % n_classes,
            _ => (i % n_classes + by) % n_classes,
        };
        (0..n).map(|i| (i % n_classes, class(i))).collect()
    }

    #[test]
    fn another_order_is_found() {
        let (order, accuracy) = find(&turned(300, 7, 3), 7).unwrap();
        assert_eq!(order, [3, 4, 5, 6, 0, 1, 2]);
        assert!(accuracy > 0.85, "{accuracy}");
        assert_eq!(
            composed(&order, Some(&[10, 11, 12, 13, 14, 15, 16])),
            [13, 14, 15, 16, 10, 11, 12]
        );
    }

    #[test]
    fn the_right_order_and_guesses_are_left_alone() {
        assert_eq!(find(&turned(300, 7, 0), 7), None);
        let guesses: Vec<(u32, u32)> = (0..400u32)
            .map(|i| (i % 100, i.wrapping_mul(2_654_435_761) >> 8 & 63))
            .collect();
        assert_eq!(find(&guesses, 100), None);
        assert_eq!(find(&[], 10), None);
    }
}
