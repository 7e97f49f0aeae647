//! As much of Markdown as these documents use: fenced blocks, code spans, links, headings.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::support::paths;

/// A document of this project.
pub struct Document {
    /// From the working copy's root.
    pub path: PathBuf,
    lines: Vec<Line>,
}

/// A fenced block.
pub struct Block<'d> {
    pub document: &'d Document,
    /// Of its first line of content, from 1.
    pub line: usize,
    pub language: &'d str,
    pub text: String,
}

struct Line {
    text: String,
    /// Inside a fenced block; the fences themselves are neither.
    fenced: bool,
    fence: bool,
}

/// Every document, read once.
pub fn all() -> &'static [Document] {
    static ALL: LazyLock<Vec<Document>> = LazyLock::new(|| {
        let mut found = Vec::new();
        collect(Path::new(""), &mut found);
        assert!(found.len() > 8, "only {} documents", found.len());
        found
    });
    &ALL
}

/// The document at that path.
pub fn document(path: &str) -> &'static Document {
    let found = all().iter().find(|document| document.path == Path::new(path));
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

fn collect(directory: &Path, found: &mut Vec<Document>) {
    let mut entries: Vec<_> = fs::read_dir(paths::root().join(directory))
        .expect("list a directory")
        .map(|entry| entry.expect("an entry"))
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = directory.join(&name);
        let built = ["target", "build"].contains(&name.as_str()) || name.starts_with('.');
        if entry.file_type().expect("a type").is_dir() {
            if !built {
                collect(&path, found);
            }
        } else if name.ends_with(".md") {
            let text = fs::read_to_string(paths::root().join(&path)).expect("read a document");
            found.push(Document::new(path, &text));
        }
    }
}

impl Document {
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Document {
        let mut fenced = false;
        let mut lines = Vec::new();
        for text in text.lines() {
            let fence = text.trim_start().starts_with("```");
            lines.push(Line { text: text.to_owned(), fenced: fenced && !fence, fence });
            fenced ^= fence;
        }
        assert!(!fenced, "a block without an end");
        Document { path: path.into(), lines }
    }

    /// `PATH:LINE`
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let mut open = false;
        for (number, line) in (1..).zip(&self.lines) {
            if line.fence && !open {
                let language = line.text.trim_start().trim_start_matches('`').trim();
                let text = String::new();
                blocks.push(Block { document: self, line: number + 1, language, text });
            } else if line.fenced {
                let block = blocks.last_mut().expect("a fence came before");
                block.text.push_str(&line.text);
                block.text.push('\n');
            }
            open ^= line.fence;
        }
        blocks
    }

    /// Lines outside of fenced blocks, from 1.
    pub fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(&self.lines);
        lines
            .filter(|(_, line)| !line.fenced && !line.fence)
            .map(|(n, line)| (n, line.text.as_str()))
    }

    /// All lines, from 1.
    pub fn all_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.lines.iter().map(|line| line.text.as_str()))
    }

    /// What stands between backquotes, outside of fenced blocks.
    pub fn code_spans(&self) -> Vec<(usize, &str)> {
        let spans = |line| str::split(line, '`').skip(1).step_by(2);
        self.prose()
            .flat_map(|(number, line)| spans(line).map(move |span| (number, span)))
            .collect()
    }

    /// Targets of links and images, outside of code.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            // `](` in a code span is no link, but a link's text may well be code.
            let plain: String = line
                .split('`')
                .enumerate()
                .map(|(n, part)| if n % 2 == 0 { part.to_owned() } else { part.replace("](", "") })
                .collect();
            for behind in plain.split("](").skip(1) {
                let target = behind.split([')', ' ']).next().unwrap_or_default();
                links.push((number, target.to_owned()));
            }
            for attribute in ["src=\"", "srcset=\"", "href=\""] {
                for behind in plain.split(attribute).skip(1) {
                    links.push((number, behind.split('"').next().unwrap_or_default().to_owned()));
                }
            }
        }
        links
    }

    /// The names by which its headings can be linked to, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        self.prose()
            .filter(|(_, line)| line.starts_with('#'))
            .map(|(_, line)| {
                let name = anchor(line.trim_start_matches('#').trim());
                let count = seen.entry(name.clone()).or_default();
                *count += 1;
                if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
            })
            .collect()
    }
}

fn anchor(heading: &str) -> String {
    // Of a link only the text counts.
    let text = heading.split("](").enumerate().map(|(n, part)| match n {
        0 => part,
        _ => part.split_once(')').map_or("", |(_, behind)| behind),
    });
    text.collect::<String>()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn anchors_are_those_of_github() {
    let document = Document::new(
        "a.md",
        "# The `ws_handoff` way\n## 4. Offer (nginx → backend)\n```sh\n# no heading\n```\n## Same\n## Same\n## [A](b) c\n",
    );
    let expected = ["the-ws_handoff-way", "4-offer-nginx--backend", "same", "same-1", "a-c"];
    assert_eq!(document.anchors(), expected);
}
