//! The module's directives and variables: those that are named exist, and those that exist are documented.

use std::collections::BTreeSet;
use std::fs;

use super::markdown::{self, Document};
use super::{none, one};
use crate::support::paths;

/// Of Rust: the crate's name, and what begins like it in another language.
const FOREIGN: [&str; 2] = ["ws_handoff_backend", "ws_handoff_demo"];

#[test]
fn those_that_are_named_exist() {
    let known = Known::read();
    none(
        &markdown::all().iter().flat_map(|document| known.complaints(document)).collect::<Vec<_>>(),
    );
}

#[test]
fn those_that_exist_are_documented() {
    let known = Known::read();
    let page = markdown::document("docs/directives.md");
    let prose: Vec<&str> = page.prose().map(|(_, line)| line).collect();
    for name in known.directives {
        let heading = prose.iter().position(|line| *line == format!("## {name}"));
        let heading = heading.unwrap_or_else(|| panic!("docs/directives.md has no section {name}"));
        for row in ["| Syntax: | ", "| Default: | ", "| Context: | "] {
            let here = prose[heading..].iter().take(8).any(|line| line.starts_with(row));
            assert!(here, "docs/directives.md, {name}: no {row}");
        }
        assert!(
            page.links().iter().any(|(_, target)| *target == format!("#{name}")),
            "{name} is not in the list"
        );
    }
    for name in known.variables {
        assert!(
            prose.iter().any(|line| line.starts_with(&format!("| `${name}` | "))),
            "${name} has no row"
        );
    }
}

#[test]
fn unknown_ones_are_found() {
    let complaints = |text| Known::read().complaints(&Document::new("a.md", text));
    one(&complaints("`ws_handoff_timeout`"), "a.md:1: ws_handoff_timeout");
    one(
        &complaints("```nginx\nlog_format a '$ws_handoff_cause';\n```"),
        "a.md:2: $ws_handoff_cause",
    );
    // A directive is no variable, nor the other way round.
    one(&complaints("`$ws_handoff_zone`"), "$ws_handoff_zone");
    one(&complaints("`ws_handoff_result`"), "ws_handoff_result");
    none(&complaints(
        "`ws_handoff_zone` $ws_handoff_time nginx_ws_handoff_requests_total use ws_handoff_backend::Offer",
    ));
}

/// What the module's sources register.
struct Known {
    directives: BTreeSet<String>,
    variables: BTreeSet<String>,
}

impl Known {
    fn read() -> Known {
        let mut known = Known { directives: BTreeSet::new(), variables: BTreeSet::new() };
        for file in ["conf", "status", "zone", "variables"] {
            let path = paths::root().join("ngx-handoff-module/src").join(file).with_extension("rs");
            let source = fs::read_to_string(path).expect("read");
            for behind in source.split("ngx_string!(\"").skip(1) {
                let name = behind.split('"').next().expect("an end").to_owned();
                if !name.starts_with("ws_handoff") {
                    continue;
                }
                let all =
                    if file == "variables" { &mut known.variables } else { &mut known.directives };
                all.insert(name);
            }
        }
        assert!(known.directives.len() > 15 && known.variables.len() > 2, "an odd number of names");
        known
    }

    fn complaints(&self, document: &Document) -> Vec<String> {
        let mut complaints = Vec::new();
        for (line, text) in document.all_lines() {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            for (at, _) in text.match_indices("ws_handoff") {
                let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
                let before = text[..at].chars().next_back();
                let known = match before {
                    Some('$') => self.variables.contains(&name),
                    Some(c) if is_name(c) => true,
                    // With an asterisk: all of them.
                    _ => {
                        name.ends_with('_')
                            || self.directives.contains(&name)
                            || FOREIGN.contains(&name.as_str())
                    }
                };
                if !known {
                    let sign = if before == Some('$') { "$" } else { "" };
                    complaints
                        .push(format!("{}: {sign}{name} is not the module's", document.at(line)));
                }
            }
        }
        complaints
    }
}
