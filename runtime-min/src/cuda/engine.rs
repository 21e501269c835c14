//! A model on a device: its kernels, its weights, and the memory that its init steps fill.
//!
//! Contract: read-only once loaded, so any number of sessions share it from any threads. Loading chooses the compiled
//! images for the device, uploads the weights once and runs the init segment once.

use std::sync::Arc;

use super::device::{Device, DeviceFacts};
use super::error::DriverError;
use super::exec::run_segment;
use super::launch::Memory;
use super::memory::DeviceBuffer;
use super::module::{Function, Image, KernelArgs, Module};
use super::stream::Stream;
use crate::error::Error;
use crate::model::{LaunchMode, Options};
use crate::shapes::Shapes;
use crate::table::{Action, Arch, ArchKind, Images, Launch, PlanTables, Step};
use crate::weights::Weights;

/// A loaded model.
pub struct Engine<'a> {
    pub(super) tables: &'a PlanTables<'a>,
    pub(super) device: Arc<Device>,
    /// In the order of [`PlanTables::kernels`]; those that only set conditions are absent where graphs have none.
    functions: Vec<Option<Function>>,
    pub(super) launch: LaunchMode,
    weights: DeviceBuffer,
    derived: DeviceBuffer,
}

impl<'a> Engine<'a> {
    /// Opens the device of `options`, loads the kernels and the weights, and runs the init steps.
    ///
    /// # Errors
    /// [`Error::NoImage`] if no image fits the device, else what the driver says.
    pub fn load(tables: &'a PlanTables<'a>, weights: Weights<'_>, options: Options) -> Result<Engine<'a>, Error> {
        let device = Device::open(options.device).map_err(during("opening the device"))?;
        Engine::load_on(&device, tables, weights, options.launch)
    }

    /// Loads the model on an open device.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_on(
        device: &Arc<Device>,
        tables: &'a PlanTables<'a>,
        weights: Weights<'_>,
        launch: LaunchMode,
    ) -> Result<Engine<'a>, Error> {
        let _current = device.make_current().map_err(during("loading the model"))?;
        let functions = load_kernels(device, tables)?;
        let stream = Stream::new(device).map_err(during("loading the model"))?;
        let bytes = weights.bytes();
        let mut resident = DeviceBuffer::new(device, bytes.len()).map_err(during("allocating the weights"))?;
        resident.upload(&stream, 0, bytes).map_err(during("uploading the weights"))?;
        let derived_bytes = usize::try_from(tables.derived_bytes).unwrap_or(usize::MAX);
        let derived = DeviceBuffer::new(device, derived_bytes).map_err(during("allocating the packed weights"))?;
        let engine = Engine { tables, device: device.clone(), functions, launch, weights: resident, derived };
        engine.run_init(&stream)?;
        Ok(engine)
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The kernel of a launch.
    ///
    /// # Errors
    /// [`DriverError::NotALaunch`] for one that was not loaded, which nothing launches.
    pub(super) fn function(&self, launch: &Launch<'_>) -> Result<&Function, DriverError> {
        self.functions[launch.kernel as usize].as_ref().ok_or(DriverError::NotALaunch)
    }

    /// The counters of a session on `stream`: its own, as launches of several sessions may run at once.
    pub(super) fn counters(&self, stream: &Stream) -> Result<DeviceBuffer, Error> {
        let bytes = usize::try_from(self.tables.counter_bytes).unwrap_or(usize::MAX);
        DeviceBuffer::zeroed(stream, bytes).map_err(during("allocating the counters"))
    }

