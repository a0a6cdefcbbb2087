//! Settings from outside the file: the flags and environment variables that the engine's table of settings gives rise
//! to, and the few other variables the program knows.
//!
//! The only place here that reads the environment. What a value means is the configuration's business, so that a
//! mistake in a flag is told like a mistake in the file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use farcall_engine::config::{Override, SETTINGS};

use crate::args::client::Token;
use crate::exit::Failure;

/// Settings that are refused until they exist, never ignored; the configuration says so. Not in the help.
const LATER: [(&str, &str); 1] = [("store", "url")];

/// What a setting is called outside the file.
#[derive(Debug)]
struct Setting {
    section: &'static str,
    key: &'static str,
    /// `server-drain-timeout`
    flag: String,
    /// `FARCALL_SERVER_DRAIN_TIMEOUT`
    variable: String,
    is_later: bool,
}

static TABLE: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let available = SETTINGS.into_iter().map(|name| (name, false));
    available
        .chain(LATER.into_iter().map(|name| (name, true)))
        .map(|(name, is_later)| Setting::new(name, is_later))
        .collect()
});

/// Settings given as flags, in the order of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettingFlags {
    pub(crate) given: Vec<Override>,
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// Settings, in the order of the table.
    pub(crate) given: Vec<Override>,
    /// Variables that look like settings and are none.
    pub(crate) unknown: Vec<String>,
    /// `NO_COLOR` asks for plain text (no-color.org).
    pub(crate) no_color: bool,
    /// `FARCALL_LOG`: which events are logged, as `info` or `farcall_engine=debug,info`.
    pub(crate) log: Option<String>,
    /// `FARCALL_CRASH`: where a test lets this process die; read by test builds only.
    pub(crate) crash: Option<String>,
    /// `FARCALL_SERVER`: the server that client commands talk to.
    pub(crate) server: Option<String>,
    /// `FARCALL_TOKEN`: what they show there.
    pub(crate) token: Option<Token>,
    pub(crate) home: Option<PathBuf>,
    /// Where temporary directories are made.
    pub(crate) temporary: PathBuf,
}

impl Environment {
    /// Reads the process's own.
    ///
    /// # Errors
    /// When a setting is not UTF-8.
    pub(crate) fn read() -> Result<Self, Failure> {
        let environment = Self::of(&std::env::vars_os().collect())?;
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Ok(Self { home, temporary: std::env::temp_dir(), ..environment })
    }

    fn of(variables: &BTreeMap<OsString, OsString>) -> Result<Self, Failure> {
        let text = |name: &str| -> Result<Option<String>, Failure> {
            let Some(value) = variables.get(OsStr::new(name)) else { return Ok(None) };
            let value = value.to_str().ok_or_else(|| Failure::usage(format!("the value of {name} is not UTF-8")))?;
            Ok(Some(value.to_owned()))
        };
        let mut given = Vec::new();
        for setting in TABLE.iter() {
            let value = text(&setting.variable)?;
            given.extend(value.map(|value| setting.given(value, setting.variable.clone())));
        }
        Ok(Self {
            given,
            unknown: variables
                .keys()
                .filter_map(|name| name.to_str())
                .filter(|name| is_unknown(name))
                .map(str::to_owned)
                .collect(),
            no_color: variables.get(OsStr::new("NO_COLOR")).is_some_and(|value| !value.is_empty()),
            log: text("FARCALL_LOG")?.filter(|filter| !filter.is_empty()),
            crash: if farcall_crash::IS_ARMED { text("FARCALL_CRASH")? } else { None },
            server: text("FARCALL_SERVER")?.filter(|url| !url.is_empty()),
            token: text("FARCALL_TOKEN")?.filter(|token| !token.is_empty()).map(Token::from),
            home: None,
            temporary: PathBuf::new(),
        })
    }
}

/// Whether a variable has the form of a setting, and no setting has it.
fn is_unknown(name: &str) -> bool {
    let begins = |section: &str| {
        let prefix = format!("FARCALL_{}_", section.to_uppercase());
        name.starts_with(&prefix)
    };
    TABLE.iter().any(|setting| begins(setting.section)) && TABLE.iter().all(|setting| setting.variable != name)
}

impl Setting {
    fn new((section, key): (&'static str, &'static str), is_later: bool) -> Self {
        Self {
            section,
            key,
            flag: format!("{section}-{}", key.replace('_', "-")),
            variable: format!("FARCALL_{}_{}", section.to_uppercase(), key.to_uppercase()),
            is_later,
        }
    }

    fn given(&self, value: String, origin: String) -> Override {
        Override { section: self.section.to_owned(), key: self.key.to_owned(), value, origin }
    }

