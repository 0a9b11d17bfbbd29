//! The functions of the language with their types.

use crate::parse::ast::Function;
use crate::parse::ast::ValueType::{self, Matrix, Scalar, String, Vector};

const fn function(name: &'static str, args: &'static [ValueType]) -> Function {
    Function { name, args, variadic: 0, returns: Vector, experimental: false }
}

impl Function {
    const fn variadic(mut self, times: i32) -> Self {
        self.variadic = times;
        self
    }

    const fn scalar(mut self) -> Self {
        self.returns = Scalar;
        self
    }

    const fn experimental(mut self) -> Self {
        self.experimental = true;
        self
    }
}

/// All functions, sorted by name.
pub static FUNCTIONS: &[Function] = &[
    function("abs", &[Vector]),
    function("absent", &[Vector]),
    function("absent_over_time", &[Matrix]),
    function("acos", &[Vector]),
    function("acosh", &[Vector]),
    function("asin", &[Vector]),
    function("asinh", &[Vector]),
    function("atan", &[Vector]),
    function("atanh", &[Vector]),
    function("avg_over_time", &[Matrix]),
    function("ceil", &[Vector]),
    function("changes", &[Matrix]),
    function("clamp", &[Vector, Scalar, Scalar]),
    function("clamp_max", &[Vector, Scalar]),
    function("clamp_min", &[Vector, Scalar]),
    function("cos", &[Vector]),
    function("cosh", &[Vector]),
    function("count_over_time", &[Matrix]),
    function("day_of_month", &[Vector]).variadic(1),
    function("day_of_week", &[Vector]).variadic(1),
    function("day_of_year", &[Vector]).variadic(1),
    function("days_in_month", &[Vector]).variadic(1),
    function("deg", &[Vector]),
    function("delta", &[Matrix]),
    function("deriv", &[Matrix]),
    function("double_exponential_smoothing", &[Matrix, Scalar, Scalar]).experimental(),
    function("end", &[]).scalar().experimental(),
    function("exp", &[Vector]),
    function("first_over_time", &[Matrix]),
    function("floor", &[Vector]),
    function("histogram_avg", &[Vector]),
    function("histogram_count", &[Vector]),
    function("histogram_fraction", &[Scalar, Scalar, Vector]),
    function("histogram_quantile", &[Scalar, Vector]),
    function("histogram_quantiles", &[Vector, String, Scalar, Scalar]).variadic(9).experimental(),
    function("histogram_stddev", &[Vector]),
    function("histogram_stdvar", &[Vector]),
    function("histogram_sum", &[Vector]),
    function("hour", &[Vector]).variadic(1),
    function("idelta", &[Matrix]),
    function("increase", &[Matrix]),
    function("info", &[Vector, Vector]).variadic(1).experimental(),
    function("irate", &[Matrix]),
    function("label_join", &[Vector, String, String, String]).variadic(-1),
    function("label_replace", &[Vector, String, String, String, String]),
    function("last_over_time", &[Matrix]),
    function("ln", &[Vector]),
    function("log10", &[Vector]),
    function("log2", &[Vector]),
    function("mad_over_time", &[Matrix]).experimental(),
    function("max_of", &[Scalar, Scalar]).scalar().experimental(),
    function("max_over_time", &[Matrix]),
    function("min_of", &[Scalar, Scalar]).scalar().experimental(),
    function("min_over_time", &[Matrix]),
    function("minute", &[Vector]).variadic(1),
    function("month", &[Vector]).variadic(1),
    function("pi", &[]).scalar(),
    function("predict_linear", &[Matrix, Scalar]),
    function("present_over_time", &[Matrix]),
    function("quantile_over_time", &[Scalar, Matrix]),
    function("rad", &[Vector]),
    function("range", &[]).scalar().experimental(),
    function("rate", &[Matrix]),
    function("resets", &[Matrix]),
    function("round", &[Vector, Scalar]).variadic(1),
    function("scalar", &[Vector]).scalar(),
    function("sgn", &[Vector]),
    function("sin", &[Vector]),
    function("sinh", &[Vector]),
    function("sort", &[Vector]),
    function("sort_by_label", &[Vector, String]).variadic(-1).experimental(),
    function("sort_by_label_desc", &[Vector, String]).variadic(-1).experimental(),
    function("sort_desc", &[Vector]),
    function("sqrt", &[Vector]),
    function("start", &[]).scalar().experimental(),
    function("start_timestamp", &[Vector]).experimental(),
    function("stddev_over_time", &[Matrix]),
    function("stdvar_over_time", &[Matrix]),
    function("step", &[]).scalar().experimental(),
    function("sum_over_time", &[Matrix]),
    function("tan", &[Vector]),
    function("tanh", &[Vector]),
    function("time", &[]).scalar(),
    function("timestamp", &[Vector]),
    function("ts_of_first_over_time", &[Matrix]).experimental(),
    function("ts_of_last_over_time", &[Matrix]).experimental(),
    function("ts_of_max_over_time", &[Matrix]).experimental(),
    function("ts_of_min_over_time", &[Matrix]).experimental(),
    function("vector", &[Scalar]),
    function("year", &[Vector]).variadic(1),
];

/// The function of that name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &FUNCTIONS[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_sorted_so_that_they_are_found() {
        assert!(FUNCTIONS.windows(2).all(|w| w[0].name < w[1].name));
        assert!(find("rate").is_some() && find("rates").is_none());
    }
}
