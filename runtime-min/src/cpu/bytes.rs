//! Batched products of matrices of bytes, block by block, with sums in `i32` that wrap.
//!
//! Both sides are widened to 16 bits and laid out in pairs along the summed axis: vector units multiply two pairs and add
//! the products in one instruction, which neither rounds nor saturates, as two products of bytes fit by far. So each
//! machine gives the same bits. Both sides are packed once, by all threads, so that a block is whole rows of the result,
//! which are finished in long runs; but gathered columns are packed by the thread that computes their block. Not here:
//! where columns come from ([`Columns`]).

use crate::cpu::blocks::{Columns, Shape};
use crate::cpu::matmul::Room;
use crate::cpu::memory::{Buffer, TensorMut};
use crate::cpu::pointwise::Epilogue;
use crate::cpu::product::Matrix;
use crate::cpu::simd::vectorize;
use crate::cpu::team::{Pieces, Team, parts};
use crate::dtype::DType;

/// Products that are worth a part of their own.
const PART: usize = 1 << 22;

/// Bytes to be packed that are worth a part of their own.
const PACK: usize = 1 << 16;

/// Rows and columns of a tile: its sums fill registers, and a pair of each column fills one of 512 bits.
const TALL: usize = 8;
const WIDE: usize = 16;

/// Tiles of a block, at least, along rows and columns that are split.
const LEAST: usize = 4;

/// Elements of packed columns, which shall stay in the second-level cache.
const PACKED: usize = 1 << 17;

/// Whether a tensor's bytes are signed; `None` where it is not one of bytes.
pub fn is_signed(dtype: DType) -> Option<bool> {
    match dtype {
        DType::I8 => Some(true),
        DType::U8 => Some(false),
        _ => None,
    }
}

/// The left matrices: how many there are, each of them, and which one a product takes.
pub struct Lefts<'l, 'm> {
    pub count: usize,
    pub matrix: &'l (dyn Fn(usize) -> Matrix<'m, u8> + Sync),
    pub of: &'l (dyn Fn(usize) -> usize + Sync),
}

/// `out[i] = left(i) right(i)`, finished by `epilogue`; `signed` says of which bytes the left and the right side are.
pub fn multiply<R: Columns<u8>>(
    shape: Shape,
    signed: [bool; 2],
    left: &Lefts<'_, '_>,
    right: &R,
    out: &mut TensorMut<'_>,
    epilogue: &Epilogue<'_>,
    room: Room<'_>,
) {
    let Room { a: left_room, b: right_room, team, .. } = room;
    let Shape { batch, rows, inner, cols } = shape;
    if batch * rows * cols == 0 {
        return;
    }
    let pairs = inner.div_ceil(2);
    let rows_packed = pack_left(left, signed[0], shape, left_room, team);
    let columns_packed = if R::GATHERED { None } else { Some(pack_right(right, signed[1], shape, right_room, team)) };
    let [height, width] = if R::GATHERED { gathered_block(shape) } else { block(shape) };
    let panel = pairs * WIDE * 2;
    let (down, across) = (rows.div_ceil(height), cols.div_ceil(width));
    let dtype = out.dtype;
    let result = Pieces::new(&mut *out.bytes);
    team.run(batch * down * across, &|part, lane| {
        let (index, top, first) = (part / (down * across), part / across % down * height, part % across * width);
        let (height, width) = (height.min(rows - top), width.min(cols - first));
        let panels = width.div_ceil(WIDE);
        let packed: &[i16] = match columns_packed {
            Some(packed) => &packed[(index * cols.div_ceil(WIDE) + first / WIDE) * panel..][..panels * panel],
            None => {
                let packed = lane.c.take::<i16>(panels * panel);
                pack_columns(&right.columns(index, first..first + width, &mut lane.a), signed[1], packed);
                packed
            }
        };
        let groups = rows.div_ceil(TALL);
        let own = &rows_packed[((left.of)(index) * groups + top / TALL) * pairs * TALL..];
        let sums = lane.b.take::<i32>(height * width);
        for (k, panel) in packed.chunks_exact(panel.max(1)).enumerate() {
            for (group, sums) in sums.chunks_mut(TALL * width).enumerate() {
                let mut sums_of = [[0; WIDE]; TALL];
                tile(&own[group * pairs * TALL..][..pairs * TALL], panel, &mut sums_of);
                for (row, tile) in sums.chunks_exact_mut(width).zip(&sums_of) {
                    let row = &mut row[k * WIDE..];
                    let count = row.len().min(WIDE);
                    row[..count].copy_from_slice(&tile[..count]);
                }
            }
        }
        if pairs == 0 {
            sums.fill(0);
        }
        let mut finish = epilogue.bind(&mut lane.registers);
        let start = (index * rows + top) * cols + first;
        // Whole rows of the result follow each other.
        let run = if width == cols { height * width } else { width };
        for (k, sums) in sums.chunks_exact(run).enumerate() {
            let start = start + k * cols;
            // SAFETY: blocks do not overlap.
            let out = unsafe { result.get(dtype.bytes(start), dtype.bytes(run)) };
            finish.store(sums, out, start);
        }
    });
}

