//! Settings: declared once, read from the environment and a `.env` file, printed by `--help`.
//!
//! A binary's settings are one function over a [`Reader`]. Each call on the reader declares a setting (name, default,
//! unit, meaning) and reads it, so the help, which runs the same function over an empty environment, cannot tell
//! anything else than what is read. Mistakes are gathered, by name, and reported together.

mod access;
mod database;
mod http;
mod kafka;
mod logging;
mod origins;
mod processing;
mod programs;
mod rate;
mod redis;
mod source;
mod submit;
mod tls;
mod traces;
mod value;
mod work;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use self::access::AccessSettings;
pub(crate) use self::access::read_file as read_keys;
pub use self::database::{EmbeddedDatabase, PostgresSettings};
pub use self::http::HttpSettings;
pub use self::kafka::{KafkaClient, KafkaSettings, StaticShare};
pub use self::logging::{LogFormat, LogSettings};
pub use self::processing::ProcessingSettings;
pub use self::programs::{
    MigrateSettings, ServerSettings, Settings, StandaloneSettings, StartSettings, WorkerSettings,
};
pub use self::rate::RateSettings;
pub use self::redis::RedisSettings;
use self::source::NotUnicode;
pub use self::source::Source;
pub use self::tls::TlsSettings;
pub use self::traces::TraceSettings;

/// What `--help` says of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The heading it stands under.
    pub section: &'static str,
    /// The variable's name.
    pub name: &'static str,
    /// The default as it would be written in the environment; empty when there is none.
    pub default: String,
    /// Unit and range, or the words it may be.
    pub unit: String,
    /// What it is for.
    pub meaning: &'static str,
}

/// A setting that cannot be used, and why. Never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The variable's name, or `.env`.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Every mistake that was found, in the order of the declarations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 {
            "setting is"
        } else {
            "settings are"
        };
        write!(formatter, "{} {noun} wrong:", self.0.len())?;
        for Mistake { name, reason } in &self.0 {
            write!(formatter, "\n  {name} {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Whether a value may be shown in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Value,
    Nothing,
}

/// Declares settings and reads them.
///
/// After a mistake the methods return the default, so that reading goes on and finds the next one;
/// [`finish`](Reader::finish) then refuses the whole.
pub struct Reader {
    source: Source,
    section: &'static str,
    declared: Vec<Declared>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// A reader over the given variables.
    #[must_use]
    pub fn new(mut source: Source) -> Self {
        let mistakes = source.take_mistakes();
        Self {
            source,
            section: "",
            declared: Vec::new(),
            mistakes,
        }
    }

    /// Starts a section of the help.
    pub fn section(&mut self, title: &'static str) {
        self.section = title;
    }

    /// Whether the variable is set to something. An empty value counts as not set: that is what a compose file passes on
    /// for a variable that nobody gave.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        !matches!(self.source.get(name), Ok(None))
    }

    /// Notes a mistake.
    pub fn mistake(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.mistakes.push(Mistake {
            name: name.into(),
            reason: reason.into(),
        });
    }

    /// A whole number within a range.
    pub fn number<T>(
        &mut self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
        unit: &'static str,
        meaning: &'static str,
    ) -> T
    where
        T: Copy + PartialOrd + fmt::Display + std::str::FromStr,
    {
        self.declare(name, default, described(unit, &range), meaning);
        self.parsed(name, Show::Value, |text| parse_number(text, &range))
            .unwrap_or(default)
    }

    /// A whole number that may be left out.
    pub fn optional_number<T>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<T>,
        unit: &'static str,
        meaning: &'static str,
    ) -> Option<T>
    where
        T: Copy + PartialOrd + fmt::Display + std::str::FromStr,
    {
        self.declare(name, "", described(unit, &range), meaning);
        self.parsed(name, Show::Value, |text| parse_number(text, &range))
    }

    /// A span of time within a range, written `500ms`, `30s`, `5m` or `0`.
    pub fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
        meaning: &'static str,
    ) -> Duration {
        let shown = value::show_duration(*range.start())..=value::show_duration(*range.end());
        let unit = format!("duration, {} to {}", shown.start(), shown.end());
        self.declare(name, value::show_duration(default), unit, meaning);
        self.parsed(name, Show::Value, |text| {
            let parsed = value::parse_duration(text)
                .ok_or_else(|| "must be a duration like 500ms, 30s, 5m or 0".to_owned())?;
            if range.contains(&parsed) {
                Ok(parsed)
            } else {
                Err(format!("must be from {} to {}", shown.start(), shown.end()))
            }
        })
        .unwrap_or(default)
    }

    /// A number of bytes within a range, written `4096`, `256KiB` or `1MiB`.
    pub fn bytes(
        &mut self,
        name: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
        meaning: &'static str,
    ) -> usize {
        let shown = value::show_bytes(*range.start())..=value::show_bytes(*range.end());
        let unit = format!("bytes, {} to {}", shown.start(), shown.end());
        self.declare(name, value::show_bytes(default), unit, meaning);
        self.parsed(name, Show::Value, |text| {
            let parsed = value::parse_bytes(text)
                .ok_or_else(|| "must be a number of bytes like 4096, 256KiB or 1MiB".to_owned())?;
            if range.contains(&parsed) {
                Ok(parsed)
            } else {
                Err(format!("must be from {} to {}", shown.start(), shown.end()))
            }
        })
        .unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &'static str, default: bool, meaning: &'static str) -> bool {
        self.choice(name, default, &[("true", true), ("false", false)], meaning)
    }

    /// One of a few words.
    pub fn choice<T: Copy + PartialEq>(
        &mut self,
        name: &'static str,
        default: T,
        words: &[(&'static str, T)],
        meaning: &'static str,
    ) -> T {
        let list = words
            .iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(", ");
        let default_word = words
            .iter()
            .find(|(_, value)| *value == default)
            .map_or("", |(word, _)| *word);
        self.declare(name, default_word, list.replace(", ", " | "), meaning);
        self.parsed(name, Show::Value, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("must be one of {list}"))
        })
        .unwrap_or(default)
    }

    /// Text, checked by `check`, which answers what the text must be.
    pub fn text(
        &mut self,
        name: &'static str,
        default: &str,
        unit: &str,
        meaning: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> String {
        self.declare(name, default, unit, meaning);
        self.parsed(name, Show::Value, |text| {
            check(text).map(|()| text.to_owned())
        })
        .unwrap_or_else(|| default.to_owned())
    }

    /// Text that no message may show.
    pub fn secret(
        &mut self,
        name: &'static str,
        default: &str,
        unit: &str,
        meaning: &'static str,
    ) -> String {
        self.declare(name, default, unit, meaning);
        self.parsed(name, Show::Nothing, |text| Ok(text.to_owned()))
            .unwrap_or_else(|| default.to_owned())
    }

    /// Text that may hold a secret and may be left out, turned into something by `parse`.
    pub fn optional_secret<T>(
        &mut self,
        name: &'static str,
        default: &str,
        unit: &str,
        meaning: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.declare(name, default, unit, meaning);
        self.parsed(name, Show::Nothing, parse)
    }

    /// Refuses variables that belong to another program; they are not settings of this one.
    pub fn refuse(&mut self, names: &[&'static str], reason: &str) {
        for name in names {
            if self.is_set(name) {
                self.mistake(*name, reason);
            }
        }
    }

    /// What was read, if there was no mistake in it.
    ///
    /// # Errors
    /// Every mistake.
    pub fn finish<T>(self, read: T) -> Result<T, Mistakes> {
        if self.mistakes.is_empty() {
            Ok(read)
        } else {
            Err(Mistakes(self.mistakes))
        }
    }

    /// Everything that was declared, in order.
    #[must_use]
    pub fn into_declared(self) -> Vec<Declared> {
        self.declared
    }

    fn declare(
        &mut self,
        name: &'static str,
        default: impl fmt::Display,
        unit: impl Into<String>,
        meaning: &'static str,
    ) {
        self.declared.push(Declared {
            section: self.section,
            name,
            default: default.to_string(),
            unit: unit.into(),
            meaning,
        });
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        show: Show,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = match self.source.get(name) {
            Ok(text) => text?,
            Err(NotUnicode) => {
                self.mistake(name, "is not Unicode text");
                return None;
            }
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                let reason = match show {
                    Show::Value => format!("{reason}, but is {}", shown(text)),
                    Show::Nothing => reason,
                };
                self.mistake(name, reason);
                None
            }
        }
    }
}

