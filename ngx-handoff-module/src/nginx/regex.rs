//! nginx's regular expressions, which it may have been built without.

#[cfg(ngx_feature = "pcre")]
pub use pcre::Regex;
#[cfg(not(ngx_feature = "pcre"))]
pub use without::Regex;

/// An expression that cannot be used; why has been logged.
#[derive(Clone, Copy, Debug)]
pub struct InvalidRegex;

#[cfg(ngx_feature = "pcre")]
mod pcre {
    use core::mem::MaybeUninit;
    use core::ptr::{self, NonNull};

    use nginx_sys::{
        NGX_LOG_EMERG, NGX_LOG_ERR, NGX_MAX_CONF_ERRSTR, NGX_REGEX_CASELESS, NGX_REGEX_NO_MATCHED,
        ngx_conf_t, ngx_log_t, ngx_regex_compile, ngx_regex_compile_t, ngx_regex_exec, ngx_regex_t,
        ngx_str_t, ngx_uint_t,
    };
    use ngx::ngx_conf_log_error;

    use super::super::{OK, str_of};
    use super::InvalidRegex;

    /// A compiled expression, in the configuration's pool.
    #[derive(Clone, Copy)]
    pub struct Regex(NonNull<ngx_regex_t>);

    impl Regex {
        /// Compiles `pattern`, which is an argument of `directive` or the end of one.
        ///
        /// # Safety
        ///
        /// `cf` is what nginx passed to the running setter, and behind the pattern there is the NUL of its argument (PCRE
        /// 1 looks for it).
        pub unsafe fn compile(
            cf: *mut ngx_conf_t,
            directive: &str,
            pattern: ngx_str_t,
            caseless: bool,
        ) -> Result<Self, InvalidRegex> {
            let mut complaint = [0; NGX_MAX_CONF_ERRSTR as usize];
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
                _ => {
                    // nginx has written its complaint into the buffer, and set the length.
                    let complaint = compile.err;
                    ngx_conf_log_error!(
                        NGX_LOG_EMERG,
                        cf,
                        "{complaint} in \"{directive}\" directive"
                    );
                    Err(InvalidRegex)
                }
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
    use nginx_sys::{NGX_LOG_EMERG, ngx_conf_t, ngx_log_t, ngx_str_t};
    use ngx::ngx_conf_log_error;

    use super::InvalidRegex;

    /// Never one.
    #[derive(Clone, Copy)]
    pub enum Regex {}

    impl Regex {
        /// Says that there are none here.
        ///
        /// # Safety
        ///
        /// `cf` is what nginx passed to the running setter.
        pub unsafe fn compile(
            cf: *mut ngx_conf_t,
            directive: &str,
            pattern: ngx_str_t,
            _caseless: bool,
        ) -> Result<Self, InvalidRegex> {
            ngx_conf_log_error!(
                NGX_LOG_EMERG,
                cf,
                "using regex \"{}\" in \"{directive}\" directive requires PCRE library",
                pattern
            );
            Err(InvalidRegex)
        }

        /// Never called.
        pub fn matches(self, _log: *mut ngx_log_t, _text: &[u8]) -> bool {
            match self {}
        }
    }
}
