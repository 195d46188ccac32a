//! Which metrics and labels an expression of PromQL names, and whether they exist.

use promql_parser::parser::{AggregateExpr, BinaryExpr, Expr, LabelModifier, VectorSelector, parse};
use std::collections::{BTreeMap, BTreeSet};

/// Names of labels.
pub(super) type Labels = BTreeSet<String>;

/// Labels that Prometheus adds to every series.
const OF_TARGET: [&str; 2] = ["job", "instance"];

/// Every series name that exists, with its labels.
#[derive(Default)]
pub(super) struct Catalogue(BTreeMap<String, Labels>);

impl Catalogue {
    pub(super) fn add<'a>(&mut self, name: &str, labels: impl IntoIterator<Item = &'a str>) {
        let labels = labels.into_iter().chain(OF_TARGET).map(str::to_owned);
        self.0.entry(name.to_owned()).or_default().extend(labels);
    }

    /// The labels of one series, besides those of the target.
    pub(super) fn labels(&self, name: &str) -> Option<Labels> {
        let labels = self.0.get(name)?.iter();
        Some(labels.filter(|label| !OF_TARGET.contains(&label.as_str())).cloned().collect())
    }

    /// Returns the labels of the result of an expression, and what it names that does not exist.
    pub(super) fn check(&self, expression: &str) -> (Labels, Vec<String>) {
        let mut check = Check { catalogue: self, unknown: Vec::new() };
        let labels = match parse(expression) {
            Ok(parsed) => check.expression(&parsed),
            Err(error) => {
                check.unknown.push(error);
                Labels::new()
            }
        };
        (labels, check.unknown)
    }
}

/// The name and the labels of one line of the text format, which has the form of a selector.
pub(super) fn series(line: &str) -> (String, Vec<String>) {
    let (selector, value) = line.rsplit_once(' ').unwrap();
    assert!(value.parse::<f64>().is_ok(), "{line}");
    let Ok(Expr::VectorSelector(selector)) = parse(selector) else { panic!("{line}") };
    let labels = selector.matchers.matchers.into_iter().map(|matcher| matcher.name).collect();
    (selector.name.unwrap(), labels)
}

struct Check<'a> {
    catalogue: &'a Catalogue,
    unknown: Vec<String>,
}

impl Check<'_> {
    /// Returns the labels that the result may have.
    fn expression(&mut self, expression: &Expr) -> Labels {
        match expression {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => self.expression(&unary.expr),
            Expr::Paren(paren) => self.expression(&paren.expr),
            Expr::Subquery(subquery) => self.expression(&subquery.expr),
            Expr::Call(call) => {
                let mut labels: Labels = call.args.args.iter().flat_map(|argument| self.expression(argument)).collect();
                if call.func.name == "histogram_quantile" && !labels.remove("le") {
                    self.unknown.push("histogram_quantile of series without the label le".into());
                }
                labels
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Labels::new(),
            Expr::Extension(_) => panic!("the parser makes none"),
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Labels {
        let name = selector.name.clone().unwrap_or_default();
        let Some(labels) = self.catalogue.0.get(&name) else {
            self.unknown.push(format!("metric {name:?}"));
            return Labels::new();
        };
        let named = selector.matchers.matchers.iter().map(|matcher| &matcher.name);
        self.known(labels, named, &name);
        labels.clone()
    }

    fn aggregate(&mut self, AggregateExpr { expr, param, modifier, .. }: &AggregateExpr) -> Labels {
        if let Some(parameter) = param {
            self.expression(parameter);
        }
        let labels = self.expression(expr);
        let Some(modifier) = modifier else { return Labels::new() };
        let named = &modifier.labels().labels;
        self.known(&labels, named, "an aggregation");
        match modifier {
            LabelModifier::Include(_) => named.iter().cloned().collect(),
            LabelModifier::Exclude(_) => labels.into_iter().filter(|label| !named.contains(label)).collect(),
        }
    }

    fn binary(&mut self, BinaryExpr { lhs, rhs, modifier, .. }: &BinaryExpr) -> Labels {
        let labels = &self.expression(lhs) | &self.expression(rhs);
        if let Some(modifier) = modifier {
            let matching = modifier.matching.iter().flat_map(|matching| &matching.labels().labels);
            let joined = modifier.card.labels().into_iter().flat_map(|joined| &joined.labels);
            self.known(&labels, matching.chain(joined), "an operator");
        }
        labels
    }

    fn known<'a>(&mut self, labels: &Labels, named: impl IntoIterator<Item = &'a String>, by: &str) {
        let unknown = named.into_iter().filter(|label| !labels.contains(*label));
        self.unknown.extend(unknown.map(|label| format!("label {label:?} of {by}")));
    }
}

#[test]
fn unknown_names_are_found_wherever_they_stand() {
    let mut catalogue = Catalogue::default();
    catalogue.add("calls_total", ["reason"]);
    catalogue.add("took_seconds_bucket", ["actor", "le"]);
    catalogue.add("height", []);
    for (expression, expected) in [
        ("sum by (instance, reason) (rate(calls_total{job=\"a\", reason=~\"b|c\"}[5m]))", &[][..]),
        ("histogram_quantile(0.9, sum by (actor, le) (rate(took_seconds_bucket[5m]))) > 1", &[]),
        ("deriv((height - height)[10m:1m]) > 0 and on (instance) topk(3, calls_total)", &[]),
        ("height + hieght", &["metric \"hieght\""]),
        ("rate(calls{reason=\"a\"}[5m]) > 0", &["metric \"calls\""]),
        ("calls_total{cause=\"a\"}", &["label \"cause\" of calls_total"]),
        ("sum by (cause) (calls_total)", &["label \"cause\" of an aggregation"]),
        ("sum without (cause) (calls_total)", &["label \"cause\" of an aggregation"]),
        ("max by (reason) (sum by (instance) (calls_total))", &["label \"reason\" of an aggregation"]),
        ("height * on (reason) height", &["label \"reason\" of an operator"]),
        ("height * on (instance) group_left (cause) calls_total", &["label \"cause\" of an operator"]),
        ("max_over_time(hieght[5m:1m])", &["metric \"hieght\""]),
        ("-(hieght)", &["metric \"hieght\""]),
        (
            "histogram_quantile(0.9, sum by (actor) (rate(took_seconds_bucket[5m])))",
            &["histogram_quantile of series without the label le"],
        ),
        ("{job=\"soma-p2p\"}", &["metric \"\""]),
    ] {
        assert_eq!(catalogue.check(expression).1, expected, "{expression}");
    }
    assert!(!catalogue.check("sum(height").1.is_empty(), "no expression");
    let labels = |expression: &str| catalogue.check(expression).0.into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(labels("sum by (instance, le) (took_seconds_bucket)"), "instance le");
    assert_eq!(labels("histogram_quantile(0.9, took_seconds_bucket)"), "actor instance job");
    assert_eq!(labels("sum without (job) (calls_total)"), "instance reason");
    assert_eq!(labels("sum(calls_total)"), "");
}
