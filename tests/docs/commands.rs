//! Commands: make's targets and variables, the backend's options and environment, and whether a shell can read them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::markdown::{self, Block, Document};
use super::{none, one};
use crate::support::paths;

/// How options begin that the text names on their own, and that are not the backend's: those of nginx's configure, and two of
/// any program.
const FOREIGN: [&str; 4] = ["--add-", "--with-", "--help", "--version"];

#[test]
fn make_has_the_targets_and_variables_that_are_named() {
    let make = Make::read();
    let used = markdown::all().iter().flat_map(invocations_of_make).count();
    assert!(used > 20, "only {used} were found");
    none(
        &markdown::all().iter().flat_map(|document| make.complaints(document)).collect::<Vec<_>>(),
    );
}

#[test]
fn tests_and_benchmarks_of_make_are_described() {
    let all = [markdown::document("docs/testing.md"), markdown::document("docs/performance.md")];
    let described: BTreeSet<String> = all
        .into_iter()
        .flat_map(invocations_of_make)
        .filter_map(|(_, words)| words.first().cloned())
        .collect();
    for target in Make::read().targets {
        let kind = target.split('-').next().expect("a word");
        if ["test", "bench", "fuzz", "lint"].contains(&kind) {
            assert!(
                described.contains(&target),
                "make {target}: docs/testing.md does not say what it runs"
            );
        }
    }
}

#[test]
fn wrong_ones_of_make_are_found() {
    let make = Make::read();
    let complaints = |text| make.complaints(&Document::new("a.md", text));
    one(&complaints("Run `make nothing`."), "a.md:1: make nothing");
    one(&complaints("Run `make test NIX=1`."), "NIX");
    one(&complaints("```sh\nmake build nothing\n```"), "nothing");
    one(&complaints("```sh\nsudo make absent   # comment\n```"), "absent");
    none(&complaints(
        "```sh\nmake test NGINX=debian  # make nothing\n./configure && make modules\n```",
    ));
}

#[test]
fn options_of_the_backend_exist() {
    let help = Help::read();
    none(
        &markdown::all().iter().flat_map(|document| help.complaints(document)).collect::<Vec<_>>(),
    );
}

#[test]
fn options_of_the_backend_are_documented() {
    let page = markdown::document("docs/backend.md");
    let named: Vec<&str> = page.code_spans().into_iter().map(|(_, span)| span).collect();
    let missing: Vec<String> = Help::read()
        .options
        .into_iter()
        .filter(|option| {
            !named.iter().any(|span| span.split([' ', '=', ',']).any(|word| word == option))
        })
        .map(|option| format!("docs/backend.md does not name {option}"))
        .collect();
    none(&missing);
}

#[test]
fn wrong_options_are_found() {
    let help = Help::read();
    let complaints = |text| help.complaints(&Document::new("a.md", text));
    one(&complaints("`--max-conections`"), "--max-conections");
    one(
        &complaints("```sh\nws-handoff-backend --app echo \\\n    --sokcet /run/a\n```"),
        "--sokcet",
    );
    one(&complaints("Set `WS_HANDOFF_SOKCET`."), "WS_HANDOFF_SOKCET");
    none(&complaints(
        "`--socket`, `--engine tasks`, `WS_HANDOFF_SOCKET`\n```sh\ncurl --fail a\n```",
    ));
}

#[test]
fn shells_can_read_the_commands() {
    let blocks = shell_blocks(markdown::all());
    assert!(blocks.len() > 10, "only {} were found", blocks.len());
    none(&blocks.iter().filter_map(unreadable).collect::<Vec<_>>());
    let wrong = [Document::new("a.md", "```sh\nif true; do echo\n```\n")];
    one(&shell_blocks(&wrong).iter().filter_map(unreadable).collect::<Vec<_>>(), "a.md:2: ");
}

/// What the Makefile and the scripts know.
struct Make {
    targets: BTreeSet<String>,
    variables: String,
}

impl Make {
    fn read() -> Make {
        let makefile = fs::read_to_string(paths::root().join("Makefile")).expect("read");
        let targets = makefile
            .lines()
            .filter_map(|line| line.strip_prefix(".PHONY: "))
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect();
        let scripts = fs::read_dir(paths::root().join("scripts")).expect("list");
        let scripts = scripts.map(|entry| entry.expect("an entry").path());
        let text = scripts.map(|path| fs::read_to_string(path).unwrap_or_default());
        Make { targets, variables: makefile.clone() + &text.collect::<String>() }
    }

