//! Canonical forms: one spelling for what exporters spell in many ways.

pub mod fold;
pub mod identity;
pub mod reshape;
pub mod scalar;
pub mod select;
pub mod transpose;
