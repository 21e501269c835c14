//! A convolution as the kernels see it: three spatial axes, of which the leading ones may be absent.

use lapidary_runtime::DType;
use lapidary_runtime::op::{MAX_SPATIAL, Window};

use crate::candidate::Shapes;
use crate::entry::Args;
use crate::extent::Expr;
use crate::print;
use crate::problem::Problem;

/// The extents of a convolution, plain or transposed, and its window.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// The types of the input and of the weights.
    pub types: [DType; 2],
    pub batch: Expr,
    pub channels: Expr,
    pub filters: Expr,
    pub groups: u32,
    /// Spatial extents of the input and of the result; absent axes have extent 1.
    pub input: [Expr; MAX_SPATIAL],
    pub output: [Expr; MAX_SPATIAL],
    /// The number of spatial axes.
    pub rank: usize,
    pub window: Axes,
}

/// The window with absent axes in front.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    pub size: [u32; MAX_SPATIAL],
    pub stride: [u32; MAX_SPATIAL],
    pub dilation: [u32; MAX_SPATIAL],
    pub pad_lo: [u32; MAX_SPATIAL],
    pub pad_hi: [u32; MAX_SPATIAL],
}

/// What the entries call the spatial axes.
const AXES: [&str; MAX_SPATIAL] = ["d", "h", "w"];

impl Geometry {
    /// The geometry of operands x and w and of the result.
    ///
    /// # Errors
    /// In words, what kernels cannot index.
    pub fn of(problem: &Problem, window: &Window, groups: u32, shapes: &Shapes<'_>) -> Result<Geometry, String> {
        let (x, w, y) = (problem.input(0)?, problem.input(1)?, problem.output(0)?);
        print::check_type(x.dtype)?;
        print::check_type(w.dtype)?;
        let rank = usize::from(window.rank);
        let (Some(x_spatial), Some(y_spatial)) = (x.dims.get(2..), y.dims.get(2..)) else {
            return Err("the operands have no channels".to_owned());
        };
        if x_spatial.len() != rank || y_spatial.len() != rank || rank > MAX_SPATIAL || w.dims.len() < 2 {
            return Err(format!("the operands do not have the {rank} spatial axes of the window"));
        }
        let geometry = Geometry {
            types: [x.dtype, w.dtype],
            batch: x.dims[0].clone(),
            channels: x.dims[1].clone(),
            filters: y.dims[1].clone(),
            groups,
            input: lead(x_spatial),
            output: lead(y_spatial),
            rank,
            window: Axes {
                size: lead_window(&window.size, rank, 1),
                stride: lead_window(&window.stride, rank, 1),
                dilation: lead_window(&window.dilation, rank, 1),
                pad_lo: lead_window(&window.pad_lo, rank, 0),
                pad_hi: lead_window(&window.pad_hi, rank, 0),
            },
        };
        let pixels = geometry.output_pixels();
        let limits = [
            ("an image of the input", geometry.channels.clone() * geometry.input_pixels()),
            ("the pixels of the results", geometry.batch.clone() * pixels),
            ("the maps of the results", geometry.batch.clone() * geometry.filters.clone()),
            ("the products of a sum", geometry.channels.clone() * Expr::from(geometry.taps())),
        ];
        for (what, count) in limits {
            if shapes.max(&count) > i64::from(i32::MAX) {
                return Err(format!("{what} may be {}, and kernels index them by 32 bits", shapes.max(&count)));
            }
        }
        Ok(geometry)
    }

    /// Elements of the window.
    pub fn taps(&self) -> i64 {
        self.window.size.iter().map(|size| i64::from(*size)).product()
    }

    /// Elements of a channel of the input.
    pub fn input_pixels(&self) -> Expr {
        self.input.iter().cloned().fold(Expr::from(1i64), |count, extent| count * extent)
    }

    /// Elements of a channel of the result.
    pub fn output_pixels(&self) -> Expr {
        self.output.iter().cloned().fold(Expr::from(1i64), |count, extent| count * extent)
    }

    /// Elements of the result.
    pub fn outputs(&self) -> Expr {
        self.batch.clone() * self.filters.clone() * self.output_pixels()
    }

    /// Products that are summed for an output.
    pub fn k(&self) -> Expr {
        self.group_channels() * Expr::from(self.taps())
    }

    /// Channels of a group.
    pub fn group_channels(&self) -> Expr {
        self.channels.floor_div(&Expr::from(i64::from(self.groups)))
    }

    /// Results' channels of a group.
    pub fn group_filters(&self) -> Expr {
        self.filters.floor_div(&Expr::from(i64::from(self.groups)))
    }

    /// Whether each output pixel is a product of weights and the one input pixel at its place.
    pub fn is_pointwise(&self) -> bool {
        let Axes { size, stride, pad_lo, pad_hi, .. } = &self.window;
        [size, stride].iter().all(|values| values.iter().all(|value| *value == 1))
            && [pad_lo, pad_hi].iter().all(|values| values.iter().all(|value| *value == 0))
    }

    /// Declares the extents, and gives those of `Params` that all kernels begin with.
    pub fn declare(&self, args: &mut Args) -> String {
        args.int("batch", &self.batch);
        args.int("channels", &self.channels);
        args.int("filters", &self.filters);
        let mut spatial = |kind: &str, extents: &[Expr; MAX_SPATIAL]| {
            let mut names = vec!["1".to_owned(); MAX_SPATIAL];
            for axis in MAX_SPATIAL - self.rank..MAX_SPATIAL {
                names[axis] = format!("{kind}_{}", AXES[axis]);
                args.int(&names[axis], &extents[axis]);
            }
            names.join(", ")
        };
        let (input, output) = (spatial("in", &self.input), spatial("out", &self.output));
        format!(
            "batch, channels, filters, /*groups*/ {},\n      /*in*/ {{{input}}}, /*out*/ {{{output}}}, /*pad*/ {{{}}}",
            self.groups,
            list(&self.window.pad_lo)
        )
    }

    /// What it is, in a line.
    pub fn title(&self) -> String {
        let Axes { size, stride, dilation, .. } = &self.window;
        let own = MAX_SPATIAL - self.rank..MAX_SPATIAL;
        let by = |values: &[u32; MAX_SPATIAL]| {
            values[own.clone()].iter().map(u32::to_string).collect::<Vec<_>>().join(" x ")
        };
        let unless_one = |what: &str, values: &[u32; MAX_SPATIAL]| {
            if values.iter().all(|value| *value == 1) { String::new() } else { format!(", {what} {}", by(values)) }
        };
        let groups = if self.groups == 1 { String::new() } else { format!(", {} groups", self.groups) };
        format!("{}{}{}{groups}", by(size), unless_one("stride", stride), unless_one("dilation", dilation))
    }
}

/// Numbers with commas between them.
pub fn list(values: &[u32]) -> String {
    values.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn lead(extents: &[Expr]) -> [Expr; MAX_SPATIAL] {
    let absent = MAX_SPATIAL - extents.len();
    std::array::from_fn(|axis| if axis < absent { Expr::from(1i64) } else { extents[axis - absent].clone() })
}

fn lead_window(values: &[u32; MAX_SPATIAL], rank: usize, absent: u32) -> [u32; MAX_SPATIAL] {
    std::array::from_fn(|axis| if axis < MAX_SPATIAL - rank { absent } else { values[axis + rank - MAX_SPATIAL] })
}
