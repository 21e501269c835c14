//! From a step of the tables to a launch: addresses of operands, values of parameters, shape of the grid.
//!
//! Contract: allocates nothing once [`KernelArgs`] has grown to the longest parameter list.

use super::error::DriverError;
use super::ffi::{CuConditionalHandle, CuDevicePtr};
use super::module::{KernelArgs, LaunchShape};
use crate::shapes::Shapes;
use crate::table::{Dim, Launch, NONE, Param, Place, PlanTables, Step};

/// Where the tensors of a plan lie on the device.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    pub tables: &'a PlanTables<'a>,
    pub shapes: &'a Shapes<'a>,
    pub weights: CuDevicePtr,
    pub derived: CuDevicePtr,
    pub arena: CuDevicePtr,
    pub counters: CuDevicePtr,
    /// The arena offset of each buffer, in the profile at hand.
    pub offsets: &'a [u64],
}

impl Memory<'_> {
    /// The address of tensor `index`; 0 for [`NONE`].
    pub fn address(&self, index: u32) -> CuDevicePtr {
        if index == NONE {
            return 0;
        }
        let place = match self.tables.tensors[index as usize].place {
            Place::Weight(offset) => self.weights + offset,
            Place::Derived(offset) => self.derived + offset,
            Place::Arena(buffer) => self.arena + self.offsets[buffer as usize],
        };
        place + self.shapes.start(index)
    }
}

/// Whether nothing of a step's launch depends on the caller's shapes, apart from the profile.
pub fn is_fixed(tables: &PlanTables<'_>, step: &Step<'_>, launch: &Launch<'_>) -> bool {
    let fixed = |dim: &Dim| matches!(dim, Dim::Const(_));
    let mut tensors = step.inputs.iter().chain(step.outputs).filter(|&&tensor| tensor != NONE);
    launch.grid.iter().all(fixed)
        && tensors.all(|&tensor| fixed(&tables.tensors[tensor as usize].at))
        && launch.params.iter().all(|param| match param {
            Param::Input(_, dim) | Param::Output(_, dim) | Param::I32(dim) | Param::I64(dim) => fixed(dim),
            Param::Counters | Param::F32(_) | Param::Handle(_) => true,
        })
}

/// Writes the launch's arguments to `args`, `handles` being those of the step's conditional nodes; returns its shape, or `None` where the grid is empty.
///
/// # Errors
/// [`DriverError::Extent`] for a value that does not fit the kernel's parameter.
pub fn prepare(
    step: &Step<'_>,
    launch: &Launch<'_>,
    shapes: &Shapes<'_>,
    memory: &Memory<'_>,
    handles: &[CuConditionalHandle],
    args: &mut KernelArgs,
) -> Result<Option<LaunchShape>, DriverError> {
    args.clear();
    for param in launch.params {
        match *param {
            Param::Input(k, offset) => args.address(operand(memory, shapes, step.inputs, k, offset)),
            Param::Output(k, offset) => args.address(operand(memory, shapes, step.outputs, k, offset)),
            Param::Counters => args.address(memory.counters),
            Param::I32(dim) => {
                let value = shapes.dim(dim);
                args.i32(i32::try_from(value).map_err(|_| DriverError::Extent { value })?);
            }
            Param::I64(dim) => args.i64(shapes.dim(dim)),
            Param::F32(value) => args.f32(value),
            Param::Handle(k) => args.address(handles[k as usize]),
        }
    }
    let mut grid = [0; 3];
    for (extent, &dim) in grid.iter_mut().zip(&launch.grid) {
        let value = shapes.dim(dim);
        *extent = u32::try_from(value.max(0)).map_err(|_| DriverError::Extent { value })?;
    }
    let shape = LaunchShape { grid, block: launch.block, shared_bytes: launch.shared, cluster: None };
    Ok((!grid.contains(&0)).then_some(shape))
}

/// The address of an operand plus its offset; 0 where the operand is absent.
fn operand(memory: &Memory<'_>, shapes: &Shapes<'_>, tensors: &[u32], k: u32, offset: Dim) -> CuDevicePtr {
    match memory.address(tensors[k as usize]) {
        0 => 0,
        address => address.wrapping_add_signed(shapes.dim(offset)),
    }
}
