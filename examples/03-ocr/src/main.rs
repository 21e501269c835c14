//! Reads a line of text in an image by PP-OCRv4's recognizer.

use std::error::Error;
use std::time::Instant;

use recognizer::{C, Dimension, Inputs, P2oDynamicDimension1, Recognizer, View};

include!(concat!(env!("OUT_DIR"), "/recognizer.rs"));

/// The characters of the classes 1, 2, ...; one a line.
const ALPHABET: &str = include_str!(concat!(env!("OUT_DIR"), "/recognizer.txt"));

/// What the network takes.
const HEIGHT: usize = 48;

fn main() -> Result<(), Box<dyn Error>> {
    let file = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read(path)?,
        None => include_bytes!("../hello.pgm").to_vec(),
    };
    let (width, gray) = pgm(&file).ok_or("expected a binary PGM file, 8 bits a pixel, 48 pixels high")?;
    // Three equal channels, from -1 (black) to 1 (white).
    let channel = gray.iter().map(|&level| f32::from(level) / 127.5 - 1.0);
    let pixels: Vec<f32> = channel.clone().chain(channel.clone()).chain(channel).collect();

    let model = Recognizer::builder().build()?;
    let mut session = model.session()?;
    let x = View::new(&pixels, (C, C, C, P2oDynamicDimension1::new(width)?))?;
    let start = Instant::now();
    session.run(&Inputs { x })?;
    let first = start.elapsed();
    let start = Instant::now();
    let outputs = session.run(&Inputs { x })?;
    let second = start.elapsed();

    let probabilities = outputs.softmax_11_tmp_0;
    let (_, _, classes) = probabilities.shape();
    println!("{}", read(probabilities.data(), classes.extent()));
    println!("{width}x{HEIGHT} pixels, {first:.1?} the first time, {second:.1?} the second");
    Ok(())
}

/// The text of the likeliest classes: repeats merged, blanks dropped (greedy decoding of CTC; A. Graves et al.,
/// "Connectionist Temporal Classification", 2006, section 3.2). Class 0 is the blank, the last one the space.
fn read(probabilities: &[f32], classes: usize) -> String {
    let alphabet: Vec<&str> = [""].into_iter().chain(ALPHABET.lines()).chain([" "]).collect();
    let mut text = String::new();
    let mut before = 0;
    for step in probabilities.chunks_exact(classes) {
        let best = step.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let class = best.map_or(0, |(class, _)| class);
        if class != before {
            text.push_str(alphabet.get(class).unwrap_or(&"?"));
        }
        before = class;
    }
    text
}

/// Width and pixels of a binary PGM file (Netpbm: "PGM Format Specification") that is 48 pixels high.
fn pgm(file: &[u8]) -> Option<(usize, &[u8])> {
    let mut rest = file;
    let mut fields = [0; 3];
    rest = rest.strip_prefix(b"P5")?;
    for field in &mut fields {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        *field = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        rest = &rest[end..];
    }
    let [width, HEIGHT, 255] = fields else { return None };
    // One byte of white space ends the header.
    let pixels = rest.get(1..)?;
    (Some(pixels.len()) == width.checked_mul(HEIGHT)).then_some((width, pixels))
}