/// The parts that one product of a batch is worth.
fn parts_of(Shape { batch, rows, inner, cols }: Shape) -> usize {
    parts([rows, inner, cols].into_iter().fold(batch, usize::saturating_mul), PART).div_ceil(batch)
}

/// The rows and columns of a block: whole rows where there are enough.
fn block(shape: Shape) -> [usize; 2] {
    let down = parts_of(shape).min(shape.rows.div_ceil(TALL * LEAST)).max(1);
    let across = parts_of(shape).div_ceil(down).min(shape.cols.div_ceil(WIDE * LEAST)).max(1);
    [even(shape.rows, down, TALL), even(shape.cols, across, WIDE)]
}

/// The same where each block packs its columns: whole columns.
fn gathered_block(shape: Shape) -> [usize; 2] {
    let most = (PACKED / shape.inner.max(1)).next_multiple_of(WIDE).max(WIDE);
    let across = shape.cols.div_ceil(most).max(parts_of(shape).min(shape.cols.div_ceil(WIDE * LEAST)));
    let down = parts_of(shape).div_ceil(across).min(shape.rows.div_ceil(TALL * LEAST));
    [even(shape.rows, down, TALL), even(shape.cols, across, WIDE)]
}

/// `extent` in `count` pieces of whole units.
fn even(extent: usize, count: usize, unit: usize) -> usize {
    extent.div_ceil(count).next_multiple_of(unit).min(extent)
}

/// The rows of all left matrices in groups of [`TALL`]: for each pair of places a word of each row.
fn pack_left<'r>(
    left: &Lefts<'_, '_>,
    signed: bool,
    Shape { rows, inner, .. }: Shape,
    room: &'r mut Buffer,
    team: &mut Team,
) -> &'r [i32] {
    let (pairs, groups) = (inner.div_ceil(2), rows.div_ceil(TALL));
    let all = left.count * groups;
    let packed = room.take::<i32>(all * pairs * TALL);
    let together = all.div_ceil(parts(2 * packed.len(), PACK));
    team.pieces(packed, together * pairs * TALL, |part, packed, _| {
        for (k, group) in packed.chunks_exact_mut((pairs * TALL).max(1)).enumerate() {
            let at = part * together + k;
            let (matrix, top) = ((left.matrix)(at / groups), at % groups * TALL);
            let matrix = matrix.rows(top, TALL.min(rows - top));
            if signed { pack_rows::<true>(&matrix, group) } else { pack_rows::<false>(&matrix, group) }
        }
    });
    packed
}

