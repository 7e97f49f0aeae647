//! Takes a session out of OpenSSL.

use core::ffi::{CStr, c_int};

use handoff_protocol::tls::{Secret, State, Suite, Version};
use zeroize::{Zeroize, Zeroizing};

use super::observed::{self, Observed, Sent};
use super::openssl::{Opaque, OpenSsl, Ssl};
use super::refusal::Refusal;

/// `SSL_EARLY_DATA_ACCEPTED`
const EARLY_DATA_ACCEPTED: c_int = 2;
/// `TLSEXT_max_fragment_length_512` to `_4096`
const FRAGMENT_LENGTHS: core::ops::RangeInclusive<u8> = 1..=4;
/// `BIO_CTRL_GET_KTLS_SEND` and `BIO_CTRL_GET_KTLS_RECV`
const GET_KTLS_SEND: c_int = 73;
const GET_KTLS_RECV: c_int = 76;
/// `SSL_RECEIVED_SHUTDOWN`
const RECEIVED_SHUTDOWN: c_int = 2;
/// `SSL_KEY_UPDATE_NONE`
const KEY_UPDATE_NONE: c_int = -1;

const RANDOM: usize = 32;
const MASTER: usize = 48;
/// The longest of TLS 1.2's key blocks: two keys, two IVs.
const KEY_BLOCK: usize = 2 * (32 + 12);

/// What a session is protected by.
#[derive(Clone, Copy)]
pub struct Protection {
    version: Version,
    number: u16,
    suite: Suite,
}

/// Whether the session is one that somebody else can carry on, as far as its parameters tell.
pub fn check(openssl: &OpenSsl, ssl: *mut Ssl) -> Result<Protection, Refusal> {
    let (version, number) = parameters(openssl, ssl)?;
    let suite = Suite::from_number(version, number).ok_or(Refusal::Suite)?;
    // SAFETY: a live connection whose handshake is over, so that it has a session.
    unsafe {
        if (openssl.SSL_get_early_data_status)(ssl) == EARLY_DATA_ACCEPTED {
            return Err(Refusal::EarlyData);
        }
        // Whoever carried on would wait in vain for a goodbye that has been read.
        if (openssl.SSL_get_shutdown)(ssl) & RECEIVED_SHUTDOWN != 0 {
            return Err(Refusal::Closed);
        }
        let session = (openssl.SSL_get_session)(ssl);
        if session.is_null() {
            return Err(Refusal::Secrets);
        }
        let fragment = (openssl.SSL_SESSION_get_max_fragment_length)(session);
        if FRAGMENT_LENGTHS.contains(&fragment) {
            return Err(Refusal::Fragment);
        }
        if !(openssl.SSL_get_current_compression)(ssl).is_null() {
            return Err(Refusal::Compression);
        }
    }
    if kernel_has_it(openssl, ssl) {
        return Err(Refusal::Ktls);
    }
    let known = observed::of(openssl, ssl).ok_or(Refusal::Secrets)?;
    if !known.is_counting(version) {
        return Err(Refusal::Secrets);
    }
    match version {
        Version::Tls13 => match (known.rx.secret(), known.tx.secret()) {
            (Some(_), Some(_)) => {}
            _ => return Err(Refusal::Secrets),
        },
        Version::Tls12 => match (known.rx.changes, known.tx.changes) {
            (1, 1) => {}
            (0, _) | (_, 0) => return Err(Refusal::Secrets),
            _ => return Err(Refusal::Renegotiation),
        },
    }
    Ok(Protection { version, number, suite })
}

/// Whether OpenSSL stands between two records: nothing of the client's is decrypted or half read.
pub fn is_between_records(openssl: &OpenSsl, ssl: *mut Ssl) -> bool {
    if observed::of(openssl, ssl).is_none_or(|known| known.is_in_message) {
        return false;
    }
    // SAFETY: a live connection; the string is a literal of OpenSSL's. A header that has been read is not "pending", but the
    // state is no longer "read header" then.
    unsafe {
        (openssl.SSL_pending)(ssl) == 0
            && (openssl.SSL_has_pending)(ssl) == 0
            && (openssl.SSL_in_init)(ssl) == 0
            && CStr::from_ptr((openssl.SSL_rstate_string)(ssl)) == c"RH"
    }
}

