//! What can go wrong when a compiled model is loaded or run.

use crate::dtype::DType;
use crate::op::MAX_RANK;
use crate::table::{Arch, Range};

/// An error of this crate.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The number of inputs is wrong.
    InputCount { expected: usize, given: usize },
    /// The number of output buffers is wrong.
    OutputCount { expected: usize, given: usize },
    /// An input has another element type.
    InputType { input: String, expected: DType, given: DType },
    /// An input has another rank, or another extent where the model fixes it. `expected` spells symbols by name.
    InputShape { input: String, expected: String, given: Vec<usize> },
    /// A tensor has more axes than [`crate::op::MAX_RANK`].
    Rank { given: usize },
    /// A slice is not as long as its shape says.
    Length { tensor: String, expected: usize, given: usize },
    /// Bytes or a buffer that are not as long as the tensor.
    Bytes { tensor: String, expected: usize, given: usize },
    /// A dimension is outside of every optimization profile.
    OutsideProfiles { symbol: String, given: i64, ranges: Vec<Range> },
    /// A run has found more elements than there can be; a defect of the compiled model.
    Count { symbol: String, given: i64, bound: i64 },
    /// Two extents that the model needs equal (or broadcastable) are not.
    Constraint { why: String, left: i64, right: i64 },
    /// The weights have another length than those that this model was compiled with.
    Weights { expected_bytes: u64, given_bytes: u64 },
    /// A file could not be read.
    Io { path: String, source: std::io::Error },
    /// The crate holds no code for this device.
    NoImage { device: String, sm: u32, available: Vec<Arch> },
    /// The crate was compiled for a target that this build of the runtime leaves out.
    TargetNotBuilt { target: &'static str, feature: &'static str },
    /// The plan holds a step that this target has no function for; compile the model again with this version.
    Unsupported { step: String, why: String },
    /// An index operand (of a gather, scatter, slice) is out of range. The `cpu` target tells; kernels of a GPU clamp the
    /// index, or leave the element out, and tell nothing.
    Index { step: String, index: i64, extent: i64 },
    /// The CUDA driver reported an error; `during` names the step or the call.
    Cuda { during: String, source: crate::cuda::DriverError },
    /// The host has not as much memory.
    OutOfMemory { bytes: u64 },
    /// The model has no output of this number.
    NoOutput { index: usize, count: usize },
    /// An output was asked for before a run has finished.
    NotRun,
    /// An earlier GPU error has left this session unusable; make a new one.
    Poisoned { cause: String },
    /// The call is one of targets with a device of their own.
    NotOnTarget { call: &'static str, target: &'static str },
    /// The model was compiled as a stub, for checking the code around it.
    Stub { model: String },
    /// A value read back has another type than the caller asked for.
    OutputType { output: String, expected: DType, given: DType },
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::InputCount { expected, given } => {
                write!(f, "the model takes {expected} inputs, {given} were given")
            }
            Error::OutputCount { expected, given } => {
                write!(f, "the model has {expected} outputs, buffers for {given} were given")
            }
            Error::InputType { input, expected, given } => {
                write!(f, "input `{input}` takes {expected}, {given} was given")
            }
            Error::InputShape { input, expected, given } => {
                write!(f, "input `{input}` takes the shape {expected}, {given:?} was given")
            }
            Error::Length { tensor, expected, given } => {
                write!(f, "the shape of `{tensor}` has {expected} elements, the slice {given}")
            }
            Error::Bytes { tensor, expected, given } => {
                write!(f, "`{tensor}` has {expected} bytes, {given} were given")
            }
            Error::Rank { given } => write!(f, "tensors have at most {MAX_RANK} axes, {given} were given"),
            Error::OutsideProfiles { symbol, given, ranges } => {
                write!(f, "dimension `{symbol}` = {given} is outside of the optimization profiles")?;
                for (k, range) in ranges.iter().enumerate() {
                    write!(f, "{} {}..={}", if k == 0 { ":" } else { "," }, range.min, range.max)?;
                }
                Ok(())
            }
            Error::Count { symbol, given, bound } => {
                write!(f, "the run has counted {given} of `{symbol}`, of which there are at most {bound}")
            }
            Error::Constraint { why, left, right } => {
                write!(f, "{why} needs two extents that fit together; they are {left} and {right}")
            }
            Error::Weights { expected_bytes, given_bytes } => {
                write!(f, "the model's weights have {expected_bytes} bytes, {given_bytes} were given")
            }
            Error::Io { path, source } => write!(f, "cannot read `{path}`: {source}"),
            Error::NoImage { device, sm, available } => {
                write!(f, "no kernels for {device} (sm_{sm}) in this crate; it holds")?;
                for (k, arch) in available.iter().enumerate() {
                    write!(f, "{} {arch}", if k == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Error::TargetNotBuilt { target, feature } => {
                write!(f, "the model was compiled for `{target}`; build lapidary-runtime with feature `{feature}`")
            }
            Error::Unsupported { step, why } => write!(f, "{step}: {why}; compile the model again with this version"),
            Error::Index { step, index, extent } => {
                write!(f, "{step}: index {index} is out of range for an axis of {extent}")
            }
            Error::Cuda { during, source } => write!(f, "{during}: {source}"),
            Error::OutOfMemory { bytes } => write!(f, "there is no memory for {bytes} bytes of activations"),
            Error::NoOutput { index, count } => {
                write!(f, "the model has {count} outputs, output {index} was asked for")
            }
            Error::NotRun => write!(f, "there are no outputs: the last run did not finish, or there was none"),
            Error::Poisoned { cause } => {
                write!(f, "an earlier error has left this session unusable, make a new one: {cause}")
            }
            Error::NotOnTarget { call, target } => {
                write!(
                    f,
                    "`{call}` takes memory of a GPU; the model was compiled for `{target}`, where `run` does it all"
                )
            }
            Error::Stub { model } => {
                write!(f, "`{model}` is a stub: LAPIDARY_STUB was set when the model was compiled; build without it")
            }
            Error::OutputType { output, expected, given } => {
                write!(f, "output `{output}` is {expected}, {given} was asked for")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Cuda { source, .. } => Some(source),
            Error::InputCount { .. }
            | Error::OutputCount { .. }
            | Error::InputType { .. }
            | Error::InputShape { .. }
            | Error::Length { .. }
            | Error::Bytes { .. }
            | Error::Rank { .. }
            | Error::OutOfMemory { .. }
            | Error::NoOutput { .. }
            | Error::NotRun
            | Error::OutsideProfiles { .. }
            | Error::Count { .. }
            | Error::Constraint { .. }
            | Error::Weights { .. }
            | Error::NoImage { .. }
            | Error::TargetNotBuilt { .. }
            | Error::Unsupported { .. }
            | Error::Index { .. }
            | Error::Poisoned { .. }
            | Error::NotOnTarget { .. }
            | Error::Stub { .. }
            | Error::OutputType { .. } => None,
        }
    }
}

impl core::fmt::Display for Arch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.kind {
            crate::table::ArchKind::Cubin => write!(f, "sm_{}", self.sm),
            crate::table::ArchKind::CubinExact => write!(f, "sm_{}a", self.sm),
            crate::table::ArchKind::Ptx => write!(f, "compute_{} (PTX)", self.sm),
        }
    }
}