/// A wrong value as a message shows it: in quotes, and no more of it than tells which one it is.
fn shown(text: &str) -> String {
    const ENOUGH: usize = 64;
    match text.char_indices().nth(ENOUGH) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

fn described<T: fmt::Display>(unit: &str, range: &RangeInclusive<T>) -> String {
    format!("{unit}, {} to {}", range.start(), range.end())
}

fn parse_number<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + PartialOrd + fmt::Display + std::str::FromStr,
{
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "must be a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// The text of `--help` for the settings `S` of a program.
#[must_use]
pub fn help<S: Settings>(program: &str, about: &str) -> String {
    use fmt::Write as _;

    let mut reader = Reader::new(Source::default());
    // What is read does not matter here, only what was declared on the way.
    let _defaults = S::read(&mut reader);
    let commands = match S::COMMANDS {
        [] => String::new(),
        commands => format!(" {}", commands.join(" | ")),
    };
    let mut text = format!(
        "{about}\n\nUsage: {program}{commands} [--help | --version]\n\n\
         Settings are variables of the environment, or lines NAME=value of a .env file in the working directory; the\n\
         environment wins, and an empty value counts as not set. Durations are written 500ms, 30s, 5m or 0, sizes 4096,\n\
         256KiB or 1MiB.\n"
    );
    let mut section = "";
    for declared in reader.into_declared() {
        if declared.section != section {
            section = declared.section;
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{section}\n");
        }
        let _ = writeln!(
            text,
            "  {}={}  ({})\n      {}",
            declared.name, declared.default, declared.unit, declared.meaning
        );
    }
    text.push_str(
        "\nExit codes: 0 stopped as asked, 1 failed, 2 wrong settings or arguments (nothing was started).\n",
    );
    text
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
