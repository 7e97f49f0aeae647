//! Memory from nginx's pools, and its strings.

use core::ptr::{self, NonNull};
use core::slice;

use nginx_sys::{
    ngx_alloc_chain_link, ngx_buf_t, ngx_chain_t, ngx_palloc, ngx_pcalloc, ngx_pnalloc, ngx_pool_t,
    ngx_str_t,
};

use super::OutOfMemory;

/// A pool of the request or connection that a callback runs for.
#[derive(Clone, Copy)]
pub struct Pool(NonNull<ngx_pool_t>);

impl Pool {
    /// # Safety
    ///
    /// The pool outlives the handle and all that is allocated through it.
    pub unsafe fn new(pool: NonNull<ngx_pool_t>) -> Self {
        Self(pool)
    }

    /// The pool itself, for nginx's functions.
    pub fn as_ptr(self) -> *mut ngx_pool_t {
        self.0.as_ptr()
    }

    /// `len` zeroed bytes that live as long as the pool; an empty slice for 0.
    pub fn bytes<'p>(self, len: usize) -> Result<&'p mut [u8], OutOfMemory> {
        if len == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the pool is valid by the contract of `new`.
        let data = unsafe { ngx_pnalloc(self.as_ptr(), len) }.cast::<u8>();
        if data.is_null() {
            return Err(OutOfMemory);
        }
        // SAFETY: `len` fresh bytes, initialized before a reference to them exists.
        Ok(unsafe {
            ptr::write_bytes(data, 0, len);
            slice::from_raw_parts_mut(data, len)
        })
    }

    /// `len` copies of `value`.
    pub fn slice<'p, T: Copy>(self, len: usize, value: T) -> Result<&'p mut [T], OutOfMemory> {
        const { assert!(align_of::<T>() <= align_of::<usize>(), "more than a pool aligns") };
        if len == 0 {
            return Ok(&mut []);
        }
        let size = size_of::<T>().checked_mul(len).ok_or(OutOfMemory)?;
        // SAFETY: the pool is valid by the contract of `new`.
        let data = unsafe { ngx_palloc(self.as_ptr(), size) }.cast::<T>();
        if data.is_null() {
            return Err(OutOfMemory);
        }
        // SAFETY: fresh memory for `len` aligned values, each initialized before a reference to them exists; `Copy`
        // values need no drop.
        Ok(unsafe {
            for i in 0..len {
                data.add(i).write(value);
            }
            slice::from_raw_parts_mut(data, len)
        })
    }

    /// A copy of `bytes` with a NUL behind it, as nginx keeps header names and values.
    pub fn copy(self, bytes: &[u8]) -> Result<ngx_str_t, OutOfMemory> {
        let copy = self.bytes(bytes.len() + 1)?;
        for (to, from) in copy.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(ngx_str_t { data: copy.as_mut_ptr(), len: bytes.len() })
    }

    /// A `T` of zeros.
    ///
    /// # Safety
    ///
    /// Zeros are a valid `T`, which needs no more than the pool's alignment and no drop.
    pub unsafe fn zeroed<T>(self) -> Result<NonNull<T>, OutOfMemory> {
        // SAFETY: the pool is valid by the contract of `new`.
        let memory = unsafe { ngx_pcalloc(self.as_ptr(), size_of::<T>()) };
        NonNull::new(memory.cast()).ok_or(OutOfMemory)
    }

    /// A copy of `value`.
    ///
    /// # Safety
    ///
    /// `value` needs no more than the pool's alignment and no drop.
    pub unsafe fn place<T>(self, value: T) -> Result<NonNull<T>, OutOfMemory> {
        // SAFETY: the pool is valid by the contract of `new`.
        let memory = unsafe { ngx_palloc(self.as_ptr(), size_of::<T>()) };
        let place = NonNull::new(memory.cast::<T>()).ok_or(OutOfMemory)?;
        // SAFETY: fresh memory of the right size and alignment.
        unsafe { place.write(value) };
        Ok(place)
    }

    /// A chain of one in-memory buffer over `bytes`, which live in the pool.
    pub fn chain(self, bytes: &mut [u8]) -> Result<NonNull<ngx_chain_t>, OutOfMemory> {
        // SAFETY: ngx_buf_t is valid as zeros (ngx_calloc_buf() makes one so) and needs no drop.
        let mut buf = unsafe { self.zeroed::<ngx_buf_t>() }?;
        let range = bytes.as_mut_ptr_range();
        // SAFETY: freshly allocated, nobody else refers to it.
        let b = unsafe { buf.as_mut() };
        b.start = range.start;
        b.pos = range.start;
        b.last = range.end;
        b.end = range.end;
        b.set_temporary(1);
        b.set_last_buf(1);

        // SAFETY: the pool is valid by the contract of `new`.
        let link = unsafe { ngx_alloc_chain_link(self.as_ptr()) };
        let link = NonNull::new(link).ok_or(OutOfMemory)?;
        // SAFETY: freshly allocated; ngx_alloc_chain_link() leaves its fields for the caller to set.
        unsafe { link.write(ngx_chain_t { buf: buf.as_ptr(), next: ptr::null_mut() }) };
        Ok(link)
    }
}

/// The bytes of an nginx string, which may have no data at all.
///
/// # Safety
///
/// The string is valid for `'a`, longer than which the slice may not be kept.
pub unsafe fn str_bytes<'a>(s: ngx_str_t) -> &'a [u8] {
    if s.data.is_null() || s.len == 0 {
        return &[];
    }
    // SAFETY: a string with data has `len` bytes of it.
    unsafe { slice::from_raw_parts(s.data, s.len) }
}

/// An nginx string over bytes that live in a pool or for ever.
pub fn str_of(bytes: &[u8]) -> ngx_str_t {
    ngx_str_t { data: bytes.as_ptr().cast_mut(), len: bytes.len() }
}
