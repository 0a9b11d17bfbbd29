//! The tree of a query.

use crate::matcher::Matcher;

/// A range of bytes in the query text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Span {
    /// The range from the start of one to the end of the other.
    pub fn to(self, end: Span) -> Span {
        Span { start: self.start, end: end.end }
    }
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One number per step.
    Scalar,
    /// A set of series with one sample each per step.
    Vector,
    /// A set of series with many samples each per step.
    Matrix,
    /// A text.
    String,
}

impl ValueType {
    /// The name used in error messages.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            ValueType::String => "string",
        }
    }

    /// The name used in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
            ValueType::String => "string",
        }
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expr {
    /// `1`, `5m`
    Number(NumberLiteral),
    /// `"text"`
    String(StringLiteral),
    /// `a{b="c"}`
    Vector(VectorSelector),
    /// `a[5m]`
    Matrix(MatrixSelector),
    /// `a[5m:1m]`
    Subquery(Box<Subquery>),
    /// `rate(a[5m])`
    Call(Call),
    /// `sum by (b) (a)`
    Aggregate(Box<Aggregate>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `-a`
    Unary(Box<Unary>),
    /// `(a)`
    Paren(Box<Paren>),
}

/// A number.
#[derive(Clone, Debug)]
pub struct NumberLiteral {
    /// The value; seconds if written as a duration.
    pub value: f64,
    /// Written as a duration.
    pub is_duration: bool,
    /// Position.
    pub span: Span,
}

/// A text.
#[derive(Clone, Debug)]
pub struct StringLiteral {
    /// The text without quotes and escapes; U+FFFD stands for what is not UTF-8.
    pub value: String,
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// Position.
    pub span: Span,
}

/// A time span: given, or to be computed when the range and step of the query are known.
#[derive(Clone, Debug)]
pub enum DurationValue {
    /// Milliseconds.
    Ms(i64),
    /// An expression.
    Expr(DurationExpr),
}

impl Default for DurationValue {
    fn default() -> Self {
        DurationValue::Ms(0)
    }
}

/// Duration arithmetic.
#[derive(Clone, Debug)]
pub enum DurationExpr {
    /// Seconds.
    Number(NumberLiteral),
    /// `step()`
    Step(Span),
    /// `range()`
    Range(Span),
    /// `min_of(a, b)`, `max_of(a, b)`
    Of { max: bool, args: Box<(DurationExpr, DurationExpr)>, span: Span },
    /// `-a`
    Negate(Box<DurationExpr>, Span),
    /// `(a)`
    Paren(Box<DurationExpr>, Span),
    /// `a * b`
    Binary { op: BinaryOp, args: Box<(DurationExpr, DurationExpr)> },
}

impl DurationExpr {
    /// Position.
    pub fn span(&self) -> Span {
        match self {
            DurationExpr::Number(n) => n.span,
            DurationExpr::Step(s)
            | DurationExpr::Range(s)
            | DurationExpr::Of { span: s, .. }
            | DurationExpr::Negate(_, s) => *s,
            // As Prometheus has it: only a lone number gets the parentheses' position.
            DurationExpr::Paren(e, s) => match **e {
                DurationExpr::Number(_) => *s,
                _ => e.span(),
            },
            DurationExpr::Binary { args, .. } => args.0.span().to(args.1.span()),
        }
    }
}

/// The `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A time, Unix milliseconds.
    Time(i64),
    /// `start()` of the query.
    Start,
    /// `end()` of the query.
    End,
}

/// Where in time a selector looks.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// `offset`, positive into the past.
    pub offset: DurationValue,
    /// `@`
    pub at: Option<At>,
}

impl Timing {
    pub(crate) fn has_offset(&self) -> bool {
        !matches!(self.offset, DurationValue::Ms(0))
    }
}

/// How a selector treats the edges of its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extend {
    /// Samples inside the range only.
    #[default]
    No,
    /// Take the sample before the range in, too.
    Anchored,
    /// Interpolate at the edges.
    Smoothed,
}

/// An instant-vector selector.
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The metric name, if written outside the braces.
    pub name: Option<String>,
    /// All conditions; one for a name outside the braces comes last.
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub timing: Timing,
    /// `anchored` or `smoothed`.
    pub extend: Extend,
    /// Position.
    pub span: Span,
}

/// A range-vector selector.
#[derive(Clone, Debug)]
pub struct MatrixSelector {
    /// The series.
    pub selector: VectorSelector,
    /// The length.
    pub range: DurationValue,
    /// Position.
    pub span: Span,
}

/// A range vector made by evaluating an expression at many times.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Expr,
    /// The length.
    pub range: DurationValue,
    /// Distance between the points; `None` = the default.
    pub step: Option<DurationValue>,
    /// `offset` and `@`.
    pub timing: Timing,
    /// Position.
    pub span: Span,
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is called.
    pub function: &'static Function,
    /// Arguments.
    pub args: Vec<Expr>,
    /// Position.
    pub span: Span,
}

/// A function of the language.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Name.
    pub name: &'static str,
    /// Types of the arguments; the last one repeats for variadic functions.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. n: the last argument may occur 0 to n times. -1: any number of times.
    pub variadic: i32,
    /// Type of the result.
    pub returns: ValueType,
    /// Only with experimental functions switched on.
    pub experimental: bool,
}

