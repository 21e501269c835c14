//! Every candidate of every family on a set of problems: there is one, its key is its own, and its kernels compile for
//! each architecture without spilling registers.
//!
//! Compiling needs NVRTC or nvcc and no GPU. Without one the test says that it was skipped.

#[path = "kernels_compile/cubin.rs"]
mod cubin;

use std::collections::{BTreeMap, BTreeSet};

use lapidary::kernels::{KernelSet, Toolchain, compile};
use lapidary_templates::families::control::{self, At};
use lapidary_templates::{Answer, Arch, Expr, Problem, Shapes, Source, families};
use lapidary_tests::problems;

fn answer(problem: &Problem, arch: Arch) -> Answer {
    let bounds = |expr: &Expr| expr.range(&|name| (problems::range(name).0, problems::range(name).2));
    let typical = |expr: &Expr| expr.eval(&|name| problems::range(name).1);
    families::answer(problem, arch, &Shapes { range: &bounds, typical: &typical })
}

fn arch(name: &str) -> Arch {
    name.parse().expect("a known architecture")
}

#[test]
fn every_problem_has_candidates_with_keys_of_their_own() {
    for arch in ["sm_80", "sm_86", "sm_90a"].map(arch) {
        for (name, problem) in problems::all() {
            let answer = answer(&problem, arch);
            assert!(!answer.candidates.is_empty(), "{name} on {arch}: {:?}", answer.refusals);
            let keys: BTreeSet<&str> = answer.candidates.iter().map(|candidate| candidate.key.as_str()).collect();
            assert_eq!(keys.len(), answer.candidates.len(), "{name}: {keys:?}");
            for candidate in &answer.candidates {
                assert!(candidate.cost.is_finite() && candidate.cost > 0.0, "{name}: {}", candidate.key);
            }
            for refusal in &answer.refusals {
                assert!(!keys.contains(refusal.key.as_str()), "{name}: {} is offered and refused", refusal.key);
            }
        }
    }
}

/// With `LAPIDARY_TRACE` a kernel takes one more parameter and writes when it ran: each family must compile so, too.
#[test]
fn every_family_compiles_with_time_stamps() {
    let Some(toolchain) = Toolchain::find(None) else {
        eprintln!("SKIPPED: no CUDA compiler, so that no kernel was compiled; set CUDA_HOME");
        return;
    };
    let arch = arch("sm_90a");
    let mut families: BTreeMap<String, Source> = BTreeMap::new();
    for (_, problem) in problems::all() {
        for candidate in answer(&problem, arch).candidates {
            let family = candidate.key.split('/').next().unwrap_or_default().to_owned();
            let Some(launch) = candidate.launches.into_iter().next() else { continue };
            families.entry(family).or_insert(launch.source);
        }
    }
    let traced: Vec<Source> = families
        .into_values()
        .map(|source| Source { text: format!("#define LAPIDARY_TRACE\n{}", source.text), ..source })
        .collect();
    let set = KernelSet::named(traced.iter().collect());
    let plain: usize = compile(&set, arch, &toolchain, &|_| {}).expect("the compiler works").len();
    assert!(plain > 20 && traced.iter().all(|source| source.text.contains("LAPIDARY_TRACE_PARAM")), "{plain}");
}

/// The kernels by which CUDA graphs decide branches and loops.
fn deciding() -> Vec<Source> {
    let mut sources = vec![control::branch().source, control::collect(2, 0, 1, &Expr::symbol("n")).source];
    for (condition, limit) in [(false, false), (true, false), (false, true), (true, true)] {
        let rounds = control::Rounds { condition, limit, most: Expr::symbol("n"), round: 1 };
        sources.extend([At::Start, At::End].map(|at| control::rounds(&rounds, at).source));
    }
    sources
}

/// The candidates that are compiled on every run: the quickest by prediction. `LAPIDARY_KERNELS=all` compiles all.
const QUICKEST: usize = 2;

#[test]
fn every_candidate_compiles_without_spills() {
    let Some(toolchain) = Toolchain::find(None) else {
        eprintln!("SKIPPED: no CUDA compiler, so that no kernel was compiled; set CUDA_HOME");
        return;
    };
    let all = std::env::var("LAPIDARY_KERNELS").is_ok_and(|value| value == "all");
    let only = std::env::var("LAPIDARY_PROBLEM").ok();
    for arch in ["sm_80", "sm_90a"].map(arch) {
        let mut sources: BTreeSet<Source> = BTreeSet::new();
        for (name, problem) in problems::all() {
            if only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let mut candidates = answer(&problem, arch).candidates;
            candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
            let count = if all { candidates.len() } else { QUICKEST };
            let launches = candidates.into_iter().take(count).flat_map(|candidate| candidate.launches);
            sources.extend(launches.map(|launch| launch.source));
        }
        if only.is_none() {
            sources.extend(deciding());
        }
        let set = KernelSet::named(sources.iter().collect());
        let cubins = compile(&set, arch, &toolchain, &|_| {}).expect("the compiler works");
        let mut spilling = Vec::new();
        for (kernel, cubin) in set.kernels.iter().zip(&cubins) {
            let frame = cubin::frame_bytes(cubin).expect("a cubin of one kernel");
            if frame > 0 {
                spilling.push(format!("--- {} uses {frame} bytes of stack ---\n{}", kernel.entry, kernel.text));
            }
        }
        assert!(spilling.is_empty(), "{arch}: {} kernels spill\n{}", spilling.len(), spilling.join("\n"));
        eprintln!("{} kernels compiled for {arch} by {toolchain}", set.kernels.len());
    }
}
