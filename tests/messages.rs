//! Whatever the module can write to the error log, `docs/directives.md` explains.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MACROS: [&str; 2] = ["log_errno!(", "ngx_conf_log_error!("];

#[test]
fn every_message_is_in_the_table_of_messages() {
    let manual = fs::read_to_string(Path::new(ROOT).join("docs/directives.md")).expect("read");
    let (_, table) = manual.split_once("\n## Error log\n").expect("a section of messages");

    let mut messages = 0;
    let mut missing = Vec::new();
    for file in sources(&Path::new(ROOT).join("ngx-handoff-module/src")) {
        let source = fs::read_to_string(&file).expect("read");
        for text in MACROS.iter().flat_map(|name| source.split(name).skip(1)).map(first_literal) {
            messages += 1;
            if !constant_parts(&text).iter().all(|part| table.contains(part.as_str())) {
                missing.push(format!("{}: {text}", file.display()));
            }
        }
    }
    assert!(messages > 30, "only {messages} messages were found in the sources");
    assert!(missing.is_empty(), "not in docs/directives.md:\n{}", missing.join("\n"));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("list the module's sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("log.rs") {
            found.push(path);
        }
    }
    found
}

/// The first string literal, unescaped.
fn first_literal(source: &str) -> String {
    let (_, rest) = source.split_once('"').expect("a message");
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next().expect("the end of the message") {
            '"' => return text,
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
}

/// What stands between the `{…}` of a format string.
fn constant_parts(format: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for piece in format.split('{') {
        let text = piece.split_once('}').map_or(piece, |(_, text)| text);
        let text = text.trim_matches([' ', ':', '"']);
        if !text.is_empty() {
            parts.push(text.to_owned());
        }
    }
    parts
}