/// The columns of all right matrices in panels.
fn pack_right<'r, R: Columns<u8>>(
    right: &R,
    signed: bool,
    Shape { batch, inner, cols, .. }: Shape,
    room: &'r mut Buffer,
    team: &mut Team,
) -> &'r [i16] {
    let (panels, panel) = (cols.div_ceil(WIDE), inner.div_ceil(2) * WIDE * 2);
    let packed = room.take::<i16>(batch * panels * panel);
    let together = panels.div_ceil(parts(packed.len(), PACK).div_ceil(batch));
    let runs = panels.div_ceil(together);
    let all = Pieces::new(&mut *packed);
    team.run(batch * runs, &|part, lane| {
        let (index, first) = (part / runs, part % runs * together);
        let count = together.min(panels - first);
        let columns = right.columns(index, first * WIDE..cols.min((first + count) * WIDE), &mut lane.a);
        // SAFETY: each part has panels of its own.
        pack_columns(&columns, signed, unsafe { all.get((index * panels + first) * panel, count * panel) });
    });
    packed
}

/// A byte as a number.
#[inline(always)]
fn wide<const SIGNED: bool>(byte: u8) -> i16 {
    if SIGNED { i16::from(byte as i8) } else { i16::from(byte) }
}

/// Rows beyond the matrix are zeros, as is what would follow an odd last place.
fn pack_rows<const SIGNED: bool>(matrix: &Matrix<'_, u8>, packed: &mut [i32]) {
    packed.fill(0);
    let word = |low: u8, high: i16| {
        let [a, b] = [wide::<SIGNED>(low), high].map(|x| u32::from(x as u16));
        (a | b << 16) as i32
    };
    for i in 0..matrix.rows {
        let at = |p: usize| matrix.data[i * matrix.row_stride + p * matrix.col_stride];
        let row = matrix.data.get(i * matrix.row_stride..).unwrap_or_default();
        let words = packed.iter_mut().skip(i).step_by(TALL);
        if matrix.col_stride == 1 {
            let row = &row[..matrix.cols];
            let pairs = row.chunks_exact(2);
            let last = pairs.remainder().first().map(|last| word(*last, 0));
            for (to, value) in words.zip(pairs.map(|pair| word(pair[0], wide::<SIGNED>(pair[1]))).chain(last)) {
                *to = value;
            }
        } else {
            for (k, to) in words.take(matrix.cols.div_ceil(2)).enumerate() {
                let high = if 2 * k + 1 < matrix.cols { wide::<SIGNED>(at(2 * k + 1)) } else { 0 };
                *to = word(at(2 * k), high);
            }
        }
    }
}

/// The columns in panels of [`WIDE`]: for each pair of places a pair of each column; zeros for columns beyond the matrix.
fn pack_columns(matrix: &Matrix<'_, u8>, signed: bool, packed: &mut [i16]) {
    vectorize(
        #[inline(always)]
        || if signed { pack_panels::<true>(matrix, packed) } else { pack_panels::<false>(matrix, packed) },
    );
}

#[inline(always)]
fn pack_panels<const SIGNED: bool>(matrix: &Matrix<'_, u8>, packed: &mut [i16]) {
    let Matrix { data, rows, cols, row_stride, col_stride } = *matrix;
    let pairs = rows.div_ceil(2);
    for (k, panel) in packed.chunks_exact_mut((pairs * WIDE * 2).max(1)).enumerate() {
        let first = k * WIDE;
        let count = WIDE.min(cols - first);
        if col_stride == 1 && count == WIDE {
            for (p, to) in panel.chunks_exact_mut(2 * WIDE).enumerate() {
                let row = |p: usize| &data[p * row_stride + first..][..WIDE];
                // An odd last row is paired with itself: the left side has zeros there.
                let (low, high) = (row(2 * p), row((2 * p + 1).min(rows - 1)));
                for ((to, low), high) in to.chunks_exact_mut(2).zip(low).zip(high) {
                    to[0] = wide::<SIGNED>(*low);
                    to[1] = wide::<SIGNED>(*high);
                }
            }
            continue;
        }
        panel.fill(0);
        for j in 0..count {
            let column = &data[(first + j) * col_stride..];
            if row_stride == 1 {
                for (p, byte) in column[..rows].iter().enumerate() {
                    panel[p / 2 * 2 * WIDE + 2 * j + p % 2] = wide::<SIGNED>(*byte);
                }
            } else {
                for p in 0..rows {
                    panel[p / 2 * 2 * WIDE + 2 * j + p % 2] = wide::<SIGNED>(column[p * row_stride]);
                }
            }
        }
    }
}

