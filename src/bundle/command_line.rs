//! Generates manual pages and shell completions from the definition of the command line.

use clap::Command;
use clap_complete::aot;

use super::NamedFile;
use crate::settings::{CompletionShell, command};

/// Returns the manual pages: one page for the program and one page for each command.
pub(super) fn man() -> Vec<NamedFile> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    // The help template of the program is made for terminals, so the manual page uses another template.
    let program = command.clone().help_template("{all-args}");
    let mut out = vec![page(program, "citystream")];
    for sub in command.get_subcommands() {
        let name = format!("citystream-{}", sub.get_name());
        out.push(page(sub.clone().version(env!("CARGO_PKG_VERSION")), &name));
    }
    out
}

fn page(command: Command, name: &str) -> NamedFile {
    let mut text = Vec::new();
    let synopsis = name.replacen('-', " ", 1);
    let command = command.bin_name(synopsis).display_name(name.to_owned());
    clap_mangen::Man::new(command)
        .title(name.to_owned())
        .source(concat!("citystream ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)
        .expect("writing to memory cannot fail");
    let text = String::from_utf8(text).expect("the texts are UTF-8");
    (format!("{name}.1"), text)
}

/// Returns the completions for a shell, with the file name that the shell expects.
///
/// One of the first two lines of the completion file contains the instructions for installing the file.
pub(crate) fn completion(shell: CompletionShell) -> NamedFile {
    let (generator, name, folder) = match shell {
        CompletionShell::Bash => (
            aot::Shell::Bash,
            "citystream.bash",
            "~/.local/share/bash-completion/completions",
        ),
        CompletionShell::Zsh => (aot::Shell::Zsh, "_citystream", "a folder of $fpath"),
        CompletionShell::Fish => (
            aot::Shell::Fish,
            "citystream.fish",
            "~/.config/fish/completions",
        ),
    };
    let mut text = Vec::new();
    clap_complete::generate(generator, &mut command(), "citystream", &mut text);
    let text = String::from_utf8(text).expect("the texts are UTF-8");
    let install =
        format!("# To install: write this file as {name} into {folder}, and start a new shell.");
    // Zsh requires `#compdef citystream` in the first line, so the second line contains the instructions.
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with('#') => format!("{first}\n{install}\n{rest}"),
        _ => format!("{install}\n{text}"),
    };
    (name.to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_say_how_to_install_them() {
        for (shell, first) in [
            (CompletionShell::Bash, "# To install"),
            (CompletionShell::Zsh, "#compdef citystream"),
            (CompletionShell::Fish, "# "),
        ] {
            let (name, text) = completion(shell);
            assert!(text.starts_with(first), "{text}");
            let install = text.lines().take(2).find(|l| l.starts_with("# To install"));
            assert!(install.is_some_and(|line| line.contains(&name)), "{name}");
        }
    }
}
