//! Runs the scripts of `tests/python`.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::paths;
use super::process::Process;

/// Runs a script to its end and insists on success; its standard output.
pub fn run(script: &str, arguments: &[&str]) -> String {
    let dir = super::fake::socket_dir();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let create = |path| std::fs::File::create(path).expect("create a file for output");
    let mut command = Command::new(paths::python());
    command
        .arg("-B")
        .arg(paths::python_script(script))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(create(&out))
        .stderr(create(&err));
    let mut process = Process::spawn("python", &mut command, Signal::SIGKILL);
    let status = process.wait(Duration::from_secs(120));
    let read = |path| std::fs::read_to_string(path).expect("read the output");
    let output = read(&out);
    assert!(status.success(), "{script} {arguments:?}: {status}\n{output}\n{}", read(&err));
    output
}
