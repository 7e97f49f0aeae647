//! Why a TLS session stays in nginx.

use core::fmt;

pub use handoff_metrics::TlsRefusal as Refusal;

/// For the error log.
pub struct Reason(pub Refusal);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Refusal::Version => "neither TLS 1.2 nor TLS 1.3",
            Refusal::Suite => "a cipher suite that is not supported",
            Refusal::Secrets => "its secrets are not known",
            Refusal::EarlyData => "its request came as 0-RTT data",
            Refusal::Fragment => "max_fragment_length was negotiated",
            Refusal::Compression => "compression was negotiated",
            Refusal::Ktls => "OpenSSL uses kernel TLS",
            Refusal::Renegotiation => "it was renegotiated",
            Refusal::Closed => "the client has ended it, or broken it",
            Refusal::Slow => "a record did not arrive whole in time",
            Refusal::Flood => "the client sent too much before it had an answer",
            Refusal::Trust => "its socket is not trusted",
        })
    }
}
