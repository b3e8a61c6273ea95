//! A shell in a pseudo-terminal, whose picture an emulator computes.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pty_process::blocking as pty;
use vt100::{Parser, Screen};

use super::WAIT_MAX;
use crate::cli::golden;
use crate::process::{Start as _, starting};

/// Prints how a program ended and whether the terminal's settings are as before. The words differ from the typed
/// ones.
pub(super) const AFTER: &str =
    r#"printf 'ex''it=%s set''tings=%s\n' $? $([ "$before" = "$(stty -g)" ] && echo same)"#;

/// A shell in a terminal.
pub(super) struct Terminal {
    pty: Arc<pty::Pty>,
    parser: Arc<Mutex<Parser>>,
    /// Everything that was written to the terminal.
    pub(super) bytes: Arc<Mutex<Vec<u8>>>,
    shell: Child,
    pub(super) folder: tempfile::TempDir,
}

fn size(of: u16) -> NonZeroU16 {
    NonZeroU16::new(of).unwrap()
}

impl Terminal {
    pub(super) fn open(
        width: u16,
        height: u16,
        servers: &str,
        variables: &[(&str, &str)],
    ) -> Terminal {
        let (pty, pts) = pty::open().unwrap();
        pty.resize(pty_process::Size::new(height, width)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let command = pty::Command::new("bash")
            .args(["--norc", "--noprofile", "--noediting", "-i"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TERM", "xterm-256color")
            .env("PS1", "$ ")
            .env("KAFKA_BOOTSTRAP_SERVERS", servers)
            .env("cs", env!("CARGO_BIN_EXE_citystream"))
            .env("me", std::env::current_exe().unwrap())
            .envs(variables.iter().copied())
            .current_dir(folder.path());
        let shell = starting(|| command.spawn(pts)).unwrap();
        let terminal = Terminal {
            pty: Arc::new(pty),
            parser: Arc::new(Mutex::new(Parser::new(size(height), size(width), 0))),
            bytes: Arc::default(),
            shell,
            folder,
        };
        let (pty, parser) = (Arc::clone(&terminal.pty), Arc::clone(&terminal.parser));
        let bytes = Arc::clone(&terminal.bytes);
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = (&*pty).read(&mut buffer) {
                parser.lock().unwrap().process(&buffer[..count]);
                bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        terminal
    }

    pub(super) fn type_keys(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Runs a program, and prints the terminal's settings before and after it.
    pub(super) fn run(&self, command: &str) {
        self.type_keys(&format!("before=$(stty -g); {command}; {AFTER}\n"));
    }

    /// Runs `tail` in this way.
    pub(super) fn tail(&self, args: &str) {
        self.run(&format!("\"$cs\" tail {args}"));
    }

    pub(super) fn resize(&self, width: u16, height: u16) {
        // The emulator changes first, because the program draws for the new size as soon as the terminal has it.
        let mut parser = self.parser.lock().unwrap();
        parser.set_size(size(height), size(width));
        drop(parser);
        self.pty
            .resize(pty_process::Size::new(height, width))
            .unwrap();
    }

    pub(super) fn look<T>(&self, look: impl Fn(&Screen) -> T) -> T {
        look(self.parser.lock().unwrap().screen())
    }

    pub(super) fn shown(&self) -> String {
        self.look(|screen| {
            let (_, width) = screen.size();
            let rows = screen.rows(0, width.get());
            rows.map(|row| format!("{}\n", row.trim_end())).collect()
        })
    }

    pub(super) fn wait(&self, what: &str, holds: impl Fn(&Screen) -> bool) {
        let begun = Instant::now();
        while !self.look(&holds) {
            assert!(
                begun.elapsed() < WAIT_MAX,
                "waited for {what}, and see\n{}",
                self.shown()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the live screen shows these words.
    pub(super) fn wait_for(&self, words: &str) {
        self.wait(words, |screen| {
            screen.alternate_screen() && screen.contents().contains(words)
        });
    }

    /// Compares the final picture with the recorded pictures of this name.
    pub(super) fn looks_right_in_three_widths(&self, name: &str) {
        // After ten seconds all rates are 0 and the picture no longer changes.
        for (width, height) in [(80, 24), (40, 20), (200, 45)] {
            self.resize(width, height);
            let seen = format!("{width} columns at rest");
            self.wait(&seen, |screen| {
                let text = screen.contents();
                let head = text.lines().next().unwrap_or_default();
                let columns = head.chars().count();
                columns == usize::from(width) && text.contains(" 0/s ") && text.contains("lag 0")
            });
            // The rest of the picture follows its first line at once.
            let mut last = String::new();
            let begun = Instant::now();
            while begun.elapsed() < WAIT_MAX {
                let shown = self.shown();
                if shown == last {
                    break;
                }
                last = shown;
                std::thread::sleep(Duration::from_millis(300));
            }
            golden(&format!("golden/tail/{name}-{width}x{height}.txt"), &last);
        }
    }

    /// Returns the process that the shell runs.
    pub(super) fn running(&self) -> u32 {
        let shell = self.shell.id();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(path).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.running().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).finish();
        assert!(sent.unwrap().success());
    }

    /// Waits until the program has ended with this exit code, and checks that it restored the terminal. Returns the
    /// picture.
    pub(super) fn left(&self, code: i32) -> String {
        self.wait("the end", |screen| {
            let text = screen.contents();
            !screen.alternate_screen() && text.contains("exit=")
        });
        let shown = self.shown();
        let told = format!("exit={code} settings=same");
        assert!(shown.contains(&told), "{shown}");
        assert!(!self.look(Screen::hide_cursor), "the cursor is back");
        shown
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Closing the terminal ends the program that runs in it.
        drop(self.shell.kill());
        drop(self.shell.wait());
    }
}
