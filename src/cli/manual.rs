//! `hydrograph completions SHELL` and `hydrograph man [VERB]`: what packages install beside the binary.
//!
//! In: the definition of the command line. Out: a completion script, or a manual page in roff, on stdout. Invariant: both
//! are made of the definition itself, so they list exactly what this binary takes.

use super::{Cli, Exit};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;

/// Writes the script that completes verbs and options in a shell.
pub(super) fn completions(shell: Shell, out: &mut impl Write) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hydrograph", &mut script);
    out.write_all(&script)?;
    Ok(Exit::Done)
}

/// Writes the manual page of the program, or of one verb.
pub(super) fn man(verb: Option<&str>, out: &mut impl Write) -> anyhow::Result<Exit> {
    let mut command = Cli::command();
    command.build();
    let command = match verb {
        None => command,
        Some(verb) => {
            // As in man(1): the page of `git commit` is git-commit.
            let found = command.find_subcommand(verb).filter(|found| found.get_name() == verb);
            let Some(found) = found.cloned() else {
                let verbs = command.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ");
                eprintln!("hydrograph: no verb \"{verb}\"; there are {verbs}");
                return Ok(Exit::Usage);
            };
            found
        }
    };
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command).title(name).section("1").render(&mut page)?;
    out.write_all(&page)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<Exit>) -> String {
        let mut out = Vec::new();
        assert_eq!(write(&mut out).expect("written"), Exit::Done);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn scripts_complete_every_verb_in_every_shell() {
        for shell in Shell::value_variants() {
            let script = text(|out| completions(*shell, out));
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell} knows {}", verb.get_name());
            }
            assert!(script.contains("token-file"), "{shell} knows the options");
        }
    }

    #[test]
    fn pages_hold_every_verb_and_option() {
        let page = text(|out| man(None, out));
        assert!(page.contains(".TH hydrograph 1"), "{page}");
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            assert!(page.contains(&format!("hydrograph\\-{}", name.replace('-', "\\-"))), "{name} in {page}");
            let own = text(|out| man(Some(name), out));
            assert!(
                own.contains(&format!(".TH hydrograph\\-{name} 1"))
                    || own.contains(&format!(".TH hydrograph-{name} 1")),
                "{own}"
            );
            for option in verb.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(own.contains(&option.replace('-', "\\-")), "--{option} in {own}");
            }
        }
        for wrong in ["nope", "validate"] {
            let mut out = Vec::new();
            assert_eq!(man(Some(wrong), &mut out).expect("told"), Exit::Usage, "{wrong}, of which there is no page");
            assert!(out.is_empty());
        }
    }
}
