//! `ws_handoff_zone`: the shared memory in which all workers count, and who counts where.
//!
//! The memory is laid out by the master while it reads a configuration, and afterwards only counted in: a request finds
//! its counters by a pointer of its location. A reload finds those of an upstream by its name, so that they go on.

use core::cell::Cell;
use core::ffi::{c_char, c_void};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use handoff_metrics::{Counters, Gauge, Rejections, TlsRefusals};
use nginx_sys::{
    NGX_CONF_TAKE1, NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET, NGX_HTTP_UPSTREAM_CREATE,
    NGX_LOG_EMERG, ngx_command_t, ngx_conf_t, ngx_cycle_t, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_pagesize, ngx_parse_size, ngx_process_slot, ngx_shared_memory_add, ngx_shm_zone_t,
    ngx_str_t, ngx_uint_t,
};
use ngx::core::{NGX_CONF_ERROR, NGX_CONF_OK};
use ngx::http::{HttpModuleMainConf, NgxHttpUpstreamModule};
use ngx::{ngx_conf_log_error, ngx_string};

use crate::HandoffModule;
use crate::nginx::{self, OutOfMemory, Pool, Request, Slab, Upstream, str_bytes, str_of};

/// The directive.
pub const DIRECTIVE: ngx_command_t = ngx_command_t {
    name: ngx_string!("ws_handoff_zone"),
    type_: (NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1) as ngx_uint_t,
    set: Some(set_zone),
    conf: NGX_HTTP_MAIN_CONF_OFFSET,
    offset: 0,
    post: ptr::null_mut(),
};

/// What the upstreams that a variable named at run time, and that nginx does not know, are counted under.
const VARIABLE: &[u8] = b"variable";

/// nginx's own least size of a zone, in pages.
const LEAST_PAGES: usize = 8;

/// The module's configuration of `http {}`.
pub struct MainConf {
    zone: Cell<*mut ngx_shm_zone_t>,
    /// In the zone, once it exists.
    root: Cell<*const Root>,
    /// The upstreams that are counted, in a list.
    first: Cell<*const Tally>,
    /// Whether a location's peers come from variables.
    variables: Cell<bool>,
    /// Whether a location hands TLS clients over.
    tls: Cell<bool>,
}

/// An upstream of this configuration, and where it is counted. Lives in the configuration's pool.
pub struct Tally {
    /// Null: see [`VARIABLE`].
    upstream: *const ngx_http_upstream_srv_conf_t,
    name: &'static [u8],
    counters: Cell<Option<&'static Counters>>,
    next: *const Tally,
}

/// What the zone begins with.
#[repr(C)]
struct Root {
    in_progress: Gauge,
    rejections: Rejections,
    tls_refusals: TlsRefusals,
    /// The latest of the upstreams that there have ever been.
    latest: AtomicPtr<Node>,
}

/// An upstream in the zone; its name follows it.
#[repr(C)]
struct Node {
    counters: Counters,
    name_len: usize,
    /// The one before; never changed once this one is in the list.
    earlier: *const Node,
}

impl Default for MainConf {
    fn default() -> Self {
        Self {
            zone: Cell::new(ptr::null_mut()),
            root: Cell::new(ptr::null()),
            first: Cell::new(ptr::null()),
            variables: Cell::new(false),
            tls: Cell::new(false),
        }
    }
}

