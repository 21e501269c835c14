//! Classifies ten digits in one batch by a model that the build script compiled.

use std::error::Error;

use digits::{Batch, C, Digits, Inputs, View};

include!(concat!(env!("OUT_DIR"), "/digits.rs"));

/// 8x8 pixels from 0 (paper) to 1 (ink).
const PIXELS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    // float32 [10,1,8,8]: what `numpy.save` wrote ends with the data.
    let file = include_bytes!("../../01-quickstart/samples.npy");
    let data = &file[file.len() - 10 * PIXELS * 4..];
    let pixels: Vec<f32> = data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();

    let model = Digits::builder().build()?;
    let mut session = model.session()?;
    let image = View::new(&pixels, (Batch::new(10)?, C, C, C))?;
    let outputs = session.run(&Inputs { image })?;
    for logits in outputs.logits.data().chunks_exact(10) {
        let best = (0..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
        print!("{} ", best.map_or(0, |(digit, _)| digit));
    }
    println!();
    Ok(())
}
