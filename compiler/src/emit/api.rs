//! `src/lib.rs` of an emitted crate: the model's own types, printed from tokens.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

use super::interface::{Extent, Interface, Port, SymbolType};
use super::names::code;
use super::{Form, layout};
use crate::lower::Target;

/// What `lib.rs` states besides the interface.
pub struct Facts<'a> {
    pub targets: Vec<Target>,
    pub form: Form,
    /// The file that the model was compiled from.
    pub file: &'a str,
    /// The largest arena of all targets and profiles.
    pub arena_bytes: u64,
    pub weight_bytes: u64,
    /// The code that a reader starts with, in lines.
    pub example: String,
}

/// The text of `src/lib.rs`.
pub fn lib(interface: &Interface, facts: &Facts<'_>) -> String {
    let items = [
        vec![head(interface, facts)],
        constants(facts),
        vec![model(interface)],
        builder(interface, facts),
        vec![session(interface), inputs(interface), outputs(interface)],
        interface.symbols.iter().map(symbol).collect(),
    ];
    layout::pretty(items.concat())
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}

/// The lines of a doc comment; prose is broken at the width of the code.
fn doc_lines(text: &str) -> Vec<Literal> {
    const WIDTH: usize = 90;
    let mut lines = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        let mut rest = line;
        while !in_code && rest.len() > WIDTH {
            let Some(end) = rest.char_indices().take(WIDTH).filter(|(_, c)| *c == ' ').last().map(|(at, _)| at) else {
                break;
            };
            lines.push(&rest[..end]);
            rest = &rest[end + 1..];
        }
        lines.push(rest);
    }
    let literal = |line: &str| if line.is_empty() { Literal::string("") } else { Literal::string(&format!(" {line}")) };
    lines.into_iter().map(literal).collect()
}

