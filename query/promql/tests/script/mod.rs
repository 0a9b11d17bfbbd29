//! Prometheus' language for scripts of PromQL tests: what to load, what to evaluate, what to expect.
//!
//! `clear`, `load STEP` with series below, `eval instant at T EXPR` and `eval range from A to B step
//! S EXPR` with the expected result below. See the files in `tests/cases` for examples.

pub mod check;
pub mod run;
pub mod series;

use trefoil_promql::parse::parse_duration;

use series::SeriesLine;

/// One command of a script.
#[derive(Debug)]
pub enum Command {
    /// Drop all data.
    Clear,
    /// Store series.
    Load {
        /// Distance of the points in milliseconds.
        step_ms: i64,
        /// Also store classic histograms as native ones with custom buckets.
        with_custom_buckets: bool,
        /// The series.
        series: Vec<SeriesLine>,
    },
    /// Evaluate and compare.
    Eval(Box<Eval>),
}

/// Times of an evaluation, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At one time.
    Instant(i64),
    /// From, to, step.
    Range(i64, i64, i64),
}

/// A condition on a text.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Any text.
    Any,
    /// Exactly this text.
    Message(String),
    /// A pattern that is found in the text.
    Regex(regex::Regex),
}

impl TextMatch {
    /// Whether a text passes.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            TextMatch::Any => true,
            TextMatch::Message(m) => m == text,
            TextMatch::Regex(r) => r.is_match(text),
        }
    }
}

/// An evaluation and what it should give.
#[derive(Debug)]
pub struct Eval {
    /// Line in the script, from 1.
    pub line: usize,
    /// The query.
    pub query: String,
    /// When.
    pub when: When,
    /// It should fail, with such a message.
    pub fail: Option<TextMatch>,
    /// The order of the result counts.
    pub ordered: bool,
    /// Expected warnings, and whether none are allowed.
    pub warn: Vec<TextMatch>,
    pub no_warn: bool,
    /// Expected infos, and whether none are allowed.
    pub info: Vec<TextMatch>,
    pub no_info: bool,
    /// A text is expected.
    pub text: Option<String>,
    /// A number is expected.
    pub scalar: Option<f64>,
    /// Times of an expected range vector: from, to, step.
    pub range_vector: Option<(i64, i64, i64)>,
    /// Expected series in order.
    pub series: Vec<SeriesLine>,
}

impl Eval {
    /// Whether anything is said about warnings or infos.
    pub fn checks_annotations(&self) -> bool {
        !self.warn.is_empty() || !self.info.is_empty() || self.no_warn || self.no_info
    }
}

/// Reads a script.
///
/// # Panics
/// If it can't be read: scripts are part of the tests.
pub fn parse(text: &str) -> Vec<Command> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut commands = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        i += 1;
        if line.is_empty() {
            continue;
        }
        let block_start = i;
        let word = line.split_whitespace().next().unwrap_or("");
        let mut block = || {
            while i < lines.len() && !lines[i].is_empty() {
                i += 1;
            }
            &lines[block_start..i]
        };
        match word {
            "clear" => commands.push(Command::Clear),
            "load" | "load_with_nhcb" => {
                let step_ms = duration(line[word.len()..].trim(), block_start);
                let with_custom_buckets = word == "load_with_nhcb";
                let series = load_lines(block(), block_start);
                commands.push(Command::Load { step_ms, with_custom_buckets, series });
            }
            _ if word.starts_with("eval") => {
                commands.push(Command::Eval(Box::new(eval(line, block(), block_start))));
            }
            _ => panic!("line {block_start}: unknown command {line}"),
        }
    }
    commands
}

fn duration(text: &str, line: usize) -> i64 {
    parse_duration(text).unwrap_or_else(|e| panic!("line {line}: {text}: {e}"))
}

