//! OpenSSL's functions, looked up in the running nginx.
//!
//! They are not linked: nginx may have been built without TLS, or with another library that lacks some of them, and the
//! module loads there as well.
//!
//! A process can have more than one OpenSSL: nginx's own may be a part of its binary that it does not show, and another one may
//! have come with somebody else's module. A connection of one is garbage to the other. So all functions of libssl have to be
//! in one object, those of libcrypto as well, and the former in the one that nginx's own contexts are made by.

use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::OnceLock;

/// A connection (`SSL`).
#[repr(C)]
pub struct Ssl {
    _opaque: [u8; 0],
}

/// What connections are made from (`SSL_CTX`).
#[repr(C)]
pub struct SslCtx {
    _opaque: [u8; 0],
}

/// Of types that are only passed on.
#[repr(C)]
pub struct Opaque {
    _opaque: [u8; 0],
}

/// `SSL_CTX_keylog_cb_func`
pub type Keylog = Option<unsafe extern "C" fn(*const Ssl, *const c_char)>;
/// What `SSL_CTX_set_msg_callback` takes.
pub type Message =
    unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, usize, *mut Ssl, *mut c_void);
/// `CRYPTO_EX_free`
pub type ExFree =
    unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, c_int, c_long, *mut c_void);

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)+) => {
        /// Pointers to all functions that are used; each as OpenSSL 3 declares it.
        #[allow(non_snake_case, missing_docs)]
        pub struct OpenSsl {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)+
        }

        impl OpenSsl {
            fn look_up(objects: &mut Objects) -> Result<Self, Lack> {
                Ok(Self { $($name: {
                    let address = address_of(concat!(stringify!($name), "\0"))
                        .ok_or(Lack::Function(stringify!($name)))?;
                    objects.add(stringify!($name), address)?;
                    // SAFETY: the function of that name, which has this signature in every OpenSSL 3; `version` below
                    // is asked before another one is called.
                    unsafe {
                        core::mem::transmute::<
                            *mut c_void,
                            unsafe extern "C" fn($($argument),*) $(-> $result)?,
                        >(address)
                    }
                },)+ })
            }
        }
    };
}

functions! {
    BIO_ctrl(*mut Opaque, c_int, c_long, *mut c_void) -> c_long;
    CRYPTO_clear_free(*mut c_void, usize, *const c_char, c_int);
    CRYPTO_get_ex_new_index(c_int, c_long, *mut c_void, *const c_void, *const c_void, Option<ExFree>) -> c_int;
    CRYPTO_zalloc(usize, *const c_char, c_int) -> *mut c_void;
    ERR_clear_error();
    EVP_sha256() -> *const Opaque;
    EVP_sha384() -> *const Opaque;
    HMAC(*const Opaque, *const c_void, c_int, *const u8, usize, *mut u8, *mut c_uint) -> *mut u8;
    OpenSSL_version_num() -> c_ulong;
    SSL_CIPHER_get_protocol_id(*const Opaque) -> u16;
    SSL_CTX_get_ex_data(*const SslCtx, c_int) -> *mut c_void;
    SSL_CTX_get_keylog_callback(*const SslCtx) -> Keylog;
    SSL_CTX_get_ssl_method(*const SslCtx) -> *const c_void;
    SSL_CTX_set_ex_data(*mut SslCtx, c_int, *mut c_void) -> c_int;
    SSL_CTX_set_keylog_callback(*mut SslCtx, Keylog);
    SSL_CTX_set_msg_callback(*mut SslCtx, Option<Message>);
    SSL_SESSION_get_master_key(*const Opaque, *mut u8, usize) -> usize;
    SSL_SESSION_get_max_fragment_length(*const Opaque) -> u8;
    SSL_get_SSL_CTX(*const Ssl) -> *mut SslCtx;
    SSL_get_client_random(*const Ssl, *mut u8, usize) -> usize;
    SSL_get_current_cipher(*const Ssl) -> *const Opaque;
    SSL_get_current_compression(*const Ssl) -> *const Opaque;
    SSL_get_early_data_status(*const Ssl) -> c_int;
    SSL_get_error(*const Ssl, c_int) -> c_int;
    SSL_get_ex_data(*const Ssl, c_int) -> *mut c_void;
    SSL_get_key_update_type(*const Ssl) -> c_int;
    SSL_get_rbio(*const Ssl) -> *mut Opaque;
    SSL_get_server_random(*const Ssl, *mut u8, usize) -> usize;
    SSL_get_session(*const Ssl) -> *mut Opaque;
    SSL_get_wbio(*const Ssl) -> *mut Opaque;
    SSL_get_shutdown(*const Ssl) -> c_int;
    SSL_has_pending(*const Ssl) -> c_int;
    SSL_in_init(*const Ssl) -> c_int;
    SSL_pending(*const Ssl) -> c_int;
    SSL_read(*mut Ssl, *mut c_void, c_int) -> c_int;
    SSL_rstate_string(*const Ssl) -> *const c_char;
    SSL_set_ex_data(*mut Ssl, c_int, *mut c_void) -> c_int;
    SSL_set_read_ahead(*mut Ssl, c_int);
    SSL_version(*const Ssl) -> c_int;
}