/// Doc attributes, one a line.
fn docs(text: &str) -> TokenStream {
    let lines = doc_lines(text);
    quote!(#(#[doc = #lines])*)
}

fn head(interface: &Interface, facts: &Facts<'_>) -> TokenStream {
    let targets: Vec<String> = facts.targets.iter().map(|target| format!("`{target}`")).collect();
    // A module's example would run as a test of the crate around it, which it does not know.
    let (fence, end) = match facts.form {
        Form::Crate => ("no_run", "\n# Ok::<(), Error>(())"),
        Form::Module | Form::Stub => ("text", ""),
    };
    let text = format!(
        "The model {} for {}, compiled by Lapidary.\n\n\
         [`{model}`] holds the weights and is shared; a [`Session`] holds the activations and runs one request at a \
         time.\n\n```{fence}\n{}{end}\n```",
        code(facts.file),
        targets.join(", "),
        facts.example.trim_end(),
        model = interface.model,
    );
    let lines = doc_lines(&text);
    let ports = || interface.inputs.iter().chain(&interface.outputs);
    let mut reexported = vec!["C", "Dimension", "Dyn", "Element", "Error", "LaunchMode", "Shape", "View"];
    reexported.extend(["F16", "BF16"].into_iter().filter(|float| ports().any(|port| port.element() == Some(float))));
    if ports().any(|port| port.element().is_none()) {
        reexported.extend(["InputRef", "OutputRef"]);
    }
    reexported.sort_unstable();
    let reexported = reexported.into_iter().map(ident);
    let range = (!interface.symbols.is_empty()).then_some("Range");
    let target = has_both(facts).then_some("Target");
    let tables: Vec<Ident> = range.into_iter().chain(target).map(ident).collect();
    let tables = (!tables.is_empty()).then(|| quote! { pub use lapidary_runtime::table::{#(#tables),*}; });
    quote! {
        #(#![doc = #lines])*

        #![forbid(unsafe_code)]

        mod plan;

        use std::path::PathBuf;

        #tables
        pub use lapidary_runtime::{#(#reexported),*};
        use lapidary_runtime::{Model, Options, Weights};
    }
}

/// Whether a caller chooses between a processor and a GPU.
fn has_both(facts: &Facts<'_>) -> bool {
    facts.targets.contains(&Target::Cpu) && facts.targets.iter().any(|target| *target != Target::Cpu)
}

fn constants(facts: &Facts<'_>) -> Vec<TokenStream> {
    let arena = Literal::u64_unsuffixed(facts.arena_bytes);
    let weights = Literal::u64_unsuffixed(facts.weight_bytes);
    let arena_docs = docs("Bytes that a session's activations take, for the largest shapes of the profiles.");
    let weight_docs = docs("Bytes of `weights.bin`.");
    vec![
        quote!(#arena_docs pub const ARENA_BYTES: u64 = #arena;),
        quote!(#weight_docs pub const WEIGHT_BYTES: u64 = #weights;),
    ]
}

fn model(interface: &Interface) -> TokenStream {
    let model = ident(&interface.model);
    let docs_model = docs("The loaded model. Clones share the weights, also between threads.");
    let docs_builder = docs("How the model is loaded.");
    let docs_session = docs(
        "Memory for one request at a time; several sessions run at once.\n\n# Errors\nThose of the device, where \
         memory runs out.",
    );
    quote! {
        #docs_model
        #[derive(Clone)]
        pub struct #model(Model<'static>);

        impl #model {
            #docs_builder
            pub fn builder() -> Builder {
                Builder::default()
            }

            #docs_session
            pub fn session(&self) -> Result<Session, Error> {
                self.0.session().map(Session)
            }
        }
    }
}

fn builder(interface: &Interface, facts: &Facts<'_>) -> Vec<TokenStream> {
    let model = ident(&interface.model);
    let docs_type = docs(&format!("Loads a [`{}`].", interface.model));
    let docs_device = docs("The GPU's ordinal, as the driver counts; 0 by default. The `cpu` target has none.");
    let docs_launch = docs("How a session launches its kernels; as one CUDA graph by default.");
    let docs_weights = docs(
        "Takes the weights from this file, `weights.bin` of this crate or another of the same layout. By default they \
         are those that the feature `embed-weights` puts into the binary.",
    );
    let docs_build = docs(
        "Loads the weights, and on a GPU the kernels.\n\n# Errors\n[`Error::Io`] and [`Error::Weights`] for the \
         weights, and those of the device.",
    );
    let cuda: Vec<&Target> = facts.targets.iter().filter(|target| **target != Target::Cpu).collect();
    let on_gpu = || match cuda.as_slice() {
        [target] => {
            let module = ident(&target.to_string());
            quote!(Model::load(&plan::#module::PLAN, weights, self.options))
        }
        _ => quote!(Model::load_best(plan::CUDA, weights, self.options)),
    };
    let on_cpu = || quote!(Model::load(&plan::cpu::PLAN, weights, self.options));
    let load = match (has_both(facts), cuda.is_empty()) {
        (true, _) => {
            let (on_cpu, on_gpu) = (on_cpu(), on_gpu());
            quote!(match self.target.unwrap_or(Target::Cuda) { Target::Cpu => #on_cpu, Target::Cuda => #on_gpu, })
        }
        (false, true) => on_cpu(),
        (false, false) => on_gpu(),
    };
    let name = &interface.krate;
    let body = match facts.form {
        Form::Crate | Form::Module => quote! {
            let weights = match &self.weights {
                Some(path) => Weights::open(path)?,
                None => plan::weights(),
            };
            let loaded = #load?;
            Ok(#model(loaded))
        },
        Form::Stub => quote!(Err(Error::Stub { model: #name.to_owned() })),
    };
    let field = has_both(facts).then(|| quote!(target: Option<Target>,));
    let docs_target = docs("What the model runs on; [`Target::Cuda`] by default.");
    let setter = has_both(facts).then(|| {
        quote! {
            #docs_target
            pub fn target(mut self, target: Target) -> Builder {
                self.target = Some(target);
                self
            }
        }
    });
    vec![
        quote! {
            #docs_type
            #[derive(Clone, Debug, Default)]
            #[must_use = "`build` loads the model"]
            pub struct Builder {
                weights: Option<PathBuf>,
                options: Options,
                #field
            }
        },
        quote! {
            impl Builder {
                #setter

                #docs_device
                pub fn device(mut self, ordinal: u32) -> Builder {
                    self.options.device = ordinal;
                    self
                }

                #docs_launch
                pub fn launch(mut self, mode: LaunchMode) -> Builder {
                    self.options.launch = mode;
                    self
                }

                #docs_weights
                pub fn weights(mut self, path: impl Into<PathBuf>) -> Builder {
                    self.weights = Some(path.into());
                    self
                }

                #docs_build
                pub fn build(self) -> Result<#model, Error> {
                    #body
                }
            }
        },
    ]
}

fn session(interface: &Interface) -> TokenStream {
    let inputs = interface.inputs.iter().map(|port| {
        let field = ident(&port.field);
        match port.element() {
            Some(_) => quote!(inputs.#field.erase()),
            None => quote!(inputs.#field),
        }
    });
    let fields: Vec<Ident> = interface.outputs.iter().map(|port| ident(&port.field)).collect();
    let read = (0..interface.outputs.len()).map(Literal::usize_unsuffixed);
    let values = interface.outputs.iter().map(|port| {
        let field = ident(&port.field);
        if port.element().is_none() {
            return quote!(#field);
        }
        let dims = port.dims.iter().enumerate().map(|(axis, dim)| {
            let axis = Literal::usize_unsuffixed(axis);
            match dim {
                Extent::Const(_) => quote!(C),
                Extent::Symbol(k) => {
                    let ty = ident(&interface.symbols[*k].ty);
                    quote!(#ty(#field.dims()[#axis]))
                }
                Extent::Formula(_) => quote!(Dyn(#field.dims()[#axis])),
            }
        });
        quote!(#field: View::new(#field.data()?, (#(#dims,)*))?)
    });
    let argument = if interface.inputs.is_empty() { quote!(_) } else { quote!(inputs) };
    let docs_type =
        docs("Memory for one request at a time, and what runs it. Goes from thread to thread, is not shared.");
    let docs_run = docs(
        "Runs the model and waits for its outputs, which lie in the session's memory until the next run.\n\n# Errors\n\
         Shapes that the profiles do not hold leave the session as it was; an error of the device ends it.",
    );
    let docs_inner = docs(
        "The session without the model's types: tensors that lie on the device, timing, and every step's results.",
    );
    quote! {
        #docs_type
        pub struct Session(lapidary_runtime::Session<'static>);

        impl Session {
            #docs_run
            pub fn run(&mut self, #argument: &Inputs<'_>) -> Result<Outputs<'_>, Error> {
                self.0.run(&[#(#inputs),*])?;
                #(let #fields = self.0.output(#read)?;)*
                Ok(Outputs { #(#values),* })
            }

            #docs_inner
            pub fn untyped(&mut self) -> &mut lapidary_runtime::Session<'static> {
                &mut self.0
            }
        }
    }
}

/// The type of a port's view, with the lifetime of its data.
fn view(interface: &Interface, port: &Port, lifetime: &TokenStream, untyped: &str) -> TokenStream {
    let Some(element) = port.element() else {
        let untyped = ident(untyped);
        return quote!(#untyped<#lifetime>);
    };
    let element = ident(element);
    let dims = port.dims.iter().map(|dim| match dim {
        Extent::Const(value) => {
            let value = Literal::i64_unsuffixed(*value);
            quote!(C<#value>)
        }
        Extent::Symbol(k) => {
            let ty = ident(&interface.symbols[*k].ty);
            quote!(#ty)
        }
        Extent::Formula(_) => quote!(Dyn),
    });
    quote!(View<#lifetime, #element, (#(#dims,)*)>)
}

fn fields(interface: &Interface, ports: &[Port], lifetime: &TokenStream, untyped: &str) -> Vec<TokenStream> {
    let field = |port: &Port| {
        let name = ident(&port.field);
        let ty = view(interface, port, lifetime, untyped);
        let shape = port.shape(&interface.symbols);
        let docs = docs(&format!("{}, {}, shape {}.", code(&port.onnx), port.dtype, code(&shape)));
        quote!(#docs pub #name: #ty)
    };
    ports.iter().map(field).collect()
}

fn inputs(interface: &Interface) -> TokenStream {
    let docs_type = docs("What [`Session::run`] takes: contiguous row-major tensors of the caller's.");
    if interface.inputs.is_empty() {
        return quote! {
            #docs_type
            #[derive(Clone, Copy, Debug, Default)]
            pub struct Inputs<'a>(std::marker::PhantomData<&'a ()>);
        };
    }
    let fields = fields(interface, &interface.inputs, &quote!('a), "InputRef");
    quote! {
        #docs_type
        #[derive(Clone, Copy, Debug)]
        pub struct Inputs<'a> {
            #(#fields),*
        }
    }
}

fn outputs(interface: &Interface) -> TokenStream {
    let docs_type = docs("What [`Session::run`] returns: tensors in the session's memory.");
    let fields = fields(interface, &interface.outputs, &quote!('s), "OutputRef");
    quote! {
        #docs_type
        #[derive(Clone, Copy, Debug)]
        pub struct Outputs<'s> {
            #(#fields),*
        }
    }
}

fn symbol(symbol: &SymbolType) -> TokenStream {
    let ty = ident(&symbol.ty);
    let onnx = &symbol.onnx;
    let docs_type = docs(&format!("The dimension {} of the model: {}.", code(onnx), code(&symbol.values())));
    let mut ranges = symbol.ranges.clone();
    ranges.dedup();
    let ranges = ranges.iter().map(|range| {
        let [min, opt, max] = [range.min, range.opt, range.max].map(Literal::i64_unsuffixed);
        quote!(Range { min: #min, opt: #opt, max: #max })
    });
    let docs_ranges = docs("The values that each optimization profile takes.");
    let docs_new = docs("Checks an extent.\n\n# Errors\n[`Error::OutsideProfiles`] if no profile takes it.");
    let docs_get = docs("The extent.");
    quote! {
        #docs_type
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct #ty(usize);

        impl #ty {
            #docs_ranges
            pub const RANGES: &'static [Range] = &[#(#ranges),*];

            #docs_new
            pub fn new(extent: usize) -> Result<#ty, Error> {
                plan::checked(#onnx, extent, #ty::RANGES).map(#ty)
            }

            #docs_get
            pub fn get(self) -> usize {
                self.0
            }
        }

        impl Dimension for #ty {
            fn extent(self) -> usize {
                self.0
            }
        }
    }
}
