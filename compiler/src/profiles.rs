//! Optimization profiles as the user states them: for each symbolic dimension of the inputs its smallest, typical and
//! largest value.

use std::collections::BTreeMap;

use crate::ir::Range;

/// What `--dim NAME=MIN:OPT:MAX` said, profile by profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    ranges: BTreeMap<String, Vec<Range>>,
}

/// The range of a dimension that no profile names.
pub const DEFAULT: Range = Range { min: 1, opt: 1, max: 64 };

impl Profiles {
    /// No ranges stated.
    pub fn new() -> Profiles {
        Profiles::default()
    }

    /// One profile that holds all of these shapes, each the names of an input's axes (`None` for a number) and its extents:
    /// from the smallest to the largest extent of each name.
    pub fn holding<'s>(shapes: impl IntoIterator<Item = (&'s [Option<String>], &'s [usize])>) -> Profiles {
        let mut ranges: BTreeMap<&str, Range> = BTreeMap::new();
        for (names, extents) in shapes {
            for (name, &extent) in names.iter().zip(extents) {
                let Some(name) = name else { continue };
                let value = i64::try_from(extent).unwrap_or(i64::MAX);
                let range = ranges.entry(name).or_insert(Range { min: value, opt: value, max: value });
                range.min = range.min.min(value);
                range.max = range.max.max(value);
            }
        }
        let mut profiles = Profiles::new();
        for (name, range) in ranges {
            profiles.add(name, range);
        }
        profiles
    }

    /// Adds a range for `name`. The first range of a name belongs to the first profile, the second to the second.
    pub fn add(&mut self, name: &str, range: Range) {
        self.ranges.entry(name.to_owned()).or_default().push(range);
    }

    /// Reads `NAME=MIN:OPT:MAX`, or `NAME=VALUE` for a dimension that has one value.
    ///
    /// # Errors
    /// One sentence, for a text of another form, or a range that is not ascending or has a negative end.
    pub fn parse(text: &str) -> Result<(String, Range), String> {
        let form = "expected NAME=MIN:OPT:MAX or NAME=VALUE";
        let (name, values) = text.rsplit_once('=').ok_or(form)?;
        let numbers: Vec<i64> = values
            .split(':')
            .map(|value| value.trim().parse::<i64>().map_err(|error| format!("`{value}`: {error}; {form}")))
            .collect::<Result<_, _>>()?;
        let (min, opt, max) = match numbers.as_slice() {
            [value] => (*value, *value, *value),
            [min, opt, max] => (*min, *opt, *max),
            _ => return Err(form.to_owned()),
        };
        if min < 0 || min > opt || opt > max {
            return Err(format!("`{text}`: the range must satisfy 0 <= MIN <= OPT <= MAX"));
        }
        Ok((name.trim().to_owned(), Range { min, opt, max }))
    }

    /// How many profiles there are: at least one.
    pub fn count(&self) -> usize {
        self.ranges.values().map(Vec::len).max().unwrap_or(1).max(1)
    }

    /// The ranges of a dimension, one a profile; [`DEFAULT`] where none is stated, and a name's last range where it
    /// has fewer than there are profiles.
    pub fn ranges(&self, name: &str) -> Vec<Range> {
        let stated = self.ranges.get(name).map_or(&[][..], Vec::as_slice);
        let last = stated.last().copied().unwrap_or(DEFAULT);
        (0..self.count()).map(|k| stated.get(k).copied().unwrap_or(last)).collect()
    }

    /// The one value of a dimension that every profile pins.
    pub fn pinned(&self, name: &str) -> Option<i64> {
        let stated = self.ranges.get(name)?;
        let value = stated.first()?.min;
        stated.iter().all(|range| range.min == value && range.max == value).then_some(value)
    }

    /// The names that were stated.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ranges.keys().map(String::as_str)
    }
}

/// One `NAME=MIN:OPT:MAX` a line, which [`Profiles::parse`] reads: profile by profile for each name.
impl std::fmt::Display for Profiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, ranges) in &self.ranges {
            for range in ranges {
                writeln!(f, "{name}={}:{}:{}", range.min, range.opt, range.max)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_parse() {
        let range = Range { min: 1, opt: 4, max: 8 };
        assert_eq!(Profiles::parse("batch=1:4:8"), Ok(("batch".to_owned(), range)));
        assert_eq!(Profiles::parse("a=b=3").map(|(name, _)| name), Ok("a=b".to_owned()));
        let mut profiles = Profiles::new();
        profiles.add("batch", range);
        assert_eq!(profiles.to_string(), "batch=1:4:8\n");
        assert!(Profiles::parse("batch=4:1:8").is_err());
        assert!(Profiles::parse("batch").is_err());
        assert!(Profiles::parse("batch=1:2").is_err());
        assert!(Profiles::parse("batch=-1:2:3").is_err());
    }

    #[test]
    fn a_profile_holds_all_shapes() {
        let (a, b) = ([Some("n".to_owned()), None], [Some("m".to_owned()), Some("n".to_owned())]);
        let profiles = Profiles::holding([(&a[..], &[3, 9][..]), (&b, &[7, 1]), (&a, &[5, 9])]);
        assert_eq!(profiles.to_string(), "m=7:7:7\nn=1:3:5\n");
    }

    #[test]
    fn unstated_dimensions_get_the_default() {
        let mut profiles = Profiles::new();
        profiles.add("w", Range { min: 2, opt: 3, max: 4 });
        profiles.add("w", Range { min: 5, opt: 6, max: 7 });
        profiles.add("b", Range { min: 1, opt: 1, max: 1 });
        assert_eq!(profiles.count(), 2);
        assert_eq!(profiles.ranges("x"), vec![DEFAULT; 2]);
        assert_eq!(profiles.pinned("b"), Some(1));
        assert_eq!(profiles.pinned("w"), None);
    }
}
