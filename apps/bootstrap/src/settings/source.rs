//! Where settings come from: the environment, then `.env`.

use std::collections::BTreeMap;
use std::path::Path;

use super::Mistake;

/// The variables of the environment and of a `.env` file. Not `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub struct Source {
    /// `None` is a value that is no Unicode text.
    variables: BTreeMap<String, Option<String>>,
    mistakes: Vec<Mistake>,
}

impl Source {
    /// The process's environment and the `.env` file of its working directory; where both name a variable, the
    /// environment wins.
    #[must_use]
    pub fn of_process() -> Self {
        let mut source = Self::default();
        for (name, value) in std::env::vars_os() {
            // A name that is no Unicode is none of ours.
            if let Ok(name) = name.into_string() {
                source.add(name, value.into_string().ok());
            }
        }
        source.add_file(Path::new(".env"));
        source
    }

    /// These variables and no others.
    #[must_use]
    pub fn of_pairs(pairs: &[(&str, &str)]) -> Self {
        let mut source = Self::default();
        for (name, value) in pairs {
            source.add((*name).to_owned(), Some((*value).to_owned()));
        }
        source
    }

    /// The value of a variable; `None` when it is missing or empty.
    ///
    /// # Errors
    /// When the value is no Unicode text.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, NotUnicode> {
        match self.variables.get(name) {
            Some(None) => Err(NotUnicode),
            Some(Some(value)) if !value.is_empty() => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// What went wrong with reading the file.
    pub(super) fn take_mistakes(&mut self) -> Vec<Mistake> {
        std::mem::take(&mut self.mistakes)
    }

    /// Adds the variables of a file that does not have to exist; what is there already stays.
    pub(super) fn add_file(&mut self, path: &Path) {
        let file = match std::fs::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                self.mistake(format!("cannot be read: {error}"));
                return;
            }
        };
        let text = String::from_utf8_lossy(&file);
        let mut numbered = text.lines().zip(1_u32..);
        for line in dotenvy::from_read_iter(file.as_slice()) {
            match line {
                Ok((name, value)) => self.add(name, Some(value)),
                // What follows the name may be a password and is not shown.
                Err(dotenvy::Error::LineParse(line, _)) => {
                    // The parser does not count lines. The search goes on where the last one ended.
                    let wrong = line.lines().next().unwrap_or_default().trim();
                    let place = numbered.find(|(text, _)| text.trim() == wrong).map_or_else(
                        || "a line".to_owned(),
                        |(_, number)| format!("line {number}"),
                    );
                    self.mistake(match line.split_once('=') {
                        Some((name, _)) => format!("cannot be read in {place}: {name}=…"),
                        None => format!("is not NAME=value in {place}"),
                    });
                }
                Err(error) => {
                    self.mistake(format!("cannot be read: {error}"));
                    return;
                }
            }
        }
    }

    fn mistake(&mut self, reason: String) {
        self.mistakes.push(Mistake {
            name: ".env".to_owned(),
            reason,
        });
    }

    fn add(&mut self, name: String, value: Option<String>) {
        self.variables.entry(name).or_insert(value);
    }
}

/// A value that is no Unicode text.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotUnicode;