/// An aggregation operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// All operators.
    pub const ALL: [AggregateOp; 14] = [
        AggregateOp::Sum,
        AggregateOp::Avg,
        AggregateOp::Count,
        AggregateOp::Min,
        AggregateOp::Max,
        AggregateOp::Group,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
        AggregateOp::Topk,
        AggregateOp::Bottomk,
        AggregateOp::CountValues,
        AggregateOp::Quantile,
        AggregateOp::Limitk,
        AggregateOp::LimitRatio,
    ];

    /// Whether the result is some of the series, and not one series of a group.
    pub fn chooses(self) -> bool {
        use AggregateOp::{Bottomk, LimitRatio, Limitk, Topk};
        matches!(self, Topk | Bottomk | Limitk | LimitRatio)
    }

    /// The name as written in a query.
    pub fn name(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Count => "count",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }

    /// The operator of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name().eq_ignore_ascii_case(name))
    }

    /// Whether a parameter comes before the vector.
    pub fn takes_param(self) -> bool {
        matches!(
            self,
            AggregateOp::Topk
                | AggregateOp::Bottomk
                | AggregateOp::CountValues
                | AggregateOp::Quantile
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio
        )
    }

    /// Whether it needs experimental functions to be on.
    pub fn is_experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }
}

/// An aggregation.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// The parameter, for operators that take one.
    pub param: Option<Expr>,
    /// The labels named by the clause.
    pub grouping: Vec<String>,
    /// Whether the clause is `without`.
    pub without: bool,
    /// Position.
    pub span: Span,
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Greater => ">",
            BinaryOp::Less => "<",
            BinaryOp::GreaterEqual => ">=",
            BinaryOp::LessEqual => "<=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Equal
                | BinaryOp::NotEqual
                | BinaryOp::Greater
                | BinaryOp::Less
                | BinaryOp::GreaterEqual
                | BinaryOp::LessEqual
        )
    }

    /// Whether it works on whole sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// Whether the result means something else than the operands, so that it loses the name.
    pub fn changes_meaning(self) -> bool {
        matches!(
            self,
            BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Mod
                | BinaryOp::Pow
                | BinaryOp::Atan2
        )
    }

    /// Binding strength, larger binds tighter.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            BinaryOp::Equal
            | BinaryOp::NotEqual
            | BinaryOp::Greater
            | BinaryOp::Less
            | BinaryOp::GreaterEqual
            | BinaryOp::LessEqual
            | BinaryOp::TrimUpper
            | BinaryOp::TrimLower => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
            BinaryOp::Pow => 6,
        }
    }
}

/// How many series may match on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cardinality {
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

impl Cardinality {
    /// The name used in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

/// How the series of two vectors find each other.
#[derive(Clone, Debug)]
pub struct Matching {
    /// How many on each side.
    pub cardinality: Cardinality,
    /// The labels of the `on` or `ignoring` clause.
    pub labels: Vec<String>,
    /// Whether the clause is `on`.
    pub on: bool,
    /// Labels that the "many" side takes over from the "one" side.
    pub include: Vec<String>,
    /// Value for a missing series on the left.
    pub fill_left: Option<f64>,
    /// Value for a missing series on the right.
    pub fill_right: Option<f64>,
}

/// A binary operation.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left operand.
    pub left: Expr,
    /// Right operand.
    pub right: Expr,
    /// Only between two vectors.
    pub matching: Option<Matching>,
    /// `bool`: give 0 or 1 instead of filtering.
    pub returns_bool: bool,
}

/// A sign.
#[derive(Clone, Debug)]
pub struct Unary {
    /// Whether it is a minus.
    pub negative: bool,
    /// Operand.
    pub expr: Expr,
    /// Position.
    pub span: Span,
}

/// Parentheses.
#[derive(Clone, Debug)]
pub struct Paren {
    /// Content.
    pub expr: Expr,
    /// Position.
    pub span: Span,
}

impl Expr {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Expr::Number(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::Vector(_) | Expr::Aggregate(_) => ValueType::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => ValueType::Matrix,
            Expr::Call(c) => c.function.returns,
            Expr::Binary(b) => {
                let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
                if scalar(&b.left) && scalar(&b.right) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            Expr::Unary(u) => u.expr.value_type(),
            Expr::Paren(p) => p.expr.value_type(),
        }
    }

    /// Position.
    pub fn span(&self) -> Span {
        match self {
            Expr::Number(n) => n.span,
            Expr::String(s) => s.span,
            Expr::Vector(v) => v.span,
            Expr::Matrix(m) => m.span,
            Expr::Subquery(s) => s.span,
            Expr::Call(c) => c.span,
            Expr::Aggregate(a) => a.span,
            Expr::Binary(b) => b.left.span().to(b.right.span()),
            Expr::Unary(u) => u.span,
            Expr::Paren(p) => p.span,
        }
    }

    /// The expression inside any parentheses.
    pub fn unparenthesized(&self) -> &Expr {
        let mut expr = self;
        while let Expr::Paren(p) = expr {
            expr = &p.expr;
        }
        expr
    }

    /// The direct parts of the expression.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => Vec::new(),
            Expr::Subquery(s) => vec![&s.expr],
            Expr::Call(c) => c.args.iter().collect(),
            Expr::Aggregate(a) => a.param.iter().chain([&a.expr]).collect(),
            Expr::Binary(b) => vec![&b.left, &b.right],
            Expr::Unary(u) => vec![&u.expr],
            Expr::Paren(p) => vec![&p.expr],
        }
    }

    /// Calls `visit` with every selector of the expression, from left to right.
    pub fn selectors<'a>(&'a self, visit: &mut dyn FnMut(&'a VectorSelector)) {
        match self {
            Expr::Vector(v) => visit(v),
            Expr::Matrix(m) => visit(&m.selector),
            _ => {
                for child in self.children() {
                    child.selectors(visit);
                }
            }
        }
    }
}
