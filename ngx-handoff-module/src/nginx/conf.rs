//! What the setter of a directive works with: its words, values with variables, and lists in the configuration's pool.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use nginx_sys::{
    ngx_array_create, ngx_array_push, ngx_array_t, ngx_conf_t, ngx_http_compile_complex_value,
    ngx_http_compile_complex_value_t, ngx_http_complex_value, ngx_http_complex_value_t, ngx_str_t,
};

use super::{OK, OutOfMemory, Request, str_bytes};

/// The words of the directive that is being set, its name first. Each is followed by a NUL, and lives as long as the
/// configuration.
///
/// # Safety
///
/// `cf` is what nginx passed to the running setter.
pub unsafe fn arguments<'a>(cf: *mut ngx_conf_t) -> &'a [ngx_str_t] {
    // SAFETY: by the contract; nginx has read the words before it calls the setter.
    unsafe { (*(*cf).args).as_slice::<ngx_str_t>() }
}

/// The value of a directive, in which there may be variables.
#[derive(Clone, Copy)]
pub struct ComplexValue(ngx_http_complex_value_t);

impl ComplexValue {
    /// Compiles a word of a directive. nginx has logged why if it cannot be (an unknown variable).
    ///
    /// # Safety
    ///
    /// `cf` is what nginx passed to the running setter, and `text` one of its words.
    pub unsafe fn compile(cf: *mut ngx_conf_t, mut text: ngx_str_t) -> Result<Self, OutOfMemory> {
        // SAFETY: integers, nullable pointers and bit fields, valid as zeros; so nginx's own modules begin.
        let (mut value, mut compile) = unsafe {
            (
                MaybeUninit::<ngx_http_complex_value_t>::zeroed().assume_init(),
                MaybeUninit::<ngx_http_compile_complex_value_t>::zeroed().assume_init(),
            )
        };
        compile.cf = cf;
        compile.value = &mut text;
        compile.complex_value = &mut value;
        // SAFETY: by the contract; both structures outlive the call, which keeps pointers to the word's bytes only.
        match unsafe { ngx_http_compile_complex_value(&mut compile) } {
            OK => Ok(Self(value)),
            _ => Err(OutOfMemory),
        }
    }

    /// Whether there are variables in it.
    pub fn is_variable(&self) -> bool {
        !self.0.lengths.is_null()
    }

    /// The value for a request, in its pool (or in the configuration, for a constant).
    pub fn evaluate<'a>(&self, r: Request) -> Result<&'a [u8], OutOfMemory> {
        let mut text = ngx_str_t::empty();
        let value = ptr::from_ref(&self.0).cast_mut();
        // SAFETY: a live request, and a value that nginx only reads although it asks for a pointer to mutable.
        if unsafe { ngx_http_complex_value(r.raw(), value, &mut text) } != OK {
            return Err(OutOfMemory);
        }
        // SAFETY: nginx has just allocated the text from the request's pool, or it is the configuration's.
        Ok(unsafe { str_bytes(text) })
    }
}

/// A list in the configuration's pool. Null, as nginx's are, until something is pushed.
pub struct List<T>(*mut ngx_array_t, PhantomData<T>);

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T: Copy> List<T> {
    /// Nothing, not even an empty list.
    pub const UNSET: Self = Self(ptr::null_mut(), PhantomData);

    /// Whether nothing has been pushed.
    pub fn is_unset(self) -> bool {
        self.0.is_null()
    }

    /// Appends `value`.
    ///
    /// # Safety
    ///
    /// `cf` is what nginx passed to the running setter.
    pub unsafe fn push(&mut self, cf: *mut ngx_conf_t, value: T) -> Result<(), OutOfMemory> {
        const { assert!(align_of::<T>() <= align_of::<usize>(), "more than a pool aligns") };
        if self.0.is_null() {
            // SAFETY: by the contract; the pool is the configuration's.
            self.0 = unsafe { ngx_array_create((*cf).pool, 4, size_of::<T>()) };
        }
        let array = NonNull::new(self.0).ok_or(OutOfMemory)?;
        // SAFETY: an array of `T`, since only this function makes and fills it.
        let place: *mut c_void = unsafe { ngx_array_push(array.as_ptr()) };
        let place = NonNull::new(place.cast::<T>()).ok_or(OutOfMemory)?;
        // SAFETY: fresh memory of the right size and alignment.
        unsafe { place.write(value) };
        Ok(())
    }

    /// What was pushed, which lives as long as the configuration: longer than any request.
    pub fn as_slice(self) -> &'static [T] {
        // SAFETY: null, or an array that `push` made and filled with `T`; nobody pushes once requests are served or
        // configurations merged.
        unsafe { self.0.as_ref().map_or(&[], |array| array.as_slice::<T>()) }
    }
}