/// Why TLS sessions cannot be taken out of this nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Its TLS library has no such function, or does not show it.
    Function(&'static str),
    /// Another of its functions is in another object: there is more than one library.
    Scattered(&'static str),
    /// Its TLS library is not OpenSSL 3.
    Version(u64),
}

/// The library, if [`find`] has found it.
pub fn get() -> Option<&'static OpenSsl> {
    LIBRARY.get()
}

/// Looks the library up. Once per process; later calls return what the first one found.
pub fn find() -> Result<&'static OpenSsl, Lack> {
    if let Some(library) = get() {
        return Ok(library);
    }
    let mut objects = Objects::default();
    let library = OpenSsl::look_up(&mut objects)?;
    // SAFETY: a function without arguments; LibreSSL and BoringSSL have it, too.
    let version = unsafe { (library.OpenSSL_version_num)() };
    // How records are read, and what the callbacks are told, was tried out with OpenSSL 3.
    if version >> 28 != 3 {
        return Err(Lack::Version(version));
    }
    Ok(LIBRARY.get_or_init(|| library))
}

/// Whether nginx has made `ctx` by the library that was found: every context points to a table of its library's functions.
///
/// # Safety
///
/// `ctx` is a context of nginx's.
pub unsafe fn has_made(library: &OpenSsl, ctx: *const SslCtx) -> bool {
    // SAFETY: by the contract. If the context is another library's, this reads some pointer in it, which is not followed.
    let table = unsafe { (library.SSL_CTX_get_ssl_method)(ctx) };
    let own = object_of(library.SSL_CTX_get_ssl_method as *const c_void);
    own.is_some_and(|own| object_of(table).is_some_and(|of_ctx| of_ctx.dli_fbase == own.dli_fbase))
}

static LIBRARY: OnceLock<OpenSsl> = OnceLock::new();

/// Where the functions are that were found so far. If OpenSSL is linked into nginx, both are nginx's binary.
#[derive(Default)]
struct Objects {
    ssl: Option<usize>,
    crypto: Option<usize>,
}

impl Objects {
    fn add(&mut self, name: &'static str, address: *const c_void) -> Result<(), Lack> {
        let base = object_of(address).ok_or(Lack::Function(name))?.dli_fbase as usize;
        let known = if name.starts_with("SSL_") { &mut self.ssl } else { &mut self.crypto };
        if *known.get_or_insert(base) == base { Ok(()) } else { Err(Lack::Scattered(name)) }
    }
}

/// What has been loaded at an address: nginx's binary, or a shared object.
pub fn object_of(address: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: plain data for which zeros are valid.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: only looks the address up.
    (unsafe { libc::dladdr(address, &mut info) } != 0).then_some(info)
}

/// `name` ends with a NUL.
fn address_of(name: &'static str) -> Option<*mut c_void> {
    // SAFETY: only looks a name up among all that nginx has loaded.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr().cast()) };
    (!address.is_null()).then_some(address)
}
