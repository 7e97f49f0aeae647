//! The address of a backend as a configuration writes it, or as its variables make it.

/// Checks what nginx's own parser of addresses (`ngx_parse_url()`) would misread, or accept to no use.
///
/// # Errors
///
/// [`AddressError`]
pub fn check_address(address: &[u8]) -> Result<(), AddressError> {
    if address.iter().any(u8::is_ascii_control) {
        return Err(AddressError::ControlCharacter);
    }
    if address.windows(3).any(|window| window == b"://") {
        return Err(AddressError::Scheme);
    }
    if address.strip_prefix(b"unix:").is_some_and(|path| path.contains(&b':')) {
        return Err(AddressError::Uri);
    }
    Ok(())
}

/// Why an address is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// NUL would end a path early, and the others have no place in a name.
    #[error("a control character is not allowed")]
    ControlCharacter,
    /// `http://…`, which `proxy_pass` wants.
    #[error("a \"unix:\" path or the name of an upstream is expected, without a scheme,")]
    Scheme,
    /// `unix:PATH:URI`, which `proxy_pass` takes.
    #[error("a URI is not allowed after the path of the socket")]
    Uri,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["", "unix:", "unix:/run/a b.sock", "chat", "127.0.0.1:80", "[::1]:80", "$a:80"]
        {
            assert_eq!(check_address(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("http://chat", AddressError::Scheme),
            ("http://unix:/run/a.sock", AddressError::Scheme),
            ("unix:/run/http://a", AddressError::Scheme),
            ("unix:/run/a.sock:/chat", AddressError::Uri),
            ("unix:/run/a.sock:", AddressError::Uri),
            ("unix:/run/a\0.sock", AddressError::ControlCharacter),
            ("chat\r\n", AddressError::ControlCharacter),
        ] {
            assert_eq!(check_address(bad.as_bytes()), Err(error), "{bad}");
        }
    }
}
