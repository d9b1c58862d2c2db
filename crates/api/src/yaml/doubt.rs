//! Where the form that was read may differ from what was meant.

use std::collections::BTreeSet;
use std::ops::Bound;

/// Paths, as in `spec.route.upstreams[0].port`.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubts {
    /// What stands here, and all within it, was left out or made up.
    at: BTreeSet<String>,
    /// A field may be missing here: one that was misspelt, or that stood behind the place where the text broke off.
    around: BTreeSet<String>,
}

// === impl Doubts ===

impl Doubts {
    pub(super) fn at(&mut self, path: String) {
        self.at.insert(path);
    }

    pub(super) fn around(&mut self, path: String) {
        self.around.insert(path);
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.at.extend(other.at);
        self.around.extend(other.around);
    }

    /// Whether a mistake at `path` may come from what was misread: it is about something in doubt, or about the whole
    /// of which that is a part, or about a field that `holds` doesn't know although one may have been meant.
    pub(super) fn cover(&self, path: &str, holds: impl Fn(&str) -> bool) -> bool {
        reaches_into(&self.at, path)
            || reaches_into(&self.around, path)
            || outwards(path).any(|around| self.at.contains(around))
            || outwards(path)
                .zip(outwards(path).skip(1))
                .any(|(child, parent)| self.around.contains(parent) && !holds(child))
    }
}

/// Whether one of `paths` is `path` or stands within it.
fn reaches_into(paths: &BTreeSet<String>, path: &str) -> bool {
    let within = |mark: char| {
        let start = format!("{path}{mark}");
        let from = (Bound::Included(start.as_str()), Bound::Unbounded);
        paths.range::<str, _>(from).next().is_some_and(|first| first.starts_with(&start))
    };
    paths.contains(path) || within('.') || within('[')
}

/// `path`, what it stands in, and so on; the last is the empty path of the whole.
fn outwards(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| {
        let around = path.rfind(['.', '[']).and_then(|at| path.get(..at)).unwrap_or_default();
        (!path.is_empty()).then_some(around)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_reach_up_and_down_but_not_sideways() {
        let mut doubts = Doubts::default();
        doubts.at("spec.limit".to_owned());
        doubts.at("spec.route.upstreams[0].port".to_owned());
        for (path, covered) in [
            ("spec.limit", true),
            ("spec.limit.recipients", true),
            ("spec.limits", false),
            ("spec.limits.recipients", false),
            ("spec", true),
            ("spec.route.upstreams[0]", true),
            ("spec.route.upstreams[0].host", false),
            ("spec.route.upstreams[1]", false),
            ("spec.route.upstreams[10]", false),
            ("spec.route", true),
            ("metadata.name", false),
        ] {
            assert_eq!(doubts.cover(path, |_| true), covered, "{path}");
        }
    }

    #[test]
    fn around_a_doubt_only_what_is_not_there_is_covered() {
        let mut doubts = Doubts::default();
        doubts.around("spec".to_owned());
        let holds = |path: &str| path == "spec.domains" || path == "spec.domains[0]";
        for (path, covered) in
            [("spec.domains[0]", false), ("spec.route", true), ("spec.route.upstreams", true), ("spec", true)]
        {
            assert_eq!(doubts.cover(path, holds), covered, "{path}");
        }
    }
}
