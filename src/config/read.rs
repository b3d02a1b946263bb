//! Takes settings out of TOML one by one, and remembers every fault and every key that nobody took.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: each section's file names its keys, defaults and ranges.
//!
//! Why not serde's derive: it stops at the first fault, and an operator wants them all.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use super::units;

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the key, for example `jobs.queue`.
    pub key: String,
    /// What it must be.
    pub rule: String,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.rule)
    }
}

/// The file while it is read.
pub(super) struct File {
    table: Table,
    faults: Vec<Fault>,
    known: usize,
}

impl File {
    pub(super) const fn new(table: Table) -> Self {
        Self { table, faults: Vec::new(), known: 0 }
    }

    /// Reads one section; keys that `read` does not take are faults.
    pub(super) fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let table = match self.table.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => {
                self.faults.push(Fault { key: name.to_owned(), rule: format!("must be a section, written as [{name}]") });
                Table::new()
            }
        };
        let mut section = Section { name, table, file: self };
        let value = read(&mut section);
        let left: Vec<String> = section.table.keys().cloned().collect();
        for key in left {
            section.fault(&key, "is not a setting of this version; remove it or correct its name".to_owned());
        }
        value
    }

    /// Every fault, in the order of reading; sections that nobody read come last.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        let rule = "is not a section of this version; remove it or correct its name";
        self.faults.extend(self.table.keys().map(|key| Fault { key: key.clone(), rule: rule.to_owned() }));
        self.faults
    }

    /// How many settings were asked for.
    #[cfg(test)]
    pub(super) const fn known_keys(&self) -> usize {
        self.known
    }
}

/// One section while it is read.
pub(super) struct Section<'a> {
    name: &'static str,
    table: Table,
    file: &'a mut File,
}

impl Section<'_> {
    /// A whole number in `range`.
    pub(super) fn number<N>(&mut self, key: &str, default: N, range: RangeInclusive<N>) -> N
    where
        N: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        let rule = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.take(key, default, rule, |value| N::try_from(value.as_integer()?).ok().filter(|number| range.contains(number)))
    }

    /// A size; `default` and the ends of `range` in the notation of the file.
    pub(super) fn size(&mut self, key: &str, default: &str, least: &str, most: &str) -> u64 {
        let rule = format!("must be a size with its unit, from \"{least}\" to \"{most}\"");
        let range = units::size(least).unwrap_or(0)..=units::size(most).unwrap_or(0);
        self.take(key, units::size(default).unwrap_or(0), rule, |value| units::size(value.as_str()?).filter(|size| range.contains(size)))
    }

    /// A duration; `default` and the ends of the range in the notation of the file.
    pub(super) fn duration(&mut self, key: &str, default: &str, least: &str, most: &str) -> Duration {
        let rule = format!("must be a duration with its unit, from \"{least}\" to \"{most}\"");
        let range = units::duration(least).unwrap_or_default()..=units::duration(most).unwrap_or_default();
        let default = units::duration(default).unwrap_or_default();
        self.take(key, default, rule, |value| units::duration(value.as_str()?).filter(|duration| range.contains(duration)))
    }

    /// An absolute path without `..`.
    pub(super) fn path(&mut self, key: &str, default: &str) -> PathBuf {
        let rule = "must be an absolute path without `..`".to_owned();
        self.take(key, PathBuf::from(default), rule, |value| {
            let path = PathBuf::from(value.as_str()?);
            let dotted = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
            (path.is_absolute() && !dotted).then_some(path)
        })
    }

    /// Any text that `parse` takes; `rule` completes the sentence "KEY: …".
    pub(super) fn text<T>(&mut self, key: &str, default: T, rule: &str, parse: impl FnOnce(&str) -> Option<T>) -> T {
        self.take(key, default, rule.to_owned(), |value| parse(value.as_str()?))
    }

    fn take<T>(&mut self, key: &str, default: T, rule: String, check: impl FnOnce(&Value) -> Option<T>) -> T {
        self.file.known += 1;
        let Some(value) = self.table.remove(key) else { return default };
        check(&value).unwrap_or_else(|| {
            self.fault(key, rule);
            default
        })
    }

    /// A setting that is somewhere else by now; `rule` completes the sentence "KEY: …".
    pub(super) fn moved(&mut self, key: &str, rule: &str) {
        if self.table.remove(key).is_some() {
            self.fault(key, rule.to_owned());
        }
    }

    fn fault(&mut self, key: &str, rule: String) {
        self.file.faults.push(Fault { key: format!("{}.{key}", self.name), rule });
    }
}
