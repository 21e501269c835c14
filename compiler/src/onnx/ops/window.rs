//! The window attributes that convolutions and poolings share (ONNX `kernel_shape`, `strides`, `dilations`, `pads`,
//! `auto_pad`), and what `auto_pad` comes to on an axis whose extent is a formula.
//!
//! `SAME` padding is `max(0, (ceil(d / s) - 1) s + k - d)` in all, which is between `k - s` and `k - 1`. The part before
//! the axis decides which elements a window reads; the part behind it only has to reach the last window. So an axis
//! of unknown extent needs a computed padding only where the part before it is not the same for every extent.

use lapidary_runtime::op::{MAX_SPATIAL, Window};

use super::{Cx, Fault};
use crate::ir::{Builder, Expr, ValueId};

/// A window as a node's attributes describe it.
pub(super) struct Frame {
    size: Vec<u32>,
    stride: Vec<u32>,
    dilation: Vec<u32>,
    padding: Padding,
}

/// How a node pads.
pub(super) enum Padding {
    /// By the amounts in `pads`, before and behind each axis.
    Explicit { lo: Vec<u32>, hi: Vec<u32> },
    /// So that there is a window for every stride, with what is odd on one side.
    Same(OddSide),
}

/// The side that gets one element more.
#[derive(Clone, Copy)]
pub(super) enum OddSide {
    /// `SAME_LOWER`
    Before,
    /// `SAME_UPPER`
    Behind,
}

#[derive(Clone, Copy)]
enum AutoPad {
    NotSet,
    Valid,
    Same(OddSide),
}

const AUTO_PAD: &[(&str, AutoPad)] = &[
    ("NOTSET", AutoPad::NotSet),
    ("", AutoPad::NotSet),
    ("VALID", AutoPad::Valid),
    ("SAME_UPPER", AutoPad::Same(OddSide::Behind)),
    ("SAME_LOWER", AutoPad::Same(OddSide::Before)),
];

impl Frame {
    /// Reads the attributes of a pooling node on `x`.
    ///
    /// # Errors
    /// `x` has no or too many spatial axes, or an attribute does not fit it.
    pub(super) fn of_pool(cx: &Cx<'_, '_>, x: ValueId) -> Result<Frame, Fault> {
        let rank = spatial_rank(cx, x)?;
        let size = numbers(cx, "kernel_shape", rank, 1)?;
        let Some(size) = size else {
            cx.attrs.ints("kernel_shape")?;
            return Err("kernel_shape is missing".into());
        };
        Frame::with_size(cx, size)
    }

    /// Reads the attributes of a convolution whose weights `w` end with the window's axes.
    ///
    /// # Errors
    /// The operands have no or too many spatial axes, the weights' extents are not known, or an attribute does not fit.
    pub(super) fn of_weights(cx: &Cx<'_, '_>, x: ValueId, w: ValueId) -> Result<Frame, Fault> {
        let rank = spatial_rank(cx, x)?;
        let dims = cx.b.dims(w);
        if dims.len() != rank + 2 {
            return Err(format!("the weights have rank {}, and the operand {}", dims.len(), rank + 2).into());
        }
        let extent = |dim: &Expr| dim.as_const().and_then(|extent| u32::try_from(extent).ok());
        let Some(size) = dims[2..].iter().map(extent).collect::<Option<Vec<u32>>>() else {
            return Err(Fault::unsupported(
                format!("the window {:?} of the weights is not known while compiling", &dims[2..]),
                "give the weights constant spatial extents, or pin the dimensions with a profile",
            ));
        };
        match numbers(cx, "kernel_shape", rank, 1)? {
            Some(stated) if stated != size => {
                Err(format!("kernel_shape is {stated:?}, and the weights have {size:?}").into())
            }
            Some(_) | None => Frame::with_size(cx, size),
        }
    }

    fn with_size(cx: &Cx<'_, '_>, size: Vec<u32>) -> Result<Frame, Fault> {
        let rank = size.len();
        if size.contains(&0) {
            return Err(format!("the window {size:?} has an extent of 0").into());
        }
        let stride = numbers(cx, "strides", rank, 1)?.unwrap_or_else(|| vec![1; rank]);
        let dilation = numbers(cx, "dilations", rank, 1)?.unwrap_or_else(|| vec![1; rank]);
        let pads = numbers(cx, "pads", 2 * rank, 0)?;
        // Where both are given, `auto_pad` counts: exporters leave zero pads beside it.
        let padding = match cx.attrs.choice_or("auto_pad", AutoPad::NotSet, AUTO_PAD)? {
            AutoPad::NotSet => {
                let mut lo = pads.unwrap_or_else(|| vec![0; 2 * rank]);
                let hi = lo.split_off(rank);
                Padding::Explicit { lo, hi }
            }
            AutoPad::Valid => Padding::Explicit { lo: vec![0; rank], hi: vec![0; rank] },
            AutoPad::Same(odd) => Padding::Same(odd),
        };
        Ok(Frame { size, stride, dilation, padding })
    }

    /// The number of spatial axes.
    pub(super) fn rank(&self) -> usize {
        self.size.len()
    }

    /// How the node pads.
    pub(super) fn padding(&self) -> &Padding {
        &self.padding
    }

