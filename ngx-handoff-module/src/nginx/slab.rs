//! The allocator of a shared memory zone.

use core::ptr::NonNull;

use nginx_sys::{ngx_shm_zone_t, ngx_slab_calloc, ngx_slab_page_t, ngx_slab_pool_t};

/// The allocator that nginx has put at the beginning of a zone's memory.
#[derive(Clone, Copy)]
pub struct Slab(NonNull<ngx_slab_pool_t>);

impl Slab {
    /// # Safety
    ///
    /// The zone is mapped, and nginx has put its allocator there: both hold in and after the zone's `init`. The handle
    /// does not outlive the mapping.
    pub unsafe fn of(zone: &ngx_shm_zone_t) -> Option<Self> {
        NonNull::new(zone.shm.addr.cast()).map(Self)
    }

    /// Has nginx keep silent about a lack of memory, which the caller explains better.
    pub fn do_not_log_lack(self) {
        // SAFETY: valid by the contract of `of`; set before any other process uses it.
        unsafe { (*self.0.as_ptr()).set_log_nomem(0) };
    }

    /// `size` zeroed bytes, aligned for anything if there are eight or more; `None` if there is no room.
    pub fn zeroed(self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: valid by the contract of `of`.
        NonNull::new(unsafe { ngx_slab_calloc(self.0.as_ptr(), size) }.cast())
    }

    /// How large a zone must be to hold `pages` pages, when a page is `page_size`: ngx_slab_init() takes room for its own
    /// structure, a list per size class (fewer than 16) and a record per page from them.
    pub fn zone_size(pages: usize, page_size: usize) -> usize {
        let per_class = 64;
        let records = (pages + 1) * size_of::<ngx_slab_page_t>();
        let head = size_of::<ngx_slab_pool_t>() + 16 * per_class + records;
        head.next_multiple_of(page_size.max(1)) + pages * page_size
    }
}
