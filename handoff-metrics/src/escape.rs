//! Names as each format wants them. They come from nginx's configuration, and can be any bytes; what is not UTF-8 is
//! shown as U+FFFD.

use core::fmt::{self, Display, Formatter, Write as _};
use core::time::Duration;

/// A value of a Prometheus label, without its quotes.
pub struct Label<'a>(pub &'a [u8]);

/// A string of JSON, without its quotes.
pub struct Json<'a>(pub &'a [u8]);

/// Text of HTML, also as an attribute's value.
pub struct Html<'a>(pub &'a [u8]);

/// A time in seconds, with nine digits behind the point.
pub struct Seconds(pub Duration);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        each(self.0, |c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

impl Display for Json<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        each(self.0, |c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c)),
            c => f.write_char(c),
        })
    }
}

impl Display for Html<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        each(self.0, |c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            // HTML has no way to write these.
            c if c.is_control() => f.write_char(char::REPLACEMENT_CHARACTER),
            c => f.write_char(c),
        })
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

fn each(bytes: &[u8], mut write: impl FnMut(char) -> fmt::Result) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().try_for_each(&mut write)?;
        if !chunk.invalid().is_empty() {
            write(char::REPLACEMENT_CHARACTER)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_format_escapes_its_own() {
        let name = b"a\\b\"c\nd<e>&'\x01\x7f\xff\xc3\xa4";
        assert_eq!(Label(name).to_string(), "a\\\\b\\\"c\\nd<e>&'\x01\x7f\u{fffd}ä");
        assert_eq!(Json(name).to_string(), "a\\\\b\\\"c\\u000ad<e>&'\\u0001\x7f\u{fffd}ä");
        assert_eq!(
            Html(name).to_string(),
            "a\\b&quot;c\u{fffd}d&lt;e&gt;&amp;&#39;\u{fffd}\u{fffd}\u{fffd}ä"
        );
    }

    #[test]
    fn seconds_keep_their_nanoseconds() {
        assert_eq!(Seconds(Duration::from_nanos(1_000_000_001)).to_string(), "1.000000001");
        assert_eq!(Seconds(Duration::from_micros(500)).to_string(), "0.000500000");
    }

    /// What a parser of Prometheus text makes of a label's value.
    fn unescape(text: &str) -> String {
        let mut chars = text.chars();
        let mut plain = String::new();
        while let Some(c) = chars.next() {
            plain.push(match c {
                '\\' => match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('\\' | '"')) => c,
                    other => panic!("\\{other:?}"),
                },
                '"' | '\n' => panic!("{c:?} ends the value"),
                c => c,
            });
        }
        plain
    }

    proptest! {
        #[test]
        fn labels_survive(name in any::<Vec<u8>>()) {
            let escaped = Label(&name).to_string();
            prop_assert_eq!(unescape(&escaped), String::from_utf8_lossy(&name));
        }

        #[test]
        fn labels_with_much_to_escape_survive(name in "[\\\\\"\nn\u{e4}]{0,40}") {
            prop_assert_eq!(unescape(&Label(name.as_bytes()).to_string()), name);
        }

        #[test]
        fn no_name_breaks_out_of_html_or_json(name in any::<Vec<u8>>()) {
            let html = Html(&name).to_string();
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
            prop_assert!(html.chars().all(|c| !c.is_control()));
            let json = Json(&name).to_string();
            prop_assert!(json.chars().all(|c| c >= ' '));
            prop_assert!(!json.replace("\\\\", "").replace("\\\"", "").contains('"'));
        }
    }
}