/// Whether OpenSSL may have given the session up: it is in the handshake's state then, for good. So it is with a message of which
/// four bytes are there, until the others are.
pub fn may_be_broken(openssl: &OpenSsl, ssl: *mut Ssl) -> bool {
    // SAFETY: a live connection. A request in 0-RTT data comes before the handshake's end.
    unsafe {
        (openssl.SSL_in_init)(ssl) != 0
            && (openssl.SSL_get_early_data_status)(ssl) != EARLY_DATA_ACCEPTED
    }
}

/// Encodes the session's state into `out`, and returns its length. The caller zeroes it. The 101 has been a record, and counted.
pub fn export(
    openssl: &OpenSsl,
    ssl: *mut Ssl,
    before_the_101: Sent,
    out: &mut [u8; State::MAX_LEN],
) -> Result<usize, Refusal> {
    let protection = check(openssl, ssl)?;
    if !is_between_records(openssl, ssl) {
        return Err(Refusal::Flood);
    }
    let known = observed::of(openssl, ssl).ok_or(Refusal::Secrets)?;
    if known.sent() == before_the_101 {
        return Err(Refusal::Secrets);
    }
    let (rx_secret, tx_secret) = match protection.version {
        Version::Tls13 => traffic_secrets(known),
        Version::Tls12 => key_block(openssl, ssl, protection),
    }
    .ok_or(Refusal::Secrets)?;
    // SAFETY: a live connection.
    let update = unsafe { (openssl.SSL_get_key_update_type)(ssl) };
    let state = State {
        version: protection.version,
        suite: protection.number,
        rx_seq: known.rx.seq,
        tx_seq: known.tx.seq,
        rx_secret,
        tx_secret,
        // OpenSSL would answer with its next write, which never comes.
        owes_key_update: update != KEY_UPDATE_NONE,
    };
    Ok(state.encode(out))
}

fn parameters(openssl: &OpenSsl, ssl: *mut Ssl) -> Result<(Version, u16), Refusal> {
    // SAFETY: a live connection, whose cipher is a constant of OpenSSL's.
    unsafe {
        let version = u16::try_from((openssl.SSL_version)(ssl)).unwrap_or(0);
        let version = Version::from_number(version).ok_or(Refusal::Version)?;
        let cipher = (openssl.SSL_get_current_cipher)(ssl);
        if cipher.is_null() {
            return Err(Refusal::Suite);
        }
        Ok((version, (openssl.SSL_CIPHER_get_protocol_id)(cipher)))
    }
}

/// The kernel counts the records then, not OpenSSL.
fn kernel_has_it(openssl: &OpenSsl, ssl: *mut Ssl) -> bool {
    let asks = |bio: *mut Opaque, what| {
        // SAFETY: a BIO of the live connection; the question has no argument.
        !bio.is_null() && unsafe { (openssl.BIO_ctrl)(bio, what, 0, core::ptr::null_mut()) } > 0
    };
    // SAFETY: a live connection.
    let (rbio, wbio) = unsafe { ((openssl.SSL_get_rbio)(ssl), (openssl.SSL_get_wbio)(ssl)) };
    asks(rbio, GET_KTLS_RECV) || asks(wbio, GET_KTLS_SEND)
}

fn traffic_secrets(known: &Observed) -> Option<(Secret, Secret)> {
    Some((Secret::new(known.rx.secret()?)?, Secret::new(known.tx.secret()?)?))
}

