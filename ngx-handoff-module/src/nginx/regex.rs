//! nginx's regular expressions, which it may have been built without.

use nginx_sys::{ngx_conf_t, ngx_log_t, ngx_str_t};

#[cfg(ngx_feature = "pcre")]
pub use pcre::Regex;
#[cfg(not(ngx_feature = "pcre"))]
pub use without::Regex;

/// Room for PCRE's complaint, as nginx's own modules give it.
const COMPLAINT: usize = nginx_sys::NGX_MAX_CONF_ERRSTR as usize;

/// Why an expression cannot be used.
pub enum RegexFault {
    /// nginx has no PCRE.
    #[cfg_attr(ngx_feature = "pcre", allow(dead_code))]
    Unsupported,
    /// PCRE refuses it: a buffer and how much of it is the complaint.
    #[cfg_attr(not(ngx_feature = "pcre"), allow(dead_code))]
    Invalid([u8; COMPLAINT], usize),
}

#[cfg(ngx_feature = "pcre")]
mod pcre {
    use core::mem::MaybeUninit;
    use core::ptr::{self, NonNull};

    use nginx_sys::{
        NGX_LOG_ERR, NGX_REGEX_CASELESS, NGX_REGEX_NO_MATCHED, ngx_regex_compile,
        ngx_regex_compile_t, ngx_regex_exec, ngx_regex_t, ngx_uint_t,
    };

    use super::super::{OK, str_of};
    use super::{COMPLAINT, RegexFault, ngx_conf_t, ngx_log_t, ngx_str_t};

    /// A compiled expression, in the configuration's pool.
    #[derive(Clone, Copy)]
    pub struct Regex(NonNull<ngx_regex_t>);

    impl Regex {
        /// # Safety
        ///
        /// `cf` is what nginx passed to the running setter, and `pattern` the end of one of its words (PCRE 1 looks for
        /// the NUL behind it).
        pub unsafe fn compile(
            cf: *mut ngx_conf_t,
            pattern: ngx_str_t,
            caseless: bool,
        ) -> Result<Self, RegexFault> {
            let mut complaint = [0; COMPLAINT];
            // SAFETY: integers and nullable pointers, valid as zeros; as nginx does with ngx_memzero().
            let mut compile: ngx_regex_compile_t = unsafe { MaybeUninit::zeroed().assume_init() };
            compile.pattern = pattern;
            compile.options = if caseless { NGX_REGEX_CASELESS as ngx_uint_t } else { 0 };
            compile.err = ngx_str_t { data: complaint.as_mut_ptr(), len: complaint.len() };
            // SAFETY: by the contract; the structure and the buffer outlive the call.
            let compiled = unsafe {
                compile.pool = (*cf).pool;
                ngx_regex_compile(&mut compile) == OK
            };
            match NonNull::new(compile.regex) {
                Some(regex) if compiled => Ok(Self(regex)),
                _ => Err(RegexFault::Invalid(complaint, compile.err.len.min(COMPLAINT))),
            }
        }

        /// Whether it matches somewhere in `text`. An error of PCRE's (its match limit) is logged, and no match.
        pub fn matches(self, log: *mut ngx_log_t, text: &[u8]) -> bool {
            let mut subject = str_of(text);
            // SAFETY: a compiled expression, a subject that is only read, and no captures wanted.
            let rc = unsafe { ngx_regex_exec(self.0.as_ptr(), &mut subject, ptr::null_mut(), 0) };
            if rc < 0 && rc != NGX_REGEX_NO_MATCHED as isize {
                log_errno!(NGX_LOG_ERR, log, 0, "a regular expression failed with {rc}");
            }
            rc >= 0
        }
    }
}

#[cfg(not(ngx_feature = "pcre"))]
mod without {
    use super::{RegexFault, ngx_conf_t, ngx_log_t, ngx_str_t};

    /// Never one.
    #[derive(Clone, Copy)]
    pub enum Regex {}

    impl Regex {
        /// # Safety
        ///
        /// None: the signature is that of an nginx with PCRE.
        pub unsafe fn compile(
            _cf: *mut ngx_conf_t,
            _pattern: ngx_str_t,
            _caseless: bool,
        ) -> Result<Self, RegexFault> {
            Err(RegexFault::Unsupported)
        }

        /// Never called.
        pub fn matches(self, _log: *mut ngx_log_t, _text: &[u8]) -> bool {
            match self {}
        }
    }
}
