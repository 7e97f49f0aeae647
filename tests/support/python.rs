//! Runs the scripts of `tests/python`.

use std::process::Command;

use super::{paths, process};

/// Runs a script to its end and insists on success; its standard output.
pub fn run(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(paths::python());
    command.arg("-B").arg(paths::python_script(script)).args(arguments);
    process::run("python", command)
}
