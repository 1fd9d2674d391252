//! What a key may do.

use std::fmt;

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Have tasks stored and processed.
    Submit,
    /// Read tasks, results and numbers.
    Read,
    /// Call tasks off and have failed ones tried again; it includes the others.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Submit, Self::Read, Self::Admin];

    /// The word for it in settings and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Submit => 1,
            Self::Read => 2,
            Self::Admin => 4,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Some scopes; by [`Default`] none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Reads words joined by `+`, each at most once; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split('+').try_fold(Self::default(), |known, word| {
            let scope = Scope::ALL
                .into_iter()
                .find(|scope| scope.as_str() == word)?;
            (known.0 & scope.bit() == 0).then_some(Self(known.0 | scope.bit()))
        })
    }

    /// Whether these allow what needs `scope`. `admin` allows everything: who may undo a submission or repeat it is shown the task
    /// by the answer, so that an `admin` without `read` would only seem to be less.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    /// As [`parse`](Self::parse) reads it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for scope in Scope::ALL {
            if self.0 & scope.bit() != 0 {
                write!(formatter, "{separator}{scope}")?;
                separator = "+";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_written_alike() {
        for text in ["submit", "read", "admin", "submit+read", "read+admin"] {
            let scopes = Scopes::parse(text).expect("they are scopes");
            assert_eq!(scopes.to_string(), text);
        }
        for wrong in ["", "write", "Submit", "submit+", "read+read", "submit,read"] {
            assert_eq!(Scopes::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn admin_includes_the_others_and_they_do_not_include_each_other() {
        for held in Scope::ALL {
            let scopes: Scopes = [held].into_iter().collect();
            for needed in Scope::ALL {
                let expected = held == needed || held == Scope::Admin;
                assert_eq!(scopes.allow(needed), expected, "{held} for {needed}");
            }
        }
        assert!(!Scopes::default().allow(Scope::Read));
    }
}
