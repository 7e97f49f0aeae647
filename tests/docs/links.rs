//! Links between the documents, and to files.

use std::path::{Component, Path, PathBuf};

use super::markdown::{self, Document};
use super::{none, one};
use crate::support::paths;

#[test]
fn every_link_leads_somewhere() {
    let complaints: Vec<String> = markdown::all().iter().flat_map(complaints).collect();
    none(&complaints);
    let links: usize = markdown::all().iter().map(|document| document.links().len()).sum();
    assert!(links > 100, "only {links} links were found");
}

#[test]
fn every_page_of_docs_is_in_its_table() {
    let index = markdown::document("docs/README.md");
    let linked: Vec<String> = index.links().into_iter().map(|(_, target)| target).collect();
    for document in markdown::all() {
        if let Ok(name) = document.path.strip_prefix("docs") {
            let name = name.display().to_string();
            assert!(
                name == "README.md" || linked.contains(&name),
                "docs/README.md leaves {name} out"
            );
        }
    }
}

#[test]
fn wrong_ones_are_found() {
    let document = |text| Document::new("docs/made-up.md", text);
    one(&complaints(&document("[a](no-such-page.md)")), "docs/made-up.md:1: no-such-page.md");
    one(&complaints(&document("\n[a](protocol.md#no-such-heading)")), "docs/made-up.md:2: ");
    one(&complaints(&document("[a](#none)")), "#none");
    one(&complaints(&document("[a](../../elsewhere)")), "outside");
    one(&complaints(&document("<img src=\"none.svg\">")), "none.svg");
    one(&complaints(&document("[a](http:example.org)")), "http:example.org");
    let right = "# Own\n[`a`](#own) [b](../README.md) ![c](performance/memory.svg) [d](https://example.org/) `[e](f)`";
    none(&complaints(&document(right)));
}

fn complaints(document: &Document) -> Vec<String> {
    let links = document.links().into_iter();
    links
        .filter_map(|(line, target)| {
            let problem = problem(document, &target)?;
            Some(format!("{}: {target}: {problem}", document.at(line)))
        })
        .collect()
}

fn problem(document: &Document, target: &str) -> Option<&'static str> {
    if target.starts_with("https://")
        || target.starts_with("http://")
        || target.starts_with("mailto:")
    {
        return None;
    }
    let (file, fragment) = target.split_once('#').map_or((target, None), |(f, a)| (f, Some(a)));
    let path = if file.is_empty() {
        document.path.clone()
    } else {
        match joined(document.path.parent().unwrap_or(Path::new("")), Path::new(file)) {
            Some(path) => path,
            None => return Some("leads outside of the project"),
        }
    };
    if !file.is_empty() && !paths::root().join(&path).exists() {
        return Some("no such file");
    }
    let fragment = fragment?;
    let anchors = match markdown::all().iter().find(|other| other.path == path) {
        _ if file.is_empty() => document.anchors(),
        Some(other) => other.anchors(),
        None => return Some("an anchor in what is no document"),
    };
    (!anchors.iter().any(|anchor| anchor == fragment)).then_some("no such heading")
}

/// Without `..`; `None` above the root.
fn joined(directory: &Path, file: &Path) -> Option<PathBuf> {
    let mut path = directory.to_owned();
    for component in file.components() {
        match component {
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            Component::CurDir => (),
            _ => return None,
        }
    }
    Some(path)
}
