//! Exit codes: how the end of the process tells a script, a supervisor or systemd what happened.

use std::fmt;
use std::process::ExitCode;

use schoolgate_config::settings::SettingsError;

/// It failed; the last line on standard error says why.
const FAILED: u8 = 1;

/// The settings cannot be used (`EX_CONFIG` of sysexits(3)): starting again does not help.
const SETTINGS: u8 = 78;

/// An error with an exit code of its own.
#[derive(Debug)]
struct WithCode {
    code: u8,
    error: anyhow::Error,
}

impl fmt::Display for WithCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for WithCode {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Gives an error an exit code.
pub(crate) fn with_code(code: u8, error: anyhow::Error) -> anyhow::Error {
    WithCode { code, error }.into()
}

/// Marks an error as one of the settings.
pub(crate) fn of_settings(error: anyhow::Error) -> anyhow::Error {
    with_code(SETTINGS, error)
}

/// The exit code of a result; an error is told on standard error, in one line with its causes.
pub(crate) fn code_of(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    #[expect(clippy::print_stderr, reason = "the last word of the process, for whoever started it")]
    {
        eprintln!("schoolgate: {}", one_line(&error));
    }
    ExitCode::from(number_of(&error))
}

fn number_of(error: &anyhow::Error) -> u8 {
    if let Some(with_code) = error.downcast_ref::<WithCode>() {
        with_code.code
    } else if error.chain().any(|cause| cause.is::<SettingsError>()) {
        SETTINGS
    } else {
        FAILED
    }
}

/// An error and its causes. A cause whose text is part of what was said before is not said again.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_wrong_setting_has_a_code_of_its_own() {
        let wrong = SettingsError::Value { key: "a".to_owned(), found: "b".to_owned(), expected: "c".to_owned() };
        assert_eq!(number_of(&anyhow::Error::from(wrong).context("starting")), SETTINGS);
        assert_eq!(number_of(&anyhow::anyhow!("no")), FAILED);
        assert_eq!(number_of(&with_code(98, anyhow::anyhow!("no"))), 98);
    }

    #[test]
    fn causes_are_told_once_and_in_order() {
        let io = std::io::Error::other("disk gone");
        let error = Err::<(), _>(io).context("the file x cannot be read: disk gone").context("starting").unwrap_err();
        assert_eq!(one_line(&error), "starting: the file x cannot be read: disk gone");
    }
}