    fn complaints(&self, document: &Document) -> Vec<String> {
        let mut complaints = Vec::new();
        for (line, words) in invocations_of_make(document) {
            for word in words {
                let known = match word.split_once('=') {
                    Some((name, _)) => ["$(", "${"]
                        .iter()
                        .any(|open| self.variables.contains(&format!("{open}{name}"))),
                    None => self.targets.contains(&word),
                };
                if !known {
                    complaints.push(format!(
                        "{}: make {word}: no such target or variable",
                        document.at(line)
                    ));
                }
            }
        }
        complaints
    }
}

/// The words behind `make`, by line: in code spans, and in shell blocks that do not configure nginx.
fn invocations_of_make(document: &Document) -> Vec<(usize, Vec<String>)> {
    let mut found: Vec<(usize, Vec<String>)> = document
        .code_spans()
        .into_iter()
        .filter_map(|(line, span)| Some((line, words(span.strip_prefix("make ")?))))
        .collect();
    for block in document.blocks().iter().filter(|block| is_shell(block)) {
        if block.text.contains("./configure") {
            continue;
        }
        for (line, command) in commands(block) {
            let command = command.strip_prefix("sudo ").unwrap_or(&command);
            if let Some(behind) = command.strip_prefix("make ") {
                found.push((line, words(behind)));
            }
        }
    }
    found
}

/// Up to a comment or another command; a value in quotes is one word with its name.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut quoted = false;
    for piece in text.split_whitespace() {
        if piece.starts_with(['#', '|', '&']) && !quoted {
            break;
        }
        match words.last_mut() {
            Some(last) if quoted => last.push_str(piece),
            _ => words.push(piece.to_owned()),
        }
        quoted ^= piece.matches(['"', '\'']).count() % 2 == 1;
    }
    words.retain(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    words
}

/// What `ws-handoff-backend --help` lists.
struct Help {
    text: String,
    options: BTreeSet<String>,
}

impl Help {
    fn read() -> Help {
        let output =
            Command::new(paths::backend()).arg("--help").output().expect("run the backend");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (list, _) =
            text.split_once("\nSignals:\n").expect("a list of options, and what follows it");
        let options: BTreeSet<String> = list
            .lines()
            .filter_map(|line| line.trim_start().split(' ').next())
            .filter(|word| word.starts_with("--"))
            .map(str::to_owned)
            .collect();
        assert!(options.len() > 20, "{options:?}");
        Help { text, options }
    }

    fn complaints(&self, document: &Document) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut check = |line, word: &str| {
            let name = word.split(['=', ',', '`']).next().unwrap_or_default();
            if name.starts_with("--")
                && name.len() > 2
                && !self.options.contains(name)
                && !FOREIGN.iter().any(|start| name.starts_with(start))
            {
                complaints
                    .push(format!("{}: {name} is no option of the backend", document.at(line)));
            }
        };
        for (line, span) in document.code_spans() {
            // Options on their own are the backend's; behind another program's name they are that one's.
            if span.starts_with("--") || span.starts_with("ws-handoff-backend ") {
                span.split_whitespace().for_each(|word| check(line, word));
            }
        }
        for block in document.blocks().iter().filter(|block| is_shell(block)) {
            for (line, command) in commands(block) {
                if command
                    .split_whitespace()
                    .next()
                    .is_some_and(|word| word.ends_with("ws-handoff-backend"))
                {
                    command.split_whitespace().for_each(|word| check(line, word));
                }
            }
        }
        for (line, text) in document.all_lines() {
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let own = word.starts_with("WS_HANDOFF_") && !word.starts_with("WS_HANDOFF_TEST_");
                if own && !word.ends_with('_') && !self.text.contains(&format!("[env: {word}=")) {
                    complaints.push(format!(
                        "{}: {word} is not in the backend's environment",
                        document.at(line)
                    ));
                }
            }
        }
        complaints
    }
}

fn is_shell(block: &Block<'_>) -> bool {
    ["sh", "bash", "shell"].contains(&block.language)
}

fn shell_blocks(documents: &[Document]) -> Vec<Block<'_>> {
    let blocks = documents.iter().flat_map(Document::blocks);
    blocks.filter(is_shell).collect()
}

/// The block's commands: lines, with those that a backslash continues as one.
fn commands(block: &Block<'_>) -> Vec<(usize, String)> {
    let mut commands: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for (number, line) in (block.line..).zip(block.text.lines()) {
        let text = line.trim().trim_end_matches('\\');
        match commands.last_mut() {
            Some((_, command)) if continued => command.push_str(text),
            _ => commands.push((number, text.to_owned())),
        }
        continued = line.ends_with('\\');
    }
    commands
}

fn unreadable(block: &Block<'_>) -> Option<String> {
    let mut shell = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run bash");
    let mut input = shell.stdin.take().expect("a pipe");
    input.write_all(block.text.as_bytes()).expect("write to bash");
    drop(input);
    let output = shell.wait_with_output().expect("bash ends");
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{}: {said}", block.document.at(block.line)))
}
