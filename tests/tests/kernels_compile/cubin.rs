//! What a cubin says about its kernel. A cubin is an ELF file; ptxas notes a kernel's stack frame in `.nv.info` (the
//! format is NVIDIA's and undocumented; `cuobjdump --dump-elf` prints it as `EIATTR_FRAME_SIZE`).

/// Bytes of stack that the kernel's threads use: spilled registers and arrays that are indexed at run time.
pub fn frame_bytes(cubin: &[u8]) -> Option<u32> {
    const FRAME_SIZE: u8 = 0x11;
    let info = section(cubin, ".nv.info")?;
    let mut frame = None;
    let mut at = 0;
    while at + 4 <= info.len() {
        let (format, attribute) = (info[at], info[at + 1]);
        let value = u16::from_le_bytes([info[at + 2], info[at + 3]]);
        // Format 4 has a value of a stated size behind it; the others hold it in place.
        let payload = if format == 4 { usize::from(value) } else { 0 };
        let bytes = info.get(at + 4..at + 4 + payload)?;
        if attribute == FRAME_SIZE {
            // The symbol's number, then the size.
            let size = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
            frame = Some(frame.unwrap_or(0).max(size));
        }
        at += 4 + payload;
    }
    frame
}

/// The bytes of a section of a 64-bit little-endian ELF file.
fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let number = |at: usize, bytes: usize| {
        let field = file.get(at..at + bytes)?;
        Some(field.iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (headers, size, count, names) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    // Of section k: where it begins, and its length.
    let place = |k: usize| Some((number(headers + k * size + 0x18, 8)?, number(headers + k * size + 0x20, 8)?));
    let strings = place(names)?.0;
    (0..count).find_map(|k| {
        let text = file.get(strings + number(headers + k * size, 4)?..)?;
        let (start, length) = place(k)?;
        let matches = text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
        matches.then(|| file.get(start..start + length)).flatten()
    })
}
