//! Recognizes ten handwritten digits by a model that Lapidary compiled to the crate in `digits/`.

use std::error::Error;
use std::time::{Duration, Instant};

use digits::{Batch, C, Digits, Inputs, Session, View};

/// An image is 8x8 pixels from 0 (paper) to 1 (ink).
const WIDTH: usize = 8;
const PIXELS: usize = WIDTH * WIDTH;

fn main() -> Result<(), Box<dyn Error>> {
    let images = npy::<4, f32>(include_bytes!("../samples.npy"), f32::from_le_bytes)?;
    let labels = npy::<8, i64>(include_bytes!("../labels.npy"), i64::from_le_bytes)?;

    let model = Digits::builder().build()?;
    let mut session = model.session()?;
    // The first run touches every page of the session's memory.
    classify(&mut session, &images[..PIXELS])?;

    let mut times = Vec::new();
    let mut right = 0;
    for (image, &label) in images.chunks_exact(PIXELS).zip(&labels) {
        let start = Instant::now();
        let predicted = classify(&mut session, image)?;
        let time = start.elapsed();
        show(image, &format!("label {label}, predicted {predicted}, {}", micros(time)));
        println!();
        right += usize::from(predicted == label);
        times.push(time);
    }
    times.sort();
    println!("{right} of {} right, median latency {}", labels.len(), micros(times[times.len() / 2]));
    Ok(())
}

/// The digit that an image shows: the index of its largest logit.
fn classify(session: &mut Session, pixels: &[f32]) -> Result<i64, digits::Error> {
    let image = View::new(pixels, (Batch::new(1)?, C, C, C))?;
    let outputs = session.run(&Inputs { image })?;
    let logits = outputs.logits.data();
    let best = (0..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
    Ok(best.map_or(0, |(digit, _)| digit))
}

/// Prints an image, two characters a pixel, and a line of text beside it.
fn show(image: &[f32], text: &str) {
    const SHADES: &[u8] = b" .:-=+*#%@";
    for (y, row) in image.chunks_exact(WIDTH).enumerate() {
        for ink in row {
            let shade = char::from(SHADES[(ink * 9.0).round().clamp(0.0, 9.0) as usize]);
            print!("{shade}{shade}");
        }
        println!("{}", if y == WIDTH / 2 { format!("   {text}") } else { String::new() });
    }
}

/// The numbers in a file of `numpy.save`, format version 1: magic, version, the header's length, the header, the data.
fn npy<const SIZE: usize, T>(file: &[u8], decode: fn([u8; SIZE]) -> T) -> Result<Vec<T>, &'static str> {
    let [b'\x93', b'N', b'U', b'M', b'P', b'Y', 1, _, low, high, rest @ ..] = file else {
        return Err("not a .npy file of version 1");
    };
    let data = rest.get(usize::from(u16::from_le_bytes([*low, *high]))..).ok_or("the .npy file is cut short")?;
    Ok(data.as_chunks().0.iter().map(|bytes| decode(*bytes)).collect())
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}
