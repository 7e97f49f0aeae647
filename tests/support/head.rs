//! HTTP heads: of requests and responses as they were seen, and the opening handshake to send.

use handoff_protocol::same_field_name;

/// The key of RFC 6455 section 1.3 and the value that it must be answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A head as it came, the empty line included.
#[derive(Clone, Debug)]
pub struct Head {
    pub raw: Vec<u8>,
    /// Request line or status line.
    pub line: String,
    /// In order, names as they came.
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn parse(raw: Vec<u8>) -> Head {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let body = text.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
        let mut lines = body.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .map(|field| {
                let (name, value) = field.split_once(':').expect("a field has a colon");
                (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
            })
            .collect();
        Head { raw, line, fields }
    }

    pub fn status(&self) -> u16 {
        let mut words = self.line.split(' ');
        assert_eq!(words.next(), Some("HTTP/1.1"), "{}", self.line);
        words.next().and_then(|word| word.parse().ok()).expect("a status")
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).expect("a request target")
    }

    /// Values of the fields named `name` (any case, `_` as `-`), in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(candidate, _)| same_field_name(candidate.as_bytes(), name.as_bytes()))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of the only field named `name`; `None` without one. Two are a failure.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is repeated:\n{}", String::from_utf8_lossy(&self.raw));
        all.first().copied()
    }
}

/// An opening handshake that is right until told otherwise.
#[derive(Clone)]
pub struct Handshake {
    method: String,
    target: String,
    version: String,
    fields: Vec<(String, String)>,
}

impl Handshake {
    pub fn new(target: &str) -> Handshake {
        let fields = [
            ("Host", "localhost"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ];
        Handshake {
            method: "GET".into(),
            target: target.into(),
            version: "HTTP/1.1".into(),
            fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(candidate, _)| candidate != name);
        self
    }

    /// One more field at the end.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Replaces the fields of that name by one.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} {}\r\n", self.method, self.target, self.version);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}