/// Series lines; one whose metric ends in `@st` gives the start times of the next.
fn load_lines(lines: &[&str], first: usize) -> Vec<SeriesLine> {
    let mut out = Vec::new();
    let mut starts = None;
    for (i, line) in lines.iter().enumerate() {
        let number = first + i + 1;
        let (metric, values) = series::split(line);
        if let Some(_metric) = metric.strip_suffix("@st") {
            starts = Some(series::start_offsets(values, number));
            continue;
        }
        let mut series = SeriesLine::parse(line, number);
        series.start_offsets = starts.take().unwrap_or_default();
        out.push(series);
    }
    out
}

fn eval(line: &str, block: &[&str], number: usize) -> Eval {
    let (command, rest) = line.split_once(char::is_whitespace).expect("an evaluation");
    let (kind, rest) = rest.trim().split_once(char::is_whitespace).expect("a kind");
    let mut rest = rest.trim();
    let mut take = |keyword: &str| {
        let after = rest.strip_prefix(keyword).unwrap_or_else(|| {
            panic!("line {number}: expected {keyword} at {rest}");
        });
        let (value, after) = after.trim().split_once(char::is_whitespace).expect("a value");
        rest = after.trim();
        duration(value, number)
    };
    let when = match kind {
        "instant" => When::Instant(take("at")),
        _ => When::Range(take("from"), take("to"), take("step")),
    };
    let mut eval = Eval {
        line: number,
        query: rest.to_owned(),
        when,
        fail: None,
        ordered: command == "eval_ordered",
        warn: Vec::new(),
        no_warn: false,
        info: Vec::new(),
        no_info: false,
        text: None,
        scalar: None,
        range_vector: None,
        series: Vec::new(),
    };
    match command {
        "eval_fail" => eval.fail = Some(TextMatch::Any),
        "eval_warn" => eval.warn.push(TextMatch::Any),
        "eval_info" => eval.info.push(TextMatch::Any),
        _ => {}
    }
    for (i, line) in block.iter().enumerate() {
        expectation(&mut eval, line, number + i + 1);
    }
    eval
}

fn expectation(eval: &mut Eval, line: &str, number: usize) {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        eval.fail = Some(TextMatch::Message(message.trim().to_owned()));
    } else if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
        eval.fail = Some(regex(pattern, number));
    } else if let Some(rest) = line.strip_prefix("expect range vector") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let at = |i: usize| duration(words[i], number);
        eval.range_vector = Some((at(1), at(3), at(5)));
    } else if let Some(text) = line.strip_prefix("expect string") {
        eval.text = Some(unquoted(text.trim()));
    } else if let Some(rest) = line.strip_prefix("expect ") {
        let (kind, condition) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let condition = condition.trim();
        let text_match = if let Some(message) = condition.strip_prefix("msg:") {
            TextMatch::Message(message.trim().to_owned())
        } else if let Some(pattern) = condition.strip_prefix("regex:") {
            regex(pattern, number)
        } else {
            TextMatch::Any
        };
        match kind {
            "fail" => eval.fail = Some(text_match),
            "warn" => eval.warn.push(text_match),
            "info" => eval.info.push(text_match),
            "no_warn" => eval.no_warn = true,
            "no_info" => eval.no_info = true,
            "ordered" => eval.ordered = true,
            _ => panic!("line {number}: unknown expectation {line}"),
        }
    } else if let Some(number) = series::number(line) {
        eval.scalar = Some(number);
    } else {
        eval.series.push(SeriesLine::parse(line, number));
    }
}

fn regex(pattern: &str, line: usize) -> TextMatch {
    let pattern = pattern.trim();
    match regex::Regex::new(pattern) {
        Ok(r) => TextMatch::Regex(r),
        Err(e) => panic!("line {line}: {pattern}: {e}"),
    }
}

fn unquoted(text: &str) -> String {
    use trefoil_promql::parse::Expr;
    match trefoil_promql::parse(text, trefoil_promql::ParseOptions::ALL) {
        Ok(Expr::String(s)) => s.value,
        other => panic!("{text} is no string: {other:?}"),
    }
}
