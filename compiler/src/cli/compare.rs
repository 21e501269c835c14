//! How far two tensors are apart.

use lapidary::ir::eval::Tensor;

use super::case::Bar;

/// The distance of a tensor from what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// max |given - expected|
    pub max_abs: f64,
    /// max |expected|
    pub range: f64,
    /// ||given - expected|| / ||expected||
    pub rel_l2: f64,
    /// The cosine of the angle between the two.
    pub cosine: f64,
    /// The largest |difference| in units of what [`Bar::Elementwise`] allows with the given bounds.
    pub elements_off: usize,
    /// Why they cannot be compared; the figures mean nothing then.
    pub mismatch: Option<String>,
}

impl Distance {
    /// The distance of `given` from `expected`; elements that `bar` does not allow are counted.
    pub fn of(given: &Tensor, expected: &Tensor, bar: Bar) -> Distance {
        let mut distance =
            Distance { max_abs: 0.0, range: 0.0, rel_l2: 0.0, cosine: 1.0, elements_off: 0, mismatch: None };
        if given.dtype != expected.dtype || given.dims != expected.dims {
            distance.mismatch =
                Some(format!("expected {}{:?}, given {}{:?}", expected.dtype, expected.dims, given.dtype, given.dims));
            return distance;
        }
        if !expected.dtype.is_float() {
            // Beyond 2^53 a double does not tell integers apart.
            distance.elements_off = given.to_i64s().iter().zip(expected.to_i64s()).filter(|(a, b)| **a != *b).count();
        }
        let (given, expected) = (given.to_f64s(), expected.to_f64s());
        let (mut dot, mut given_square, mut expected_square, mut error_square) = (0.0, 0.0, 0.0, 0.0);
        for (&a, &b) in given.iter().zip(&expected) {
            if (a.is_nan() && b.is_nan()) || a == b && b.is_infinite() {
                continue;
            }
            if !a.is_finite() || !b.is_finite() {
                distance.mismatch = Some(format!("expected {b}, given {a}"));
                return distance;
            }
            let error = (a - b).abs();
            distance.max_abs = distance.max_abs.max(error);
            distance.range = distance.range.max(b.abs());
            dot += a * b;
            given_square += a * a;
            expected_square += b * b;
            error_square += error * error;
            if let Bar::Elementwise { relative, absolute } = bar {
                distance.elements_off += usize::from(error > absolute + relative * b.abs());
            }
        }
        distance.rel_l2 = if error_square == 0.0 { 0.0 } else { (error_square / expected_square).sqrt() };
        let norms = (given_square * expected_square).sqrt();
        distance.cosine = if norms == 0.0 { if error_square == 0.0 { 1.0 } else { 0.0 } } else { dot / norms };
        distance
    }

    /// Whether the distance is within `bar`. What is no float must be equal.
    pub fn within(&self, bar: Bar) -> bool {
        if self.mismatch.is_some() || self.elements_off > 0 {
            return false;
        }
        match bar {
            // A stated share is a rounded quotient: one step of a quantized output is exactly that far off.
            Bar::OfRange(share, _) => self.max_abs <= share * self.range * (1.0 + 1e-6),
            Bar::Elementwise { .. } => true,
            Bar::Relative { l2, cosine } => self.rel_l2 <= l2 && self.cosine >= cosine,
        }
    }
}

impl std::fmt::Display for Distance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.mismatch {
            Some(what) => f.write_str(what),
            None => write!(
                f,
                "max-abs {:.3e} of {:.3e}, rel-L2 {:.3e}, cosine {:.7}",
                self.max_abs, self.range, self.rel_l2, self.cosine
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::case::Yardstick;
    use lapidary_runtime::DType;

    fn vector(values: &[f64]) -> Tensor {
        Tensor::from_f64s(DType::F32, vec![values.len()], values)
    }

    #[test]
    fn nan_is_right_only_where_it_is_expected() {
        let bar = Bar::OfRange(1e-4, Yardstick::Usual);
        let nan = f64::NAN;
        assert!(Distance::of(&vector(&[1.0, nan]), &vector(&[1.0, nan]), bar).within(bar));
        assert!(!Distance::of(&vector(&[1.0, nan]), &vector(&[1.0, 2.0]), bar).within(bar));
        assert!(!Distance::of(&vector(&[1.0, 2.0]), &vector(&[1.0, nan]), bar).within(bar));
    }

    #[test]
    fn bars_hold() {
        let (a, b) = (vector(&[1.0, 100.0]), vector(&[1.005, 100.0]));
        for (bar, within) in [
            (Bar::OfRange(1e-4, Yardstick::Usual), true),
            (Bar::OfRange(1e-6, Yardstick::Usual), false),
            (Bar::Elementwise { relative: 1e-3, absolute: 1e-7 }, false),
            (Bar::Relative { l2: 1e-3, cosine: 0.999 }, true),
        ] {
            assert_eq!(Distance::of(&a, &b, bar).within(bar), within, "{bar:?}");
        }
        let bar = Bar::OfRange(1.0, Yardstick::Usual);
        let ints = |values: &[i64]| Tensor::from_i64s(DType::I64, vec![values.len()], values);
        assert!(!Distance::of(&ints(&[1 << 60]), &ints(&[(1 << 60) + 1]), bar).within(bar));
    }
}
