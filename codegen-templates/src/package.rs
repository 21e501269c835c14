//! The text files of an emitted crate, as tera templates in `crate/`; what goes into them is the compiler's business.

use serde::Serialize;

/// A text file of an emitted crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Text {
    /// `Cargo.toml`.
    Manifest,
    /// `README.md`, the model card.
    Readme,
    /// `src/plan.rs`, which names the plans.
    Plan,
    /// `build.rs`, in crates whose kernels were not compiled.
    Build,
    /// `examples/run.rs`.
    Example,
    /// `tests/smoke.rs`.
    Smoke,
    /// `Cargo.toml` of the vendored runtime.
    VendorManifest,
}

impl Text {
    /// Every text.
    pub const ALL: [Text; 7] =
        [Text::Manifest, Text::Readme, Text::Plan, Text::Build, Text::Example, Text::Smoke, Text::VendorManifest];

    /// The template.
    pub fn template(self) -> &'static str {
        match self {
            Text::Manifest => include_str!("../crate/Cargo.toml.tera"),
            Text::Readme => include_str!("../crate/README.md.tera"),
            Text::Plan => include_str!("../crate/plan.rs.tera"),
            Text::Build => include_str!("../crate/build.rs.tera"),
            Text::Example => include_str!("../crate/run.rs.tera"),
            Text::Smoke => include_str!("../crate/smoke.rs.tera"),
            Text::VendorManifest => include_str!("../crate/vendor.toml.tera"),
        }
    }

    /// The file's text for these values, and one line break at its end.
    ///
    /// # Errors
    /// What tera says of a template that does not parse, or asks for a value that is not there: a bug.
    pub fn render(self, values: &impl Serialize) -> Result<String, String> {
        let context = tera::Context::from_serialize(values).map_err(|error| error.to_string())?;
        let text = tera::Tera::one_off(self.template(), &context, false).map_err(|error| error.to_string())?;
        Ok(format!("{}\n", text.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for text in Text::ALL {
            let parsed = tera::Tera::default().add_raw_template("text", text.template());
            assert!(parsed.is_ok(), "{text:?}: {parsed:?}");
        }
    }

    #[test]
    fn a_missing_value_is_an_error() {
        assert!(Text::Manifest.render(&std::collections::BTreeMap::<String, String>::new()).is_err());
    }
}