    /// The stride of a spatial axis.
    pub(super) fn stride(&self, axis: usize) -> i64 {
        i64::from(self.stride[axis])
    }

    /// The distance of a window's elements along a spatial axis.
    pub(super) fn dilation(&self, axis: usize) -> i64 {
        i64::from(self.dilation[axis])
    }

    /// How many elements the window spans along a spatial axis.
    pub(super) fn reach(&self, axis: usize) -> i64 {
        i64::from(self.size[axis] - 1) * i64::from(self.dilation[axis]) + 1
    }

    /// The padding before and behind a spatial axis of extent `dim`.
    pub(super) fn pads(&self, b: &Builder<'_>, axis: usize, dim: &Expr) -> (Expr, Expr) {
        match &self.padding {
            Padding::Explicit { lo, hi } => (i64::from(lo[axis]).into(), i64::from(hi[axis]).into()),
            Padding::Same(odd) => same_pads(b, *odd, self.reach(axis), self.stride(axis), dim),
        }
    }

    /// The window with the given padding; `None` if one of its amounts is a formula.
    ///
    /// # Errors
    /// An amount is larger than any tensor.
    pub(super) fn window(&self, pads: &[(Expr, Expr)]) -> Result<Option<Window>, Fault> {
        let mut window = self.without_pads();
        for (axis, (lo, hi)) in pads.iter().enumerate() {
            let (Some(lo), Some(hi)) = (lo.as_const(), hi.as_const()) else { return Ok(None) };
            window.pad_lo[axis] = amount(lo)?;
            window.pad_hi[axis] = amount(hi)?;
        }
        Ok(Some(window))
    }

    /// The window over an operand that is padded already.
    pub(super) fn without_pads(&self) -> Window {
        let field = |values: &[u32]| std::array::from_fn(|axis| values.get(axis).copied().unwrap_or(1));
        Window {
            rank: self.rank() as u8,
            size: field(&self.size),
            stride: field(&self.stride),
            dilation: field(&self.dilation),
            pad_lo: [0; MAX_SPATIAL],
            pad_hi: [0; MAX_SPATIAL],
        }
    }
}

/// See the top of this file.
fn same_pads(b: &Builder<'_>, odd: OddSide, reach: i64, stride: i64, dim: &Expr) -> (Expr, Expr) {
    let before = |total: i64| match odd {
        OddSide::Before => total - total / 2,
        OddSide::Behind => total / 2,
    };
    let windows = dim.ceil_div(&Expr::constant(stride));
    let total = (windows - Expr::constant(1)) * Expr::constant(stride) + Expr::constant(reach) - dim.clone();
    let (low, high) = b.range(&total);
    let most = high.min(reach - 1).max(0);
    let least = low.max(reach - stride).max(0).min(most);
    if before(least) == before(most) {
        return (before(most).into(), (most - before(most)).into());
    }
    let zero = Expr::constant(0);
    let total = if reach >= stride { total } else { total.larger(&zero) };
    let half = total.floor_div(&Expr::constant(2));
    let rest = total - half.clone();
    match odd {
        OddSide::Before => (rest, half),
        OddSide::Behind => (half, rest),
    }
}

/// The paddings of all axes of a tensor whose axes behind the first two have `pads`.
pub(super) fn behind_channels(pads: Vec<(Expr, Expr)>) -> (Vec<Expr>, Vec<Expr>) {
    let none = (Expr::constant(0), Expr::constant(0));
    [none.clone(), none].into_iter().chain(pads).unzip()
}

/// The number of axes behind the batch and the channels.
fn spatial_rank(cx: &Cx<'_, '_>, x: ValueId) -> Result<usize, Fault> {
    let rank = cx.b.rank(x);
    match rank.checked_sub(2) {
        Some(spatial @ 1..=MAX_SPATIAL) => Ok(spatial),
        Some(spatial) if spatial > MAX_SPATIAL => Err(Fault::unsupported(
            format!("a window over {spatial} spatial axes is not supported"),
            format!("windows have at most {MAX_SPATIAL}: merge spatial axes that the window does not span"),
        )),
        Some(_) | None => Err(Fault::Invalid(format!("the operand has rank {rank}, and at least 3 is needed"))),
    }
}

/// An attribute of `count` numbers, each at least `least`.
fn numbers(cx: &Cx<'_, '_>, name: &str, count: usize, least: u32) -> Result<Option<Vec<u32>>, Fault> {
    // An empty list is what some exporters write for an attribute that is absent.
    let Some(values) = cx.attrs.ints_opt(name)?.filter(|values| !values.is_empty()) else { return Ok(None) };
    if values.len() != count {
        return Err(Fault::Invalid(format!("{name} has {} numbers, and {count} are needed", values.len())));
    }
    let number = |&value: &i64| match u32::try_from(value) {
        Ok(number) if number >= least && value <= i64::from(i32::MAX) => Ok(number),
        Ok(_) | Err(_) => Err(Fault::Invalid(format!("{name} has {value}, and at least {least} is needed"))),
    };
    values.iter().map(number).collect::<Result<_, _>>().map(Some)
}

/// A padding as a number of elements.
///
/// # Errors
/// It is larger than any tensor.
pub(super) fn amount(value: i64) -> Result<u32, Fault> {
    u32::try_from(value).map_err(|_| Fault::Invalid(format!("a padding of {value} elements is impossible")))
}
