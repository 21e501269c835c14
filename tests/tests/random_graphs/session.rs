//! A graph compiled for a target and run in this process, as the CLI does it: the runtime's `Model` and `Session` on
//! the tables of a checked plan.

use bumpalo::Bump;
use lapidary::ir::Graph;
use lapidary::ir::eval::Tensor;
use lapidary::kernels::{self, Toolchain};
use lapidary::lower::Target;
use lapidary::plan::tables;
use lapidary_runtime::table::{self, ArchKind, Images};
use lapidary_runtime::{Error, InputRef, Model, Options, Session, Weights};
use lapidary_templates::Arch;

/// What a target gave for each of several inputs.
pub type Outcomes = Vec<Result<Vec<Tensor>, Error>>;

/// Compiles a graph for `target` and runs it on each of `runs`, all in one session.
///
/// # Errors
/// What compiling or loading says.
pub fn run(graph: &Graph, target: Target, runs: &[Vec<Tensor>]) -> Result<Outcomes, String> {
    let compiled = lapidary::plan_for(graph, target).map_err(|errors| format!("does not lower: {errors}"))?;
    let (plan, set) = (&compiled.plan, &compiled.kernels);
    let code: Vec<Vec<u8>> = match target {
        Target::Cpu => Vec::new(),
        Target::Cuda(arch) => {
            let toolchain = Toolchain::find(None).ok_or("no CUDA compiler; set CUDA_HOME")?;
            kernels::compile(set, arch, &toolchain, &|_| {}).map_err(|errors| errors.to_string())?
        }
    };
    let code: Vec<&[u8]> = code.iter().map(Vec::as_slice).collect();
    let (target, images) = match target {
        Target::Cpu => (table::Target::Cpu, Vec::new()),
        Target::Cuda(arch) => {
            let kind = if arch.exact { ArchKind::CubinExact } else { ArchKind::Cubin };
            (table::Target::Cuda, vec![Images { arch: table::Arch { sm: arch.sm, kind }, code: &code }])
        }
    };
    let bump = Bump::new();
    let tables = tables(plan, target, set, &images, &bump);
    let weights = plan.weight_file();
    let model =
        Model::load(&tables, Weights::borrowed(&weights), Options::default()).map_err(|error| error.to_string())?;
    let mut session = model.session().map_err(|error| error.to_string())?;
    Ok(runs.iter().map(|inputs| run_once(&mut session, graph.outputs().len(), inputs)).collect())
}

fn run_once(session: &mut Session<'_>, outputs: usize, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let inputs = inputs
        .iter()
        .map(|x| Ok(InputRef::from_bytes(x.dtype, x.dims.as_slice().try_into()?, &x.bytes)))
        .collect::<Result<Vec<_>, Error>>()?;
    // What the reference evaluates is a first run.
    session.set_run_count(0);
    session.run(&inputs)?;
    let output = |k| {
        let output = session.output(k)?;
        let tensor = Tensor::new(output.dtype(), output.dims().to_vec(), output.bytes().to_vec());
        Ok(tensor.expect("as long as its shape says"))
    };
    (0..outputs).map(output).collect()
}

/// The architecture of the GPU that is here; `None`, said out loud, where there is none.
///
/// # Panics
/// With `LAPIDARY_GPU=require` where there is none.
pub fn gpu() -> Option<Arch> {
    match lapidary_tests::gpu() {
        Ok(device) => Some(lapidary_tests::arch(&device)),
        Err(error) => {
            eprintln!("SKIPPED random graphs on cuda: {error}");
            None
        }
    }
}
