//! The report: a table for people and JSON for scripts.

use serde::Serialize;
use std::fmt::Write as _;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub section: String,
    pub figure: String,
    pub unit: String,
    pub value: f64,
    /// What it should be, if there is a goal.
    pub goal: Option<f64>,
    /// Value by goal; above 1 is better for rates, worse for the rest.
    pub ratio: Option<f64>,
    pub met: Option<bool>,
    pub note: String,
}

impl Row {
    pub fn plain(section: &str, figure: &str, unit: &str, value: f64) -> Self {
        Self {
            section: section.to_owned(),
            figure: figure.to_owned(),
            unit: unit.to_owned(),
            value,
            goal: None,
            ratio: None,
            met: None,
            note: String::new(),
        }
    }

    /// The value should be `goal` or more.
    pub fn at_least(self, goal: f64) -> Self {
        let met = self.value >= goal;
        self.with_goal(goal, met)
    }

    /// The value should be `goal` or less.
    pub fn at_most(self, goal: f64) -> Self {
        let met = self.value <= goal;
        self.with_goal(goal, met)
    }

    fn with_goal(self, goal: f64, met: bool) -> Self {
        let ratio = self.value / goal;
        Self { goal: Some(goal), ratio: Some(ratio), met: Some(met), ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What was run.
    pub command: String,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn add(&mut self, row: Row) {
        eprintln!("  {} | {} {}{}", row.figure, number(row.value), row.unit, verdict(&row));
        self.rows.push(row);
    }

    /// Adds the least value of each row; what the runs have told is noted. Less is better in all of them.
    ///
    /// * `runs`: of the same rows.
    pub fn add_least(&mut self, runs: &[Self]) {
        let Some(first) = runs.first() else { return };
        for (at, row) in first.rows.iter().enumerate() {
            let same: Vec<&Row> = runs.iter().filter_map(|run| run.rows.get(at)).collect();
            let value = same.iter().map(|row| row.value).fold(f64::INFINITY, f64::min);
            let mut notes: Vec<String> = same.iter().map(|row| row.note.clone()).collect();
            notes.dedup();
            notes.retain(|note| !note.is_empty());
            if same.len() > 1 {
                let each: Vec<String> = same.iter().map(|row| number(row.value)).collect();
                notes.push(format!("{} runs: {}", each.len(), each.join(", ")));
            }
            let least = Row { value, note: notes.join("; "), ..row.clone() };
            self.add(match row.goal {
                Some(goal) => least.at_most(goal),
                None => least,
            });
        }
    }

    pub fn markdown(&self) -> String {
        let mut out = format!("`{}`\n", self.command);
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = &row.section;
                let _ = write!(
                    out,
                    "\n### {section}\n\n| figure | value | goal | ratio | |\n|---|---:|---:|---:|---|\n"
                );
            }
            let goal = row.goal.map(number).unwrap_or_default();
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let met = match row.met {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            let gap = if met.is_empty() || row.note.is_empty() { "" } else { "; " };
            let _ = writeln!(
                out,
                "| {} | {} {} | {goal} | {ratio} | {met}{gap}{} |",
                row.figure,
                number(row.value),
                row.unit,
                row.note
            );
        }
        out
    }
}

fn verdict(row: &Row) -> String {
    match (row.goal, row.met) {
        (Some(goal), Some(true)) => format!(" (goal {}: met)", number(goal)),
        (Some(goal), _) => format!(" (goal {}: missed)", number(goal)),
        _ => String::new(),
    }
}

/// Three digits that count, thousands set apart.
fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value);
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
