//! `kernels/` of an emitted crate: each kernel's source, the headers it includes, and its machine code.

use lapidary_templates::headers;

use super::layout::comment;
use super::{Code, CrateFiles, EmittedTarget};
use crate::lower::SegmentId;
use crate::select::Pick;

/// Adds the files of a target's kernels. Targets that share a kernel write the same source.
pub fn kernels(target: &EmittedTarget<'_>, files: &mut CrateFiles) {
    let kernels = &target.plan.kernels.kernels;
    let users = users(target);
    for (kernel, users) in kernels.iter().zip(users) {
        let path = format!("kernels/{}.cu", kernel.entry);
        // Another target's steps may use it as well; the names of the first are enough.
        files.entry(path).or_insert_with(|| source(&kernel.text, &users).into_bytes());
        for (name, text) in headers::closure(&kernel.text) {
            files.insert(format!("kernels/include/{name}"), text.as_bytes().to_vec());
        }
    }
    match target.code {
        Code::Cubins { cubins, .. } => {
            if cubins.len() != kernels.len() {
                crate::bug!("{} cubins for {} kernels", cubins.len(), kernels.len());
            }
            for (kernel, cubin) in kernels.iter().zip(cubins) {
                files.insert(format!("kernels/{}.{}.cubin", kernel.entry, target.plan.target), cubin.clone());
            }
        }
        Code::Sources => {}
    }
}

/// Of each kernel the ONNX nodes whose steps launch it.
fn users<'t>(target: &'t EmittedTarget<'_>) -> Vec<Vec<&'t str>> {
    let chosen = &target.plan.plan.chosen;
    let mut users = vec![Vec::new(); target.plan.kernels.kernels.len()];
    for (segment, steps) in chosen.program.segments.iter().enumerate() {
        for (k, step) in steps.iter().enumerate() {
            let launches = match chosen.pick(SegmentId(segment as u32), k) {
                Pick::Kernels(candidate) => candidate.launches.iter().collect(),
                Pick::Runtime => step.deciding(),
            };
            for launch in launches {
                let users = &mut users[target.plan.kernels.index(&launch.source) as usize];
                if users.last() != Some(&step.label()) {
                    users.push(step.label());
                }
            }
        }
    }
    users
}

/// Names listed in a source; more are counted.
const MOST_NAMES: usize = 8;

fn source(text: &str, users: &[&str]) -> String {
    let mut out = String::from("// Runs these nodes of the ONNX model:\n");
    for user in users.iter().take(MOST_NAMES) {
        out.push_str(&format!("//   {}\n", comment(user)));
    }
    if users.len() > MOST_NAMES {
        out.push_str(&format!("//   and {} more\n", users.len() - MOST_NAMES));
    }
    format!("{out}\n{text}")
}