    /// Where the tensors lie, for an arena at `arena` laid out as the profile at hand says.
    pub(super) fn memory<'s>(
        &self,
        arena: &DeviceBuffer,
        counters: &DeviceBuffer,
        shapes: &'s Shapes<'a>,
    ) -> Memory<'s> {
        Memory {
            tables: self.tables,
            shapes,
            weights: self.weights.address(),
            derived: self.derived.address(),
            arena: arena.address(),
            counters: counters.address(),
            offsets: shapes.profile().offsets,
        }
    }

    /// Fills the derived weights; init steps write nothing else.
    fn run_init(&self, stream: &Stream) -> Result<(), Error> {
        if self.tables.segments[PlanTables::INIT].steps.is_empty() {
            return Ok(());
        }
        let arena = DeviceBuffer::new(&self.device, 0).map_err(during("packing the weights"))?;
        let counters = self.counters(stream)?;
        let shapes = Shapes::new(self.tables);
        let memory = self.memory(&arena, &counters, &shapes);
        let mut args = KernelArgs::default();
        let enqueued = run_segment(self, PlanTables::INIT, &shapes, &memory, stream, &mut args, &mut |_, _| Ok(()));
        let done = stream.synchronize().map_err(during("packing the weights"));
        enqueued.and(done)
    }
}

/// Loads the images that fit the device best, and looks up each kernel.
fn load_kernels(device: &Arc<Device>, tables: &PlanTables<'_>) -> Result<Vec<Option<Function>>, Error> {
    if let Some(step) = steps(tables).find(|step| matches!(step.action, Action::Cpu(_))) {
        return Err(during(step.label)(DriverError::NotALaunch));
    }
    if tables.kernels.is_empty() {
        return Ok(Vec::new());
    }
    let facts = device.facts();
    let Some((images, _)) = fit(tables, facts) else { return Err(no_image(&[tables], facts)) };
    // Of each kernel that is launched the most shared memory.
    let mut shared: Vec<Option<u32>> = vec![None; tables.kernels.len()];
    let deciding = steps(tables).filter(|_| device.has_conditional_nodes()).flat_map(deciding);
    for launch in launches(tables).chain(deciding) {
        let most = &mut shared[launch.kernel as usize];
        *most = Some(launch.shared).max(*most);
    }
    let mut functions = Vec::with_capacity(tables.kernels.len());
    for ((kernel, code), shared) in tables.kernels.iter().zip(images.code).zip(shared) {
        let Some(shared) = shared else {
            functions.push(None);
            continue;
        };
        let image = match images.arch.kind {
            ArchKind::Cubin | ArchKind::CubinExact => Image::Cubin(code),
            ArchKind::Ptx => Image::Ptx(code),
        };
        // SAFETY: the tables hold what the compiler wrote.
        let module = unsafe { Module::load(device, image) };
        let function = module.and_then(|module| {
            let function = module.function(kernel.entry)?;
            if shared > 0 {
                function.allow_shared_bytes(shared)?;
            }
            Ok(function)
        });
        let failed = |source| {
            let during = format!("loading kernel `{}` for {}", kernel.entry, images.arch);
            Error::Cuda { during, source }
        };
        functions.push(Some(function.map_err(failed)?));
    }
    Ok(functions)
}

/// The plan among `plans` whose images run best on device `ordinal`.
///
/// # Errors
/// [`Error::NoImage`] if no plan has images for it, else what the driver says.
pub fn best_plan<'a>(plans: &[&'a PlanTables<'a>], ordinal: u32) -> Result<&'a PlanTables<'a>, Error> {
    let device = Device::open(ordinal).map_err(during("opening the device"))?;
    let facts = device.facts();
    let ranked = plans.iter().filter_map(|&plan| Some((fit(plan, facts)?.1, plan)));
    let best = ranked.max_by_key(|(rank, _)| *rank);
    best.map(|(_, plan)| plan).ok_or_else(|| no_image(plans, facts))
}

