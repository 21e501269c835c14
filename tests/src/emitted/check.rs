//! Saved cases: `case_K/input_N.npy` go in, `case_K/output_N.npy` must come out, bit by bit.

use std::path::Path;

use lapidary_runtime::{DType, Error, InputRef, Session};

/// Runs every case in `folder`, one after the other, on one session.
pub fn cases(session: &mut Session<'_>, folder: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut count = 0;
    loop {
        let case = Path::new(folder).join(format!("case_{count}"));
        if !case.is_dir() {
            break;
        }
        let inputs = arrays(&case, "input")?;
        let inputs = inputs
            .iter()
            .map(|array| Ok(InputRef::from_bytes(array.dtype, array.dims.as_slice().try_into()?, array.data())))
            .collect::<Result<Vec<_>, Error>>()?;
        // Each was saved as a session's first run.
        session.set_run_count(0);
        session.run(&inputs)?;
        for (k, expected) in arrays(&case, "output")?.iter().enumerate() {
            let output = session.output(k)?;
            if output.dims() != expected.dims || output.bytes() != expected.data() {
                return Err(
                    format!("output {k} of case {count} differs: {:?}, {:?}", output.dims(), expected.dims).into()
                );
            }
        }
        count += 1;
    }
    if count == 0 {
        return Err(format!("no cases in {folder}").into());
    }
    println!("{count} cases, the same bits");
    Ok(())
}

/// A .npy file.
struct Array {
    dtype: DType,
    dims: Vec<usize>,
    file: Vec<u8>,
    start: usize,
}

impl Array {
    fn data(&self) -> &[u8] {
        &self.file[self.start..]
    }
}

fn arrays(case: &Path, what: &str) -> Result<Vec<Array>, Box<dyn std::error::Error>> {
    let mut arrays = Vec::new();
    loop {
        let path = case.join(format!("{what}_{}.npy", arrays.len()));
        if !path.is_file() {
            return Ok(arrays);
        }
        arrays.push(array(std::fs::read(&path)?).ok_or_else(|| format!("{} is no .npy file", path.display()))?);
    }
}

fn array(file: Vec<u8>) -> Option<Array> {
    let start = 10 + usize::from(u16::from_le_bytes([*file.get(8)?, *file.get(9)?]));
    let header = core::str::from_utf8(file.get(10..start)?).ok()?;
    let value = |key: &str, end: &str| {
        let from = header.find(key)? + key.len();
        Some(&header[from..from + header[from..].find(end)?])
    };
    let dtype = match value("'descr': '", "'")? {
        "<f8" => DType::F64,
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        "<i2" => DType::I16,
        "|i1" => DType::I8,
        "|u1" => DType::U8,
        "|b1" => DType::Bool,
        _ => return None,
    };
    let dims = value("'shape': (", ")")?.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let dims = dims.map(|dim| dim.parse().ok()).collect::<Option<Vec<usize>>>()?;
    Some(Array { dtype, dims, start, file })
}
