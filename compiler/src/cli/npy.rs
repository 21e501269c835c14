//! NumPy's .npy and .npz files (NEP 1, format versions 1 to 3; little-endian, C order).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use lapidary::ir::eval::Tensor;
use lapidary_runtime::DType;

use super::Failure;

/// The largest array that is read: well beyond any input, well below memory.
const MAX_BYTES: u64 = 4 << 30;

/// Reads a .npy file.
pub fn read(path: &Path) -> Result<Tensor, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::file(path, error))?;
    parse(&bytes).map_err(|reason| not_an_array(path, &reason))
}

/// Reads all arrays of a .npz file.
pub fn read_archive(path: &Path) -> Result<BTreeMap<String, Tensor>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, error))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| Failure::file(path, error))?;
    let mut arrays = BTreeMap::new();
    for k in 0..archive.len() {
        let entry = archive.by_index(k).map_err(|error| Failure::file(path, error))?;
        let name = entry.name().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| Failure::file(path, error))?;
        let array = parse(&bytes).map_err(|reason| not_an_array(path, &format!("{name}: {reason}")))?;
        arrays.insert(name, array);
    }
    Ok(arrays)
}

fn not_an_array(path: &Path, reason: &str) -> Failure {
    Failure::usage(
        format!("{}: {reason}", path.display()),
        "save it with numpy.save as a little-endian array in C order",
    )
}

fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not a .npy file")?;
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().ok_or("the header is cut short")?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or("the header is cut short")?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or("the header is cut short")?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("format version {other} is not supported")),
    };
    let header = rest.get(..length).ok_or("the header is cut short")?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    if entry(header, "fortran_order")? != "False" {
        return Err("the array is in Fortran order".to_owned());
    }
    let dtype = dtype_of(entry(header, "descr")?.trim_matches(['\'', '"']))?;
    let shape = entry(header, "shape")?;
    let dims: Vec<usize> = shape
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse().map_err(|_| format!("the dimension `{dim}` is not a number")))
        .collect::<Result<_, String>>()?;
    Tensor::new(dtype, dims, rest[length..].to_vec())
}

/// The text of a header's entry.
fn entry<'h>(header: &'h str, key: &str) -> Result<&'h str, String> {
    let missing = || format!("the header has no {key}");
    let (_, rest) = header.split_once(&format!("'{key}':")).ok_or_else(missing)?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') { rest.find(')').map(|end| end + 1) } else { rest.find([',', '}']) };
    end.map(|end| rest[..end].trim()).ok_or_else(missing)
}

fn dtype_of(descr: &str) -> Result<DType, String> {
    let dtype = match descr.trim_start_matches(['<', '|', '=']) {
        "f8" => DType::F64,
        "f4" => DType::F32,
        "f2" => DType::F16,
        "i8" => DType::I64,
        "i4" => DType::I32,
        "i2" => DType::I16,
        "i1" => DType::I8,
        "u8" => DType::U64,
        "u4" => DType::U32,
        "u2" => DType::U16,
        "u1" => DType::U8,
        "b1" => DType::Bool,
        other => return Err(format!("the element type `{other}` is not supported")),
    };
    Ok(dtype)
}

/// Writes a .npy file; `bf16` and narrower types are written as their bits.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), Failure> {
    let descr = match tensor.dtype {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 | DType::BF16 => "<u2",
        DType::Bool => "|b1",
        DType::U8
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I4
        | DType::U4
        | DType::I2
        | DType::U2 => "|u1",
    };
    let dims: Vec<String> = tensor.dims.iter().map(|dim| format!("{dim},")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    // Magic, version and length are 10 bytes; the data starts at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend_from_slice(&tensor.bytes);
    std::fs::write(path, bytes).map_err(|error| Failure::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_round_trip() {
        let path = std::env::temp_dir().join(format!("lapidary-npy-{}.npy", std::process::id()));
        for dims in [vec![], vec![3], vec![2, 3]] {
            let count = dims.iter().product::<usize>();
            let tensor = Tensor::new(DType::F32, dims, vec![7; count * 4]).unwrap();
            write(&path, &tensor).unwrap();
            let back = read(&path).unwrap();
            assert_eq!((back.dtype, &back.dims, &back.bytes), (tensor.dtype, &tensor.dims, &tensor.bytes));
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn damaged_files_are_refused() {
        for bytes in [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x01\x00\x02\x00{}"] {
            assert!(parse(bytes).is_err());
        }
    }
}
