//! Severity classes: names, numbers and what stands for a missing number.
//!
//! Source: OpenTelemetry logs data model, "Field: SeverityNumber".

/// A class of four numbers: `Error` is 17 to 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    Unset,
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Class {
    pub const ALL: [Class; 7] = [
        Class::Unset,
        Class::Trace,
        Class::Debug,
        Class::Info,
        Class::Warn,
        Class::Error,
        Class::Fatal,
    ];

    /// The class of a severity number; numbers outside 1-24 are unset.
    pub fn of_number(number: i32) -> Self {
        match number {
            1..=4 => Self::Trace,
            5..=8 => Self::Debug,
            9..=12 => Self::Info,
            13..=16 => Self::Warn,
            17..=20 => Self::Error,
            21..=24 => Self::Fatal,
            _ => Self::Unset,
        }
    }

    /// The class that a severity text names, in any case, with the aliases common loggers use.
    pub fn of_text(text: &str) -> Option<Self> {
        const NAMES: [(&str, Class); 17] = [
            ("trace", Class::Trace),
            ("verbose", Class::Trace),
            ("debug", Class::Debug),
            ("info", Class::Info),
            ("information", Class::Info),
            ("informational", Class::Info),
            ("notice", Class::Info),
            ("warn", Class::Warn),
            ("warning", Class::Warn),
            ("error", Class::Error),
            ("err", Class::Error),
            ("fatal", Class::Fatal),
            ("critical", Class::Fatal),
            ("crit", Class::Fatal),
            ("alert", Class::Fatal),
            ("emergency", Class::Fatal),
            ("panic", Class::Fatal),
        ];
        NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, class)| *class)
    }

    /// The lowest number of the class; 0 for unset.
    pub fn first_number(self) -> i32 {
        match self {
            Self::Unset => 0,
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }

    /// The highest number of the class; 0 for unset.
    pub fn last_number(self) -> i32 {
        if self == Self::Unset { 0 } else { self.first_number() + 3 }
    }

    /// Upper-case name as histograms and the UI show it; `UNSET` when the record has no severity.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unset => "UNSET",
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// The number a record counts with: its own, or when that is unset the first one of the class its text names.
pub fn effective_number(number: i32, text: &str) -> i32 {
    match number {
        1..=24 => number,
        _ => Class::of_text(text).map_or(0, Class::first_number),
    }
}

/// The class a record counts with, see [`effective_number`].
pub fn effective_class(number: i32, text: &str) -> Class {
    Class::of_number(effective_number(number, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_within_its_class() {
        for number in 1..=24 {
            let class = Class::of_number(number);
            assert!((class.first_number()..=class.last_number()).contains(&number));
        }
    }

    #[test]
    fn text_stands_in_for_a_missing_number() {
        assert_eq!(effective_number(0, "Warning"), 13);
        assert_eq!(effective_number(17, "debug"), 17);
        assert_eq!(effective_class(0, "???"), Class::Unset);
        assert_eq!(effective_class(99, ""), Class::Unset);
    }

    #[test]
    fn every_class_but_unset_is_found_by_its_name() {
        for class in &Class::ALL[1..] {
            assert_eq!(Class::of_text(class.name()), Some(*class));
        }
    }
}
