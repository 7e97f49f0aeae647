//! A real nginx with a directory and a port of its own, the module loaded, and what its logs must
//! not say.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tempfile::TempDir;

use super::client::Client;
use super::fake::socket_dir;
use super::log::{self, LogLine};
use super::process::{self, Process};
use super::{PATIENCE, PROMPTLY, net, paths, proc, wait_for, wait_until};

/// A running nginx. When dropped it is stopped gracefully, and unless the test is failing already,
/// its error log must hold nothing that the test did not declare with [`Builder::tolerate`].
pub struct Nginx {
    process: Option<Process>,
    site: Builder,
}

/// An nginx to be: what goes into its configuration, and its directory.
pub struct Builder {
    dir: TempDir,
    port: u16,
    log_level: &'static str,
    workers: usize,
    listen: String,
    main: String,
    events: String,
    http: String,
    server: String,
    tolerated: Vec<&'static str>,
    quiet: bool,
    user: &'static str,
    preload: Option<PathBuf>,
}

/// What stub_status reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubStatus {
    pub active: u64,
    pub accepts: u64,
    pub handled: u64,
    pub requests: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

impl Builder {
    /// Goes to the top, outside of all blocks: instead of what the tests say of processes, where it names the same
    /// directive. How many workers that makes is told with [`Builder::workers`].
    pub fn main(mut self, text: impl AsRef<str>) -> Self {
        self.main.push_str(text.as_ref());
        self
    }

    /// Goes into `events {}`, instead of 1024 `worker_connections`.
    pub fn events(mut self, text: impl AsRef<str>) -> Self {
        self.events.push_str(text.as_ref());
        self
    }

    /// Goes into `http {}` beside the server: upstreams, other servers.
    pub fn http(mut self, text: impl AsRef<str>) -> Self {
        self.http.push_str(text.as_ref());
        self
    }

    /// Goes into the `server {}`. Relative paths begin in the nginx's directory.
    pub fn server(mut self, text: impl AsRef<str>) -> Self {
        self.server.push_str(text.as_ref());
        self
    }

