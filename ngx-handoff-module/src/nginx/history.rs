//! What nginx remembers of a request: the peers it tried, and whose cleanups wait in its pool.

use core::ffi::c_void;
use core::ptr::NonNull;

use nginx_sys::{ngx_current_msec, ngx_http_upstream_state_t, ngx_msec_t, ngx_pool_cleanup_t};

use super::Request;

/// A cleanup's callback.
pub type Cleanup = unsafe extern "C" fn(*mut c_void);

impl Request {
    /// The attempts that nginx has made at peers, the last one being under way. A request that has been through several
    /// upstream locations has those of each, with an empty one in between. `None` before the first upstream location.
    pub fn attempts<'a>(self) -> Option<&'a [ngx_http_upstream_state_t]> {
        // SAFETY: a live request; the array is null, or nginx's own, of exactly these elements.
        unsafe { (*self.raw()).upstream_states.as_ref().map(|states| states.as_slice()) }
    }

    /// The data of the latest cleanup in the request's pool that has this callback. It outlives an internal redirect, upon
    /// which nginx drops the contexts of all modules.
    pub fn cleanup_data(self, handler: Cleanup) -> Option<NonNull<c_void>> {
        // SAFETY: a live request has a pool.
        let mut next: *mut ngx_pool_cleanup_t = unsafe { (*self.pool().as_ptr()).cleanup };
        // SAFETY: cleanups are linked by valid pointers, the last one by null; the newest comes first.
        while let Some(cleanup) = unsafe { next.as_ref() } {
            if cleanup.handler.is_some_and(|candidate| candidate as usize == handler as usize) {
                return NonNull::new(cleanup.data);
            }
            next = cleanup.next;
        }
        None
    }
}

/// The time of the event loop's present round, in milliseconds.
pub fn now() -> ngx_msec_t {
    // SAFETY: a global that this process's event loop sets, and nobody while a callback runs.
    unsafe { ngx_current_msec }
}
