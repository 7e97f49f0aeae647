//! Which of the formats somebody wants.

use core::fmt;

use crate::report::Report;
use crate::{html, json, prometheus};

/// A format of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Prometheus,
    /// JSON.
    Json,
    /// A page for people.
    Html,
}

/// A format that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl Format {
    /// All of them; earlier ones are preferred where a client does not care.
    const ALL: [Self; 3] = [Self::Prometheus, Self::Json, Self::Html];

    /// The format of this name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn of_name(name: &[u8]) -> Result<Self, UnknownFormat> {
        match name {
            b"prometheus" => Ok(Self::Prometheus),
            b"json" => Ok(Self::Json),
            b"html" => Ok(Self::Html),
            _ => Err(UnknownFormat),
        }
    }

    /// The format that suits these `Accept` fields best (RFC 9110 section 12.5.1); [`Format::Prometheus`] where none
    /// does, since a scraper is served better by what it did not ask for than by nothing.
    pub fn negotiate<'a>(accept: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let mut best = (Self::Prometheus, 0);
        for format in Self::ALL {
            let quality = quality(accept.clone(), format.media_type());
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn render(self, report: &Report<'_>, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Prometheus => prometheus::render(report, out),
            Self::Json => json::render(report, out),
            Self::Html => html::render(report, out),
        }
    }

    const fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Prometheus => ("text", "plain"),
            Self::Json => ("application", "json"),
            Self::Html => ("text", "html"),
        }
    }
}

/// What the most specific range of `Accept` that matches says of a media type, in thousandths.
fn quality<'a>(accept: impl Iterator<Item = &'a [u8]>, (kind, subtype): (&str, &str)) -> u16 {
    // (how specific, quality)
    let mut found = (0u8, 0u16);
    for range in accept.flat_map(|line| line.split(|b| *b == b',')) {
        let mut parts = range.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let mut names = parts.next().unwrap_or_default().splitn(2, |b| *b == b'/');
        let (range_kind, range_subtype) =
            (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        let specific = if range_kind.eq_ignore_ascii_case(kind.as_bytes()) {
            if range_subtype.eq_ignore_ascii_case(subtype.as_bytes()) {
                3
            } else if range_subtype == b"*" {
                2
            } else {
                continue;
            }
        } else if (range_kind, range_subtype) == (b"*", b"*") {
            1
        } else {
            continue;
        };
        let quality = parts.find_map(weight).unwrap_or(1000);
        if specific > found.0 || (specific == found.0 && quality > found.1) {
            found = (specific, quality);
        }
    }
    found.1
}

/// The value of a parameter `q=0.5`, in thousandths; 0 for one that is malformed.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return None };
    let (whole, rest) = value.split_first()?;
    let fraction = match rest {
        [] => &[],
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return Some(0),
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return Some(0),
    };
    for (digit, place) in fraction.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.wrapping_sub(b'0')) * place;
    }
    Some(thousandths.min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &[&str]) -> Format {
        Format::negotiate(accept.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn prometheus_gets_its_text() {
        for accept in [
            "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;\
             version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.25,*/*;q=0.1",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "*/*",
            "",
            "image/png",
            "text/*",
        ] {
            assert_eq!(negotiated(&[accept]), Format::Prometheus, "{accept}");
        }
        assert_eq!(negotiated(&[]), Format::Prometheus);
    }

    #[test]
    fn a_browser_gets_a_page() {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        assert_eq!(negotiated(&[accept]), Format::Html);
    }

    #[test]
    fn the_most_specific_range_counts() {
        assert_eq!(negotiated(&["text/plain;q=0, */*"]), Format::Json);
        assert_eq!(negotiated(&["text/*;q=0.1", "application/json; q=0.2"]), Format::Json);
        assert_eq!(
            negotiated(&["TEXT/HTML ; level=1 ; Q=0.3, application/json;q=0.2"]),
            Format::Html
        );
        assert_eq!(
            negotiated(&["text/plain;q=0,application/json;q=0.000,text/html;q=0.001"]),
            Format::Html
        );
    }

    #[test]
    fn nonsense_is_no_preference() {
        for accept in ["/", ",,,", "text", "text/html;q=9", "text/html;q=0.5000", "text/html;q=x"] {
            assert_eq!(negotiated(&[accept]), Format::Prometheus, "{accept}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(Format::of_name(b"json"), Ok(Format::Json));
        assert_eq!(Format::of_name(b"JSON"), Err(UnknownFormat));
        assert_eq!(Format::of_name(b""), Err(UnknownFormat));
    }
}
