//! Paths that were found trustworthy a moment ago: a worker walks along each once a second, however many clients come.

use core::cell::Cell;

use nginx_sys::ngx_msec_t;

use crate::conf::LocationConf;

/// How long a walk along a path holds, in milliseconds.
const HOLDS: ngx_msec_t = 1000;

/// `sizeof(sun_path)` (unix(7)).
const LONGEST: usize = 108;

/// How many are remembered. Each path has one place: another one that has the same is walked along each time.
const PLACES: usize = 8;

/// A path, and who trusts it.
#[derive(Clone, Copy)]
struct Walked {
    /// The location whose `ws_handoff_tls_trust` it satisfies: its address, of which nothing is read.
    location: usize,
    at: ngx_msec_t,
    len: usize,
    path: [u8; LONGEST],
}

// Without a destructor: nothing of it is left to be run once the module has been unloaded.
thread_local! {
    static RECENT: [Cell<Option<Walked>>; PLACES] = const { [const { Cell::new(None) }; PLACES] };
}

/// Whether `location` has trusted `path` within the last second.
pub fn has(location: &LocationConf, path: &[u8], now: ngx_msec_t) -> bool {
    let walked = with_place(location, path, Cell::get).flatten();
    walked.is_some_and(|walked| {
        walked.location == address(location)
            && now.wrapping_sub(walked.at) < HOLDS
            && walked.path.get(..walked.len) == Some(path)
    })
}

/// From now on for a second it has.
pub fn remember(location: &LocationConf, path: &[u8], now: ngx_msec_t) {
    let mut walked =
        Walked { location: address(location), at: now, len: path.len(), path: [0; LONGEST] };
    if let Some(room) = walked.path.get_mut(..path.len()) {
        room.copy_from_slice(path);
        with_place(location, path, |place| place.set(Some(walked)));
    }
}

/// Another configuration, whose locations may have the addresses of an earlier one's.
pub fn forget() {
    RECENT.with(|places| places.iter().for_each(|place| place.set(None)));
}

/// Paths that differ by a number at their end have different places, and so have most locations.
fn with_place<T>(
    location: &LocationConf,
    path: &[u8],
    f: impl FnOnce(&Cell<Option<Walked>>) -> T,
) -> Option<T> {
    // They are as far apart as they are large, at least.
    let sum = address(location) / size_of::<LocationConf>();
    let sum = path.iter().fold(sum, |sum, byte| sum.wrapping_add((*byte).into()));
    RECENT.with(|places| places.get(sum % PLACES).map(f))
}

fn address(location: &LocationConf) -> usize {
    core::ptr::from_ref(location).addr()
}