fn no_image(plans: &[&PlanTables<'_>], facts: &DeviceFacts) -> Error {
    let (major, minor) = facts.compute_capability;
    let available = plans.iter().flat_map(|plan| plan.images).map(|images| images.arch).collect();
    Error::NoImage { device: facts.name.clone(), sm: major * 10 + minor, available }
}

/// The images of a plan that run best on a device, and how well they fit. None do if a kernel needs more shared memory
/// than the device has: machine code for `sm_80` runs on each 8.x, but those have less of it than 8.0.
fn fit<'t, 'a>(tables: &'t PlanTables<'a>, facts: &DeviceFacts) -> Option<(&'t Images<'a>, Rank)> {
    let (major, minor) = facts.compute_capability;
    let shared = launches(tables).map(|launch| launch.shared).max().unwrap_or(0);
    if shared > facts.shared_bytes_per_block {
        return None;
    }
    choose(tables.images, major * 10 + minor)
}

fn steps<'t, 'a>(tables: &'t PlanTables<'a>) -> impl Iterator<Item = &'t Step<'a>> {
    tables.segments.iter().flat_map(|segment| segment.steps)
}

fn launches<'t, 'a>(tables: &'t PlanTables<'a>) -> impl Iterator<Item = &'t Launch<'a>> {
    steps(tables).filter_map(|step| match &step.action {
        Action::Launch(launch) => Some(launch),
        Action::If { .. } | Action::Loop { .. } | Action::Count { .. } | Action::Cpu(_) => None,
    })
}

/// The launches by which a graph decides a step.
fn deciding<'t, 'a>(step: &'t Step<'a>) -> impl Iterator<Item = &'t Launch<'a>> {
    let (first, second): (&[Launch<'a>], &[Launch<'a>]) = match step.action {
        Action::If { decide, .. } => (decide, &[]),
        Action::Loop { begin, next, .. } => (begin, next),
        Action::Launch(_) | Action::Count { .. } | Action::Cpu(_) => (&[], &[]),
    };
    first.iter().chain(second)
}

/// The images that run best on compute capability `sm`.
fn choose<'t, 'a>(images: &'t [Images<'a>], sm: u32) -> Option<(&'t Images<'a>, Rank)> {
    images.iter().filter_map(|images| Some((images, rank(images.arch, sm)?))).max_by_key(|(_, rank)| *rank)
}

/// How well code fits a device; more is better.
type Rank = (u32, u32);

/// How well code for `arch` fits compute capability `sm`: its own machine code with its own features, then machine code
/// of the same major version, then PTX; within a kind, the newest that still runs. `None` if it does not run.
fn rank(arch: Arch, sm: u32) -> Option<Rank> {
    match arch.kind {
        ArchKind::CubinExact => (arch.sm == sm).then_some((2, arch.sm)),
        ArchKind::Cubin => (arch.sm / 10 == sm / 10 && arch.sm <= sm).then_some((1, arch.sm)),
        ArchKind::Ptx => (arch.sm <= sm).then_some((0, arch.sm)),
    }
}

/// Names what was under way when the driver reported an error.
pub(super) fn during(what: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |source| Error::Cuda { during: what.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::table::{Arch, ArchKind, Images};

    fn pick(archs: &[(u32, ArchKind)], sm: u32) -> Option<Arch> {
        let images: Vec<_> = archs.iter().map(|&(sm, kind)| Images { arch: Arch { sm, kind }, code: &[] }).collect();
        choose(&images, sm).map(|(images, _)| images.arch)
    }

    #[test]
    fn the_closest_image_wins() {
        use ArchKind::{Cubin, CubinExact, Ptx};
        let all = [(75, Ptx), (80, Cubin), (80, Ptx), (86, Cubin), (90, Cubin), (90, CubinExact)];
        let expect = [
            (90, Some((90, CubinExact))),
            (89, Some((86, Cubin))),
            (86, Some((86, Cubin))),
            (80, Some((80, Cubin))),
            (100, Some((80, Ptx))),
            (75, Some((75, Ptx))),
            (70, None),
        ];
        for (sm, image) in expect {
            assert_eq!(pick(&all, sm), image.map(|(sm, kind)| Arch { sm, kind }), "sm_{sm}");
        }
        assert_eq!(pick(&[(90, CubinExact)], 100), None);
        assert_eq!(pick(&[(90, Cubin)], 89), None);
    }
}