    /// Parameters of the server's `listen`.
    pub fn listen(mut self, parameters: &str) -> Self {
        self.listen = parameters.into();
        self
    }

    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Level of the error log; `info` if not told.
    pub fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// A file in the nginx's directory.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        fs::write(path, content).expect("write a file");
        self
    }

    /// Lines of the error log with this text are expected, whatever their level.
    pub fn tolerate(mut self, text: &'static str) -> Self {
        self.tolerated.push(text);
        self
    }

    /// No line about a connection may be above `info`: nothing that clients do here is news.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Workers that are no root's, where the tests run as root.
    pub fn unprivileged(mut self) -> Self {
        self.user = "nobody nogroup";
        self
    }

    /// A shared object that every process of it loads before all others, made of this C (`LD_PRELOAD`).
    pub fn preload(mut self, source: &str) -> Self {
        let (code, object) =
            (self.dir.path().join("preload.c"), self.dir.path().join("preload.so"));
        fs::write(&code, source).expect("write a file");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).args([&object, &code]);
        let made = process::output(&mut compiler).expect("run cc");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.preload = Some(object);
        self
    }

    pub fn start(self) -> Nginx {
        self.write_config();
        let mut nginx = Nginx { process: None, site: self };
        nginx.start_again();
        nginx
    }

    /// What `nginx -t` says of the configuration: whether it is accepted, and its messages.
    pub fn check(&self) -> (bool, String) {
        self.write_config();
        let output = process::output(self.command().arg("-t")).expect("run nginx -t");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn new() -> Builder {
        Builder {
            dir: socket_dir(),
            port: net::free_port(),
            log_level: "info",
            workers: 1,
            listen: String::new(),
            main: String::new(),
            events: String::new(),
            http: String::new(),
            server: String::new(),
            tolerated: Vec::new(),
            quiet: false,
            user: "root",
            preload: None,
        }
    }

    /// nginx with this configuration and directory.
    pub fn command(&self) -> Command {
        let mut command = Command::new(paths::nginx());
        command.arg("-p").arg(self.dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        // Inherited sockets, says nginx; `make test NGINX=debian` says something else with it.
        command.stdin(Stdio::null()).env_remove("NGINX");
        if let Some(object) = &self.preload {
            command.env("LD_PRELOAD", object);
        }
        command
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn write_config(&self) {
        let user = match Uid::effective().is_root() {
            true => format!("user {};", self.user),
            false => String::new(),
        };
        let Builder { log_level, workers, listen, main, events, http, server, port, .. } = self;
        let workers = workers.to_string();
        let processes: String = [("daemon", "off"), ("worker_processes", workers.as_str())]
            .into_iter()
            .filter(|(name, _)| !main.contains(name))
            .map(|(name, value)| format!("{name} {value};\n"))
            .collect();
        let events = if events.is_empty() { "worker_connections 1024;" } else { events };
        let module = paths::module()
            .map_or_else(String::new, |path| format!("load_module {};", path.display()));
        let log_format = log::FORMAT;
        let config = format!(
            r#"{processes}{main}
{user}
pid nginx.pid;
error_log error.log {log_level};
{module}
events {{
    {events}
}}
http {{
    log_format facts '{log_format}';
    access_log access.log facts;
    client_body_temp_path tmp/body;
    proxy_temp_path tmp/proxy;
    fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi;
    scgi_temp_path tmp/scgi;
    {http}
    server {{
        listen 127.0.0.1:{port} {listen};
        root files;
        location = /stub_status {{ stub_status; access_log off; }}
        {server}
    }}
}}
"#
        );
        for name in ["tmp", "files"] {
            fs::create_dir_all(self.dir.path().join(name)).expect("make a directory");
        }
        fs::write(self.dir.path().join("nginx.conf"), config).expect("write nginx.conf");
    }
}

impl Nginx {
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// One worker and a server with these directives.
    pub fn start(server: impl AsRef<str>) -> Nginx {
        Nginx::builder().server(server).start()
    }

    /// Starts it where it was stopped.
    pub fn start_again(&mut self) {
        let mut command = self.site.command();
        command.stderr(Stdio::inherit()).stdout(Stdio::null());
        // Upon SIGTERM the master stops its workers; killed, it would leave them behind.
        let mut process = Process::spawn("nginx", &mut command, Signal::SIGTERM);
        let address = self.address();
        wait_until("nginx listens", || {
            if let Some(status) = process.exited() {
                panic!("nginx exited: {status}\n{}", self.error_log());
            }
            TcpStream::connect(address).is_ok()
        });
        self.process = Some(process);
        wait_until("workers run", || self.workers().len() == self.site.workers);
        self.wait_channels();
        self.wait_inactive();
    }

    pub fn address(&self) -> SocketAddr {
        self.site.address()
    }

    pub fn dir(&self) -> &Path {
        self.site.dir.path()
    }

    pub fn master(&self) -> i32 {
        self.process.as_ref().expect("nginx runs").pid()
    }

    /// Pids of the workers, old ones included that have not exited yet.
    pub fn workers(&self) -> Vec<i32> {
        if self.site.main.contains("master_process off") {
            return vec![self.master()];
        }
        workers_of(self.master())
    }

    /// The pid of the only worker.
    pub fn worker(&self) -> i32 {
        let workers = self.workers();
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers[0]
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("nginx runs").signal(signal);
    }

    /// Reloads and waits for new workers and for the old ones to exit, which must happen promptly.
    pub fn reload(&self) {
        let old = self.workers();
        self.signal(Signal::SIGHUP);
        wait_until("new workers run", || {
            self.workers().iter().filter(|pid| !old.contains(pid)).count() == self.site.workers
        });
        super::wait_for_within("old workers exit", *PROMPTLY, || {
            old.iter().all(|pid| !proc::alive(*pid)).then_some(())
        });
        self.wait_channels();
    }

    /// Waits until the workers that were forked first have the sockets to the later ones, which the
    /// master sends them (ngx_pass_open_channel): a descriptor more than whoever counts before then
    /// sees. All of them have as many in the end.
    fn wait_channels(&self) {
        wait_until("each worker holds as many descriptors as the others", || {
            let held: Vec<usize> =
                self.workers().into_iter().map(|pid| proc::descriptors(pid).len()).collect();
            held.windows(2).all(|pair| pair[0] == pair[1])
        });
    }

    /// `nginx -s stop`, until it has exited.
    pub fn stop_fast(&mut self) {
        let mut command = self.site.command();
        let stopped = process::output(command.args(["-s", "stop"])).expect("nginx -s stop");
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
        let mut process = self.process.take().expect("nginx runs");
        assert!(process.wait(*PROMPTLY).success());
    }

    pub fn stub_status(&self) -> StubStatus {
        let mut client = Client::connect(self.address());
        client.send(b"GET /stub_status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let head = client.read_head();
        let text = String::from_utf8(client.read_body(&head)).expect("ASCII");
        // Its descriptor is closed, and not counted by whoever counts next.
        client.read_to_end();
        let numbers: Vec<u64> =
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [active, accepts, handled, requests, reading, writing, waiting] = numbers[..] else {
            panic!("stub_status: {text}");
        };
        StubStatus { active, accepts, handled, requests, reading, writing, waiting }
    }

    /// Waits until the worker has read all that `client` sent, and done with it what it can without
    /// waiting.
    pub fn wait_read(&self, client: &Client) {
        wait_until("nginx's kernel has it all", || net::unacknowledged(client.stream()) == 0);
        self.serve_others();
    }

    /// Has the worker serve two requests. Whatever it had been told before by the kernel it has dealt with
    /// then: epoll is first in, first out, and a connection's first event is its acceptance.
    pub fn serve_others(&self) {
        self.stub_status();
        self.stub_status();
    }

    /// Waits until no connection is active but the one that asks.
    pub fn wait_inactive(&self) {
        wait_until("stub_status shows no active connection", || {
            let status = self.stub_status();
            (status.active, status.reading, status.writing, status.waiting) == (1, 0, 1, 0)
        });
    }

    pub fn error_log(&self) -> String {
        let raw = fs::read(self.dir().join("error.log")).unwrap_or_default();
        String::from_utf8_lossy(&raw).into_owned()
    }

    pub fn access_log(&self) -> Vec<LogLine> {
        let text = fs::read_to_string(self.dir().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(LogLine::parse).collect()
    }

    /// Waits for the first access log line whose request contains `request`.
    pub fn logged(&self, request: &str) -> LogLine {
        wait_for(&format!("{request} is logged"), || {
            self.access_log().into_iter().find(|line| line.get("request").contains(request))
        })
    }

    /// Stops gracefully: only then a worker reports connections that it has lost track of. What
    /// is wrong with how it went and with the error log.
    fn finish(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(mut process) = self.process.take() {
            let workers = proc::children(process.pid());
            if !process.stop(Signal::SIGQUIT, *PATIENCE) {
                complaints.push("still busy long after SIGQUIT".to_owned());
                process.stop(Signal::SIGTERM, *PROMPTLY);
            }
            drop(process);
            for pid in workers.into_iter().filter(|pid| proc::alive(*pid)) {
                complaints.push(format!("worker {pid} outlived its master"));
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            }
        }
        let log = self.error_log();
        complaints.extend(log::complaints(&log, self.site.quiet, &self.site.tolerated));
        complaints
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let complaints = self.finish();
        if thread::panicking() || !complaints.is_empty() {
            let log = self.error_log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            let mut stderr = String::new();
            stderr.push_str(&format!("{}:\n{}\n", self.dir().display(), tail.join("\n")));
            eprintln!("{stderr}");
            let _ = std::io::stderr().flush();
        }
        if !thread::panicking() {
            assert!(complaints.is_empty(), "nginx: {complaints:#?}");
        }
    }
}

/// Pids of the workers of a master, old ones included that have not exited yet.
pub fn workers_of(master: i32) -> Vec<i32> {
    proc::children(master)
        .into_iter()
        .filter(|pid| {
            let command = proc::command_line(*pid);
            // Under valgrind a process cannot change what its command line seems to be.
            command.starts_with("nginx: worker process") || command.contains("valgrind")
        })
        .collect()
}

/// Whether the nginx under test was configured with `argument`.
pub fn configured_with(argument: &str) -> bool {
    let output = process::output(Command::new(paths::nginx()).arg("-V")).expect("run nginx -V");
    String::from_utf8_lossy(&output.stderr).split_whitespace().any(|word| word == argument)
}

/// What the nginx under test says of itself with `-v`, as numbers: `(1, 28, 3)`.
pub fn version() -> (u32, u32, u32) {
    let output = process::output(Command::new(paths::nginx()).arg("-v")).expect("run nginx -v");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, version) = text.trim_end().split_once("nginx/").expect("nginx version: nginx/1.28.3");
    let numbers: Vec<u32> =
        version.split('.').map(|number| number.parse().expect("a number")).collect();
    let [major, minor, patch] = numbers[..] else { panic!("{text}") };
    (major, minor, patch)
}

/// Sends `signal` to `pid` and, for SIGSTOP, waits until it has stopped.
pub fn signal_worker(pid: i32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signal a worker");
    if signal == Signal::SIGSTOP {
        wait_until("the worker is stopped", || proc::stopped(pid));
    }
}
