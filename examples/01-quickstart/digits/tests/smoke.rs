//! Runs the model on the inputs in `golden/` and compares with the outputs there, which Lapidary's reference
//! evaluator computed.

use digits::{Batch, C, Digits, Element, Error, Inputs, Shape, View};

#[test]
fn it_runs() -> Result<(), Error> {
    let model = Digits::builder().build()?;
    let mut session = model.session()?;
    let batch = Batch::new(1)?;
    let image: Vec<f32> = decode(include_bytes!("golden/input_image.bin"));
    let inputs = Inputs {
        image: View::new(&image, (batch, C, C, C))?,
    };
    let outputs = session.run(&inputs)?;
    let expected = include_bytes!("golden/output_logits.bin");
    compare(outputs.logits, &[1, 10], &decode(expected));
    Ok(())
}

/// The largest distance to the reference, relative to its norm.
const TOLERANCE: f64 = 1e-3;

fn compare<T: Element + Number, S: Shape>(actual: View<'_, T, S>, dims: &[usize], expected: &[T]) {
    assert_eq!(*actual.shape().extents(), *dims);
    let (mut distance, mut norm) = (0.0_f64, 0.0_f64);
    for (k, (a, e)) in actual.data().iter().zip(expected).enumerate() {
        let (a, e) = (a.value(), e.value());
        let same = a == e || a.is_nan() && e.is_nan();
        let close = T::IS_FLOAT && a.is_finite() && e.is_finite();
        assert!(same || close, "element {k} is {a}, the reference {e}");
        if close {
            distance += (a - e) * (a - e);
            norm += e * e;
        }
    }
    let error = (distance / norm.max(f64::MIN_POSITIVE)).sqrt();
    assert!(error <= TOLERANCE, "{error:.3e} away from the reference");
}

fn decode<T: Number>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(T::read).collect()
}

/// An element type of this model.
trait Number: Copy {
    const IS_FLOAT: bool;
    fn read(bytes: &[u8]) -> Self;
    fn value(self) -> f64;
}

impl Number for f32 {
    const IS_FLOAT: bool = true;

    fn read(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn value(self) -> f64 {
        f64::from(self)
    }
}