impl MainConf {
    /// That of the configuration being read.
    pub fn of_conf(cf: *mut ngx_conf_t) -> Option<&'static Self> {
        // SAFETY: nginx passes a valid `cf` to whoever reads the configuration.
        HandoffModule::main_conf(unsafe { &*cf })
    }

    /// That of a request.
    pub fn of(r: Request) -> Option<&'static Self> {
        // SAFETY: a live request.
        HandoffModule::main_conf(unsafe { &*r.raw() })
    }

    /// Whether there is a zone.
    pub fn has_zone(&self) -> bool {
        !self.zone.get().is_null()
    }

    /// The requests without an outcome.
    pub fn in_progress(&self) -> Option<&'static Gauge> {
        self.root().map(|root| &root.in_progress)
    }

    /// The handshakes that nginx refused itself.
    pub fn rejections(&self) -> Option<&'static Rejections> {
        self.root().map(|root| &root.rejections)
    }

    /// The TLS sessions that were not fit to be handed over.
    pub fn tls_refusals(&self) -> Option<&'static TlsRefusals> {
        self.root().map(|root| &root.tls_refusals)
    }

    /// A location hands TLS clients over.
    pub fn expect_tls(&self) {
        self.tls.set(true);
    }

    /// Whether a location does.
    pub fn hands_over_tls(&self) -> bool {
        self.tls.get()
    }

    /// Where an upstream that a variable named is counted; `upstream` is null if nginx does not know it.
    pub fn counters_of(
        &self,
        upstream: *const ngx_http_upstream_srv_conf_t,
    ) -> Option<&'static Counters> {
        let tally = |upstream| self.tallies().find(|tally| tally.upstream == upstream);
        tally(upstream).or_else(|| tally(ptr::null()))?.counters.get()
    }

    /// All upstreams that have ever been counted in the zone, latest first, with their names.
    pub fn counted(&self) -> impl Iterator<Item = (&'static [u8], &'static Counters)> + Clone {
        let latest = self
            .root()
            .map_or(ptr::null(), |root| root.latest.load(Ordering::Acquire).cast_const());
        nodes(latest).map(|node| (node.name(), &node.counters))
    }

    fn root(&self) -> Option<&'static Root> {
        // SAFETY: null, or set by `init_zone` to where it or an earlier one placed a root; all of its fields are
        // atomics. A zone stays mapped for as long as processes use a configuration that has it.
        unsafe { self.root.get().as_ref() }
    }

    fn tallies(&self) -> impl Iterator<Item = &'static Tally> {
        // SAFETY: the list is made of what `register` has placed in the configuration's pool.
        let first = unsafe { self.first.get().as_ref() };
        // SAFETY: as above.
        core::iter::successors(first, |tally| unsafe { tally.next.as_ref() })
    }

    /// The tally of an upstream, which is made if there is none.
    fn register(
        &self,
        pool: Pool,
        upstream: *const ngx_http_upstream_srv_conf_t,
    ) -> Result<&'static Tally, OutOfMemory> {
        if let Some(tally) = self.tallies().find(|tally| tally.upstream == upstream) {
            return Ok(tally);
        }
        // SAFETY: null or one of nginx's, which lives as long as the configuration does.
        let name = match unsafe { upstream.as_ref() } {
            Some(upstream) => name_of(pool, upstream)?,
            None => VARIABLE,
        };
        let tally = Tally { upstream, name, counters: Cell::new(None), next: self.first.get() };
        // SAFETY: plain data without drop, in the pool of the configuration that this belongs to.
        let tally = unsafe { pool.place(tally)?.as_ref() };
        self.first.set(tally);
        Ok(tally)
    }
}

impl Tally {
    /// Where requests of this upstream are counted.
    pub fn counters(&self) -> Option<&'static Counters> {
        self.counters.get()
    }
}

impl Node {
    fn name(&self) -> &'static [u8] {
        // SAFETY: `Root::add` has put so many bytes behind the node, before it was in the list.
        unsafe { core::slice::from_raw_parts(ptr::from_ref(self).add(1).cast(), self.name_len) }
    }
}

impl Root {
    /// The counters of `name`, which are made if there are none; `None` if there is no room. In the master only.
    fn add(&'static self, slab: Slab, name: &[u8]) -> Option<&'static Counters> {
        let latest = self.latest.load(Ordering::Acquire);
        if let Some(node) = nodes(latest).find(|node| node.name() == name) {
            return Some(&node.counters);
        }
        let memory = slab.zeroed(size_of::<Node>() + name.len())?.cast::<Node>().as_ptr();
        // SAFETY: fresh memory for a node and its name; zeros are valid counters.
        let node = unsafe {
            (*memory).name_len = name.len();
            (*memory).earlier = latest;
            memory.add(1).cast::<u8>().copy_from_nonoverlapping(name.as_ptr(), name.len());
            &*memory
        };
        // Workers of the former configuration may be walking through the list.
        self.latest.store(memory, Ordering::Release);
        Some(&node.counters)
    }
}

fn nodes(latest: *const Node) -> impl Iterator<Item = &'static Node> + Clone {
    // SAFETY: null, or a node that `Root::add` has put into the list, where it stays while the zone is mapped.
    let latest = unsafe { latest.as_ref() };
    // SAFETY: as above.
    core::iter::successors(latest, |node| unsafe { node.earlier.as_ref() })
}

/// Has the requests of a location counted under its upstream; null without a zone, or if a variable names the upstream.
pub fn tally_of_location(
    cf: *mut ngx_conf_t,
    upstream: *const ngx_http_upstream_srv_conf_t,
) -> Result<*const Tally, OutOfMemory> {
    let Some(main) = MainConf::of_conf(cf).filter(|main| main.has_zone()) else {
        return Ok(ptr::null());
    };
    if upstream.is_null() {
        main.variables.set(true);
        return Ok(ptr::null());
    }
    Ok(main.register(pool_of(cf)?, upstream)?)
}

