//! Finds names similar to one that does not exist.

/// How many are told.
const SHOWN: usize = 3;

/// The names closest to `wanted`, best first; only those that a person may have meant.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(2);
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let other = name.to_lowercase();
            if other == lower {
                return Some((0, name));
            }
            let distance = distance(&lower, &other, limit);
            let related = lower.len() >= 3 && other.len() >= 3 && (other.contains(&lower) || lower.contains(&other));
            distance.or(related.then_some(limit + 1)).map(|distance| (distance, name))
        })
        .collect();
    scored.sort_unstable();
    scored.dedup_by_key(|(_, name)| *name);
    scored.into_iter().take(SHOWN).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein distance, when it is at most `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_exact_up_to_the_limit() {
        assert_eq!(distance("kitten", "sitting", 5), Some(3));
        assert_eq!(distance("", "ab", 2), Some(2));
        assert_eq!(distance("abc", "xyz", 2), None);
    }

    #[test]
    fn the_best_names_come_first() {
        let names = ["main", "maintenance", "feature/login", "Feature/Logout", "release-1"];
        assert_eq!(nearest("mian", names.into_iter()), ["main"]);
        assert_eq!(nearest("feature/logn", names.into_iter()), ["feature/login", "Feature/Logout"]);
        assert_eq!(nearest("MAIN", names.into_iter()), ["main", "maintenance"]);
        assert!(nearest("zzzzzzzz", names.into_iter()).is_empty());
    }
}
