//! An address is accepted if it has nothing that nginx's parser would misread.

#![no_main]

use handoff_protocol::{AddressError, check_address};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|address: &[u8]| {
    let text: String = address.iter().map(|&byte| char::from(byte)).collect();
    let expected = if text.chars().any(|char| char < ' ' || char == '\x7f') {
        Err(AddressError::ControlCharacter)
    } else if text.contains("://") {
        Err(AddressError::Scheme)
    } else if text.starts_with("unix:") && text.matches(':').count() > 1 {
        Err(AddressError::Uri)
    } else {
        Ok(())
    };
    assert_eq!(check_address(address), expected);
});