/// The sums of a group of rows with a panel of columns.
fn tile(rows: &[i32], panel: &[i16], sums: &mut [[i32; WIDE]; TALL]) {
    assert!(rows.len() / TALL == panel.len() / (2 * WIDE), "rows and columns of different lengths");
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the machine has both.
            return unsafe { x86::tile_of_512(rows, panel, sums) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has it.
            return unsafe { x86::tile_of_256(rows, panel, sums) };
        }
    }
    tile_of_words(rows, panel, sums);
}

/// [`tile`] in plain Rust.
fn tile_of_words(rows: &[i32], panel: &[i16], sums: &mut [[i32; WIDE]; TALL]) {
    for (words, columns) in rows.chunks_exact(TALL).zip(panel.chunks_exact(2 * WIDE)) {
        for (sums, word) in sums.iter_mut().zip(words) {
            let (low, high) = (i32::from(*word as i16), *word >> 16);
            for (sum, pair) in sums.iter_mut().zip(columns.chunks_exact(2)) {
                let products = low * i32::from(pair[0]) + high * i32::from(pair[1]);
                *sum = sum.wrapping_add(products);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    use super::{TALL, WIDE};

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn tile_of_512(rows: &[i32], panel: &[i16], sums: &mut [[i32; WIDE]; TALL]) {
        let mut acc = [_mm512_setzero_si512(); TALL];
        for (words, columns) in rows.chunks_exact(TALL).zip(panel.chunks_exact(2 * WIDE)) {
            // SAFETY: 32 elements of 16 bits are 512.
            let columns = unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) };
            for (acc, word) in acc.iter_mut().zip(words) {
                *acc = _mm512_dpwssd_epi32(*acc, _mm512_set1_epi32(*word), columns);
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            // SAFETY: 16 sums of 32 bits are 512.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), acc) };
        }
    }

    /// Rows whose sums fill the registers.
    const ROWS: usize = TALL / 2;

    #[target_feature(enable = "avx2")]
    pub fn tile_of_256(rows: &[i32], panel: &[i16], sums: &mut [[i32; WIDE]; TALL]) {
        for (half, sums) in sums.chunks_exact_mut(ROWS).enumerate() {
            let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
            for (words, columns) in rows.chunks_exact(TALL).zip(panel.chunks_exact(2 * WIDE)) {
                // SAFETY: 16 elements of 16 bits are 256, and there are 32.
                let columns = unsafe {
                    let at = columns.as_ptr().cast::<__m256i>();
                    [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))]
                };
                for (acc, word) in acc.iter_mut().zip(&words[half * ROWS..]) {
                    let word = _mm256_set1_epi32(*word);
                    for (acc, columns) in acc.iter_mut().zip(columns) {
                        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(word, columns));
                    }
                }
            }
            for (sums, [low, high]) in sums.iter_mut().zip(acc) {
                // SAFETY: 8 sums of 32 bits are 256, and there are 16.
                unsafe {
                    let at = sums.as_mut_ptr().cast::<__m256i>();
                    _mm256_storeu_si256(at, low);
                    _mm256_storeu_si256(at.add(1), high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::ops::Range;

    use super::*;
    use crate::cpu::testing::{Random, tensor_mut};
    use crate::dtype::Element;

    struct Rights<'r, const GATHERED: bool>(&'r [Matrix<'r, u8>]);

    impl<const GATHERED: bool> Columns<u8> for Rights<'_, GATHERED> {
        const GATHERED: bool = GATHERED;

        fn columns<'s>(&'s self, index: usize, range: Range<usize>, _: &'s mut Buffer) -> Matrix<'s, u8> {
            self.0[index].columns(range.start, range.len())
        }
    }

    fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
        (0..count).map(|_| random.below(256) as u8).collect()
    }

    fn number(byte: u8, signed: bool) -> i32 {
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    }

    #[test]
    fn products_of_all_shapes_signs_and_strides_are_exact() {
        let mut random = Random::new(11);
        for [batch, m, k, n] in [
            [1, 1, 1, 1],
            [2, 9, 7, 17],
            [1, 33, 64, 31],
            [3, 5, 2, 16],
            [1, 8, 0, 3],
            [1, 70, 300, 260],
            [1, 700, 90, 3],
        ] {
            for case in 0..16 {
                let [left_turned, right_turned, left_signed, right_signed] = [1, 2, 4, 8].map(|bit| case & bit > 0);
                let (a, b) = (bytes(&mut random, batch * m * k), bytes(&mut random, batch * k * n));
                let matrix = |data, rows, cols, turned: bool| {
                    if turned { Matrix::new(data, cols, rows).transposed() } else { Matrix::new(data, rows, cols) }
                };
                let lefts: Vec<_> = (0..batch).map(|i| matrix(&a[i * m * k..][..m * k], m, k, left_turned)).collect();
                let rights: Vec<_> = (0..batch).map(|i| matrix(&b[i * k * n..][..k * n], k, n, right_turned)).collect();
                let expected: Vec<i32> = (0..batch * m * n)
                    .map(|at| {
                        let (index, i, j) = (at / (m * n), at / n % m, at % n);
                        let of = |m: &Matrix<'_, u8>, i: usize, j: usize| m.data[i * m.row_stride + j * m.col_stride];
                        let term = |p: usize| {
                            number(of(&lefts[index], i, p), left_signed)
                                * number(of(&rights[index], p, j), right_signed)
                        };
                        (0..k).map(term).sum()
                    })
                    .collect();
                let shape = Shape { batch, rows: m, inner: k, cols: n };
                for threads in [1, 3] {
                    let signed = [left_signed, right_signed];
                    let here = product(shape, signed, &lefts, &Rights::<false>(&rights), threads);
                    let gathered = product(shape, signed, &lefts, &Rights::<true>(&rights), threads);
                    assert!(here == expected, "{batch} {m} {k} {n}, case {case}, {threads} threads");
                    assert!(gathered == expected, "{batch} {m} {k} {n}, case {case}, {threads} threads, gathered");
                }
            }
        }
    }

    fn product<R: Columns<u8>>(
        shape: Shape,
        signed: [bool; 2],
        lefts: &[Matrix<'_, u8>],
        right: &R,
        threads: usize,
    ) -> Vec<i32> {
        let Shape { batch, rows, cols, .. } = shape;
        let mut out = vec![-1i32; batch * rows * cols];
        let [mut a, mut b, mut c]: [Buffer; 3] = Default::default();
        let left = Lefts { count: batch, matrix: &|k| lefts[k], of: &|k| k };
        let room = Room { a: &mut a, b: &mut b, c: &mut c, team: &mut Team::new(threads) };
        let epilogue = Epilogue::rounding(i32::DTYPE);
        multiply(shape, signed, &left, right, &mut tensor_mut(&mut out, &[batch, rows, cols]), &epilogue, room);
        out
    }

    /// Each way to compute a tile gives the bits of plain Rust, also where sums wrap.
    #[test]
    fn tiles_agree() {
        let mut random = Random::new(12);
        let pairs = 20_000;
        let word = |random: &mut Random| if random.below(8) == 0 { random.below(256) as i16 } else { 255 };
        let panel: Vec<i16> = (0..pairs * 2 * WIDE).map(|_| word(&mut random)).collect();
        let rows: Vec<i32> =
            (0..pairs * TALL).map(|_| i32::from(word(&mut random)) | i32::from(word(&mut random)) << 16).collect();
        let of = |way: &dyn Fn(&mut [[i32; WIDE]; TALL])| {
            let mut sums = [[0; WIDE]; TALL];
            way(&mut sums);
            sums
        };
        let plain = of(&|sums| tile_of_words(&rows, &panel, sums));
        assert!(plain.iter().flatten().any(|sum| *sum < 0), "nothing wraps");
        assert_eq!(of(&|sums| tile(&rows, &panel, sums)), plain);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has it.
            assert_eq!(of(&|sums| unsafe { x86::tile_of_256(&rows, &panel, sums) }), plain);
        }
    }
}
