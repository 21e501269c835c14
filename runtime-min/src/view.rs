//! Typed views of tensors: a slice and its shape, checked once when the view is made.
//!
//! A shape is a tuple of dimension types. [`C`] is a constant extent and costs nothing; an emitted crate declares a
//! newtype for each symbolic dimension, so that a batch cannot be passed where a width is meant.

use crate::dtype::Element;
use crate::error::Error;
use crate::op::MAX_RANK;
use crate::shapes::Extents;

/// The extent of one axis.
pub trait Dimension: Copy {
    /// The number of elements along the axis.
    fn extent(self) -> usize;
}

/// An extent that the model fixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct C<const N: usize>;

impl<const N: usize> Dimension for C<N> {
    fn extent(self) -> usize {
        N
    }
}

/// An extent known when the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dyn(pub usize);

impl Dimension for Dyn {
    fn extent(self) -> usize {
        self.0
    }
}

/// The shape of a view: a tuple of [`Dimension`]s.
pub trait Shape: Copy {
    /// The extents, outermost first.
    fn extents(self) -> Extents;
}

impl Shape for () {
    fn extents(self) -> Extents {
        Extents::new(&[])
    }
}

macro_rules! shapes {
    ($($name:ident)+) => {
        impl<$($name: Dimension),+> Shape for ($($name,)+) {
            fn extents(self) -> Extents {
                #[allow(non_snake_case, reason = "the type parameters name the fields")]
                let ($($name,)+) = self;
                Extents::new(&[$($name.extent()),+])
            }
        }
    };
}

shapes!(A);
shapes!(A B);
shapes!(A B D);
shapes!(A B D E);
shapes!(A B D E F);
shapes!(A B D E F G);
shapes!(A B D E F G H);
shapes!(A B D E F G H I);

const _: () = assert!(MAX_RANK == 8, "one shapes! line a rank");

/// A contiguous row-major tensor in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T, S> {
    data: &'a [T],
    shape: S,
}

impl<'a, T: Element, S: Shape> View<'a, T, S> {
    /// A view of `data` with the shape `shape`.
    ///
    /// # Errors
    /// [`Error::Length`] if the slice is not exactly as long as the shape says.
    pub fn new(data: &'a [T], shape: S) -> Result<View<'a, T, S>, Error> {
        let expected = shape.extents().count();
        if data.len() != expected {
            return Err(Error::Length { tensor: "view".to_owned(), expected, given: data.len() });
        }
        Ok(View { data, shape })
    }

    /// A view of `data` whose shape is all constants.
    ///
    /// # Errors
    /// [`Error::Length`] if the slice is not exactly as long as the shape says.
    pub fn of(data: &'a [T]) -> Result<View<'a, T, S>, Error>
    where
        S: Default,
    {
        View::new(data, S::default())
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// The shape.
    pub fn shape(&self) -> S {
        self.shape
    }

    /// The tensor without its types, as [`crate::Session::run`] takes it.
    pub fn erase(&self) -> InputRef<'a> {
        InputRef::new(self.data, self.shape.extents())
    }
}

/// A tensor that is passed in: its type, its extents and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct InputRef<'a> {
    pub(crate) dtype: crate::DType,
    pub(crate) extents: Extents,
    pub(crate) bytes: &'a [u8],
}

impl<'a> InputRef<'a> {
    /// A tensor over the elements in `data`. Its length is checked when it is run.
    pub fn new<T: Element>(data: &'a [T], extents: Extents) -> InputRef<'a> {
        // SAFETY: `T` is plain data without padding (`Element`), and the bytes live as long as `data`.
        let bytes = unsafe { core::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) };
        InputRef { dtype: T::DTYPE, extents, bytes }
    }

    /// A tensor over packed little-endian bytes of `dtype`.
    pub fn from_bytes(dtype: crate::DType, extents: Extents, bytes: &'a [u8]) -> InputRef<'a> {
        InputRef { dtype, extents, bytes }
    }
}

/// A tensor that a run has produced, in the session's memory.
#[derive(Clone, Copy, Debug)]
pub struct OutputRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: crate::DType,
    pub(crate) extents: Extents,
    pub(crate) bytes: &'a [u8],
}

impl<'a> OutputRef<'a> {
    /// The element type.
    pub fn dtype(&self) -> crate::DType {
        self.dtype
    }

    /// The extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.extents
    }

    /// The packed little-endian bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements.
    ///
    /// # Errors
    /// [`Error::OutputType`] if the tensor does not hold `T`.
    pub fn data<T: Element>(&self) -> Result<&'a [T], Error> {
        if T::DTYPE != self.dtype {
            return Err(Error::OutputType { output: self.name.to_owned(), expected: self.dtype, given: T::DTYPE });
        }
        // SAFETY: outputs lie at multiples of 256 bytes, their length is that of their extents, and the runtime has
        // written valid elements of this type.
        Ok(unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast::<T>(), self.bytes.len() / size_of::<T>()) })
    }
}
