//! Importers on small models, judged by the reference evaluator or by the formulas of the result's extents.
//!
//! What ONNX's own backend cases cover is not repeated here: these tests are about symbolic extents, faults, operators
//! without such cases, and paths that the cases do not reach.

mod bodies;
mod convert;
mod counted;
mod dynamic_lstm;
mod fixture;
mod layers;
mod movement;
mod numeric;
mod quantized;
mod random;
mod refused;
mod regions;
mod sequences;
mod windows;
