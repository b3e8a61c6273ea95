//! What a terminal wants of the binary: manual pages and completions; and the API's description.
//!
//! All of it is made from the command line itself, or from the API's handlers.

use clap::Command;
use clap_complete::aot;

use crate::api;
use crate::settings::{Shell, command};

/// Returns the manual: one page for the program and one for each command.
pub(super) fn man() -> Vec<(String, String)> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    // Its own template is for the screen.
    let program = command.clone().help_template("{all-args}");
    let mut out = vec![page(program, "citystream")];
    for sub in command.get_subcommands() {
        let name = format!("citystream-{}", sub.get_name());
        out.push(page(sub.clone().version(env!("CARGO_PKG_VERSION")), &name));
    }
    out
}

fn page(command: Command, name: &str) -> (String, String) {
    let mut text = Vec::new();
    let synopsis = name.replacen('-', " ", 1);
    let command = command.bin_name(synopsis).display_name(name.to_owned());
    clap_mangen::Man::new(command)
        .title(name.to_owned())
        .source(concat!("citystream ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)
        .expect("memory takes it");
    let text = String::from_utf8(text).expect("the texts are UTF-8");
    (format!("{name}.1"), text)
}

/// Returns the completions for a shell, in the file its completion loader looks for.
pub(super) fn completion(shell: Shell) -> (String, String) {
    let (generator, file) = match shell {
        Shell::Bash => (aot::Shell::Bash, "citystream.bash"),
        Shell::Zsh => (aot::Shell::Zsh, "_citystream"),
        Shell::Fish => (aot::Shell::Fish, "citystream.fish"),
    };
    let mut text = Vec::new();
    clap_complete::generate(generator, &mut command(), "citystream", &mut text);
    let text = String::from_utf8(text).expect("the texts are UTF-8");
    (file.to_owned(), text)
}

/// Returns the API's description.
pub(super) fn openapi() -> String {
    let mut text = api::openapi::json().to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