/// Once all locations are known: a variable can name each `upstream {}`.
pub fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    match register_for_variables(cf) {
        Ok(()) => nginx::OK,
        Err(OutOfMemory) => nginx::ERROR,
    }
}

fn register_for_variables(cf: *mut ngx_conf_t) -> Result<(), OutOfMemory> {
    let Some(main) = MainConf::of_conf(cf).filter(|main| main.variables.get()) else {
        return Ok(());
    };
    // SAFETY: `cf` is valid while a configuration is read.
    let Some(upstreams) = NgxHttpUpstreamModule::main_conf(unsafe { &*cf }) else { return Ok(()) };
    // SAFETY: nginx's array of pointers to the upstreams that it knows.
    for &upstream in unsafe { upstreams.upstreams.as_slice::<*mut ngx_http_upstream_srv_conf_t>() }
    {
        // SAFETY: as above.
        if unsafe { is_block(&*upstream) } {
            main.register(pool_of(cf)?, upstream)?;
        }
    }
    main.register(pool_of(cf)?, ptr::null())?;
    Ok(())
}

/// What this process counted as in progress when it, or one in its place, was killed is no more.
pub fn start_worker(cycle: &ngx_cycle_t) {
    if let Some(gauge) = HandoffModule::main_conf(cycle).and_then(MainConf::in_progress) {
        gauge.reset(worker());
    }
}

/// The place of this process among nginx's: no two that run at a time have the same.
pub fn worker() -> usize {
    // SAFETY: a global that is set when the process starts.
    usize::try_from(unsafe { ngx_process_slot }).unwrap_or(usize::MAX)
}

/// Which upstream's counters a request without a tally of its location's belongs to.
pub fn counters_at_run_time(r: Request, u: Option<Upstream>) -> Option<&'static Counters> {
    // SAFETY: the upstream of a live request.
    let upstream = u.map_or(ptr::null_mut(), |u| unsafe { (*u.raw()).upstream });
    MainConf::of(r)?.counters_of(upstream)
}

/// `ws_handoff_zone NAME:SIZE`
unsafe extern "C" fn set_zone(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the structure made by `create_main_conf`; its fields are cells.
    let main = unsafe { &*conf.cast::<MainConf>() };
    // SAFETY: `cf` is nginx's configuration context; its `args` are the directive's words, two of them (TAKE1).
    let args = unsafe { (*(*cf).args).as_slice::<ngx_str_t>() };
    let Some(value) = args.get(1).map(|value| value.as_bytes()) else { return NGX_CONF_ERROR };

    if main.has_zone() {
        return c"is duplicate".as_ptr().cast_mut();
    }

    let (name, size) = match value.iter().position(|b| *b == b':') {
        Some(colon) => (value.get(..colon), value.get(colon + 1..)),
        None => (Some(value), None),
    };
    let (name, text) = (name.unwrap_or_default(), size.unwrap_or_default());
    if name.is_empty() {
        ngx_conf_log_error!(NGX_LOG_EMERG, cf, "invalid zone name \"{}\"", value.escape_ascii());
        return NGX_CONF_ERROR;
    }
    // SAFETY: only reads the string.
    let size = unsafe { ngx_parse_size(&mut str_of(text)) };
    let Some(size) = usize::try_from(size).ok().filter(|_| !text.is_empty()) else {
        ngx_conf_log_error!(NGX_LOG_EMERG, cf, "invalid zone size \"{}\"", value.escape_ascii());
        return NGX_CONF_ERROR;
    };
    let least = LEAST_PAGES * page_size();
    if size < least {
        let value = value.escape_ascii();
        ngx_conf_log_error!(
            NGX_LOG_EMERG,
            cf,
            "zone \"{value}\" is too small, at least {}k is needed",
            least.div_ceil(1024)
        );
        return NGX_CONF_ERROR;
    }

    let tag = ptr::addr_of_mut!(crate::ngx_http_ws_handoff_module).cast();
    // SAFETY: `cf` is valid; nginx keeps the name, which lives in the configuration's pool, and logs its errors.
    let zone = unsafe { ngx_shared_memory_add(cf, &mut str_of(name), size, tag) };
    // SAFETY: null, or nginx's record of the zone, which is this configuration's to fill in.
    let Some(record) = (unsafe { zone.as_mut() }) else { return NGX_CONF_ERROR };
    record.init = Some(init_zone);
    record.data = conf;
    main.zone.set(zone);
    NGX_CONF_OK
}