    fn argument(&'static self) -> Arg {
        let (value_name, help) = self.explained();
        let argument = Arg::new(self.flag.as_str())
            .long(self.flag.as_str())
            .value_name(value_name)
            .help(help)
            .help_heading("Settings (a flag beats FARCALL_<SECTION>_<KEY>, which beats the file)")
            .action(ArgAction::Set)
            .allow_hyphen_values(true)
            .global(true)
            .hide(self.is_later)
            .hide_short_help(true);
        match (self.section, self.key) {
            ("server", "listen") => argument.visible_alias("listen").hide_short_help(false),
            _ => argument,
        }
    }

    /// The form of the value, and what it is for.
    fn explained(&self) -> (&'static str, &'static str) {
        match (self.section, self.key) {
            ("server", "listen") => ("ADDR", "Serve the API at this host:port; `none` leaves the socket only"),
            ("server", "tokens") => {
                ("TOKENS", "Who sends one of these may use the API; others see flags, prefer the variable")
            }
            ("server", "drain_timeout") => ("TIME", "How long attempts in flight may go on after a stop"),
            ("server", "max_body") => ("SIZE", "Largest call document"),
            ("store", "path") => ("PATH", "Where calls are kept, relative to DIR"),
            ("store", "min_free") => ("SIZE", "Take no new calls when the disk has less space left"),
            ("inbox", "keep") => {
                ("TIME", "Age at which request, response and rejected files are removed; none by default")
            }
            ("retention", "succeeded") => ("TIME", "How long calls that ended well, or were cancelled, are kept"),
            ("retention", "failed") => ("TIME", "How long all other ended calls are kept"),
            ("retention", "max_size") => {
                ("SIZE", "Let calls go before their time when the store holds more, `none` for no limit")
            }
            ("inbox", "settle") => ("TIME", "How long a file that is no valid call yet is left alone"),
            _ => ("VALUE", "As in the file"),
        }
    }
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(TABLE.iter().map(Setting::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = TABLE.iter().filter_map(|setting| {
            let value = matches.get_one::<String>(&setting.flag)?;
            Some(setting.given(value.clone(), format!("--{}", setting.flag)))
        });
        Ok(Self { given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Environment::of(&variables.collect()).expect("the variables are text")
    }

    #[test]
    fn every_setting_of_the_engine_is_a_variable_and_a_flag() {
        for (section, key) in SETTINGS {
            let variable = format!("FARCALL_{section}_{key}").to_uppercase();
            let given = environment(&[(&variable, "x")]).given;
            assert_eq!(given.len(), 1, "{variable}");
            assert_eq!((given[0].section.as_str(), given[0].key.as_str()), (section, key));
            assert_eq!((given[0].value.as_str(), &given[0].origin), ("x", &variable));

            let flag = format!("--{section}-{}", key.replace('_', "-"));
            let command = <SettingFlags as clap::Args>::augment_args(Command::new("farcall"));
            let matches = command.try_get_matches_from(["farcall", &flag, "-1"]).expect("the flag exists");
            let given = SettingFlags::from_arg_matches(&matches).expect("its value is text").given;
            assert_eq!(given.len(), 1, "{flag}");
            assert_eq!((given[0].value.as_str(), &given[0].origin), ("-1", &flag));
        }
    }

    #[test]
    fn every_setting_is_explained() {
        for setting in TABLE.iter().filter(|setting| !setting.is_later) {
            assert_ne!(setting.explained().0, "VALUE", "{}", setting.flag);
        }
    }

    #[test]
    fn misspelt_settings_are_noticed_and_other_variables_are_not() {
        let environment = environment(&[
            ("FARCALL_SERVER", "http://localhost"),
            ("FARCALL_SERVER_LISTN", "x"),
            ("FARCALL_TOKEN", "x"),
            ("FARCALL_INBOX_SETTLE", "1s"),
        ]);
        assert_eq!(environment.unknown, ["FARCALL_SERVER_LISTN"]);
        assert_eq!(environment.given.len(), 1);
    }

    #[test]
    fn an_empty_no_color_means_nothing() {
        assert!(!environment(&[("NO_COLOR", "")]).no_color);
        assert!(environment(&[("NO_COLOR", "1")]).no_color);
    }

    #[test]
    fn debug_output_holds_no_token() {
        let environment = environment(&[("FARCALL_SERVER_TOKENS", "hush"), ("FARCALL_TOKEN", "hush")]);
        assert!(environment.token.is_some());
        assert!(!format!("{environment:?}").contains("hush"));
    }
}