/// TLS 1.2: both directions' keys and IVs (RFC 5246 section 6.3), for an AEAD. The master secret goes nowhere.
fn key_block(openssl: &OpenSsl, ssl: *mut Ssl, protection: Protection) -> Option<(Secret, Secret)> {
    let mut master = Zeroizing::new([0u8; MASTER]);
    // "key expansion", the server's random, the client's.
    let mut seed = [0u8; LABEL.len() + 2 * RANDOM];
    let (label, randoms) = seed.split_at_mut_checked(LABEL.len())?;
    label.copy_from_slice(LABEL);
    let (server, client) = randoms.split_at_mut_checked(RANDOM)?;
    // SAFETY: a live connection; each function writes at most as many bytes as it is told.
    let lengths = unsafe {
        let session = (openssl.SSL_get_session)(ssl);
        if session.is_null() {
            return None;
        }
        [
            (openssl.SSL_SESSION_get_master_key)(session, master.as_mut_ptr(), MASTER),
            (openssl.SSL_get_server_random)(ssl, server.as_mut_ptr(), RANDOM),
            (openssl.SSL_get_client_random)(ssl, client.as_mut_ptr(), RANDOM),
        ]
    };
    if lengths != [MASTER, RANDOM, RANDOM] {
        return None;
    }

    let mut block = Zeroizing::new([0u8; KEY_BLOCK]);
    let secret_len = protection.suite.secret_len(protection.version);
    let block = block.get_mut(..2 * secret_len)?;
    expand(openssl, protection.suite, &*master, &seed, block)?;
    // Both keys, then both IVs; the client's first.
    let (keys, ivs) = block.split_at_checked(2 * protection.suite.key_len())?;
    let (client_key, server_key) = keys.split_at_checked(keys.len() / 2)?;
    let (client_iv, server_iv) = ivs.split_at_checked(ivs.len() / 2)?;
    Some((joined(client_key, client_iv)?, joined(server_key, server_iv)?))
}

const LABEL: &[u8; 13] = b"key expansion";

/// `P_hash` (RFC 5246 section 5).
fn expand(
    openssl: &OpenSsl,
    suite: Suite,
    secret: &[u8],
    seed: &[u8; LABEL.len() + 2 * RANDOM],
    out: &mut [u8],
) -> Option<()> {
    /// SHA-384's output.
    const MOST: usize = 48;
    let (hash_len, digest) = match suite {
        // SAFETY: constants of OpenSSL's.
        Suite::Aes256Gcm => (MOST, unsafe { (openssl.EVP_sha384)() }),
        // SAFETY: as above.
        Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => (32, unsafe { (openssl.EVP_sha256)() }),
    };
    let hmac = |data: &[u8], to: &mut [u8; MOST]| {
        // SAFETY: key and data are so long; the output has room for the longer of the two digests.
        let done = unsafe {
            (openssl.HMAC)(
                digest,
                secret.as_ptr().cast(),
                secret.len() as c_int,
                data.as_ptr(),
                data.len(),
                to.as_mut_ptr(),
                core::ptr::null_mut(),
            )
        };
        (!done.is_null()).then_some(())
    };

    // A(i), and behind it the seed.
    let mut input = Zeroizing::new([0u8; MOST + LABEL.len() + 2 * RANDOM]);
    let input = input.get_mut(..hash_len + seed.len())?;
    input.get_mut(hash_len..)?.copy_from_slice(seed);
    let (mut a, mut piece) = (Zeroizing::new([0u8; MOST]), Zeroizing::new([0u8; MOST]));
    hmac(seed, &mut a)?;
    for part in out.chunks_mut(hash_len) {
        input.get_mut(..hash_len)?.copy_from_slice(a.get(..hash_len)?);
        hmac(input, &mut piece)?;
        part.copy_from_slice(piece.get(..part.len())?);
        hmac(input.get(..hash_len)?, &mut a)?;
    }
    Some(())
}

fn joined(key: &[u8], iv: &[u8]) -> Option<Secret> {
    let mut both = [0u8; 32 + 12];
    let whole = both.get_mut(..key.len() + iv.len())?;
    let (first, second) = whole.split_at_mut_checked(key.len())?;
    first.copy_from_slice(key);
    second.copy_from_slice(iv);
    let secret = Secret::new(whole);
    both.zeroize();
    secret
}