/// Lays the zone out, or finds the counters that a former configuration has laid out there. Called by the master, once the
/// configuration has been read.
unsafe extern "C" fn init_zone(zone: *mut ngx_shm_zone_t, former: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes the zone, which is mapped by now.
    let zone = unsafe { &*zone };
    // SAFETY: `set_zone` has put it there.
    let main = unsafe { &*zone.data.cast::<MainConf>() };
    // SAFETY: null, or the same of the former configuration, which still exists.
    let former = unsafe { former.cast::<MainConf>().as_ref() };
    // SAFETY: called from the zone's `init`.
    let Some(slab) = (unsafe { Slab::of(zone) }) else { return nginx::ERROR };

    let root = match former {
        Some(former) => former.root(),
        None => {
            slab.do_not_log_lack();
            // SAFETY: fresh zeroed memory, aligned for pointers (more than a page of it); zeros are a valid root.
            slab.zeroed(size_of::<Root>()).map(|memory| unsafe { &*memory.cast::<Root>().as_ptr() })
        }
    };
    let complete = root.is_some_and(|root| {
        main.root.set(root);
        // The list was made from its end on.
        let count = main.tallies().count();
        (0..count).rev().filter_map(|at| main.tallies().nth(at)).all(|tally| {
            tally.counters.set(root.add(slab, tally.name));
            tally.counters.get().is_some()
        })
    });
    if complete {
        return nginx::OK;
    }

    // SAFETY: a string of nginx's, which the configuration's pool holds.
    let name = unsafe { str_bytes(zone.shm.name) }.escape_ascii();
    log_errno!(
        NGX_LOG_EMERG,
        zone.shm.log,
        0,
        "\"ws_handoff_zone\" \"{name}\" is too small for its upstreams, at least {}k is needed",
        needed_size(main, root).div_ceil(1024)
    );
    nginx::ERROR
}

/// The size that would do: pages for the root, for the upstreams of this configuration, and for those that there have been.
fn needed_size(main: &MainConf, root: Option<&'static Root>) -> usize {
    let page_size = page_size();
    let pages = |size: usize| size.div_ceil(page_size.max(1));
    let latest = root.map_or(ptr::null_mut(), |root| root.latest.load(Ordering::Acquire));
    let old = nodes(latest).map(Node::name);
    let new =
        main.tallies().map(|tally| tally.name).filter(|new| old.clone().all(|old| old != *new));
    let upstreams =
        old.clone().chain(new).map(|name| pages(size_of::<Node>() + name.len())).sum::<usize>();
    Slab::zone_size(pages(size_of::<Root>()) + upstreams, page_size).max(LEAST_PAGES * page_size)
}

fn page_size() -> usize {
    // SAFETY: a global that is set before any configuration is read.
    unsafe { ngx_pagesize }
}

/// What an upstream is called: `upstream {}` by its name, others as `ws_handoff` writes them.
fn name_of(
    pool: Pool,
    upstream: &ngx_http_upstream_srv_conf_t,
) -> Result<&'static [u8], OutOfMemory> {
    // SAFETY: a string that lives as long as the configuration.
    let host: &'static [u8] = unsafe { str_bytes(upstream.host) };
    let mut digits = [0; 8];
    let (before, after): (&[u8], &[u8]) = match upstream.port {
        _ if is_block(upstream) => return Ok(host),
        0 => (b"unix:", b""),
        port => (b"", port_text(port, &mut digits)),
    };
    let name = pool.bytes(before.len() + host.len() + after.len())?;
    for (to, from) in name.iter_mut().zip(before.iter().chain(host).chain(after)) {
        *to = *from;
    }
    Ok(name)
}

fn is_block(upstream: &ngx_http_upstream_srv_conf_t) -> bool {
    upstream.flags & NGX_HTTP_UPSTREAM_CREATE as ngx_uint_t != 0
}

/// `:8080`
fn port_text(port: u16, room: &mut [u8; 8]) -> &[u8] {
    use core::fmt::Write as _;
    let mut page = handoff_metrics::Page::new(room);
    let written = write!(page, ":{port}");
    let len = if written.is_ok() { page.len() } else { 0 };
    room.get(..len).unwrap_or_default()
}

fn pool_of(cf: *mut ngx_conf_t) -> Result<Pool, OutOfMemory> {
    // SAFETY: `cf` is valid while a configuration is read; its pool outlives the configuration.
    unsafe { NonNull::new((*cf).pool).map(|pool| Pool::new(pool)).ok_or(OutOfMemory) }
}
