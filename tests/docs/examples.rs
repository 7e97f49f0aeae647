//! Programs in the documents.

use std::io::Write;
use std::process::{Command, Stdio};

use super::markdown;
use super::{none, one};
use crate::support::paths;

#[test]
fn the_python_backend_of_the_specification_is_the_one_that_is_tested() {
    let specification = markdown::document("docs/protocol.md");
    let file = std::fs::read_to_string(paths::example_file("python/backend.py")).expect("read");
    let printed =
        specification.blocks().iter().any(|block| block.language == "python" && block.text == file);
    assert!(printed, "docs/protocol.md prints another program than examples/python/backend.py");
}

#[test]
fn python_and_json_can_be_read() {
    let mut complaints = Vec::new();
    let mut read = 0;
    for block in markdown::all().iter().flat_map(markdown::Document::blocks) {
        if ["python", "json"].contains(&block.language) {
            read += 1;
            complaints.extend(
                unreadable(block.language, &block.text)
                    .map(|said| format!("{}: {said}", block.document.at(block.line))),
            );
        }
    }
    assert!(read >= 3, "only {read} were found");
    none(&complaints);
    one(&Vec::from_iter(unreadable("python", "def f(:\n")), "SyntaxError");
    one(&Vec::from_iter(unreadable("json", "{,}")), "JSONDecodeError");
}

fn unreadable(language: &str, text: &str) -> Option<String> {
    let program = match language {
        "python" => "import ast, sys; ast.parse(sys.stdin.read())",
        _ => "import json, sys; json.load(sys.stdin)",
    };
    let mut python = Command::new(paths::python())
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run python");
    let mut input = python.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("write to python");
    drop(input);
    let output = python.wait_with_output().expect("python ends");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
